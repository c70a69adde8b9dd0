//! The origins: one client for each registry as the Swarms configure it, made when it is first needed.
//!
//! State: the clients, which keep connections, tokens and the time until which a registry wants to be left alone.
//! Invariants: plain http only where the endpoint says so. Nothing is fetched for a repository that no Swarm answers for (any more).
//! Absent on purpose: credentials (every client is anonymous, so what it can read is readable for everyone), proxies.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use futures_util::stream;
use shoal_api::{Decision, Endpoint};
use shoal_oci::origin::{ConfigError, Origin, RegistryConfig};
use shoal_oci::{Reference, Registry};
use shoal_types::Digest;

use super::bounded::Bounded;
use super::policy::Policies;
use crate::exchange::{OriginStream, Origins, Source, SourceKind};

/// A node's images come from a handful of registries. A client holds its connections and up to 300 KiB of roots: 16 MiB for all, for Swarms
/// that answer for `*`.
const MAX_ORIGINS: usize = 48;

/// All that makes two clients different.
type Key = (Registry, Endpoint, Option<Vec<u8>>, u16);

/// The clients of the origins.
#[derive(Debug)]
pub struct OriginPool {
    policies: Policies,
    clients: Mutex<Bounded<Key, Origin>>,
    seed: u64,
}

impl OriginPool {
    /// A pool for what these policies allow. Nodes have different seeds: those of the pauses between tries.
    #[must_use]
    pub const fn new(policies: Policies, seed: u64) -> Self {
        Self { policies, clients: Mutex::new(Bounded::new(MAX_ORIGINS)), seed }
    }

    /// The client for a registry, as this decision says.
    ///
    /// # Errors
    /// If the registry can't be used as it is configured.
    pub fn client(&self, registry: &Registry, decision: &Decision) -> Result<Origin, ConfigError> {
        let connections = decision.transfer.origin_connections;
        let ca = decision.ca_bundle().map(<[u8]>::to_vec);
        let key = (registry.clone(), decision.endpoint.clone(), ca, connections);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = clients.get(&key) {
            return Ok(origin.clone());
        }
        let origin = Origin::new(self.config(&key)?)?;
        clients.insert(key, origin.clone());
        Ok(origin)
    }

    fn config(&self, (registry, endpoint, ca, connections): &Key) -> Result<RegistryConfig, ConfigError> {
        let usual = RegistryConfig::new(registry.clone())?;
        let url = format!("{endpoint}/");
        let ca_bundle = match ca.clone().map(String::from_utf8).transpose() {
            Ok(text) => text,
            Err(_) => return Err(ConfigError::CaBundle { registry: registry.clone(), source: None }),
        };
        Ok(RegistryConfig {
            endpoint: url.parse().map_err(|source| ConfigError::Url { url, source })?,
            plain_http: endpoint.is_plain_http(),
            ca_bundle,
            connections: usize::from(*connections).try_into().unwrap_or(usual.connections),
            seed: self.seed,
            ..usual
        })
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
