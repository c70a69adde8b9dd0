//! What Shoal knows of registries: the paths, names, ranges and errors of the distribution API, the little it reads of a manifest, and
//! the client of an origin registry.
//!
//! ```text
//! a runtime's request ──> paths, range ──> (the mirror) ──> error_body
//!                            names │ manifest
//!                                  ▼
//!                        origin ──────> guard ──> the registry, its token server, its storage
//! ```
//!
//! It stands on oci-client (oci-distribution's present name) where that fits: image references, descriptors and index entries, credentials,
//! error bodies. The client itself is our own, on reqwest, which oci-client brings: a lead needs ranges in flight and resumed, token realms
//! and redirects held against a policy, Retry-After as a value, and errors that name what failed.
//!
//! State: only [`origin::Origin`] has any: connections, tokens, and until when a registry asked to be left alone.
//! Invariants: a name that exists is valid; no request leaves for a place that [`guard`] refuses; nothing is read without a bound.
//! Absent on purpose: pushing, the environment (a proxy is a setting), caches of manifests, and verification of blobs, which belongs to
//! the chain.

pub mod error_body;
pub mod guard;
pub mod manifest;
pub mod names;
pub mod origin;
pub mod paths;
pub mod range;
#[cfg(feature = "testing")]
pub mod testing;

pub use error_body::ErrorBody;
pub use names::{ImageName, NameError, Reference, Registry, Repository, Tag};
pub use origin::{Credentials, ProxyConfig};
