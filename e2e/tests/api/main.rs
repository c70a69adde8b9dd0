//! The Swarm resource and a real kube-apiserver: what it makes of the definition, and what it refuses.
//!
//! It takes etcd and kube-apiserver, which are fetched and built on a machine with apt and Go. Where they can't be had this is said, and skipped.

mod definition;
mod identities;
mod rules;

use shoal_e2e::control_plane::{ControlPlane, Programs};

/// A running control plane, or a loud word that the test is skipped.
async fn control_plane() -> Option<ControlPlane> {
    match Programs::get() {
        Ok(programs) => Some(ControlPlane::start(&programs).await.unwrap_or_else(|error| panic!("{error:#}"))),
        Err(error) => {
            eprintln!("SKIPPED: {error:#}");
            None
        }
    }
}
