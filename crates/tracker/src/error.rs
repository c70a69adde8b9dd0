//! Why an announce is refused.

use shoal_types::GeometryError;

/// Why an announce is refused. A refused announce has changed nothing but a counter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// The tracker has no connection of this node.
    #[error("the node that announces isn't connected")]
    NotConnected,
    /// The node is banned. If it is so since this very announce, which proved its links false, the rest was taken in before.
    #[error("the node that announces is banned")]
    Banned,
    /// The same node has announced another size of this blob.
    #[error("a blob has one size: first {first} bytes, now {now}")]
    SizeContradicts {
        /// What it said first.
        first: u64,
        /// What it says now.
        now: u64,
    },
    /// The size can't be cut into chunks of that size.
    #[error("the blob can't be cut so")]
    Geometry(#[from] GeometryError),
    /// The bitmap isn't of this blob.
    #[error("a blob of {expected} chunks has a bitmap of {found}")]
    BitmapLength {
        /// The blob's chunks.
        expected: u32,
        /// The bitmap's.
        found: u32,
    },
    /// It says that it has the whole blob and shows a bitmap with chunks missing.
    #[error("completed, with chunks missing")]
    CompletedWithChunksMissing,
    /// A frontier beyond the blob's end.
    #[error("a frontier of {frontier} in a blob of {chunks} chunks")]
    FrontierBeyondEnd {
        /// The frontier.
        frontier: u32,
        /// The blob's chunks.
        chunks: u32,
    },
    /// Links under an epoch that the announcer never held.
    #[error("links of epoch {epoch} from a node that never held that lease")]
    NotTheHolder {
        /// The epoch.
        epoch: u64,
    },
    /// Links that can't be the announcer's, or not of this blob.
    #[error("links of another publisher, another blob, or of chunks that the blob doesn't have")]
    ForeignLinks,
    /// The link of the last chunk is the digest, and this one isn't.
    #[error("the last chunk's link is not the digest")]
    FalseLastLink,
    /// More batches than one announce may carry.
    #[error("{found} batches of links in one announce (at most {limit})")]
    TooManyLinks {
        /// What came.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// More names than one announce may accuse.
    #[error("{found} nodes accused in one announce (at most {limit})")]
    TooManyAccused {
        /// What came.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The tracker's table of blobs is full.
    #[error("the tracker knows as many blobs as it can ({limit})")]
    TooManyBlobs {
        /// The limit.
        limit: usize,
    },
    /// The node is a member of as many swarms as one may be.
    #[error("the node is a member of as many swarms as one may be ({limit})")]
    TooManyMemberships {
        /// The limit.
        limit: usize,
    },
}

impl AnnounceError {
    /// A name for counters: one of a closed set.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Banned => "banned",
            Self::SizeContradicts { .. } => "size_contradicts",
            Self::Geometry(_) => "geometry",
            Self::BitmapLength { .. } => "bitmap_length",
            Self::CompletedWithChunksMissing => "completed_with_chunks_missing",
            Self::FrontierBeyondEnd { .. } => "frontier_beyond_end",
            Self::NotTheHolder { .. } => "not_the_holder",
            Self::ForeignLinks => "foreign_links",
            Self::FalseLastLink => "false_last_link",
            Self::TooManyLinks { .. } => "too_many_links",
            Self::TooManyAccused { .. } => "too_many_accused",
            Self::TooManyBlobs { .. } => "too_many_blobs",
            Self::TooManyMemberships { .. } => "too_many_memberships",
        }
    }
}
