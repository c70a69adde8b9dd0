//! Agents beside real containerds, on loopback: what the runtime keeps when an agent dies or a lead lies,
//! and what it reads.
//!
//! It takes root. containerd 1.6 is fetched where apt can; containerd 2 takes minutes to build, so it is used where `cargo xtask lab` has built
//! it. What isn't there is said, and skipped.

mod check;
mod hosts;
mod kill;
mod lies;
mod world;
