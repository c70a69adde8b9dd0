//! Content without bytes: a toy hash with the real chain's structure.
//!
//! A chunk is a *variant*: [`TRUE`] is the origin's content, anything else is somebody's invention. A link is made from the link
//! before it, the chunk's index and its variant, and the digest is the last link. So a wrong chunk fails under right links, passes
//! under links made for it, and then fails against the digest, as with SHA-256.
//!
//! State: none. Invariants: the same inputs give the same link.
//! Absent on purpose: bytes, and signatures: nobody here forges one.

use std::ops::Range;

use shoal_chain::{Link, LinkBatch, LinkRun, Signature, SignedLinks, VerifiedLinks};
use shoal_types::{Algorithm, BlobInfo, BlobKey, ChunkIndex, ChunkSize, Digest, Geometry, NodeId, Rng};

use super::chunk;

/// What a chunk's content is.
pub(crate) type Variant = u8;

/// The origin's content.
pub(crate) const TRUE: Variant = 0;

/// What a liar sends.
pub(crate) const LIE: Variant = 1;

/// Bytes of each chunk.
pub(crate) const CHUNK_BYTES: u64 = 64 << 10;

/// A blob's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    name: u64,
    pub(crate) blob: BlobInfo,
}

impl Content {
    /// A blob of this many chunks, all of them full.
    pub(crate) fn new(name: u64, chunks: u32) -> Self {
        let geometry = Geometry::new(u64::from(chunks) * CHUNK_BYTES, ChunkSize::MIN).expect("a small blob");
        let last = links(name, 0..chunks, TRUE).pop().expect("a blob has a chunk");
        let Link::Sha256(bytes) = last else { unreachable!("this content knows one algorithm") };
        Self { name, blob: BlobInfo { digest: Digest::Sha256(bytes), geometry } }
    }

    pub(crate) const fn key(&self) -> BlobKey {
        self.blob.key()
    }

    pub(crate) const fn chunks(&self) -> u32 {
        self.blob.geometry.chunk_count()
    }

    /// The link that a chunk of this variant gives.
    pub(crate) fn link_after(&self, before: Option<Link>, chunk: ChunkIndex, variant: Variant) -> Link {
        link_after(self.name, before, chunk, variant)
    }

    /// The links of these chunks, signed in one batch, if all content from the first chunk on is of this variant.
    pub(crate) fn batch(&self, epoch: u64, publisher: NodeId, chunks: Range<u32>, variant: Variant) -> VerifiedLinks {
        let first = chunks.start;
        let links = links(self.name, 0..chunks.end, variant);
        let bytes = links[first as usize..].iter().flat_map(|link| link.as_bytes().to_vec()).collect();
        let run = LinkRun::new(Algorithm::Sha256, chunk(first), bytes).expect("whole links");
        self.signed(epoch, publisher, run)
    }

    /// The true links of these chunks, each signed on its own.
    pub(crate) fn singles(&self, epoch: u64, publisher: NodeId, chunks: Range<u32>) -> Vec<VerifiedLinks> {
        chunks.map(|index| self.batch(epoch, publisher, index..index + 1, TRUE)).collect()
    }

    /// A signed run of links.
    pub(crate) fn signed(&self, epoch: u64, publisher: NodeId, run: LinkRun) -> VerifiedLinks {
        let batch = LinkBatch { blob: self.blob, epoch, run };
        VerifiedLinks::trusted(SignedLinks { batch, publisher, signature: Signature([7; 64]) })
    }

    /// The links of all chunks but the last, whose link is the digest.
    pub(crate) fn whole_chain(&self, epoch: u64, publisher: NodeId) -> Vec<VerifiedLinks> {
        let last = self.chunks() - 1;
        if last == 0 { Vec::new() } else { vec![self.batch(epoch, publisher, 0..last, TRUE)] }
    }
}

fn links(name: u64, chunks: Range<u32>, variant: Variant) -> Vec<Link> {
    let step = |before: &mut Option<Link>, index| {
        *before = Some(link_after(name, *before, chunk(index), variant));
        *before
    };
    chunks.scan(None, step).collect()
}

fn link_after(name: u64, before: Option<Link>, chunk: ChunkIndex, variant: Variant) -> Link {
    let mut head = [0; 8];
    if let Some(before) = before {
        head.copy_from_slice(&before.as_bytes()[..8]);
    }
    let mixed = u64::from_be_bytes(head)
        .wrapping_add(name.rotate_left(17))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(chunk.get()) << 8 | u64::from(variant));
    let mut rng = Rng::new(mixed);
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_be_bytes()));
    Link::Sha256(bytes)
}
