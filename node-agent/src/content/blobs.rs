//! Blobs: who may have them, how long they are, and their bytes.
//!
//! ```text
//!   reopened after a cut ──────────> 503: the runtime goes on at the origin
//!   here whole, or in the exchange ─> as it is verified; stalled or withdrawn before the first byte: passed through, later: cut
//!   else ───────────────────────────> passed through from the origin; 404 if it is private
//! ```
//!
//! State: that of [`Shared`].
//! Invariants: a stream gives its range's bytes and no others, or fails; a stream that fails is noted, so that its reopening is refused.
//! Absent on purpose: ends that reach the client. The mirror cuts.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use shoal_types::Digest;

use super::known::{self, Fact, Place};
use super::manifests::is_refusal;
use super::metrics::{Fallback, From};
use super::policy::Course;
use super::{Shared, pass, wait};
use crate::exchange::{Source, SourceKind, Transfer, Wanted};
use crate::mirror::{Blob, BlobName, BlobRequest, BlobStat, BlobStream, Failure, Reason};

impl std::convert::From<BlobName> for Place {
    fn from(name: BlobName) -> Self {
        Self { registry: name.registry, repository: name.repository, digest: name.digest }
    }
}

impl Shared {
    /// Size and type, if it may be served.
    pub(super) async fn stat(&self, place: &Place, course: &Course) -> Result<BlobStat, Failure> {
        let fact = self.known.get(place);
        if let Some(fact) = &fact
            && (!course.verify_access || fact.may_be_had())
        {
            return Ok(stat(fact));
        }
        if course.verify_access {
            self.learn_from_runtime(place).await;
            if let Some(fact) = self.known.get(place).filter(Fact::may_be_had) {
                return Ok(stat(&fact));
            }
        }
        if !course.verify_access
            && let Some(transfer) = self.parts.exchange.stored(&place.digest)
        {
            return Ok(BlobStat { size_bytes: transfer.size_bytes(), media_type: None });
        }
        if course.shared {
            let why = "nothing says how long it is: no manifest of this repository has named it here";
            return Err(Failure::new(Reason::Denied).with_detail(why));
        }
        // The client is anonymous: the answer says how long the blob is, and that everyone may read it.
        let origin = self.origin(&place.registry, course)?;
        match origin.blob_size(&place.repository, &place.digest).await {
            Ok(size_bytes) => {
                let media_type = fact.and_then(|fact| fact.media_type);
                let readable_until = Some(known::readable_until());
                let fact = Fact { size_bytes, media_type, readable_until, private: false };
                self.known.learn(place.clone(), fact.clone());
                Ok(stat(&fact))
            }
            Err(error) => {
                if is_refusal(&error) {
                    self.known.forget(place);
                } else if let Some(fact) = fact.filter(Fact::was_readable) {
                    return Ok(stat(&fact));
                }
                Err(Failure::from(&error))
            }
        }
    }

    pub(super) async fn blob(shared: Arc<Self>, wanted: BlobRequest, course: Course) -> Result<Blob, Failure> {
        let place = Place::from(wanted.name);
        let stat = shared.stat(&place, &course).await?;
        let range = wanted.range.unwrap_or(0..stat.size_bytes);
        if range.end > stat.size_bytes || range.start > range.end {
            return Err(Failure::new(Reason::Corrupt).with_detail("the blob's size is contested"));
        }
        if shared.cuts.is_reopened(&place, range.start) {
            let why = "its stream was cut a moment ago: the origin has the rest";
            return Err(Failure::new(Reason::Unavailable).with_detail(why));
        }
        if stat.size_bytes == 0 {
            return empty(place.digest, stat);
        }
        let private = shared.is_private(&place, &course);
        let fallback = match shared.transfer(&place, &stat, private, &course).await {
            Ok(transfer) => match shared.piece(&transfer, &place, &range, course.strict).await {
                Ok(first) => {
                    let stream = Reading::stream(shared, place, transfer, first, range, course.strict);
                    return Ok(Blob { stat, stream });
                }
                Err(trouble) => {
                    tracing::info!(digest = %place.digest, ?trouble, "a blob doesn't come from the exchange");
                    trouble.fallback()
                }
            },
            Err(fallback) => fallback,
        };
        shared.parts.metrics.fell_back(fallback);
        if private {
            let why = "the other nodes don't give it: the runtime asks with the pod's secret";
            return Err(Failure::new(Reason::Denied).with_detail(why));
        }
        let origin = shared.origin(&place.registry, &course)?;
        let stream = pass::through(shared, &origin, place, stat.size_bytes, range).await?;
        Ok(Blob { stat, stream })
    }

