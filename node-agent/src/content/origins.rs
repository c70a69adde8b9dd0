//! The origins: what a blob's or manifest's source says, asked of the registry's client.
//!
//! State: that of [`Clients`].
//! Invariants: nothing is fetched for a repository that no Swarm answers for (any more).
//! Absent on purpose: credentials (every client is anonymous, so what it can read is readable for everyone), proxies.

use std::ops::Range;

use futures_util::stream;
use shoal_api::Decision;
use shoal_oci::origin::{ConfigError, Origin};
use shoal_oci::{Reference, Registry};
use shoal_origins::Clients;
use shoal_types::Digest;

use super::policy::Policies;
use crate::exchange::{OriginStream, Origins, Source, SourceKind};

/// The clients of the origins.
#[derive(Debug)]
pub struct OriginPool {
    policies: Policies,
    clients: Clients,
}

impl OriginPool {
    /// A pool for what these policies allow. Nodes have different seeds: those of the pauses between tries.
    #[must_use]
    pub const fn new(policies: Policies, seed: u64) -> Self {
        Self { policies, clients: Clients::new(seed) }
    }

    /// The client for a registry, as this decision says.
    ///
    /// # Errors
    /// If the registry can't be used as it is configured.
    pub fn client(&self, registry: &Registry, decision: &Decision) -> Result<Origin, ConfigError> {
        self.clients.client(registry, decision)
    }

    fn client_of(&self, source: &Source) -> Option<Origin> {
        let decision = self.policies.decide(&source.registry, &source.repository)?;
        let made = self.client(&source.registry, &decision);
        made.inspect_err(|error| tracing::warn!(%error, "a registry can't be asked")).ok()
    }
}

impl Origins for OriginPool {
    /// The bytes. For a repository that no Swarm answers for any more there are none: the stream ends short.
    fn fetch(&self, source: &Source, digest: &Digest, size_bytes: u64, range: Range<u64>) -> OriginStream {
        let Some(origin) = self.client_of(source) else { return Box::pin(stream::empty()) };
        let (repository, digest) = (source.repository.clone(), *digest);
        match source.kind {
            SourceKind::Blob => Box::pin(origin.blob(&repository, digest, size_bytes, range).into_stream()),
            // The largest has 4 MiB, and registries give no ranges of manifests.
            SourceKind::Manifest => Box::pin(stream::once(async move {
                let body = origin.manifest(&repository, &Reference::Digest(digest)).await?.body;
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                Ok(body.slice(within(range.start)..within(range.end)))
            })),
        }
    }
}
