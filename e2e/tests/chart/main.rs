//! The chart `charts/shoal`: what helm makes of it, and what a real kube-apiserver makes of that.
//!
//! It takes helm, etcd and kube-apiserver, which are fetched and built on a machine with apt and Go. Where they can't be had this is said, and skipped.

mod flags;
mod helm;
mod installed;
mod metrics;
mod page;
mod rendered;
mod values;
