//! Who and where a node is.

use std::fmt;
use std::sync::Arc;

/// A node's identity: 128 bits that its certificate binds to its name. Also its place in the XOR space of [`crate::Digest::position`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u128);

impl NodeId {
    /// The identity with these bits.
    #[must_use]
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The first 8 digits tell nodes apart in a log.
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// A failure domain with cheap links inside: `topology.kubernetes.io/zone`. Empty means that nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(Option<Arc<str>>);

impl Zone {
    /// A zone of this name.
    ///
    /// # Errors
    /// If the name isn't a Kubernetes label value: up to 63 letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str) -> Result<Self, ZoneError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.len() > 63 || !name.bytes().all(allowed) {
            return Err(ZoneError);
        }
        Ok(Self(if name.is_empty() { None } else { Some(name.into()) }))
    }

    /// Its name; empty if nobody said.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

/// The text isn't a zone's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a zone's name has up to 63 letters, digits, '-', '_' and '.'")]
pub struct ZoneError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_label_values() {
        assert_eq!(Zone::new("eu-west-1a").unwrap().name(), "eu-west-1a");
        assert_eq!(Zone::new("").unwrap(), Zone::default());
        assert!(Zone::new("a b").is_err());
        assert!(Zone::new(&"z".repeat(64)).is_err());
    }
}
