//! One client for each registry as the Swarms configure it, made when it is first needed.
//!
//! State: the clients, which keep connections, tokens and the time until which a registry wants to be left alone.
//! Invariants: plain http only where the endpoint says so.
//! Absent on purpose: where credentials come from.

use std::sync::{Mutex, PoisonError};

use shoal_api::{Decision, Endpoint};
use shoal_oci::origin::{ConfigError, Origin, RegistryConfig};
use shoal_oci::{Credentials, ProxyConfig, Registry};

/// A node's images come from a handful of registries. A client holds its connections and up to 300 KiB of roots: 16 MiB for all, for Swarms
/// that answer for `*`.
const MAX_ORIGINS: usize = 48;

/// All that makes two clients different.
type Key = (Registry, Endpoint, Option<Vec<u8>>, u16, Credentials);

/// The clients.
#[derive(Debug)]
pub struct Clients {
    /// The last one was used last.
    clients: Mutex<Vec<(Key, Origin)>>,
    proxy: ProxyConfig,
    seed: u64,
}

impl Clients {
    /// Without any. Processes have different seeds: those of the pauses between tries.
    #[must_use]
    pub const fn new(proxy: ProxyConfig, seed: u64) -> Self {
        Self { clients: Mutex::new(Vec::new()), proxy, seed }
    }

    /// The anonymous client for a registry, as this decision says.
    ///
    /// # Errors
    /// If the registry can't be used as it is configured.
    pub fn client(&self, registry: &Registry, decision: &Decision) -> Result<Origin, ConfigError> {
        self.client_with(registry, decision, Credentials::Anonymous)
    }

    /// The client for a registry that proves itself so.
    ///
    /// # Errors
    /// If the registry can't be used as it is configured.
    pub fn client_with(
        &self,
        registry: &Registry,
        decision: &Decision,
        credentials: Credentials,
    ) -> Result<Origin, ConfigError> {
        let key = key(registry, decision, credentials);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = match clients.iter().position(|(known, _)| *known == key) {
            Some(at) => clients.remove(at).1,
            None => self.make(&key)?,
        };
        if clients.len() == MAX_ORIGINS {
            clients.remove(0);
        }
        clients.push((key, origin.clone()));
        Ok(origin)
    }

    /// A client of its own, which nobody else gets and which ends with its owner.
    ///
    /// # Errors
    /// If the registry can't be used as it is configured.
    pub fn own_client(
        &self,
        registry: &Registry,
        decision: &Decision,
        credentials: Credentials,
    ) -> Result<Origin, ConfigError> {
        self.make(&key(registry, decision, credentials))
    }

    fn make(&self, (registry, endpoint, ca, connections, credentials): &Key) -> Result<Origin, ConfigError> {
        let usual = RegistryConfig::new(registry.clone())?;
        let url = format!("{endpoint}/");
        let ca_bundle = match ca.clone().map(String::from_utf8).transpose() {
            Ok(text) => text,
            Err(_) => return Err(ConfigError::CaBundle { registry: registry.clone(), source: None }),
        };
        Origin::new(RegistryConfig {
            endpoint: url.parse().map_err(|source| ConfigError::Url { url, source })?,
            plain_http: endpoint.is_plain_http(),
            ca_bundle,
            connections: usize::from(*connections).try_into().unwrap_or(usual.connections),
            credentials: credentials.clone(),
            proxy: self.proxy.clone(),
            seed: self.seed,
            ..usual
        })
    }
}

fn key(registry: &Registry, decision: &Decision, credentials: Credentials) -> Key {
    let ca = decision.ca_bundle().map(<[u8]>::to_vec);
    (registry.clone(), decision.endpoint.clone(), ca, decision.transfer.origin_connections, credentials)
}
