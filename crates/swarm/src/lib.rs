//! The exchange engine: which chunk, from whom, for whom. One engine per agent, for all its blobs and neighbours.
//!
//! A driver tells the engine what happened (`handle_*`), then does what it asks for ([`Engine::poll_action`] until there is nothing
//! left) and calls [`Engine::handle_timeout`] at [`Engine::poll_timeout`]. The same engine runs in the agent and in the simulator.
//!
//! State: the neighbours, the blobs with every chunk's state, what waits to be sent.
//! Invariants: a chunk is announced only after it was verified; nothing is asked for twice outside the endgame; every table is
//! bounded by the number of neighbours times a setting, or by a blob's number of chunks. [`Engine::check_invariants`] checks them.
//! Absent on purpose: I/O, clocks, threads, a chunk's bytes, signatures, addresses. Time is an argument, randomness a seed.

mod action;
mod announce;
mod batches;
mod blame;
mod chain_state;
mod choker;
mod config;
mod engine;
mod have;
mod invariants;
mod lead;
mod limit;
mod local;
mod peer;
mod picker;
mod promises;
mod requests;
mod serve;
mod spread;
mod timers;
mod transfer;

pub use action::{Action, DisconnectReason, Recipients, VerifyTicket};
pub use config::{ChunkOrder, Config, ConfigError, ServeOrder, Serving};
pub use engine::{Counters, Engine, StartBlob};
pub use peer::PeerHandle;
