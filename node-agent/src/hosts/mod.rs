//! The container runtime's `hosts.toml` files: putting the mirror first, and taking it back.
//!
//! containerd looks for a registry's directory below its `config_path` (`host_port_`, then `host:port`, then `_default`) and reads `hosts.toml` there anew
//! for each pull. [`CertsDir::install`] puts a section for the mirror in front of what such a file says; [`CertsDir::restore`] leaves the tree as it was.
//!
//! State, all of it in `.shoal` below the directory: a journal that says what is ours, and what was there before as links to the very files, so that
//! their bytes, owner, mode and times come back. Invariants:
//! - a directory is in the journal before anything in it is touched, and until all of it is undone; each file appears and goes by one rename;
//!   so whatever moment a crash picks, `install` and `restore` go on from there.
//! - what others change after us is theirs: it counts as what was there before.
//! - nothing is written through a symbolic link: a linked file is replaced and comes back as the link, a directory that is a link out of the tree is left alone.
//! - what belongs to others and refuses us is left alone, whole; the rest has the mirror all the same.
//! - the mirror is never a file's `server`: the registry always follows as the last host.
//!
//! Absent on purpose: the runtime's main configuration, and whether the mirror answers: who calls `install` has asked it before, as [`keep()`] does.

mod disk;
mod error;
mod install;
mod journal;
mod keep;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod upstream;

use std::fmt;
use std::net::SocketAddr;

use shoal_api::{Endpoint, RegistryHost};

pub use error::HostsError;
pub use install::{CertsDir, Report, Skipped};
pub use keep::keep;
pub use upstream::{Upstream, existing_chain};

/// The mirror that runtimes are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where it listens.
    pub address: SocketAddr,
    /// The header by which it knows the runtime from the node's pods.
    pub secret: Option<SecretHeader>,
}

/// A header that a runtime sends to the mirror with each request.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHeader {
    name: String,
    value: String,
}

impl SecretHeader {
    /// A header of this name and value.
    ///
    /// # Errors
    /// If the name isn't letters, digits and `-`, or the value isn't visible ASCII without spaces: both are written into a file and into requests.
    pub fn new(name: &str, value: &str) -> Result<Self, HostsError> {
        let name_is_fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !name_is_fine || value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HostsError::Header);
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Debug for SecretHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHeader({}: …)", self.name)
    }
}

/// The registries whose pulls go through the mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// All registries: `_default`, and each registry's directory that is there, because it keeps the runtime from reading `_default`.
    pub rest: bool,
    /// These registries.
    pub registries: Vec<Target>,
}

/// A registry whose pulls go through the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The registry.
    pub host: RegistryHost,
    /// Where it is, if not at `https://` and its host. Written only where the runtime has no configuration of its own for it.
    pub endpoint: Option<Endpoint>,
}
