//! Closing a chain: collecting the proofs of a blob's chunks, in any order, until there is one of each.
//!
//! State: which chunks are proven, and the links on both sides of those.
//! Invariants: neighbouring proofs agree on the link between them. So when none is missing, they lead from the hash's initial
//! state to the digest without a gap, which is what the ordinary hash does.
//! Absent on purpose: links that nobody has proven yet, and the choice between proofs that contradict each other.

use std::fmt;

use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSet};

use crate::{Chain, ChunkProof, ClosedChain, Link, LinkRun};

/// The part of a blob's chain that is proven.
#[derive(Clone)]
pub struct OpenChain {
    blob: BlobInfo,
    /// A place for every link: at most [`shoal_types::Geometry::MAX_CHUNKS`] of 64 bytes, 16 KiB for 1 GiB in chunks of 2 MiB.
    links: Vec<u8>,
    proven: ChunkSet,
}

impl OpenChain {
    /// No proof yet.
    #[must_use]
    pub fn new(blob: BlobInfo) -> Self {
        let link_bytes = blob.digest.algorithm().digest_bytes();
        let links = vec![0; blob.geometry.chunk_count() as usize * link_bytes];
        let mut chain = Self { blob, links, proven: ChunkSet::empty_of(blob.geometry) };
        chain.put(blob.geometry.last_chunk(), blob.digest.into());
        chain
    }

    /// Adds a chunk's proof.
    ///
    /// # Errors
    /// If it is of another blob, or contradicts what its neighbours prove. Then nothing has changed.
    pub fn add(&mut self, proof: &ChunkProof) -> Result<(), ProofError> {
        if *proof.blob() != self.blob {
            return Err(ProofError::OtherBlob);
        }
        let chunk = proof.chunk();
        let previous = chunk.get().checked_sub(1).map(ChunkIndex::new);
        let ends = [previous.map(|previous| (previous, proof.link_before())), Some((chunk, proof.link_after()))];
        for (of, link) in ends.into_iter().flatten() {
            if self.link(of).is_some_and(|known| known != link) {
                return Err(ProofError::Contradiction { chunk, link_of: of });
            }
        }
        for (of, link) in ends.into_iter().flatten() {
            self.put(of, link);
        }
        self.proven.insert(chunk);
        Ok(())
    }

    /// Takes a chunk's proof back, because the links under which it was verified are withdrawn; whether there was one.
    pub fn forget(&mut self, chunk: ChunkIndex) -> bool {
        self.proven.remove(chunk)
    }

    /// The chunks that are proven.
    #[must_use]
    pub const fn proven(&self) -> &ChunkSet {
        &self.proven
    }

    /// The link of this chunk, if it or the chunk after it is proven. The last chunk's is the digest.
    #[must_use]
    pub fn link(&self, chunk: ChunkIndex) -> Option<Link> {
        let geometry = self.blob.geometry;
        let known = geometry.contains(chunk)
            && (chunk == geometry.last_chunk() || self.proven.contains(chunk) || self.proven.contains(chunk.next()));
        known.then(|| {
            let bytes = &self.links[self.place(chunk)];
            Link::from_bytes(self.algorithm(), bytes).expect("a place has a link's size")
        })
    }

    /// The closed chain.
    ///
    /// # Errors
    /// If a chunk isn't proven. The proofs are lost then: [`Self::proven`] tells beforehand.
    pub fn close(self) -> Result<ClosedChain, StillOpen> {
        if let Some(first) = self.proven.iter_missing().next() {
            return Err(StillOpen { missing: self.proven.capacity() - self.proven.len(), first });
        }
        let links = LinkRun::new(self.algorithm(), ChunkIndex::new(0), self.links).expect("one link a chunk");
        Ok(ClosedChain::new(Chain::new(self.blob, links).expect("all links, the last one the digest")))
    }

    const fn algorithm(&self) -> Algorithm {
        self.blob.digest.algorithm()
    }

    fn place(&self, chunk: ChunkIndex) -> std::ops::Range<usize> {
        let link_bytes = self.algorithm().digest_bytes();
        let at = chunk.as_usize() * link_bytes;
        at..at + link_bytes
    }

    fn put(&mut self, chunk: ChunkIndex, link: Link) {
        let place = self.place(chunk);
        self.links[place].copy_from_slice(link.as_bytes());
    }
}

impl fmt::Debug for OpenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} chunks of {} proven", self.proven.len(), self.proven.capacity(), self.blob.digest)
    }
}

/// Why a chunk's proof doesn't belong to a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is of another blob, or of one that is cut in another way.
    #[error("the proof is of another blob")]
    OtherBlob,
    /// Another proof says otherwise: one of the two was verified under a false link.
    #[error("the proof of chunk {chunk} contradicts another one about the link of chunk {link_of}")]
    Contradiction {
        /// The proof's chunk.
        chunk: ChunkIndex,
        /// Whose link is said to be two things.
        link_of: ChunkIndex,
    },
}

/// Chunks of a chain are not proven yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{missing} chunks are not proven yet, the first is {first}")]
pub struct StillOpen {
    missing: u32,
    first: ChunkIndex,
}
