//! Whole chains: every link of a blob, as somebody says or as proven.
//!
//! State: the links, packed.
//! Invariants: a chain has as many links as the blob has chunks, of the blob's algorithm, and the last is the digest. A closed
//! one comes from [`crate::OpenChain::close`] alone, so there are bytes of the blob's size that have these links and the digest.
//! Absent on purpose: partly known chains. What is known of those, and from whom, is the engine's matter.

use std::fmt;

use shoal_types::{BlobInfo, ChunkIndex};

use crate::proof::no_such_chunk;
use crate::{BadChunk, ChunkProof, Link, LinkRun, verify_chunk};

/// All links of a blob. They may be false: only a [`ClosedChain`]'s are proven.
#[derive(Clone, PartialEq, Eq)]
pub struct Chain {
    blob: BlobInfo,
    links: LinkRun,
}

impl Chain {
    /// The chain with these links.
    ///
    /// # Errors
    /// If they can't be this blob's: not one a chunk from chunk 0 on, another hash's, or the last isn't the digest.
    pub fn new(blob: BlobInfo, links: LinkRun) -> Result<Self, ChainError> {
        let chunks = blob.geometry.chunk_count();
        if links.algorithm() != blob.digest.algorithm() {
            return Err(ChainError::Algorithm);
        }
        if links.first() != ChunkIndex::new(0) || links.count() != chunks {
            return Err(ChainError::Extent { first: links.first(), count: links.count(), chunks });
        }
        if links.get(blob.geometry.last_chunk()) != Some(blob.digest.into()) {
            return Err(ChainError::LastLink);
        }
        Ok(Self { blob, links })
    }

    /// The blob.
    #[must_use]
    pub const fn blob(&self) -> &BlobInfo {
        &self.blob
    }

    /// Its links, to keep or to publish.
    #[must_use]
    pub const fn links(&self) -> &LinkRun {
        &self.links
    }

    /// The link at which this chunk starts; none if the blob doesn't have the chunk.
    #[must_use]
    pub fn link_before(&self, chunk: ChunkIndex) -> Option<Link> {
        match chunk.get().checked_sub(1) {
            None => Some(Link::initial(self.blob.digest.algorithm())),
            Some(previous) if self.blob.geometry.contains(chunk) => self.links.get(ChunkIndex::new(previous)),
            Some(_) => None,
        }
    }

    /// The link at which this chunk ends; none if the blob doesn't have the chunk.
    #[must_use]
    pub fn link_after(&self, chunk: ChunkIndex) -> Option<Link> {
        self.links.get(chunk)
    }

    /// Whether `data` is this chunk, if the chain's two links beside it are right.
    ///
    /// # Errors
    /// As [`verify_chunk`].
    pub fn verify(&self, chunk: ChunkIndex, data: &[u8]) -> Result<ChunkProof, BadChunk> {
        let (Some(before), Some(after)) = (self.link_before(chunk), self.link_after(chunk)) else {
            return Err(no_such_chunk(&self.blob, chunk).into());
        };
        verify_chunk(&self.blob, chunk, data, before, after)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.links, self.blob.digest)
    }
}

/// A chain whose every chunk was verified, the last one against the digest: a chunk that fails under it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedChain(Chain);

impl ClosedChain {
    pub(crate) const fn new(proven: Chain) -> Self {
        Self(proven)
    }

    /// Its links.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.0
    }

    /// Its links, without the knowledge that they are right.
    #[must_use]
    pub fn into_chain(self) -> Chain {
        self.0
    }
}

/// Why links can't be a blob's chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// They are another hash's states than the digest is.
    #[error("the links are of another algorithm than the digest")]
    Algorithm,
    /// They aren't those of all chunks.
    #[error("{count} links from chunk {first} on are not the chain of {chunks} chunks")]
    Extent {
        /// The first link's chunk.
        first: ChunkIndex,
        /// How many there are.
        count: u32,
        /// How many chunks the blob has.
        chunks: u32,
    },
    /// The last one isn't the digest.
    #[error("the last link is not the digest")]
    LastLink,
}
