//! The tracker as its driver sees it.

mod chains;
mod harness;
mod leases;
mod members;
mod properties;

mod zones;
