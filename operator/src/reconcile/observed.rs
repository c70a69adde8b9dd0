//! What a plan is made of: the cluster as it was last seen.
//!
//! State: none. Invariants: nodes are numbered in the order of their names; a [`NodeSet`] is about the [`Nodes`] that made it.
//! Absent on purpose: Kubernetes' own types, of which a plan needs a tenth.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use shoal_api::{LabelSelector, Swarm, SwarmStatus};
use shoal_tracker_server::{Labels, Report};
use shoal_types::Time;

/// Nodes that a line names.
const NAMED: usize = 3;

/// Now, by the clock that only moves forward, and by the one that people read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Time,
    pub(super) clock: Timestamp,
}

/// All that is known.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// By name.
    pub(super) swarms: Vec<SeenSwarm>,
    pub(super) nodes: Arc<Nodes>,
    /// Nodes that Kubernetes calls ready.
    pub(super) up: NodeSet,
    /// Nodes whose agent is connected.
    pub(super) connected: NodeSet,
    /// What agents report, by their node's number.
    pub(super) reports: Vec<(usize, Arc<Report>)>,
    /// Whether agents have had the time to connect and report since this process began to listen.
    pub(super) settled: bool,
    /// Counts changes of Secrets: what was refused may be let in now.
    pub(super) secret_changes: u64,
}

impl Observed {
    /// Whether every node's agent is connected and has reported: then there is nobody to wait for.
    pub(super) fn all_are_back(&self) -> bool {
        let back = self.reports.iter().filter(|(node, _)| self.connected.contains(*node)).count();
        back > 0 && back == self.nodes.len()
    }
}

/// A Swarm as the API server has it.
#[derive(Clone, Debug)]
pub(super) struct SeenSwarm {
    pub(super) name: Arc<str>,
    /// Tells it from an earlier one of the same name.
    pub(super) uid: String,
    pub(super) generation: i64,
    /// Since when it is being deleted.
    pub(super) deleting: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub(super) held: bool,
    /// What it means, or why it means nothing.
    pub(super) meaning: Result<Arc<Swarm>, Arc<str>>,
    /// What is wrong with the Secrets that it names.
    pub(super) no_secret: Option<Arc<str>>,
    pub(super) status: SwarmStatus,
}

/// The nodes' names and labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    by_name: BTreeMap<Arc<str>, Labels>,
}

impl Nodes {
    pub(super) fn new(nodes: impl IntoIterator<Item = (Arc<str>, Labels)>) -> Self {
        Self { by_name: nodes.into_iter().collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// Some of these by name, and how many more there are: fit for a line.
    pub(super) fn some(&self, nodes: &NodeSet) -> String {
        let all = self.names().zip(0..).filter(|(_, node)| nodes.contains(*node)).map(|(name, _)| &**name);
        let named = all.take(NAMED).collect::<Vec<_>>().join(", ");
        match (nodes.len() as usize).saturating_sub(NAMED) {
            0 => named,
            more => format!("{named} and {more} more nodes"),
        }
    }

    /// Numbers by name.
    pub(super) fn numbers(&self) -> BTreeMap<&str, usize> {
        self.by_name.keys().map(AsRef::as_ref).zip(0..).collect()
    }

    pub(super) fn select(&self, selector: &LabelSelector) -> NodeSet {
        let mut set = NodeSet::default();
        let selected = self.by_name.values().zip(0..).filter(|(labels, _)| selector.matches(labels));
        selected.for_each(|(_, node)| set.insert(node));
        set
    }
}

/// Some of the nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    pub(super) fn insert(&mut self, node: usize) {
        if self.words.len() <= node / 64 {
            self.words.resize(node / 64 + 1, 0);
        }
        self.words[node / 64] |= 1 << (node % 64);
    }

    pub(super) fn contains(&self, node: usize) -> bool {
        self.words.get(node / 64).is_some_and(|word| word & (1 << (node % 64)) != 0)
    }

    pub(super) fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// How many are in both.
    pub(super) fn common(&self, other: &Self) -> u32 {
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones()).sum()
    }

    /// Those that are in either.
    pub(super) fn or(mut self, other: &Self) -> Self {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        self
    }

    /// Those that are in this one and not in the other.
    pub(super) fn without(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
        self
    }

    /// Those that are in both.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.words.truncate(other.words.len());
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
        self
    }
}

impl FromIterator<usize> for NodeSet {
    fn from_iter<T: IntoIterator<Item = usize>>(nodes: T) -> Self {
        let mut set = Self::default();
        nodes.into_iter().for_each(|node| set.insert(node));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_nodes_are_sets() {
        let set = |nodes: &[usize]| nodes.iter().copied().collect::<NodeSet>();
        let nodes = |set: NodeSet| (0..300).filter(|node| set.contains(*node)).collect::<Vec<_>>();
        let (a, b) = (set(&[0, 63, 64, 200]), set(&[63, 65]));
        assert_eq!((a.len(), a.common(&b), b.common(&a)), (4, 1, 1));
        assert!(!b.contains(9_999));
        assert_eq!(nodes(a.clone().and(&b)), [63]);
        assert_eq!(nodes(a.clone().without(&b)), [0, 64, 200]);
        assert_eq!(nodes(b.or(&a)), [0, 63, 64, 65, 200]);
        assert_eq!(nodes(a), [0, 63, 64, 200]);
    }
}
