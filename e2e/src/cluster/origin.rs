//! What a cluster pulls from: its registry as tests look into it, and another one beside it that isn't for everybody.
//!
//! State: a directory for each registry; the processes are the cluster's. Invariant: all registries are behind one link.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Cluster, mortal};
use crate::registry::{Auth, DockerRegistry};

/// A registry, as nodes reach it.
#[derive(Clone, Debug)]
pub struct Origin {
    registry: DockerRegistry,
    host: String,
    log: PathBuf,
}

impl Cluster {
    /// The registry that it has from the start.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            registry: self.registry.clone(),
            host: self.registry_host(),
            log: self.directory().join("registry.log"),
        }
    }

    /// Starts another one beside it. Nodes know that it speaks plain http.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_origin(&mut self, name: &str, port: u16, auth: &Auth) -> Result<Origin> {
        let listen = SocketAddr::new(self.registry_place.address.into(), port);
        let registry = DockerRegistry::with_auth(&self.directory().join(name), listen, auth)?;
        self.fleet.start(name, &self.registry_place.within(&mortal(&registry.command())))?;
        for node in &self.nodes {
            node.ask_origin(&listen.to_string())?;
        }
        Ok(Origin { registry, host: listen.to_string(), log: self.directory().join(format!("{name}.log")) })
    }
}

impl Origin {
    /// Its host and port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Under which name nodes find an image.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Where its content is put.
    #[must_use]
    pub const fn registry(&self) -> &DockerRegistry {
        &self.registry
    }

    /// What it has logged, a line for each answer.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("{} can't be read", self.log.display()))
    }

    /// Bytes of blobs that it has sent.
    ///
    /// # Errors
    /// If the log can't be read.
    pub fn sent(&self) -> Result<u64> {
        Ok(DockerRegistry::blob_bytes(&self.log()?))
    }
}
