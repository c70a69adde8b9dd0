//! The tracker's core: who is in which swarm, who fetches from the origin, which links are believed, who is banned.
//!
//! A [`Tracker`] is a state machine without I/O. A driver tells it what happened (`handle_*`) and does what it says (`poll_*`);
//! time is an argument, randomness a seed. The operator drives one per replica, an agent drives one for the blobs for which it stands
//! in ([`Lookup`]), the simulator drives it in virtual time.
//!
//! What it expects of an agent, beside the messages themselves:
//! - Who holds a lease announces at least as often as the last reply's interval says, and at once when a directive grants it.
//! - Who turns to another tracker announces its bitmap again, and a lead the links that it has published.
//! - Who has a whole blob and no chain says `Completed` and `Impatient`, if it wants to lead from its own store.
//!
//! State: soft. All of it is rebuilt from announces within seconds, nothing is stored.
//! Invariants: whatever agents announce, in whatever order, is either refused and counted or leaves [`Tracker::check_invariants`]
//! true. One node's word moves nothing cluster-wide. Everything is bounded: tables by [`Limits`], messages by what they carry.
//! Absent on purpose: sockets, clocks, certificates, addresses, bytes of blobs.

mod announce;
mod bans;
mod blob;
mod chain;
mod config;
mod error;
mod gateway;
mod lease;
mod leasing;
mod lookup;
mod membership;
mod nodes;
mod outbox;
mod pool;
mod popularity;
mod rendezvous;
mod slab;
mod snapshot;
mod timers;
mod tracker;
mod verdicts;
mod zones;

pub use bans::BanReason;
pub use chain::ChainState;
pub use config::{BanConfig, Config, ConfigError, LeaseConfig, Limits, MembershipConfig, Quorum};
pub use error::AnnounceError;
pub use lookup::{Lookup, LookupConfig, Members, ProviderRecords};
pub use rendezvous::{ReplicaName, ReplicaNameError, rendezvous};
pub use snapshot::{BlobStatus, Counters, TrackerStatus};
pub use tracker::Tracker;
