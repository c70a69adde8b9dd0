//! The demo and the network lab: agents, a tracker and a registry as real processes, and what is measured of them.
//!
//! State: none; what runs belongs to a [`processes::Fleet`], a [`scratch::Scratch`] or a lab's network, and ends with it.
//! Invariants: only processes that were started here are ended, each by its id.
//! Absent on purpose: whole clusters. A [`control_plane`] is an API server without nodes.

pub mod bound;
pub mod containerd;
pub mod control_plane;
pub mod demo;
pub mod ending;
pub mod figures;
pub mod lab;
pub mod nodes;
pub mod processes;
pub mod registry;
pub mod scratch;
pub mod tools;
pub mod units;
