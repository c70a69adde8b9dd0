//! Chunks' bytes between the connections and the store.
//!
//! State: a chunk that is coming is in memory until it is verified; one that leaves is read piece by piece. Who has sent something lately.
//! Invariants: a chunk that is coming takes no more memory than what has come of it, and never more than its announced length; each
//! connection brings one at a time.
//! Absent on purpose: verification, which follows when the chunk is complete: its links may come later than it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use shoal_store::Store;
use shoal_types::{BlobKey, ChunkIndex, NodeId};

use crate::transport::{ChunkStore, IncomingChunk, OutgoingChunk};

/// Reserved before anything has come: what the first piece brings at most.
const RESERVED: usize = 256 << 10;

/// Who has sent bytes since the room looked last.
pub(super) type Heard = Arc<Mutex<BTreeSet<NodeId>>>;

/// Where connections put chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    heard: Heard,
}

impl Chunks {
    pub(super) fn new(heard: &Heard) -> Self {
        Self { heard: Arc::clone(heard) }
    }
}

impl ChunkStore for Chunks {
    type Incoming = Arriving;
    type Outgoing = Stored;

    fn receive(&self, from: NodeId, _: BlobKey, _: ChunkIndex, length: u32) -> Arriving {
        let bytes = BytesMut::with_capacity((length as usize).min(RESERVED));
        Arriving { bytes, length: length as usize, from, heard: Arc::clone(&self.heard) }
    }
}

/// A chunk that is coming.
#[derive(Debug)]
pub(super) struct Arriving {
    bytes: BytesMut,
    length: usize,
    from: NodeId,
    heard: Heard,
}

impl Arriving {
    /// What has come.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

impl IncomingChunk for Arriving {
    async fn put(&mut self, bytes: Bytes) {
        if self.bytes.capacity() < self.length {
            // Now that some of it has come the rest is worth its place.
            self.bytes.reserve(self.length - self.bytes.len());
        }
        self.bytes.extend_from_slice(&bytes);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(self.from);
    }
}

/// A chunk in the store, on its way out.
pub(super) struct Stored {
    store: Arc<dyn Store>,
    key: BlobKey,
    offset: u64,
    left: usize,
}

impl Stored {
    pub(super) fn new(store: Arc<dyn Store>, key: BlobKey, offset: u64, length: u32) -> Self {
        Self { store, key, offset, left: length as usize }
    }
}

impl OutgoingChunk for Stored {
    async fn next(&mut self, most: usize) -> io::Result<Bytes> {
        let length = self.left.min(most);
        let (store, key, offset) = (Arc::clone(&self.store), self.key, self.offset);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            store.read_at(&key, offset, &mut bytes).map(|()| Bytes::from(bytes)).map_err(io::Error::other)
        });
        let bytes = read.await.map_err(io::Error::other)??;
        self.offset += length as u64;
        self.left -= length;
        Ok(bytes)
    }
}
