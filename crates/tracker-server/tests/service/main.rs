//! The server and its client on loopback: everything that goes over the wire.

mod announce;
mod failover;
mod harness;
mod hostile;
mod join;
mod questions;
mod reports;
