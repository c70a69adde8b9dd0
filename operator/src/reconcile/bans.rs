//! Nodes that the others refuse, because they sent what was proven false.
//!
//! State: none. Invariant: one node's word bans nobody in people's eyes, where there are others who would know.
//! Absent on purpose: bans themselves, which are the trackers': each tells its agents, and these report whom they refuse.

use std::collections::{BTreeMap, BTreeSet};

use shoal_types::NodeId;
use shoal_wire::node_id;

use super::observed::{NodeSet, Nodes, Observed};

/// Nodes that have to say so, as far as there are so many others.
const WITNESSES: usize = 2;

pub(super) struct Bans<'a> {
    banned: NodeSet,
    nodes: &'a Nodes,
}

impl<'a> Bans<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let mut witnesses: BTreeMap<NodeId, BTreeSet<usize>> = BTreeMap::new();
        for (node, report) in &observed.reports {
            for banned in &report.banned {
                witnesses.entry(*banned).or_default().insert(*node);
            }
        }
        let needed = WITNESSES.min(observed.reports.len().saturating_sub(1)).max(1);
        witnesses.retain(|_, by| by.len() >= needed);
        let is_banned = |name: &str| name.parse().is_ok_and(|name| witnesses.contains_key(&node_id(&name)));
        // Identities are hashes of names: not worth the work where nobody is banned.
        let all = observed.nodes.names().zip(0..).filter(|_| !witnesses.is_empty());
        let banned = all.filter(|(name, _)| is_banned(name)).map(|(_, node)| node).collect();
        Self { banned, nodes: &observed.nodes }
    }

    /// Who is banned of these nodes; none, if nobody is.
    pub(super) fn among(&self, selected: &NodeSet) -> Option<String> {
        let here = self.banned.clone().and(selected);
        let words = "sent chunks that were proven false, and the other nodes refuse what comes from there: look at memory and disks";
        (here.len() > 0).then(|| format!("{} {words}", self.nodes.some(&here)))
    }
}
