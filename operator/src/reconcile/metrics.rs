//! What the leader counts.
//!
//! State: counters and gauges; those of a follower stand still.
//! Invariants: labels have closed sets of values, but for the Swarms' names, of which there are as many as Swarms.
//! Absent on purpose: nodes and artifacts as labels.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The leader's counters. A clone counts into the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(super) leader: Gauge,
    reconciles: Family<Outcome, Counter>,
    pub(super) pending: Gauge,
    pub(super) events: Counter,
    moved: Family<Source, Counter>,
    artifacts: Family<OfSwarm, Gauge>,
    pub(super) swarms: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSwarm {
    swarm: String,
    state: &'static str,
}

impl Metrics {
    /// Shows them in a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let operator = registry.sub_registry_with_prefix("shoal_operator");
        operator.register("leader", "Whether this replica leads", self.leader.clone());
        operator.register("reconciles", "Swarms that were looked at, by result", self.reconciles.clone());
        operator.register("pending", "Swarms with something to do that has to wait", self.pending.clone());
        operator.register("events", "Events that were told", self.events.clone());
        let help = "Bytes that nodes got, by source, as the leader hears of them";
        operator.register_with_unit("moved", help, Unit::Bytes, self.moved.clone());
        let help = "Copies of artifacts that nodes shall have and that they have, by Swarm";
        operator.register("artifact_copies", help, self.artifacts.clone());
        operator.register("swarms", "Swarms", self.swarms.clone());
    }

    pub(super) fn reconciled(&self, result: &'static str, times: usize) {
        self.reconciles.get_or_create(&Outcome { result }).inc_by(times as u64);
    }

    /// More bytes by source.
    pub(super) fn moved(&self, source: &'static str, bytes: u64) {
        self.moved.get_or_create(&Source { source }).inc_by(bytes);
    }

    /// How far a Swarm is.
    pub(super) fn copies(&self, swarm: &str, desired: u64, complete: u64) {
        for (state, copies) in [("desired", desired), ("complete", complete)] {
            let gauge = self.artifacts.get_or_create(&OfSwarm { swarm: swarm.to_owned(), state });
            gauge.set(i64::try_from(copies).unwrap_or(i64::MAX));
        }
    }

    /// A Swarm is gone.
    pub(super) fn forget(&self, swarm: &str) {
        for state in ["desired", "complete"] {
            self.artifacts.remove(&OfSwarm { swarm: swarm.to_owned(), state });
        }
    }

    /// A follower has no say about Swarms.
    pub(super) fn follows(&self) {
        self.leader.set(0);
        self.pending.set(0);
        self.swarms.set(0);
        self.artifacts.clear();
    }
}
