//! A registry in the process: real HTTP on loopback, generated images, counters, limits and faults. Tests and the demo use it as their
//! origin.
//!
//! State: what was pushed, the tokens given out, the traffic so far, the faults still to come.
//! Invariants: content is generated as it is sent, so its size costs no memory; what is counted was handed to the connection.
//! Absent on purpose: pushing over HTTP, persistence, and any care for speed beyond what a lab needs.

mod content;
mod fault;
mod image;
mod ports;
mod server;
mod state;

pub use content::Content;
pub use fault::{Fault, Trouble};
pub use image::Image;
pub use ports::free_ports;
pub use server::{Access, Options, Registry};
pub use state::Traffic;
