//! Content without bytes: a toy hash with the real chain's structure.
//!
//! A chunk is a *variant*: 0 is the origin's content, anything else is somebody's invention. A link is made from the link before it, the
//! chunk's index and its variant, and the digest is the last link. So a wrong chunk fails under right links, passes under links
//! made for it, and then fails against the digest, as with SHA-256.
//!
//! State: none. Invariants: the same inputs give the same link.
//! Absent on purpose: bytes; their hashing is charged as time, not done.

use shoal_chain::{Link, LinkBatch, LinkRun, Signature, SignedLinks, VerifiedLinks};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Digest, Geometry, NodeId, Rng};

/// What a chunk's content is: 0 is the origin's.
pub(crate) type Variant = u8;

/// The origin's content.
pub(crate) const TRUE: Variant = 0;

/// A blob of this size, with the digest that its true chunks give.
pub(crate) fn blob(name: u64, geometry: Geometry) -> BlobInfo {
    let placeholder = Digest::Sha256(expand(name));
    let mut before = None;
    for chunk in geometry.chunks() {
        before = Some(link_after(name, before, chunk, TRUE));
    }
    let digest = match before {
        Some(Link::Sha256(bytes)) => Digest::Sha256(bytes),
        _ => placeholder,
    };
    BlobInfo { digest, geometry }
}

/// A geometry for a blob of this size.
pub(crate) fn geometry(size_bytes: u64, chunk_size: ChunkSize) -> Option<Geometry> {
    Geometry::new(size_bytes, chunk_size).ok()
}

/// The link that a chunk of this variant gives.
pub(crate) fn link_after(name: u64, before: Option<Link>, chunk: ChunkIndex, variant: Variant) -> Link {
    let mut head = [0_u8; 8];
    if let Some(before) = before {
        head.copy_from_slice(&before.as_bytes()[..8]);
    }
    let mixed = u64::from_be_bytes(head)
        .wrapping_add(name.rotate_left(17))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(chunk.get()) << 8 | u64::from(variant));
    match Link::from_bytes(Algorithm::Sha256, &expand(mixed)) {
        Ok(link) => link,
        Err(error) => unreachable!("32 bytes are a link: {error}"),
    }
}

/// The links of a whole blob, as the origin would sign them if it were a peer: eight at a time, as a lead's are merged.
pub(crate) fn chain(name: u64, blob: BlobInfo, publisher: NodeId) -> Vec<VerifiedLinks> {
    let mut before = None;
    let inner: Vec<ChunkIndex> = blob.geometry.chunks().filter(|chunk| *chunk != blob.geometry.last_chunk()).collect();
    let mut sign = |chunks: &[ChunkIndex]| {
        let mut bytes = Vec::new();
        for &chunk in chunks {
            let link = link_after(name, before, chunk, TRUE);
            bytes.extend_from_slice(link.as_bytes());
            before = Some(link);
        }
        let run = LinkRun::new(blob.digest.algorithm(), chunks[0], bytes);
        let run = run.unwrap_or_else(|error| unreachable!("eight links are a run: {error}"));
        let batch = LinkBatch { blob, epoch: 1, run };
        VerifiedLinks::trusted(SignedLinks { batch, publisher, signature: Signature([0; 64]) })
    };
    inner.chunks(8).map(&mut sign).collect()
}

fn expand(seed: u64) -> [u8; 32] {
    let mut rng = Rng::new(seed);
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_be_bytes()));
    bytes
}
