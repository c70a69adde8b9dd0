//! Whole agents on loopback, with a tracker and an origin in the same process: what a runtime gets from them.

mod beside;
#[path = "../mirror/client.rs"]
mod client;
mod containerd;
mod failures;
mod policies;
mod private;
mod pulls;
mod push;
mod world;
