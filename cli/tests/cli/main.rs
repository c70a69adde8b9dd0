//! `kubectl swarm` and a real kube-apiserver: what it prints, and how it ends.
//!
//! The Swarms' statuses are written by the tests, as the operator would. It takes etcd and kube-apiserver, which are fetched and built on a machine with apt and
//! Go. Where they can't be had this is said, and skipped.

mod kubeconfig;
mod nodes;
mod preheat;
mod status;
mod usage;
mod world;
