//! The proof that a chunk leads from one link to the next, and the one place where such proofs are made.
//!
//! State: the hash of one chunk, as far as its bytes came.
//! Invariants: chunk 0 starts at the hash's initial state and the last chunk ends at the digest, whatever links callers name, so
//! that no peer's word takes the place of either; nobody else makes a [`ChunkProof`].
//! Absent on purpose: the chunk's bytes.

use std::fmt;

use shoal_types::{Algorithm, BlobInfo, ChunkIndex, Digest};

use crate::Link;
use crate::hasher::Hasher;

/// Proof that a chunk was hashed from one link to the next. If it is the last chunk, its link is the blob's digest.
///
/// It says nothing about where the first of the two links comes from: that is for the proof of the chunk before it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkProof {
    blob: BlobInfo,
    chunk: ChunkIndex,
    before: Link,
    after: Link,
}

impl ChunkProof {
    /// The blob.
    #[must_use]
    pub const fn blob(&self) -> &BlobInfo {
        &self.blob
    }

    /// The chunk.
    #[must_use]
    pub const fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    /// The link from which it was hashed: that of the chunk before it.
    #[must_use]
    pub const fn link_before(&self) -> Link {
        self.before
    }

    /// The chunk's own link.
    #[must_use]
    pub const fn link_after(&self) -> Link {
        self.after
    }
}

impl fmt::Debug for ChunkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {}: {:?} -> {:?}", self.chunk, self.before, self.after)
    }
}

/// Why hashing a chunk can't begin: the question is wrong, not the chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The blob isn't that long.
    #[error("a blob of {chunks} chunks has no chunk {chunk}")]
    NoSuchChunk {
        /// The chunk.
        chunk: ChunkIndex,
        /// How many there are.
        chunks: u32,
    },
    /// The link is another hash's state.
    #[error("a {} link for a {} blob", link.name(), blob.name())]
    Algorithm {
        /// The link's algorithm.
        link: Algorithm,
        /// The blob's.
        blob: Algorithm,
    },
}

/// A chunk being hashed.
#[derive(Clone)]
pub(crate) struct ChunkHasher {
    blob: BlobInfo,
    chunk: ChunkIndex,
    before: Link,
    hasher: Hasher,
    missing: u32,
}

impl ChunkHasher {
    pub(crate) fn new(blob: BlobInfo, chunk: ChunkIndex, before: Link) -> Result<Self, StartError> {
        let range = blob.geometry.byte_range(chunk).ok_or_else(|| no_such_chunk(&blob, chunk))?;
        let before = if chunk.get() == 0 { Link::initial(blob.digest.algorithm()) } else { before };
        check_algorithm(&blob, before)?;
        Ok(Self { blob, chunk, before, hasher: Hasher::new(before), missing: range.len })
    }

    pub(crate) const fn blob(&self) -> &BlobInfo {
        &self.blob
    }

    pub(crate) const fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    pub(crate) fn is_last(&self) -> bool {
        self.chunk == self.blob.geometry.last_chunk()
    }

    pub(crate) const fn missing(&self) -> u32 {
        self.missing
    }

    /// Takes what belongs to this chunk and gives back the rest.
    #[allow(clippy::cast_possible_truncation, reason = "at most what is missing, which is a u32")]
    pub(crate) fn absorb<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let (mine, rest) = piece.split_at(piece.len().min(self.missing as usize));
        self.hasher.absorb(mine);
        self.missing -= mine.len() as u32;
        rest
    }

    /// The proof; or the digest that the blob's bytes have, if this is the last chunk and they haven't the blob's.
    pub(crate) fn finish(self) -> Result<ChunkProof, Digest> {
        assert_eq!(self.missing, 0, "chunk {} is complete", self.chunk);
        let last = self.is_last();
        let Self { blob, chunk, before, hasher, .. } = self;
        if !last {
            return Ok(ChunkProof { blob, chunk, before, after: hasher.link() });
        }
        let after = hasher.padded(blob.geometry.size_bytes());
        if after == blob.digest.into() {
            Ok(ChunkProof { blob, chunk, before, after })
        } else {
            Err(match after {
                Link::Sha256(bytes) => Digest::Sha256(bytes),
                Link::Sha512(bytes) => Digest::Sha512(bytes),
            })
        }
    }
}

impl fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} of {}, {} bytes missing", self.chunk, self.blob.digest, self.missing)
    }
}

pub(crate) const fn no_such_chunk(blob: &BlobInfo, chunk: ChunkIndex) -> StartError {
    StartError::NoSuchChunk { chunk, chunks: blob.geometry.chunk_count() }
}

pub(crate) fn check_algorithm(blob: &BlobInfo, link: Link) -> Result<(), StartError> {
    let (blob, link) = (blob.digest.algorithm(), link.algorithm());
    if blob == link { Ok(()) } else { Err(StartError::Algorithm { link, blob }) }
}
