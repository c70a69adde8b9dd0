//! Bytes by source that only grow, out of counters that begin anew with each agent and each leader.
//!
//! A Swarm's figure is what its status said when this leader began, plus what its nodes have moved since. What an agent has moved since is the
//! difference to its last report; a counter that went back is a new agent's, which began at zero. What an agent says first is a beginning, not a gain,
//! unless the agent is younger than this leader.
//!
//! State: each node's last counters; each Swarm's sums. Bounded by the nodes and the Swarms.
//! Invariants: a figure never goes back. What moved while nobody led isn't counted.
//! Absent on purpose: who moved what for which Swarm: agents count by node, so a node's bytes are those of each Swarm that it takes part in.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_api::{Quantity, TrafficStatus};
use shoal_tracker_server::Report;

use super::observed::{NodeSet, Nodes};

/// Bytes by source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) from_peers: u64,
    pub(super) from_origin: u64,
}

impl Bytes {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            from_peers: self.from_peers.saturating_add(other.from_peers),
            from_origin: self.from_origin.saturating_add(other.from_origin),
        }
    }

    /// What a counter gained that stood at `before`.
    fn since(self, before: Self) -> Self {
        let gained = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            from_peers: gained(self.from_peers, before.from_peers),
            from_origin: gained(self.from_origin, before.from_origin),
        }
    }

    pub(super) const fn of_status(status: &TrafficStatus) -> Self {
        Self { from_peers: status.from_peers.bytes(), from_origin: status.from_origin.bytes() }
    }

    pub(super) fn to_status(self) -> TrafficStatus {
        let Self { from_peers, from_origin } = self;
        let all = u128::from(from_peers) + u128::from(from_origin);
        let saved = (u128::from(from_peers) * 100).checked_div(all).unwrap_or_default();
        TrafficStatus {
            from_peers: Quantity::from_bytes(from_peers),
            from_origin: Quantity::from_bytes(from_origin),
            saved_percent: u8::try_from(saved).unwrap_or(100),
        }
    }
}

/// The nodes' last counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    last: BTreeMap<Arc<str>, Bytes>,
}

impl Counters {
    /// What each node has gained since the last call. `fresh`: an agent that wasn't heard of before is younger than this leader.
    pub(super) fn gains(
        &mut self,
        nodes: &Nodes,
        reports: &[(usize, Arc<Report>)],
        fresh: bool,
    ) -> Vec<(usize, Bytes)> {
        self.last.retain(|node, _| nodes.contains(node));
        let names: Vec<&Arc<str>> = nodes.names().collect();
        let mut gains = Vec::new();
        for (node, report) in reports {
            let Some(name) = names.get(*node) else { continue };
            let traffic = &report.traffic;
            let now = Bytes { from_peers: traffic.from_peers, from_origin: traffic.from_origin };
            let before = self.last.insert(Arc::clone(name), now);
            let gain = now.since(before.unwrap_or(if fresh { Bytes::default() } else { now }));
            if gain != Bytes::default() {
                gains.push((*node, gain));
            }
        }
        gains
    }
}

/// What these nodes have gained.
pub(super) fn of(gains: &[(usize, Bytes)], nodes: &NodeSet) -> Bytes {
    let gains = gains.iter().filter(|(node, _)| nodes.contains(*node));
    gains.fold(Bytes::default(), |sum, (_, gain)| sum.plus(*gain))
}

/// A Swarm's figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum(Bytes);

impl Sum {
    pub(super) const fn new(status: &TrafficStatus) -> Self {
        Self(Bytes::of_status(status))
    }

    pub(super) const fn add(&mut self, gained: Bytes) {
        self.0 = self.0.plus(gained);
    }

    pub(super) const fn bytes(self) -> Bytes {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use shoal_tracker_server::TrafficReport;

    use super::*;

    fn reports(counters: &[u64]) -> Vec<(usize, Arc<Report>)> {
        let report = |from_peers: u64| {
            let traffic = TrafficReport { from_peers, to_peers: 0, from_origin: from_peers / 10 };
            Arc::new(Report { traffic, ..Report::default() })
        };
        counters.iter().map(|counter| report(*counter)).enumerate().collect()
    }

    #[test]
    fn a_figure_goes_on_where_the_status_was_whoever_starts_anew() {
        let nodes = Nodes::new(["a", "b", "c"].map(|name| (name.into(), BTreeMap::new())));
        let all: NodeSet = (0..3).collect();
        let before = Bytes { from_peers: 1_000, from_origin: 50 }.to_status();
        let (mut counters, mut sum) = (Counters::default(), Sum::new(&before));
        let mut step = |fresh, counted: &[u64]| {
            sum.add(of(&counters.gains(&nodes, &reports(counted), fresh), &all));
            sum.bytes()
        };
        let is = |from_peers, from_origin| Bytes { from_peers, from_origin };
        assert_eq!(step(false, &[700, 300]), is(1_000, 50), "the first word is where it begins");
        assert_eq!(step(true, &[720, 310]), is(1_030, 53));
        assert_eq!(step(true, &[40, 310]), is(1_070, 57), "an agent that began again");
        assert_eq!(step(true, &[40, 310, 10]), is(1_080, 58), "one that is new");
        assert_eq!(step(true, &[40, 310, 10]), is(1_080, 58));
    }

    #[test]
    fn a_share_is_of_what_moved() {
        let percent = |from_peers, from_origin| Bytes { from_peers, from_origin }.to_status().saved_percent;
        assert_eq!((percent(0, 0), percent(310, 8), percent(u64::MAX, 0), percent(0, 1)), (0, 97, 100, 0));
    }
}
