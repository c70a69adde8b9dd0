//! Registries as Swarms configure them: one client for each, and what names mean there, for trackers.
//!
//! State: the clients ([`Clients`]).
//! Invariants: nothing is asked that no Swarm answers for.
//! Absent on purpose: Swarms' origin (a policy comes through a `watch`), and credentials: every client is anonymous, so what it can read is
//! readable for everyone.

mod clients;
mod resolver;

pub use clients::Clients;
pub use resolver::SwarmResolver;
