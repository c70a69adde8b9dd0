//! Where a node is found, as one part tells another.
//!
//! State: none. Everything here is a value.
//! Invariants: a contact's node is the one of its name, because it is computed from it: no message can pair a name with somebody
//! else's identity.
//! Absent on purpose: whether the node is there, and proof that it is the one of that name: that is its certificate's.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use shoal_types::{NodeId, Zone};

/// A node's name: a host name, as Kubernetes or the host itself has it.
///
/// Up to 253 letters, digits, `.`, `-` and `_`. Kubernetes allows lower case only; plain hosts have had upper case and underscores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name, as DNS has it.
    pub const MAX_BYTES: usize = 253;

    /// The name of this text.
    ///
    /// # Errors
    /// If it is empty, too long, or has other characters than names have.
    pub fn new(text: &str) -> Result<Self, NodeNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(allowed) {
            return Err(NodeNameError);
        }
        Ok(Self(text.into()))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, NodeNameError> {
        Self::new(text)
    }
}

/// The text isn't a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node's name has 1 to 253 letters, digits, '.', '-' and '_'")]
pub struct NodeNameError;

/// The identity of the node of this name: the first 16 bytes of the name's SHA-256, big endian.
///
/// So whoever can prove the name has the identity, and nobody chooses a place in the XOR space other than by choosing a name, which
/// the tracker's CA doesn't let it.
#[must_use]
pub fn node_id(name: &NodeName) -> NodeId {
    let hash = Sha256::digest(name.as_str().as_bytes());
    let mut head = [0_u8; 16];
    head.copy_from_slice(&hash[..16]);
    NodeId::new(u128::from_be_bytes(head))
}

/// A node, its zone and the address at which it takes peers' connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    node: NodeId,
    name: NodeName,
    zone: Zone,
    address: SocketAddr,
}

impl Contact {
    /// The contact of the node of this name.
    #[must_use]
    pub fn new(name: NodeName, zone: Zone, address: SocketAddr) -> Self {
        Self { node: node_id(&name), name, zone, address }
    }

    /// Who.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Its name, which its certificate must show.
    #[must_use]
    pub const fn name(&self) -> &NodeName {
        &self.name
    }

    /// In which zone.
    #[must_use]
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for name in ["a", "node-1.example", "Host_7", "10.0.0.1", &"n".repeat(253)] {
            assert_eq!(NodeName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "a b", "a/b", "a:1", "é", "a\n", &"n".repeat(254)] {
            assert_eq!(name.parse::<NodeName>(), Err(NodeNameError), "{name:?}");
        }
    }

    #[test]
    fn an_identity_is_the_head_of_its_names_hash() {
        let name = NodeName::new("node-1").unwrap();
        assert_eq!(node_id(&name).to_string(), "35971be6e9bb024a895582fe0e42e048");
        assert_ne!(node_id(&NodeName::new("Node-1").unwrap()), node_id(&name));
    }
}
