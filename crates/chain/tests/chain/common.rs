//! Blobs of random bytes, with what the ordinary hash says about them.

use std::fmt;

use sha2::{Digest as _, Sha256, Sha512};
use shoal_chain::{Chain, ChainBuilder, ClosedChain, OpenChain};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Digest, Geometry, Rng};

/// A blob with its bytes.
pub(crate) struct Blob {
    pub(crate) info: BlobInfo,
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Blob {
    /// Without the bytes: the seed in a failing case gives them again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl Blob {
    pub(crate) fn random(algorithm: Algorithm, size: usize, chunk_size: ChunkSize, rng: &mut Rng) -> Self {
        let bytes = std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).flatten().take(size).collect();
        Self::of(algorithm, bytes, chunk_size)
    }

    pub(crate) fn of(algorithm: Algorithm, bytes: Vec<u8>, chunk_size: ChunkSize) -> Self {
        let geometry = Geometry::new(bytes.len() as u64, chunk_size).unwrap();
        Self { info: BlobInfo { digest: ordinary_digest(algorithm, &bytes), geometry }, bytes }
    }

    pub(crate) fn chunk(&self, chunk: ChunkIndex) -> &[u8] {
        let range = self.info.geometry.byte_range(chunk).unwrap();
        &self.bytes[usize::try_from(range.start).unwrap()..][..range.len as usize]
    }

    /// Its chain, built in order.
    pub(crate) fn closed_chain(&self) -> ClosedChain {
        let mut builder = ChainBuilder::new(self.info);
        let mut open = OpenChain::new(self.info);
        builder.push(&self.bytes, |proof| open.add(&proof).unwrap()).unwrap();
        open.add(&builder.finish().unwrap()).unwrap();
        open.close().unwrap()
    }

    pub(crate) fn chain(&self) -> Chain {
        self.closed_chain().into_chain()
    }
}

pub(crate) fn ordinary_digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::Sha256(Sha256::digest(bytes).into()),
        Algorithm::Sha512 => Digest::Sha512(Sha512::digest(bytes).into()),
    }
}

/// Sizes on both sides of every border that a chain has: nothing, a byte, the places where padding takes a second block, chunks.
pub(crate) fn edge_sizes(chunk: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129];
    for chunks in 1..=3 {
        sizes.extend([chunks * chunk - 1, chunks * chunk, chunks * chunk + 1]);
    }
    sizes
}
