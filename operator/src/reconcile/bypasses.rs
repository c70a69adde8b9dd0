//! Nodes whose runtimes pull past the mirror, by what is wrong with them.
//!
//! State: none. Invariant: of the same reports come the same words, whatever their order.
//! Absent on purpose: every node's name. Status stays small: the first ones are named, the others are counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::observed::{NodeSet, Nodes, Observed};

/// Troubles that are told. A cluster's nodes are configured alike, mostly.
const TOLD: usize = 2;

pub(super) struct Bypasses<'a> {
    by_words: BTreeMap<&'a str, NodeSet>,
    nodes: &'a Nodes,
}

impl<'a> Bypasses<'a> {
    pub(super) fn of(observed: &'a Observed) -> Self {
        let mut by_words: BTreeMap<&str, NodeSet> = BTreeMap::new();
        for (node, report) in &observed.reports {
            if let Some(words) = &report.bypass {
                by_words.entry(words).or_default().insert(*node);
            }
        }
        Self { by_words, nodes: &observed.nodes }
    }

    /// What is wrong on these nodes; none, if nothing is.
    pub(super) fn among(&self, selected: &NodeSet) -> Option<String> {
        let here = self.by_words.iter().map(|(words, nodes)| (*words, nodes.clone().and(selected)));
        let mut here: Vec<(&str, NodeSet)> = here.filter(|(_, nodes)| nodes.len() > 0).collect();
        here.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
        let more = here.len().saturating_sub(TOLD);
        let mut text = String::new();
        for (words, nodes) in here.into_iter().take(TOLD) {
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}{}: {words}", self.nodes.some(&nodes));
        }
        if more > 0 {
            let _ = write!(text, "; and {more} other troubles");
        }
        (!text.is_empty()).then_some(text)
    }
}
