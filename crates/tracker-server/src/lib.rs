//! The tracker as a service, and its client.
//!
//! ```text
//!            join (token) ───────────────> Identity ──> Authority ──> certificate, 24 h
//!  agent ──┤ announce, members, keys … ──> routes ──> Driver (owns shoal_tracker::Tracker)
//!            events <────────────────────── stream <────┘
//!            resolve ───────────────────> Resolver ──> OriginResolver ──> the origin, once for all
//!            swarm <───────────────────── SwarmSource, by the node's labels
//!            report ────────────────────> Reports ──> Handle
//! ```
//!
//! A [`Server`] is embedded by the operator and by the standalone tracker; an agent has a [`client::TrackerClient`]. HTTP/2 over
//! TLS 1.3; every call but the join takes a node's certificate, and a caller is who that says.
//!
//! State: soft, but for the CA's key ([`Authority`]) and, on a node, its own key and certificate.
//! Invariants: links reach the core only if the announcer signed them. Everything is bounded: see [`ServerLimits`].
//! Absent on purpose: Kubernetes (an [`Identity`] and an [`OriginResolver`] come from outside), the Swarm's meaning (a document of
//! bytes), blobs' bytes.

mod authority;
mod certificate;
pub mod client;
mod core_figures;
mod credentials;
mod directory;
mod document;
mod driver;
mod event;
mod identity;
mod limits;
mod metrics;
mod protocol;
mod pull_secret;
mod record;
mod report;
mod resolve;
mod routes;
mod secret_file;
mod server;
mod status;
mod stream;
mod tracked;
mod trust;

pub use authority::{Authority, AuthorityError, CERTIFICATE_LIFE, CLOCK_SKEW, RequestError};
pub use certificate::{CertificateError, NodeCertificate, NodeKey};
pub use credentials::CredentialsError;
pub use directory::NodeEntry;
pub use document::{Labels, SwarmDocument, SwarmSource};
pub use driver::{Stopping, first_epoch};
pub use event::StreamError;
pub use identity::{Admitted, Identity, JoinRequest, JoinToken, JoinTokens, Refused, TokenError};
pub use limits::ServerLimits;
pub use metrics::Metrics;
pub use protocol::{Replica, TrackerAddress, TrackerAddressError};
pub use pull_secret::{PullSecret, SecretKind};
pub use record::{Anonymous, Record, RecordError, SignedRecord, VerifiedRecord};
pub use report::{
    ArtifactReport, ArtifactState, MAX_ARTIFACTS, MAX_BANNED, MAX_PROBLEM_BYTES, MAX_REASON_BYTES, MAX_REPORT_BYTES,
    NodeReport, Report, TrafficReport,
};
pub use resolve::{ImageName, ImageNameError, OriginResolver, OutagePolicy, ResolveError, ResolvePolicy, Resolved};
pub use routes::routes;
pub use server::{Handle, Server, ServerConfig, ServerError};
pub use trust::{Fingerprint, FingerprintError, Trust, TrustError, UntrustedCertificate};
