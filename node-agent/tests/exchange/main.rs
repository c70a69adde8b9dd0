//! The exchange between agents on loopback: real connections, stores, a tracker; the origin is in memory.

mod cluster;
mod lending;
mod swarm;
