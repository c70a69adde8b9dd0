//! What a store may answer instead of doing what it was asked.

use std::io;

use shoal_types::ChunkIndex;

/// Why a store didn't do it. Whatever it is, what was verified before still is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room: pass the bytes through without storing them, or call [`crate::Store::make_room`].
    #[error("no room in the store: {shortage}, {lacking_bytes} bytes too little")]
    Full {
        /// What ran out.
        shortage: Shortage,
        /// How much is lacking; 0 where nobody knows.
        lacking_bytes: u64,
    },
    /// The store doesn't have the blob, or no longer.
    #[error("the store doesn't have the blob")]
    Absent,
    /// The blob is here with another size: one of the two isn't true.
    #[error("the blob is in the store with {stored} bytes, not {given}")]
    OtherSize {
        /// The size with which it was begun.
        stored: u64,
        /// The size that was given now.
        given: u64,
    },
    /// A chunk has not as many bytes as the blob's geometry says.
    #[error("chunk {chunk} has {expected} bytes, not {given}")]
    ChunkLength {
        /// The chunk.
        chunk: ChunkIndex,
        /// What the geometry says.
        expected: u32,
        /// What was given.
        given: usize,
    },
    /// A byte was asked for whose chunk isn't here, or isn't verified.
    #[error("chunk {chunk} is not verified here")]
    NotVerified {
        /// The first such chunk.
        chunk: ChunkIndex,
    },
    /// Bytes beyond the blob's end were asked for.
    #[error("{offset}+{len} is beyond the blob's {size_bytes} bytes")]
    BeyondTheEnd {
        /// Where the range starts.
        offset: u64,
        /// How many bytes it has.
        len: usize,
        /// The blob's size.
        size_bytes: u64,
    },
    /// The blob can't be sealed: chunks are missing.
    #[error("{missing} chunks are not verified yet")]
    Incomplete {
        /// How many.
        missing: u32,
    },
    /// The blob can't be sealed: this chunk doesn't start where the one before it ends. One of them passed under a false link, so the
    /// blob's chain has failed.
    #[error("chunk {chunk} was proven from another link than the one before it ends with: the chain is false")]
    FalseChain {
        /// The later one of the two.
        chunk: ChunkIndex,
    },
    /// More links than any honest swarm publishes for a blob.
    #[error("the blob's links are more than {limit_bytes} bytes: no more are kept")]
    TooManyLinks {
        /// How many bytes are kept.
        limit_bytes: u64,
    },
    /// The operating system failed.
    #[error("the store can't {doing}: {source}")]
    Io {
        /// What the store was about to do.
        doing: &'static str,
        /// The error.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the bytes may be passed on, but not kept.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// An error of the operating system; a full device is told apart from the others.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { shortage: Shortage::Device, lacking_bytes: 0 }
            }
            _ => Self::Io { doing, source },
        }
    }
}

/// What a store ran out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// Its quota of own bytes.
    Quota,
    /// The part of the file system that it leaves free.
    KeepFree,
    /// The device itself, or a quota of the file system.
    Device,
    /// The number of blobs that it keeps track of.
    Blobs,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quota => "its quota is used up",
            Self::KeepFree => "the rest of the file system is to stay free",
            Self::Device => "the device is full",
            Self::Blobs => "it has as many blobs as it may",
        })
    }
}
