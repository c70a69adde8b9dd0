//! What the benchmark and the ratios measure: a blob hashed at once, in order as a chain, and chunk by chunk on some threads.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256, Sha512};
use shoal_chain::{Chain, ChainBuilder, OpenChain};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Digest, Geometry, Rng};

/// Larger than any cache, as the blobs of images are, and hashed in well under a second.
const BLOB_BYTES: usize = 64 << 20;

/// What a stream hands over at a time: the buffer of an HTTP body or a file.
const PIECE_BYTES: usize = 64 << 10;

/// A blob in memory with its chain.
pub(crate) struct Workload {
    bytes: Vec<u8>,
    chain: Chain,
    order: Vec<ChunkIndex>,
}

impl Workload {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let mut rng = Rng::new(1);
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| rng.next_u64().to_le_bytes()).flatten().take(BLOB_BYTES).collect();
        let size = bytes.len() as u64;
        let geometry = Geometry::new(size, ChunkSize::for_blob(size)).expect("a size within the bound");
        let blob = BlobInfo { digest: digest(algorithm, &bytes), geometry };

        let mut builder = ChainBuilder::new(blob);
        let mut open = OpenChain::new(blob);
        builder.push(&bytes, |proof| open.add(&proof).expect("proofs in order fit")).expect("as many bytes");
        open.add(&builder.finish().expect("the digest of the bytes")).expect("proofs in order fit");
        let chain = open.close().expect("every chunk is proven").into_chain();

        let mut order: Vec<ChunkIndex> = geometry.chunks().collect();
        rng.shuffle(&mut order);
        Self { bytes, chain, order }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The ordinary hash, in one call.
    pub(crate) fn one_shot(&self) {
        black_box(digest(self.chain.blob().digest.algorithm(), black_box(&self.bytes)));
    }

    /// The chain from a stream, whose links somebody takes.
    pub(crate) fn in_order(&self) {
        let mut builder = ChainBuilder::new(*self.chain.blob());
        for piece in black_box(&self.bytes).chunks(PIECE_BYTES) {
            let publish = |proof| {
                black_box(proof);
            };
            builder.push(piece, publish).expect("as many bytes");
        }
        black_box(builder.finish()).expect("the digest of the bytes");
    }

    /// Every chunk once, in random order, by so many threads.
    pub(crate) fn out_of_order(&self, threads: usize) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(chunk) = self.order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let range = self.chain.blob().geometry.byte_range(*chunk).expect("a chunk of the blob");
                let start = usize::try_from(range.start).expect("the blob is in memory");
                let data = black_box(&self.bytes[start..][..range.len as usize]);
                black_box(self.chain.verify(*chunk, data)).expect("the chunk is right");
            }
        };
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::Sha256(Sha256::digest(bytes).into()),
        Algorithm::Sha512 => Digest::Sha512(Sha512::digest(bytes).into()),
    }
}
