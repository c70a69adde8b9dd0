//! Signatures of links: whose keys are known, and what waits for a key.
//!
//! State: keys of nodes, links that wait for their publisher's key.
//! Invariants: links reach the engine only if their publisher's key made their signature; at most [`WAITING`] batches wait.
//! Absent on purpose: asking for keys. The room does that, of the tracker and of the peer that sent the links.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_chain::{LinkVerifier, Signature, SignedLinks, VerifiedLinks};
use shoal_tracker_server::NodeKey;
use shoal_types::{BlobKey, NodeId};

use crate::transport::NodeCertificate;

/// Batches that wait for a key: a gibibyte's links in single batches. More are dropped, and asked for again with the chunks that need
/// them.
const WAITING: usize = 2048;

/// Keys of one node: its certificate is renewed before it runs out, so two hold at a time.
const KEYS_A_NODE: usize = 4;

/// Nodes whose keys are remembered: a cluster of the largest size that is simulated.
const NODES: usize = 16 << 10;

/// What is needed to check links.
#[derive(Debug, Default)]
pub(super) struct Links {
    keys: BTreeMap<NodeId, Vec<Key>>,
    waiting: Vec<(BlobKey, SignedLinks)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Key {
    Raw(NodeKey),
    Certified(Arc<NodeCertificate>),
}

/// What became of links.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Those whose signature is right.
    pub(super) verified: Vec<VerifiedLinks>,
    /// Publishers whose keys aren't known.
    pub(super) unknown: BTreeSet<NodeId>,
    /// How many had a wrong signature.
    pub(super) forged: usize,
}

impl Links {
    /// A node has shown its certificate.
    pub(super) fn certified(&mut self, certificate: Arc<NodeCertificate>) {
        self.add(certificate.node(), Key::Certified(certificate));
    }

    /// The tracker has told a node's keys.
    pub(super) fn told(&mut self, node: NodeId, keys: impl IntoIterator<Item = NodeKey>) {
        keys.into_iter().for_each(|key| self.add(node, Key::Raw(key)));
    }

    /// A node's certificate, for who asks for it.
    pub(super) fn certificate(&self, node: NodeId) -> Option<&Arc<NodeCertificate>> {
        self.keys.get(&node)?.iter().rev().find_map(|key| match key {
            Key::Certified(certificate) => Some(certificate),
            Key::Raw(_) => None,
        })
    }

    /// Checks what has come; what can't be checked yet waits.
    pub(super) fn check(&mut self, key: BlobKey, batches: impl IntoIterator<Item = SignedLinks>) -> Checked {
        let mut checked = Checked::default();
        for links in batches {
            let publisher = links.publisher;
            if !self.keys.contains_key(&publisher) {
                checked.unknown.insert(publisher);
                if self.waiting.len() < WAITING {
                    self.waiting.push((key, links));
                }
                continue;
            }
            match links.verify(&*self) {
                Ok(links) => checked.verified.push(links),
                Err(_) => checked.forged += 1,
            }
        }
        checked
    }

    /// Whether a batch carries its publisher's signature. Without the publisher's key it doesn't.
    pub(super) fn is_genuine(&self, links: SignedLinks) -> bool {
        links.verify(self).is_ok()
    }

    /// What waited and can be checked now.
    pub(super) fn released(&mut self) -> Vec<(BlobKey, Checked)> {
        let known = |links: &SignedLinks| self.keys.contains_key(&links.publisher);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, links)| known(links));
        self.waiting = waiting;
        let mut by_blob: BTreeMap<BlobKey, Vec<SignedLinks>> = BTreeMap::new();
        ready.into_iter().for_each(|(key, links)| by_blob.entry(key).or_default().push(links));
        by_blob.into_iter().map(|(key, links)| (key, self.check(key, links))).collect()
    }

    /// A blob is no longer of interest.
    pub(super) fn forget(&mut self, key: BlobKey) {
        self.waiting.retain(|(of, _)| *of != key);
    }

    fn add(&mut self, node: NodeId, key: Key) {
        if self.keys.len() >= NODES && !self.keys.contains_key(&node) {
            self.keys.pop_first();
        }
        let keys = self.keys.entry(node).or_default();
        if !keys.contains(&key) {
            if keys.len() == KEYS_A_NODE {
                keys.remove(0);
            }
            keys.push(key);
        }
    }
}

impl LinkVerifier for Links {
    fn is_signed_by(&self, publisher: NodeId, bytes: &[u8], signature: &Signature) -> bool {
        self.keys.get(&publisher).is_some_and(|keys| {
            keys.iter().rev().any(|key| match key {
                Key::Raw(key) => key.verifies(bytes, signature),
                Key::Certified(certificate) => certificate.has_signed(bytes, signature),
            })
        })
    }
}
