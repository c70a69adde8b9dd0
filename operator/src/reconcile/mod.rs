//! The leader's part: Swarms reconciled, all of them by one loop.
//!
//! ```text
//!  Swarms ─┐                                              ┌─> status, finalizers (API server)
//!  Nodes ──┼─> observe.rs ──> plan.rs ──> apply.rs ───────┼─> events
//!  agents ─┘                    ▲                         └─> lookups (origins, by the tracker)
//!                               └── answers, what was written ──┘
//! ```
//!
//! What a tag means goes into the Swarm's status, from where every replica takes it for its agents (`swarms.rs`): status is the one source of
//! truth. It outlives leaders, restarts and registries.
//!
//! State: a leader's memory, which begins anew with each leader; counters.
//! Invariants: nobody but the holder of the Lease acts, and it stops before anybody else begins (`lease.rs`).
//! Absent on purpose: a controller for each object. Conflicts are between Swarms, nodes are everybody's, and 1,000 Swarms are planned in milliseconds.

mod apply;
mod bans;
mod bypasses;
mod election;
mod events;
mod lease;
mod lookups;
mod metrics;
mod observe;
mod observed;
mod plan;
mod reasons;
mod status;
mod traffic;

pub(crate) use apply::Reconciler;
pub(crate) use election::Election;
pub(crate) use metrics::Metrics;

/// On a Swarm while agents may have something of it.
const FINALIZER: &str = "shoal.dev/withdraw";

/// Replicas that start together draw different numbers.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() << 30 | u64::from(now.subsec_nanos())
}
