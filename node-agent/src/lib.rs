//! The node agent: a registry mirror backed by the swarm.

pub mod mirror;
