//! The registry mirror: what a container runtime sees of Shoal. HTTP/1.1 on loopback in front of a [`Content`], which the agent's core is.
//!
//! ```text
//! runtime ── GET /v2/… ──> server ──> service ──> Content (the core)
//!                            │           │ paths, ranges, error bodies: shoal_oci
//!                          socket <── body <── BlobStream
//!                            └── cut: how an answer ends early without failing the pull
//! ```
//!
//! The core's word is what: right bytes, or a failure. The mirror's is how: the statuses, headers and endings after which runtimes pull on
//! instead of failing.
//!
//! - To send a runtime to the next host: 404 or 503, never 401, 408, 429.
//! - A blob's answer has as many bytes as it announced, or ends early with FIN; the reopened range is then the core's to refuse.
//! - Several ranges at once are refused with 416: RFC 9110 (14.2) lets a server, no runtime sends them, and a list of ranges is the
//!   known way to make a server send a blob many times over. So is a malformed range; one of an unknown unit is ignored, as the RFC says.
//! - A malformed tag is 404, other malformed names are 400, a digest of an algorithm that has no chain is 404: the origin may know it.
//! - What hyper can't parse as HTTP it answers itself (400, 414, 431), without an OCI body.
//!
//! State: connections and counters. Nothing about content.
//! Invariants: see `cut`, `body`, `server`, `service`.
//! Absent on purpose: caches, peers, the origin, TLS, HTTP/2.

mod body;
mod content;
mod cut;
mod failure;
mod memory;
mod metrics;
mod patience;
mod refusal;
mod server;
mod service;
mod settings;
mod socket;

pub use content::{
    Blob, BlobName, BlobRequest, BlobStat, BlobStream, Content, Listing, ListingKind, ListingRequest, Manifest,
    ManifestRequest,
};
pub use failure::{Failure, OriginAnswer, Reason};
pub use memory::{Ending, Faults, MemoryContent};
pub use metrics::Metrics;
pub use server::Mirror;
pub use settings::{Registries, Settings, Token, TokenError};
