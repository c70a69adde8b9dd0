//! The Swarm's document, as each node gets it.
//!
//! State: none; a source is made anew for each change.
//! Invariants: what a node gets depends on the source and on the node's labels alone; so does its version, and all replicas give the same one.
//! Absent on purpose: what a document says. Whoever embeds the server knows what labels select.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::trust::hex;

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// Bytes of a hash that are enough to tell versions apart: nobody gains by a collision.
const VERSION_BYTES: usize = 16;

/// The Swarm's document, and what it is for each node.
#[derive(Clone)]
pub struct SwarmSource {
    version: Arc<str>,
    write: Arc<Write>,
}

/// Gives a node's document by its labels.
type Write = dyn Fn(Option<&Labels>) -> Bytes + Send + Sync;

/// The Swarm's document of one node, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmDocument {
    /// The version.
    pub version: String,
    /// The document.
    pub bytes: Bytes,
}

impl SwarmSource {
    /// `write` gives the document of a node with these labels; without any, of one that has to select by labels of its own: all there is. It is
    /// called at each request for a document that has changed, so it doesn't block.
    pub fn new(write: impl Fn(Option<&Labels>) -> Bytes + Send + Sync + 'static) -> Self {
        let version = hash(&write(None)).into();
        Self { version, write: Arc::new(write) }
    }

    /// The version of all there is.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// What a node has with these labels.
    pub(crate) fn version_for(&self, labels: Option<&Labels>) -> String {
        let Some(labels) = labels else { return self.version.to_string() };
        let mut text = String::new();
        // Neither byte is in a label.
        labels.iter().for_each(|(key, value)| text.extend([key, "\0", value, "\n"]));
        format!("{}-{}", self.version, hash(text.as_bytes()))
    }

    pub(crate) fn write(&self, labels: Option<&Labels>) -> Bytes {
        (self.write)(labels)
    }
}

/// The same for every node.
impl From<Bytes> for SwarmSource {
    fn from(bytes: Bytes) -> Self {
        Self::new(move |_| bytes.clone())
    }
}

impl fmt::Debug for SwarmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmSource").field("version", &self.version).finish_non_exhaustive()
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..VERSION_BYTES])
}
