//! The exchange in this process: the engine of `shoal-swarm`, driven with real time, connections, disks and an origin.
//!
//! | in | goes through |
//! |---|---|
//! | [`Exchange::want`] | `start.rs`, then `room.rs`: the one task that owns the engine, and `blobs.rs` |
//! | frames and chunks from peers | `room.rs`, `chunks.rs` (their bytes), `links.rs` (the signatures of links) |
//! | [`Exchange::offer`], `retract` | `lending.rs`: what the runtime has; `hashing.rs`: its links |
//! | replies and directives of the tracker | `announces.rs`; without one `standin.rs` |
//! | reading what is here | `transfer.rs`, `reads.rs` |
//! | what the engine wants done | `actions.rs`, `lead.rs` (fetching from the origin) |
//!
//! State: the engine and what it needs to be driven; per blob a [`Transfer`] that readers share.
//! Invariants: one task owns the engine; bytes are read only of chunks that are verified; the last chunk is read only when the digest is
//! proven.
//! Absent on purpose: names of images, manifests, policies (`content`), and how an origin is asked ([`Origins`]).

mod actions;
mod announces;
mod blobs;
mod chunks;
mod hashing;
mod lead;
mod lending;
mod links;
mod reads;
mod room;
mod standin;
mod start;
mod trace;
mod transfer;
mod verifying;

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use shoal_oci::origin::OriginError;
use shoal_oci::{Registry, Repository};
use shoal_types::Digest;

pub use lending::Offered;
pub use reads::RECENT_BYTES;
pub use start::{BlobSnapshot, Exchange, ExchangeConfig, ExchangeError, Snapshot, Traffic};
pub use transfer::{CameFrom, Transfer, TransferError};

/// A blob that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its digest.
    pub digest: Digest,
    /// Its size, as its descriptor says.
    pub size_bytes: u64,
    /// Where it is fetched from, if this node is to fetch it.
    pub source: Source,
    /// Lower comes first: the layer's place in its image.
    pub priority: u32,
}

/// Where an origin has a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// Under which path.
    pub kind: SourceKind,
    /// Anonymous clients may not read it.
    pub private: bool,
}

/// Which of a repository's paths a blob is found under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `blobs/<digest>`
    Blob,
    /// `manifests/<digest>`
    Manifest,
}

/// Bytes of an origin, unverified.
pub type OriginStream = Pin<Box<dyn Stream<Item = Result<Bytes, FetchError>> + Send>>;

/// Why there are no more of them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The origin's word.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// This node has no way to it. Another one may have.
    #[error("it is private, and this node has no way to read it")]
    NoWay,
}

/// Whom a lead asks.
pub trait Origins: Send + Sync + 'static {
    /// This range of a blob of `size_bytes`, in order.
    fn fetch(&self, source: &Source, digest: &Digest, size_bytes: u64, range: Range<u64>) -> OriginStream;

    /// Whether what is being fetched of this blob comes to this node whoever leads, so that another lead would cost the origin another copy.
    fn comes_anyway(&self, _digest: &Digest) -> bool {
        false
    }
}

impl<O: Origins> Origins for Arc<O> {
    fn fetch(&self, source: &Source, digest: &Digest, size_bytes: u64, range: Range<u64>) -> OriginStream {
        (**self).fetch(source, digest, size_bytes, range)
    }

    fn comes_anyway(&self, digest: &Digest) -> bool {
        (**self).comes_anyway(digest)
    }
}
