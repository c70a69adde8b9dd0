//! Verifying one chunk between two links: in any order, on any thread.
//!
//! State: the hash of one chunk, as far as its bytes came.
//! Invariants: a chunk passes only if all its bytes came, no more, and they lead from its first link to its second.
//! Absent on purpose: blame. Under links that are false themselves a right chunk fails.

use shoal_types::{BlobInfo, ChunkIndex};

use crate::proof::{ChunkHasher, check_algorithm};
use crate::{ChunkProof, Link, StartError};

/// Whether `data` is this chunk, if the chunk before it ends at `before` and it should end at `after`.
///
/// Chunk 0 starts at the hash's initial state, whatever `before` says, and the last chunk ends at the blob's digest, whatever
/// `after` says.
///
/// # Errors
/// If it isn't, or can't be told because the chunk or the links are not the blob's.
pub fn verify_chunk(
    blob: &BlobInfo,
    chunk: ChunkIndex,
    data: &[u8],
    before: Link,
    after: Link,
) -> Result<ChunkProof, BadChunk> {
    let mut verifier = ChunkVerifier::new(blob, chunk, before, after)?;
    // A chunk that is too short is not worth hashing.
    verifier.check_missing(data.len())?;
    verifier.update(data)?;
    verifier.finish()
}

/// Verifies a chunk while it arrives.
#[derive(Clone, Debug)]
pub struct ChunkVerifier {
    hasher: ChunkHasher,
    after: Link,
}

impl ChunkVerifier {
    /// A verifier at the chunk's first byte. Its links are those of [`verify_chunk`].
    ///
    /// # Errors
    /// If the blob has no such chunk, or another hash than the links.
    pub fn new(blob: &BlobInfo, chunk: ChunkIndex, before: Link, after: Link) -> Result<Self, StartError> {
        let hasher = ChunkHasher::new(*blob, chunk, before)?;
        let after = if hasher.is_last() { blob.digest.into() } else { after };
        check_algorithm(blob, after)?;
        Ok(Self { hasher, after })
    }

    /// How many bytes of the chunk are still to come.
    #[must_use]
    pub const fn missing_bytes(&self) -> u32 {
        self.hasher.missing()
    }

    /// Hashes the chunk's next bytes.
    ///
    /// # Errors
    /// If the chunk doesn't have so many. Then none of them was taken.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), BadChunk> {
        if piece.len() > self.hasher.missing() as usize {
            return Err(BadChunk::TooLong { chunk: self.hasher.chunk() });
        }
        self.hasher.absorb(piece);
        Ok(())
    }

    /// The proof that the chunk is right.
    ///
    /// # Errors
    /// If bytes are missing, or they don't lead to the link.
    pub fn finish(self) -> Result<ChunkProof, BadChunk> {
        self.check_missing(0)?;
        let Self { hasher, after } = self;
        let mismatch = BadChunk::Mismatch { chunk: hasher.chunk() };
        hasher.finish().ok().filter(|proof| proof.link_after() == after).ok_or(mismatch)
    }

    /// Whether the chunk is complete with `more` bytes, or would have too many.
    fn check_missing(&self, more: usize) -> Result<(), BadChunk> {
        match (self.hasher.missing() as usize).saturating_sub(more) {
            0 => Ok(()),
            missing => Err(BadChunk::TooShort { chunk: self.hasher.chunk(), missing }),
        }
    }
}

/// Why a chunk doesn't pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// It can't be told: nothing was hashed, and whoever sent the chunk is not to blame.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It has more bytes than the blob's geometry says.
    #[error("chunk {chunk} is too long")]
    TooLong {
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// It has fewer.
    #[error("chunk {chunk} lacks {missing} bytes")]
    TooShort {
        /// The chunk.
        chunk: ChunkIndex,
        /// How many.
        missing: usize,
    },
    /// Its bytes, or one of its links, are others.
    #[error("chunk {chunk} doesn't lead from its first link to its second")]
    Mismatch {
        /// The chunk.
        chunk: ChunkIndex,
    },
}