    /// The next verified bytes of a range; or that this node's runtime has to fetch the blob for all.
    async fn piece(
        &self,
        transfer: &Transfer,
        place: &Place,
        range: &Range<u64>,
        strict: bool,
    ) -> Result<Bytes, wait::Trouble> {
        tokio::select! {
            // What is here is given, whoever leads.
            biased;
            piece = wait::piece(transfer, range.start, range.end, strict) => piece,
            () = self.parts.origins.handover().asked(&place.digest) => Err(wait::Trouble::Handed),
        }
    }

    /// Whether it takes credentials to fetch it.
    pub(super) fn is_private(&self, place: &Place, course: &Course) -> bool {
        course.shared || self.known.get(place).is_some_and(|fact| fact.private && !fact.is_readable())
    }

    /// The transfer that gives the blob; without one, why there is none.
    async fn transfer(
        &self,
        place: &Place,
        stat: &BlobStat,
        private: bool,
        course: &Course,
    ) -> Result<Transfer, Fallback> {
        if course.origin_only {
            return Err(Fallback::OriginOnly);
        }
        if let Some(transfer) = self.parts.exchange.stored(&place.digest)
            && transfer.size_bytes() == stat.size_bytes
        {
            return Ok(transfer);
        }
        if !self.parts.exchange.is_ready() {
            return Err(Fallback::NoTracker);
        }
        let wanted = Wanted {
            digest: place.digest,
            size_bytes: stat.size_bytes,
            source: Source {
                registry: place.registry.clone(),
                repository: place.repository.clone(),
                kind: SourceKind::Blob,
                private,
            },
            // A runtime waits for it; those that were started ahead keep their order behind it.
            priority: 0,
        };
        let transfer = self.start(wanted).await?;
        // One that runs under another size is of a manifest that lies, or this one is.
        if transfer.size_bytes() == stat.size_bytes { Ok(transfer) } else { Err(Fallback::NoRoom) }
    }
}

/// A stream of a transfer.
struct Reading {
    shared: Arc<Shared>,
    place: Place,
    transfer: Transfer,
    first: Option<Bytes>,
    left: Range<u64>,
    strict: bool,
}

impl Reading {
    fn stream(
        shared: Arc<Shared>,
        place: Place,
        transfer: Transfer,
        first: Bytes,
        range: Range<u64>,
        strict: bool,
    ) -> BlobStream {
        let reading = Self { shared, place, transfer, first: Some(first), left: range, strict };
        Box::pin(stream::try_unfold(reading, async |mut reading| {
            Ok(reading.next().await?.map(|bytes| (bytes, reading)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let bytes = match self.first.take() {
            Some(bytes) => bytes,
            None => {
                let read = self.shared.piece(&self.transfer, &self.place, &self.left, self.strict).await;
                read.map_err(|trouble| {
                    self.shared.parts.metrics.fell_back(trouble.fallback());
                    self.shared.cuts.note(&self.place);
                    Failure::from(trouble)
                })?
            }
        };
        self.left.start += bytes.len() as u64;
        self.shared.parts.metrics.gave(From::Exchange, bytes.len());
        Ok(Some(bytes))
    }
}

fn stat(fact: &Fact) -> BlobStat {
    let media_type = fact.media_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    BlobStat { size_bytes: fact.size_bytes, media_type }
}

/// A blob without bytes needs nobody, only the right digest.
fn empty(digest: Digest, stat: BlobStat) -> Result<Blob, Failure> {
    if digest == pass::digest_of(digest.algorithm(), &[]) {
        Ok(Blob { stat, stream: Box::pin(stream::empty()) })
    } else {
        Err(Failure::new(Reason::Corrupt).with_detail("it has no bytes, and the digest of some"))
    }
}
