//! Reading blobs: what was verified lately from memory, the rest from the store.
//!
//! A chunk is sent on within moments of its coming, several times, and the runtime's stream often follows closely. From memory that costs
//! neither a copy nor a change of threads.
//!
//! State: the last chunks that were verified, so many bytes of them at most.
//! Invariants: what is in memory was kept in the store first, and is forgotten with it. Nothing here waits for a disk but tasks that may.
//! Absent on purpose: chunks that are read again and again: the kernel's cache has them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shoal_store::{Store, StoreError};
use shoal_types::{BlobInfo, BlobKey, ChunkIndex};

/// What a link of 10 Gbit/s brings in 13 ms: the time in which neighbours hear of a chunk and ask for it is less than a tenth of that. An
/// agent is to stay below 128 MiB.
pub const RECENT_BYTES: usize = 16 << 20;

/// Where bytes are read. A clone reads the same.
#[derive(Clone)]
pub(super) struct Reads {
    store: Arc<dyn Store>,
    recent: Arc<Mutex<Recent>>,
}

struct Recent {
    /// How many bytes it may be.
    most: usize,
    chunks: BTreeMap<(BlobKey, ChunkIndex), Bytes>,
    order: VecDeque<(BlobKey, ChunkIndex)>,
    bytes: usize,
}

impl Reads {
    /// With so many bytes in memory at most: with none every read is the store's.
    pub(super) fn new(store: Arc<dyn Store>, recent_bytes: usize) -> Self {
        Self { store, recent: Arc::new(Mutex::new(Recent::new(recent_bytes))) }
    }

    /// A chunk was verified and is in the store.
    pub(super) fn kept(&self, key: BlobKey, chunk: ChunkIndex, bytes: Bytes) {
        self.recent().insert((key, chunk), bytes);
    }

    /// The store has removed a blob, or is about to.
    pub(super) fn forget(&self, key: BlobKey) {
        self.recent().forget(key);
    }

    /// Bytes within one chunk of a blob.
    pub(super) async fn read(&self, blob: &BlobInfo, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.remembered(blob, offset, length) {
            return Ok(bytes);
        }
        let (store, key) = (Arc::clone(&self.store), blob.key());
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            store.read_at(&key, offset, &mut bytes).map(|()| Bytes::from(bytes))
        });
        let ended = |error| StoreError::Io { doing: "read a chunk", source: io::Error::other(error) };
        read.await.map_err(ended)?
    }

    fn remembered(&self, blob: &BlobInfo, offset: u64, length: usize) -> Option<Bytes> {
        let chunk = blob.geometry.chunk_at(offset)?;
        let start = usize::try_from(offset - blob.geometry.byte_range(chunk)?.start).ok()?;
        let bytes = self.recent().chunks.get(&(blob.key(), chunk))?.clone();
        let end = start.checked_add(length).filter(|end| *end <= bytes.len())?;
        Some(bytes.slice(start..end))
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    const fn new(most: usize) -> Self {
        Self { most, chunks: BTreeMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    fn insert(&mut self, id: (BlobKey, ChunkIndex), bytes: Bytes) {
        self.bytes += bytes.len();
        match self.chunks.insert(id, bytes) {
            Some(old) => self.bytes -= old.len(),
            None => self.order.push_back(id),
        }
        while self.bytes > self.most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.chunks.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    fn forget(&mut self, key: BlobKey) {
        self.order.retain(|(of, _)| *of != key);
        let bytes = &mut self.bytes;
        self.chunks.retain(|(of, _), chunk| {
            let stays = *of != key;
            *bytes -= if stays { 0 } else { chunk.len() };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use shoal_store::{Limits, MemoryStore};
    use shoal_types::{ChunkSize, Digest, Geometry};

    use super::*;

    fn blob(number: u8) -> BlobInfo {
        let size = 64 << 20;
        BlobInfo { digest: Digest::Sha256([number; 32]), geometry: Geometry::new(size, ChunkSize::MAX).unwrap() }
    }

    #[tokio::test]
    async fn what_was_kept_lately_is_read_without_the_store() {
        let reads = Reads::new(Arc::new(MemoryStore::new(Limits::new(1 << 30))), RECENT_BYTES);
        let chunk = blob(1).geometry.chunk_size().bytes();
        let kept = Bytes::from((0..chunk).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        let start = u64::from(chunk);
        assert!(reads.read(&blob(1), start, 1).await.is_err(), "the store is empty");
        reads.kept(blob(1).key(), ChunkIndex::new(1), kept.clone());
        assert_eq!(reads.read(&blob(1), start + 5, 10).await.unwrap(), kept.slice(5..15));
        assert_eq!(reads.read(&blob(1), start, kept.len()).await.unwrap(), kept);
        assert!(reads.read(&blob(1), start + 5, kept.len()).await.is_err(), "beyond the chunk");
        assert!(reads.read(&blob(2), start, 1).await.is_err(), "another blob");
        reads.forget(blob(1).key());
        assert!(reads.read(&blob(1), start, 1).await.is_err());
    }

    #[test]
    fn only_the_last_few_chunks_are_remembered() {
        let mut recent = Recent::new(RECENT_BYTES);
        let bytes = Bytes::from(vec![0; RECENT_BYTES / 4]);
        for index in [0, 1, 2, 3, 3, 4, 5] {
            recent.insert((blob(1).key(), ChunkIndex::new(index)), bytes.clone());
        }
        let left: Vec<u32> = recent.chunks.keys().map(|(_, chunk)| chunk.get()).collect();
        assert_eq!(left, [2, 3, 4, 5]);
        assert_eq!((recent.bytes, recent.order.len()), (RECENT_BYTES, 4));
        recent.insert((blob(2).key(), ChunkIndex::new(0)), Bytes::from_static(b"x"));
        recent.forget(blob(1).key());
        assert_eq!((recent.bytes, recent.order.len(), recent.chunks.len()), (1, 1, 1));
        let mut nothing = Recent::new(0);
        nothing.insert((blob(1).key(), ChunkIndex::new(0)), bytes);
        assert_eq!((nothing.bytes, nothing.order.len(), nothing.chunks.len()), (0, 0, 0));
    }
}
