//! The operator against a real kube-apiserver: who is let in, what becomes of the CA, what reaches agents.
//!
//! It takes etcd and kube-apiserver (`cargo xtask cluster tools`); where they can't be had, that is said, and all is skipped. The operator runs with the
//! permissions of a service account, those that an installation gives it.

mod agents;
mod authority;
mod bans;
mod bare;
mod forgery;
mod identity;
mod idle;
mod lifecycle;
mod listener;
mod namespace;
mod nodes;
mod private;
mod process;
mod reconcile;
mod replicas;
mod secrets;
mod token_server;
mod transfer;
mod world;
