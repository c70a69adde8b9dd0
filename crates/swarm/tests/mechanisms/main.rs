//! Every mechanism of the exchange, by its name: what it does where it is on, and that it can be off.
//!
//! State: none; each test makes its engines.
//! Absent on purpose: figures of whole swarms. Those are the simulator's.

#[path = "../common/mod.rs"]
mod common;

mod announcing;
mod blaming;
mod chains;
mod choking;
mod leading;
mod local;
mod promising;
mod requesting;
mod serving;
mod telling;
mod zones;
