//! The origins: what a blob's or manifest's source says, asked of the registry's client.
//!
//! State: that of [`Clients`] and [`PrivateDoor`].
//! Invariants: nothing is fetched for a repository that no Swarm answers for (any more). The clients that it gives are anonymous: what they
//! can read is readable for everyone.
//! Absent on purpose: any other way than by these clients.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{TryStreamExt as _, stream};
use shoal_api::Decision;
use shoal_oci::origin::{ConfigError, Origin};
use shoal_oci::{Reference, Registry};
use shoal_origins::Clients;
use shoal_tracker_server::client::TrackerClient;
use shoal_types::Digest;

use super::handover::Handover;
use super::policy::Policies;
use super::private::PrivateDoor;
use crate::exchange::{FetchError, OriginStream, Origins, Source, SourceKind};
use crate::runtime::Runtime;

/// The clients of the origins.
#[derive(Debug)]
pub struct OriginPool {
    policies: Policies,
    clients: Arc<Clients>,
    private: PrivateDoor,
}

impl OriginPool {
    /// A pool for what these policies allow. A lead asks this tracker for what it takes to fetch what is private; without it, it
    /// takes what this runtime downloads.
    #[must_use]
    pub fn new(policies: Policies, tracker: TrackerClient, runtime: Runtime, clients: Clients) -> Self {
        let clients = Arc::new(clients);
        let private = PrivateDoor::new(policies.clone(), Arc::clone(&clients), tracker, runtime);
        Self { policies, clients, private }
    }

    /// What is left to the runtime.
    pub(super) fn handover(&self) -> &Handover {
        self.private.handover()
    }

    /// The anonymous client for a registry, as this decision says.
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
    fn comes_anyway(&self, digest: &Digest) -> bool {
        self.handover().is_followed(digest)
    }

    /// The bytes. For a repository that no Swarm answers for any more there are none: the stream ends short.
    fn fetch(&self, source: &Source, digest: &Digest, size_bytes: u64, range: Range<u64>) -> OriginStream {
        if source.private {
            return self.private.fetch(source, digest, size_bytes, range);
        }
        let Some(origin) = self.client_of(source) else { return Box::pin(stream::empty()) };
        let (repository, digest) = (source.repository.clone(), *digest);
        match source.kind {
            SourceKind::Blob => {
                Box::pin(origin.blob(&repository, digest, size_bytes, range).into_stream().map_err(FetchError::Origin))
            }
            // The largest has 4 MiB, and registries give no ranges of manifests.
            SourceKind::Manifest => Box::pin(stream::once(async move {
                let body = origin.manifest(&repository, &Reference::Digest(digest)).await?.body;
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                Ok(body.slice(within(range.start)..within(range.end)))
            })),
        }
    }
}
