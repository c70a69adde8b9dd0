//! The node agent: a registry mirror backed by the swarm.

pub mod exchange;
pub mod hosts;
pub mod mirror;
pub mod transport;
