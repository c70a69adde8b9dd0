//! What the mirror serves: the exchange's bytes where the policy wants them, the origin's where it has to be.
//!
//! ```text
//!            policy ──> suspended, nobody's ──────────────────────────────────> 404: the runtime goes to the origin
//!              │
//!   manifest ──┼─ tracker (name → digest, who may read it) ── exchange ──┐
//!              │      └─ none: the origin itself, or what was known last │──> bytes; its blobs start, in order
//!   blob ──────┼─ known size and readability, or HEAD at the origin ── exchange ──> bytes as they are verified
//!              └─ origin only, nobody to exchange with, no room ─────── origin ──> bytes, hashed while they pass
//! ```
//!
//! State: what is known of content (`known`), what names meant last (`records`), the transfers in flight (`flights`), the streams that were
//! cut (`cuts`), the origins' clients (`origins`). Each is bounded where it is defined.
//! Invariants: with `access: VerifyAtOrigin` nothing is served that an anonymous client wasn't shown at the origin: by the tracker's
//! record, by the origin's own answer, or as a part of a manifest of the same repository for which that holds; but for the blobs of a
//! private manifest, which the mirror shows to nobody: who names their digests has it. A blob's answer begins only when its first bytes
//! are there, so that a failure before them is a status and not a cut.
//! Absent on purpose: HTTP (`mirror`), chunks and peers (`exchange`), the children of an index before somebody
//! asks for one (which platform is wanted, only the runtime knows).

mod ahead;
mod blobs;
mod bounded;
mod cuts;
mod flights;
mod handover;
mod known;
mod manifests;
mod metrics;
mod origins;
mod pass;
mod policy;
mod private;
mod records;
mod start;
mod wait;

use std::path::Path;
use std::sync::Arc;

use http::{HeaderValue, header};
use shoal_oci::origin::{Origin, OriginError, Passed};
use shoal_oci::{Registry, Repository};
use shoal_store::Store;
use shoal_tracker_server::client::TrackerClient;
use tokio_util::sync::CancellationToken;

pub use metrics::{Fallback, Metrics};
pub use origins::OriginPool;
pub use policy::Policies;

use crate::exchange::Exchange;
use crate::mirror::{
    Blob, BlobName, BlobRequest, BlobStat, Content, Failure, Listing, ListingKind, ListingRequest, Manifest,
    ManifestRequest, Reason,
};
use crate::runtime::Runtime;
use cuts::Cuts;
use flights::Flights;
use known::Known;
use metrics::Kind;
use policy::Course;
use records::Records;

/// The mirror's content. A clone is the same one.
#[derive(Clone)]
pub struct SwarmContent {
    shared: Arc<Shared>,
}

/// What the content is made of.
pub struct Parts {
    /// The policy.
    pub policies: Policies,
    /// The origins, the same that the exchange fetches from.
    pub origins: Arc<OriginPool>,
    /// The exchange.
    pub exchange: Exchange,
    /// The exchange's store.
    pub store: Arc<dyn Store>,
    /// The tracker's client.
    pub tracker: TrackerClient,
    /// The runtime beside this agent.
    pub runtime: Runtime,
    /// Where to count.
    pub metrics: Metrics,
}

struct Shared {
    parts: Parts,
    known: Known,
    records: Records,
    cuts: Cuts,
    flights: Flights,
    stop: CancellationToken,
}

impl SwarmContent {
    /// The content of these parts. What names mean is kept in the directory, which must be there, while [`Self::run`] runs.
    pub fn new(parts: Parts, data_dir: &Path, stop: CancellationToken) -> Self {
        let (records, flights) = (Records::load(data_dir), Flights::new(stop.clone()));
        let shared = Shared { parts, known: Known::new(), records, cuts: Cuts::new(), flights, stop };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps what names mean, until the stop; then waits for the content's tasks.
    pub async fn run(&self) {
        self.shared.records.keep(self.shared.stop.clone()).await;
        self.shared.flights.stopped().await;
    }
}

impl Content for SwarmContent {
    async fn manifest(&self, wanted: ManifestRequest) -> Result<Manifest, Failure> {
        let course = self.shared.course(&wanted.registry, &wanted.repository)?;
        self.shared.parts.metrics.pulled(Kind::Manifest);
        // Boxed: the future of a whole manifest's way is large, and each request has one.
        Box::pin(self.shared.manifest(wanted, course)).await
    }

    async fn stat(&self, wanted: BlobName) -> Result<BlobStat, Failure> {
        let course = self.shared.course(&wanted.registry, &wanted.repository)?;
        Box::pin(self.shared.stat(&wanted.into(), &course)).await
    }

    async fn blob(&self, wanted: BlobRequest) -> Result<Blob, Failure> {
        let course = self.shared.course(&wanted.name.registry, &wanted.name.repository)?;
        self.shared.parts.metrics.pulled(Kind::Blob);
        Box::pin(Shared::blob(Arc::clone(&self.shared), wanted, course)).await
    }

    async fn listing(&self, wanted: ListingRequest) -> Result<Listing, Failure> {
        let course = self.shared.course(&wanted.registry, &wanted.repository)?;
        let origin = self.shared.origin(&wanted.registry, &course)?;
        // The origin's client builds the query across an await with something that can't move between threads. Lists are rare: each is
        // driven on a thread that may block.
        let runtime = tokio::runtime::Handle::current();
        let listed = tokio::task::spawn_blocking(move || runtime.block_on(list(&origin, &wanted)));
        let passed = listed.await.map_err(|_| Failure::new(Reason::Unavailable))?;
        let passed = passed.map_err(|error| Failure::from(&error))?;
        let header = |name: header::HeaderName| passed.headers.get(name).cloned();
        Ok(Listing {
            media_type: header(header::CONTENT_TYPE).unwrap_or(HeaderValue::from_static("application/json")),
            link: header(header::LINK),
            filters_applied: header(header::HeaderName::from_static("oci-filters-applied")),
            bytes: passed.body,
        })
    }
}

async fn list(origin: &Origin, wanted: &ListingRequest) -> Result<Passed, OriginError> {
    match &wanted.kind {
        ListingKind::Tags(page) => origin.tags(&wanted.repository, page).await,
        ListingKind::Referrers { digest, artifact_type } => {
            origin.referrers(&wanted.repository, digest, artifact_type.as_deref()).await
        }
    }
}

impl Shared {
    /// What is to be done with a request. What can't be taken back from the runtime isn't streamed to it before it is proven.
    fn course(&self, registry: &Registry, repository: &Repository) -> Result<Course, Failure> {
        let course = self.parts.policies.course(registry, repository)?;
        Ok(Course { strict: course.strict || !self.parts.runtime.takes_back(), ..course })
    }

    fn origin(&self, registry: &Registry, course: &Course) -> Result<Origin, Failure> {
        self.parts.origins.client(registry, &course.decision).map_err(|error| {
            tracing::warn!(%registry, %error, "a registry can't be asked");
            Failure::new(Reason::Withheld).with_detail(error)
        })
    }
}
