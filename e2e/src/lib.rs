//! The demo, the network lab and a Kubernetes cluster on one machine: real processes, and what is measured of them.
//!
//! State: none; what runs belongs to a [`processes::Fleet`], a [`scratch::Scratch`] or a [`network::Network`], and ends with it.
//! Invariants: only processes that were started here are ended, each by its id.
//! A [`control_plane`] is an API server without nodes; a [`cluster`] has kubelets.

pub mod bound;
pub mod certs;
pub mod cluster;
pub mod containerd;
pub mod control_plane;
pub mod demo;
pub mod ending;
pub mod figures;
pub mod lab;
pub mod network;
pub mod nodes;
pub mod processes;
pub mod registry;
pub mod scratch;
pub mod tools;
pub mod tracker_bench;
pub mod units;
