//! Building a chain: from bytes in order, in pieces of any size.
//!
//! State: the hash of the chunk at which it stands.
//! Invariants: it hashes every byte once; it owns no heap, and keeps of its input less than one block.
//! Absent on purpose: the links that it gave out. [`crate::OpenChain`] collects them, if anyone wants to keep them.

use shoal_types::{BlobInfo, ChunkIndex, Digest};

use crate::proof::ChunkHasher;
use crate::{ChunkProof, Link, StartError};

/// Hashes a blob's bytes in order and tells the links as it goes.
#[derive(Clone, Debug)]
pub struct ChainBuilder {
    current: ChunkHasher,
}

impl ChainBuilder {
    /// A builder at the blob's first byte.
    #[must_use]
    pub fn new(blob: BlobInfo) -> Self {
        let start = Link::initial(blob.digest.algorithm());
        Self::resume(blob, ChunkIndex::new(0), start).expect("every blob has a chunk 0, and its own hash")
    }

    /// A builder at the first byte of `next`: somebody else has hashed what is before it and came to `link_before`. If that is
    /// false, so are the links from here on, and the digest won't be the blob's.
    ///
    /// # Errors
    /// If the blob has no such chunk, or another hash than the link.
    pub fn resume(blob: BlobInfo, next: ChunkIndex, link_before: Link) -> Result<Self, StartError> {
        Ok(Self { current: ChunkHasher::new(blob, next, link_before)? })
    }

    /// Hashes the next bytes and passes on the proof of every chunk that they complete. The last chunk's comes from
    /// [`Self::finish`].
    ///
    /// # Errors
    /// If the blob doesn't have so many bytes. Then none of the piece was taken.
    pub fn push(&mut self, piece: &[u8], mut completed: impl FnMut(ChunkProof)) -> Result<(), Overrun> {
        let excess = (piece.len() as u64).saturating_sub(self.missing_bytes());
        if excess > 0 {
            return Err(Overrun { size_bytes: self.current.blob().geometry.size_bytes(), excess });
        }
        let mut rest = piece;
        while !rest.is_empty() {
            rest = self.current.absorb(rest);
            if self.current.missing() == 0 && !self.current.is_last() {
                completed(self.advance());
            }
        }
        Ok(())
    }

    /// How many bytes are still to come.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        let geometry = self.current.blob().geometry;
        let after =
            geometry.byte_range(self.current.chunk().next()).map_or(0, |next| geometry.size_bytes() - next.start);
        u64::from(self.current.missing()) + after
    }

    /// The last chunk's proof: its link is the digest, and the bytes have it. After [`Self::new`] that is the ordinary hash of
    /// all of them.
    ///
    /// # Errors
    /// If bytes are missing, or all came and their digest is another.
    pub fn finish(self) -> Result<ChunkProof, FinishError> {
        match self.missing_bytes() {
            0 => self.current.finish().map_err(|found| FinishError::Digest { found }),
            missing => Err(FinishError::Incomplete { missing }),
        }
    }

    fn advance(&mut self) -> ChunkProof {
        let proof = self.current.clone().finish().expect("only the last chunk is compared with the digest");
        self.current = ChunkHasher::new(*proof.blob(), proof.chunk().next(), proof.link_after())
            .expect("the chunk before it wasn't the last");
        proof
    }
}

/// More bytes came than the blob has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{excess} bytes more than the {size_bytes} that the blob has")]
pub struct Overrun {
    size_bytes: u64,
    excess: u64,
}

/// Why a builder's bytes are not the blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FinishError {
    /// They ended too early.
    #[error("{missing} bytes of the blob are missing")]
    Incomplete {
        /// How many didn't come.
        missing: u64,
    },
    /// They are others, or the link at which the builder resumed was false.
    #[error("the bytes have the digest {found}, not the blob's")]
    Digest {
        /// What they hash to.
        found: Digest,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With nothing to drop there is no heap behind it, so its size is all the memory that it ever has. 512 bytes: the digest,
    /// a link and a state of 64 bytes each, a block of 128, and room for counters; a chunk has 64 KiB.
    #[test]
    fn a_builder_keeps_less_than_a_block_of_its_input() {
        assert!(!std::mem::needs_drop::<ChainBuilder>());
        assert!(size_of::<ChainBuilder>() <= 512, "{}", size_of::<ChainBuilder>());
    }
}
