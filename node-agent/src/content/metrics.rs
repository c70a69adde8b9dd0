//! What the content counts.
//!
//! State: counters, shared by all clones.
//! Invariants: every label's values are a closed set that this file spells out.
//! Absent on purpose: bytes from peers. The exchange knows them; here they are one source with the agent's own store.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// The content's counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pulls: Family<Labels, Counter>,
    fallbacks: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
}

/// Why something came straight from the origin, or was left to the runtime to fetch there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// No tracker has been reached yet, so there is no certificate to meet peers with; or none
    /// can be reached, and no other node is known.
    NoTracker,
    /// The store takes no more, or too much is being exchanged already.
    NoRoom,
    /// Nothing came in time.
    Stalled,
    /// The links were withdrawn.
    ChainFailed,
    /// The policy wants it so.
    OriginOnly,
    /// Only the runtime can fetch it, for all nodes.
    Handed,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Manifest,
    Blob,
}

/// Where bytes for the mirror came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// The exchange: peers, the store, or the origin with this node as the lead.
    Exchange,
    /// Passed through from the origin.
    Origin,
}

impl Metrics {
    /// Counters in a registry whose prefix is `shoal`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let of_content = registry.sub_registry_with_prefix("content");
        of_content.register("pulls", "Manifests and blobs that were asked for, by kind", metrics.pulls.clone());
        let help = "What came straight from the origin or was left to the runtime, by reason";
        of_content.register("fallbacks", help, metrics.fallbacks.clone());
        let help = "Bytes for the mirror, by where they came from";
        of_content.register("bytes", help, metrics.bytes.clone());
        metrics
    }

    /// How often this has happened.
    #[must_use]
    pub fn fallbacks(&self, reason: Fallback) -> u64 {
        self.fallbacks.get_or_create(&[("reason", reason.label())]).get()
    }

    /// Bytes that were passed through from origins.
    #[must_use]
    pub fn passed_through(&self) -> u64 {
        self.bytes.get_or_create(&[("source", From::Origin.label())]).get()
    }

    pub(super) fn pulled(&self, kind: Kind) {
        let kind = match kind {
            Kind::Manifest => "manifest",
            Kind::Blob => "blob",
        };
        self.pulls.get_or_create(&[("kind", kind)]).inc();
    }

    pub(super) fn fell_back(&self, reason: Fallback) {
        self.fallbacks.get_or_create(&[("reason", reason.label())]).inc();
    }

    pub(super) fn gave(&self, from: From, bytes: usize) {
        self.bytes.get_or_create(&[("source", from.label())]).inc_by(bytes as u64);
    }
}

impl From {
    const fn label(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Origin => "origin",
        }
    }
}

impl Fallback {
    const fn label(self) -> &'static str {
        match self {
            Self::NoTracker => "no_tracker",
            Self::NoRoom => "no_room",
            Self::Stalled => "stalled",
            Self::ChainFailed => "chain_failed",
            Self::OriginOnly => "origin_only",
            Self::Handed => "handed",
        }
    }
}
