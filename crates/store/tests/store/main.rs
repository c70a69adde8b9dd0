//! What a store promises: one suite for every implementation, and what a directory adds to it.

mod beside;
mod conformance;
mod containerd;
mod crash;
mod directory;
mod faults;
mod kill;
mod support;
