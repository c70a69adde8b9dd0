//! Where nodes are found and which keys they have, from the certificates that they showed.
//!
//! State: per node its contact, labels, keys until they expire, and its budget.
//! Invariants: everything in it comes from a certificate that the handshake verified, or from the identity provider. A node stays
//! until its last certificate has expired: links outlive their publisher's connection.
//! Absent on purpose: storage. A node that connects brings its entry along.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use shoal_types::NodeId;
use shoal_wire::Contact;

use crate::certificate::{NodeCertificate, NodeKey};
use crate::document::Labels;
use crate::limits::{NodeBudget, ServerLimits};

/// Keys of one node at a time: a certificate of 24 hours is renewed after 16, so two overlap; a node that is set up anew brings more.
const MAX_KEYS: usize = 4;

/// A node as an embedder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Name, zone, address.
    pub contact: Contact,
    /// What the identity provider said when the node last joined or renewed here; empty since a restart.
    pub labels: Labels,
}

#[derive(Debug)]
struct Entry {
    node: NodeEntry,
    keys: Vec<(SystemTime, NodeKey)>,
    budget: Arc<NodeBudget>,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Directory {
    nodes: RwLock<BTreeMap<NodeId, Entry>>,
    limits: ServerLimits,
    max_nodes: usize,
}

impl Directory {
    pub(crate) const fn new(limits: ServerLimits, max_nodes: usize) -> Self {
        Self { nodes: RwLock::new(BTreeMap::new()), limits, max_nodes }
    }

    /// A node has shown, or got, this certificate. None if there is no place for another node.
    pub(crate) fn enter(&self, certificate: &NodeCertificate, now: SystemTime) -> Option<Arc<NodeBudget>> {
        let mut nodes = self.nodes.write().expect("no code panics with the directory in hand");
        if nodes.len() >= self.max_nodes && !nodes.contains_key(&certificate.node()) {
            nodes.retain(|_, entry| entry.keys.iter().any(|(until, _)| *until > now));
            if nodes.len() >= self.max_nodes {
                return None;
            }
        }
        let entry = nodes.entry(certificate.node()).or_insert_with(|| Entry {
            node: NodeEntry { contact: certificate.contact.clone(), labels: BTreeMap::new() },
            keys: Vec::new(),
            budget: Arc::new(NodeBudget::new(&self.limits)),
        });
        if entry.keys.iter().all(|(until, _)| *until <= certificate.not_after) {
            entry.node.contact = certificate.contact.clone();
        }
        if !entry.keys.contains(&(certificate.not_after, certificate.key)) {
            entry.keys.retain(|(until, _)| *until > now);
            entry.keys.push((certificate.not_after, certificate.key));
            entry.keys.sort_unstable();
            let surplus = entry.keys.len().saturating_sub(MAX_KEYS);
            entry.keys.drain(..surplus);
        }
        Some(Arc::clone(&entry.budget))
    }

    pub(crate) fn label(&self, node: NodeId, labels: Labels) {
        let mut nodes = self.nodes.write().expect("no code panics with the directory in hand");
        if let Some(entry) = nodes.get_mut(&node) {
            entry.node.labels = labels;
        }
    }

    /// A node's labels; none if the identity provider gave none, or hasn't been asked since a restart.
    pub(crate) fn labels(&self, node: NodeId) -> Option<Labels> {
        let nodes = self.nodes.read().expect("no code panics with the directory in hand");
        nodes.get(&node).map(|entry| entry.node.labels.clone()).filter(|labels| !labels.is_empty())
    }

    /// The contacts of those that are known.
    pub(crate) fn contacts(&self, of: impl IntoIterator<Item = NodeId>) -> Vec<Contact> {
        let nodes = self.nodes.read().expect("no code panics with the directory in hand");
        of.into_iter().filter_map(|node| nodes.get(&node).map(|entry| entry.node.contact.clone())).collect()
    }

    /// A node's keys that haven't expired.
    pub(crate) fn keys(&self, node: NodeId, now: SystemTime) -> Vec<NodeKey> {
        let nodes = self.nodes.read().expect("no code panics with the directory in hand");
        let keys = nodes.get(&node).map(|entry| entry.keys.as_slice()).unwrap_or_default();
        let mut keys: Vec<NodeKey> = keys.iter().filter(|(until, _)| *until > now).map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub(crate) fn all(&self) -> Vec<NodeEntry> {
        let nodes = self.nodes.read().expect("no code panics with the directory in hand");
        nodes.values().map(|entry| entry.node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn certificate(name: &str, key: u8, until: SystemTime) -> NodeCertificate {
        let contact = Contact::new(name.parse().unwrap(), Default::default(), ([10, 0, 0, key], 7).into());
        NodeCertificate { contact, key: NodeKey::new([key; 32]), not_before: SystemTime::UNIX_EPOCH, not_after: until }
    }

    #[test]
    fn the_newest_certificate_says_where_a_node_is_and_all_valid_ones_count() {
        let directory = Directory::new(ServerLimits::default(), 2);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let (old, new) = (certificate("a", 1, at(10)), certificate("a", 2, at(20)));
        directory.enter(&old, at(0)).unwrap();
        directory.enter(&new, at(1)).unwrap();
        directory.enter(&old, at(2)).unwrap();
        assert_eq!(directory.contacts([old.node()])[0], new.contact);
        assert_eq!(directory.keys(old.node(), at(5)), [old.key, new.key]);
        assert_eq!(directory.keys(old.node(), at(15)), [new.key]);

        directory.enter(&certificate("b", 3, at(30)), at(2)).unwrap();
        assert!(directory.enter(&certificate("c", 4, at(30)), at(2)).is_none(), "the directory is full");
        assert!(directory.enter(&certificate("c", 4, at(30)), at(25)).is_some(), "an expired node makes room");
        for key in 10..20 {
            directory.enter(&certificate("c", key, at(30 + u64::from(key))), at(25)).unwrap();
        }
        assert_eq!(directory.keys(certificate("c", 0, at(0)).node(), at(26)).len(), MAX_KEYS);
    }
}
