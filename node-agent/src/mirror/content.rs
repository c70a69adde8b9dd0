//! What the mirror serves, as the agent's core sees it: the core knows where bytes come from, the mirror knows the protocol.
//!
//! State: none.
//! Invariants: a [`Manifest`] has all its bytes and at most [`Manifest::MAX_BYTES`], so `HEAD` can't promise one that `GET` can't give.
//! Absent on purpose: ranges as text, status codes, headers. And any way to give bytes that aren't verified: whoever implements
//! [`Content`] promises that a [`BlobStream`] gives right bytes or fails, and never pads.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderValue;
use shoal_oci::paths::Page;
use shoal_oci::{Reference, Registry, Repository};
use shoal_types::Digest;

use super::failure::{Failure, Reason};

/// The source of everything that the mirror answers.
///
/// A future that is dropped means that its client left; so does a [`BlobStream`]. Neither may cancel what others need.
pub trait Content: Send + Sync + 'static {
    /// A manifest with all its bytes, for `GET` and `HEAD` alike: a tag whose manifest can't be had right now is a failure.
    ///
    /// The implementation asks the origin for every manifest type that it knows. What the runtime says in `Accept` is not handed on,
    /// because types are never filtered here.
    fn manifest(&self, wanted: ManifestRequest) -> impl Future<Output = Result<Manifest, Failure>> + Send;

    /// A blob's size and type, without its bytes.
    fn stat(&self, wanted: BlobName) -> impl Future<Output = Result<BlobStat, Failure>> + Send;

    /// A blob's bytes.
    fn blob(&self, wanted: BlobRequest) -> impl Future<Output = Result<Blob, Failure>> + Send;

    /// A list that only the origin can give.
    fn listing(&self, wanted: ListingRequest) -> impl Future<Output = Result<Listing, Failure>> + Send;
}

/// Which manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRequest {
    /// The registry that the image's name points to.
    pub registry: Registry,
    /// The repository there.
    pub repository: Repository,
    /// The tag or digest.
    pub reference: Reference,
    /// Only its headers are wanted for now: the runtime resolves a tag, and its `GET` by digest follows.
    pub head: bool,
}

/// A manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    digest: Digest,
    media_type: HeaderValue,
    bytes: Bytes,
}

impl Manifest {
    /// What containerd accepts at most.
    pub const MAX_BYTES: usize = shoal_oci::manifest::MAX_BYTES;

    /// A manifest whose bytes have this digest: that was checked by the caller.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] above [`Self::MAX_BYTES`].
    pub fn new(digest: Digest, media_type: HeaderValue, bytes: Bytes) -> Result<Self, Failure> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(Failure::new(Reason::TooLarge));
        }
        Ok(Self { digest, media_type, bytes })
    }

    /// Its digest.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its type, as the origin names it.
    #[must_use]
    pub const fn media_type(&self) -> &HeaderValue {
        &self.media_type
    }

    /// Its bytes, as the origin sends them.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Which blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobName {
    /// The registry that the image's name points to.
    pub registry: Registry,
    /// The repository there.
    pub repository: Repository,
    /// The blob's digest.
    pub digest: Digest,
}

/// What is known of a blob before its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// All its bytes.
    pub size_bytes: u64,
    /// Its type, where somebody named one.
    pub media_type: Option<HeaderValue>,
}

/// Which bytes of which blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// The blob.
    pub name: BlobName,
    /// The bytes wanted, not empty and within the size that [`Content::stat`] gave; all of them if there is none.
    pub range: Option<Range<u64>>,
}

/// A blob, or a range of it, about to be sent.
pub struct Blob {
    /// The whole blob's size and type.
    pub stat: BlobStat,
    /// The bytes, from the first one wanted.
    pub stream: BlobStream,
}

/// Verified bytes in order. Its end or its failure before the last byte that is wanted cuts the answer; bytes after it are not sent.
///
/// Pieces may have any length: they are cut to 256 KiB by reference, so a piece's memory is held until its last part is sent.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// Which list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingRequest {
    /// The registry that the image's name points to.
    pub registry: Registry,
    /// The repository there.
    pub repository: Repository,
    /// The list.
    pub kind: ListingKind,
}

/// The lists of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingKind {
    /// Its tags.
    Tags(Page),
    /// The manifests whose subject is this one.
    Referrers {
        /// The subject.
        digest: Digest,
        /// Only those of this type.
        artifact_type: Option<String>,
    },
}

/// A list as the origin gave it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Its type.
    pub media_type: HeaderValue,
    /// Its bytes, [`Self::MAX_BYTES`] at most.
    pub bytes: Bytes,
    /// The origin's `Link` to the next page. Only its query is used: the client is led to that page of this mirror.
    pub link: Option<HeaderValue>,
    /// The origin's `OCI-Filters-Applied`.
    pub filters_applied: Option<HeaderValue>,
}

impl Listing {
    /// The specification limits a list of referrers to what a manifest may have.
    pub const MAX_BYTES: usize = Manifest::MAX_BYTES;
}
