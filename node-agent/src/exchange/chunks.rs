//! Chunks' bytes between the connections and the store.
//!
//! State: a chunk that is coming is in memory until it is verified; one that leaves is read piece by piece.
//! Invariants: a chunk that is coming takes no more memory than what has come of it, and never more than its announced length; each
//! connection brings one at a time.
//! Absent on purpose: verification, which follows when the chunk is complete: its links may come later than it.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use shoal_store::Store;
use shoal_types::{BlobKey, ChunkIndex, NodeId};

use crate::transport::{ChunkStore, IncomingChunk, OutgoingChunk};

/// Reserved before anything has come: what the first piece brings at most.
const RESERVED: usize = 256 << 10;

/// Where connections put chunks.
#[derive(Debug)]
pub(super) struct Chunks;

impl ChunkStore for Chunks {
    type Incoming = Arriving;
    type Outgoing = Stored;

    fn receive(&self, _: NodeId, _: BlobKey, _: ChunkIndex, length: u32) -> Arriving {
        Arriving { bytes: BytesMut::with_capacity((length as usize).min(RESERVED)), length: length as usize }
    }
}

/// A chunk that is coming.
#[derive(Debug)]
pub(super) struct Arriving {
    bytes: BytesMut,
    length: usize,
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
