//! The node agent: a registry mirror backed by the swarm.

pub mod agent;
pub mod check;
pub mod cli;
pub mod content;
pub mod exchange;
pub mod hosts;
pub mod mirror;
pub mod pull;
pub mod push;
pub mod runtime;
mod saved;
pub mod standalone;
pub mod transport;
