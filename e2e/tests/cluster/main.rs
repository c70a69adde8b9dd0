//! Shoal on real kubelets.
//!
//! It takes root, namespaces and cgroups, and Kubernetes' programs, which `cargo xtask cluster tools` makes ahead of time. What isn't there is said, and
//! the test skipped.

mod artifacts;
mod content;
mod direct;
mod install;
mod platforms;
mod private;
mod turmoil;
mod world;
