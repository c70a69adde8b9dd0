//! Blobs with their proofs, and directories that clean up behind themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest as _, Sha256};
use shoal_chain::{ChainBuilder, ChunkProof, Link};
use shoal_store::{Limits, Percent, Store, StoreError};
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, Rng};

pub(crate) const CHUNK: u64 = 64 << 10;

/// A blob that is known from its first byte to its last.
pub(crate) struct Content {
    pub(crate) info: BlobInfo,
    pub(crate) bytes: Vec<u8>,
    pub(crate) proofs: Vec<ChunkProof>,
}

impl Content {
    /// A blob of so many bytes, in chunks of [`CHUNK`].
    pub(crate) fn new(seed: u64, size_bytes: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut bytes: Vec<u8> = (0..size_bytes.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        bytes.truncate(usize::try_from(size_bytes).unwrap());
        let digest = Digest::Sha256(Sha256::digest(&bytes).into());
        let info = BlobInfo { digest, geometry: Geometry::new(size_bytes, ChunkSize::MIN).unwrap() };
        let mut proofs = Vec::new();
        let mut builder = ChainBuilder::new(info);
        builder.push(&bytes, |proof| proofs.push(proof)).unwrap();
        proofs.push(builder.finish().unwrap());
        Self { info, bytes, proofs }
    }

    pub(crate) fn chunks(seed: u64, chunks: u64) -> Self {
        Self::new(seed, chunks * CHUNK)
    }

    pub(crate) fn key(&self) -> BlobKey {
        self.info.key()
    }

    pub(crate) fn chunk(&self, chunk: u32) -> &[u8] {
        let range = self.info.geometry.byte_range(ChunkIndex::new(chunk)).unwrap();
        let start = usize::try_from(range.start).unwrap();
        &self.bytes[start..start + range.len as usize]
    }

    pub(crate) fn keep_in(&self, store: &dyn Store, chunk: u32) -> Result<(), StoreError> {
        store.keep(&self.proofs[chunk as usize], self.chunk(chunk))
    }

    /// Begins the blob and keeps these chunks.
    pub(crate) fn store_in(&self, store: &dyn Store, chunks: impl IntoIterator<Item = u32>) {
        store.begin(self.info).unwrap();
        chunks.into_iter().for_each(|chunk| self.keep_in(store, chunk).unwrap());
    }

    pub(crate) fn count(&self) -> u32 {
        self.info.geometry.chunk_count()
    }

    /// Reads every chunk: those in `expected` are right, the others are refused.
    pub(crate) fn check_in(&self, store: &dyn Store, expected: &ChunkSet) {
        for chunk in self.info.geometry.chunks() {
            let range = self.info.geometry.byte_range(chunk).unwrap();
            let mut buf = vec![0; range.len as usize];
            match store.read_at(&self.key(), range.start, &mut buf) {
                Ok(()) => assert!(buf == self.chunk(chunk.get()), "wrong bytes in chunk {chunk}"),
                Err(StoreError::NotVerified { chunk: named }) => assert_eq!(named, chunk),
                Err(error) => panic!("chunk {chunk}: {error}"),
            }
            assert_eq!(
                store.read_at(&self.key(), range.start, &mut buf).is_ok(),
                expected.contains(chunk) || range.len == 0
            );
        }
    }

    /// A proof for other bytes in a chunk's place, as a lying lead's links would give it: it joins none of the others.
    pub(crate) fn false_proof(&self, chunk: u32) -> (ChunkProof, Vec<u8>) {
        let mut bytes = self.chunk(chunk).to_vec();
        bytes[0] ^= 1;
        let before = Link::Sha256([7; 32]);
        let mut builder = ChainBuilder::resume(self.info, ChunkIndex::new(chunk), before).unwrap();
        let mut proof = None;
        builder.push(&bytes, |made| proof = Some(made)).unwrap();
        (proof.expect("not the last chunk"), bytes)
    }
}

pub(crate) fn set(count: u32, chunks: impl IntoIterator<Item = u32>) -> ChunkSet {
    let mut set = ChunkSet::empty(count);
    chunks.into_iter().for_each(|chunk| assert!(set.insert(ChunkIndex::new(chunk))));
    set
}

/// Limits that a test's file system meets, however full it is.
pub(crate) fn limits(quota_bytes: u64) -> Limits {
    Limits { keep_free: Percent::ZERO, ..Limits::new(quota_bytes) }
}

pub(crate) const NO_QUOTA: u64 = 1 << 40;

/// A directory of its own, gone when this is.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("shoal-store-{}-{number}", std::process::id()));
        // An earlier process of the same id may have been killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of a store's blobs that end so.
pub(crate) fn blob_files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}
