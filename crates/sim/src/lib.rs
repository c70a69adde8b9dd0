//! The simulator: the engine and the tracker in virtual time.
//!
//! A *scenario* is a list of settings (`scenario/`), which with a seed make a *setup* (`setup.rs`). The *world* (`world/`) runs it on the
//! *network* (`net/`), and the *report* (`report.rs`) holds the outcomes against the *bound* (`bound.rs`).
//!
//! State: none in this file. Invariants: the same setup gives the same events in the same order, whatever the machine.
//! Absent on purpose: real time and sockets.

mod bound;
pub mod cli;
mod content;
pub mod forecast;
pub mod net;
pub mod plot;
mod report;
mod scenario;
mod setup;
mod table;
mod world;
