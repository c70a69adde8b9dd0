//! Registries as Swarms configure them: one client for each, and what names mean there, for trackers; and the Swarms' document as trackers give it.
//!
//! State: the clients ([`Clients`]).
//! Invariants: nothing is asked that no Swarm answers for.
//! Absent on purpose: Swarms' origin (a policy comes through a `watch`), and credentials: every client is anonymous, so what it can read is
//! readable for everyone.

mod clients;
mod resolver;
mod source;

pub use clients::Clients;
pub use resolver::SwarmResolver;
pub use source::source;
