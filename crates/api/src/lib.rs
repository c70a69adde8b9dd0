//! The `Swarm` resource.
