//! What the server counts.
//!
//! State: counters.
//! Invariants: labels have closed sets of values.
//! Absent on purpose: nodes, digests and names as labels; what the tracker's core counts (`core_figures.rs`).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::core_figures::CoreFigures;

/// The server's counters. A clone counts into the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) streams: Gauge,
    connections_refused: Family<Reason, Counter>,
    requests: Family<Request, Counter>,
    joins: Family<Outcome, Counter>,
    resolutions: Family<Outcome, Counter>,
    pull_secrets: Family<Outcome, Counter>,
    pub(crate) origin_requests: Counter,
    pub(crate) forged_links: Counter,
    pub(crate) slow_streams: Counter,
    pub(crate) core: CoreFigures,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

impl Metrics {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let tracker = registry.sub_registry_with_prefix("shoal_tracker");
        tracker.register("connections", "Open connections", self.connections.clone());
        tracker.register("event_streams", "Nodes with a stream of events", self.streams.clone());
        let refused = self.connections_refused.clone();
        tracker.register("connections_refused", "Connections that were closed, by reason", refused);
        tracker.register("requests", "Answers, by route and status", self.requests.clone());
        tracker.register("joins", "Nodes that asked for a certificate", self.joins.clone());
        tracker.register("resolutions", "Names that were asked for", self.resolutions.clone());
        let secrets = self.pull_secrets.clone();
        tracker.register("pull_secrets", "Leads that asked for what it takes to pull", secrets);
        tracker.register("origin_requests", "Names for which an origin was asked", self.origin_requests.clone());
        tracker.register("forged_links", "Links whose signature isn't the announcer's", self.forged_links.clone());
        tracker.register("slow_streams", "Streams of events closed because nobody read", self.slow_streams.clone());
        tracker.register_collector(Box::new(self.core.clone()));
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn request(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Request { route, status }).inc();
    }

    pub(crate) fn join(&self, outcome: &'static str) {
        self.joins.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn pull_secret(&self, outcome: &'static str) {
        self.pull_secrets.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn resolution(&self, outcome: &'static str) {
        self.resolutions.get_or_create(&Outcome { outcome }).inc();
    }
}
