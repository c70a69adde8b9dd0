//! The simulator: the engine and the tracker in virtual time.

pub mod net;
