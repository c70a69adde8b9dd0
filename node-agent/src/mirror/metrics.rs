//! What the mirror counts.
//!
//! State: counters, shared by all clones.
//! Invariants: every label's values are a closed set that this crate's enums spell out; never a name, a digest or an error's text.
//! Absent on purpose: bytes by source. The mirror doesn't know where bytes come from.

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::cut::Cut;
use super::failure::{Failure, OriginAnswer};

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The mirror's counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<Labels<2>, Counter>,
    failures: Family<Labels<2>, Counter>,
    refusals: Family<Labels<1>, Counter>,
    cuts: Family<Labels<1>, Counter>,
    left_early: Counter,
    body_bytes: Counter,
    connections: Gauge,
    connections_refused: Counter,
}

impl Metrics {
    /// Counters in a registry whose prefix is `shoal`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let of_mirror = registry.sub_registry_with_prefix("mirror");
        of_mirror.register(
            "requests",
            "Answered requests, by what was asked for and by status",
            metrics.requests.clone(),
        );
        of_mirror.register(
            "failures",
            "Requests that the core could not fulfil, by reason and by what the origin said",
            metrics.failures.clone(),
        );
        of_mirror.register("refusals", "Requests that the mirror refused, by what was wrong", metrics.refusals.clone());
        of_mirror.register("cuts", "Answers that ended before their announced length, by cause", metrics.cuts.clone());
        of_mirror.register("left_early", "Clients that left before the end of a blob", metrics.left_early.clone());
        of_mirror.register("body_bytes", "Bytes of blobs handed to clients", metrics.body_bytes.clone());
        of_mirror.register("connections", "Open connections", metrics.connections.clone());
        of_mirror.register(
            "connections_refused",
            "Connections above the limit, answered with 503 or dropped",
            metrics.connections_refused.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, target: &'static str, status: StatusCode) {
        self.requests.get_or_create(&[("target", target), ("status", status_label(status))]).inc();
    }

    pub(super) fn failed(&self, failure: &Failure) {
        let labels = [("reason", failure.reason().label()), ("origin", OriginAnswer::label(failure.origin()))];
        self.failures.get_or_create(&labels).inc();
    }

    pub(super) fn refused(&self, cause: &'static str) {
        self.refusals.get_or_create(&[("cause", cause)]).inc();
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.cuts.get_or_create(&[("cause", cut.label())]).inc();
    }

    pub(super) fn left_early(&self) {
        self.left_early.inc();
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.body_bytes.inc_by(bytes as u64);
    }

    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }
}

/// An open connection.
pub(super) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The statuses that the mirror answers with. hyper's own (400, 414 and 431 for what it can't parse) don't pass here.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        206 => "206",
        400 => "400",
        404 => "404",
        405 => "405",
        416 => "416",
        503 => "503",
        _ => "other",
    }
}
