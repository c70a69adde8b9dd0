//! The operator: what makes Shoal part of a Kubernetes cluster.
//!
//! ```text
//!  API server ── TokenReview, Nodes ──> identity ──┐
//!             ── the CA's Secret ─────> authority ─┼──> shoal_tracker_server::Server  <── agents
//!             ── EndpointSlices ──────> replicas ──┤
//!             ── Swarms ──────────────> swarms ────┤
//!             ── their Secrets ───────> secrets ───┘
//!             <─ status, events, Lease ─ reconcile, in the replica that leads
//! ```
//!
//! State: what the API server last said, in caches; the tracker's, which is soft.
//! Invariants: every replica serves, and none needs a leader for it; one reconciles. What two of them write at once is decided by the API
//! server's resource versions.
//! Absent on purpose: the tracker itself, and what a Swarm means.

mod authority;
mod cli;
mod cluster;
mod error;
mod identity;
mod reconcile;
mod replicas;
mod run;
mod secrets;
mod swarms;

pub use cli::{Cli, ObjectName};
pub use error::StartError;
pub use run::{Operator, OperatorConfig};
