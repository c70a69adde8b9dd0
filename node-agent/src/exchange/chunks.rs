//! Chunks' bytes between the connections and the store.
//!
//! State: a chunk that is coming is in memory until it is verified; one that leaves is read piece by piece. Who has sent something lately.
//! Invariants: a chunk that is coming takes no more memory than what has come of it; each connection brings one at a time.
//! Absent on purpose: verification, which follows when the chunk is complete: its links may come later than it.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, NodeId};

use super::reads::Reads;
use super::verifying::Backlog;
use crate::transport::{ChunkStore, IncomingChunk, OutgoingChunk};

/// Who has sent bytes since the room looked last.
pub(super) type Heard = Arc<Mutex<BTreeSet<NodeId>>>;

/// Where connections put chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    heard: Heard,
    backlog: Backlog,
}

impl Chunks {
    pub(super) fn new(heard: &Heard, backlog: &Backlog) -> Self {
        Self { heard: Arc::clone(heard), backlog: backlog.clone() }
    }
}

impl ChunkStore for Chunks {
    type Incoming = Arriving;
    type Outgoing = Stored;

    fn receive(&self, from: NodeId, _: BlobKey, _: ChunkIndex, _: u32) -> Arriving {
        Arriving { bytes: BytesMut::new(), from, heard: Arc::clone(&self.heard), backlog: self.backlog.clone() }
    }
}

/// A chunk that is coming.
#[derive(Debug)]
pub(super) struct Arriving {
    bytes: BytesMut,
    from: NodeId,
    heard: Heard,
    backlog: Backlog,
}

impl Arriving {
    /// What has come.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }
}

impl IncomingChunk for Arriving {
    async fn put(&mut self, bytes: BytesMut) {
        self.bytes.unsplit(bytes);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(self.from);
        self.backlog.has_room().await;
    }
}

/// A chunk on its way out.
pub(super) struct Stored {
    reads: Reads,
    blob: BlobInfo,
    left: Range<u64>,
}

impl Stored {
    /// These bytes of a blob, all of one chunk.
    pub(super) fn new(reads: Reads, blob: BlobInfo, bytes: Range<u64>) -> Self {
        Self { reads, blob, left: bytes }
    }
}

impl OutgoingChunk for Stored {
    async fn next(&mut self, most: usize) -> io::Result<Bytes> {
        let length = usize::try_from(self.left.end - self.left.start).unwrap_or(most).min(most);
        let bytes = self.reads.read(&self.blob, self.left.start, length).await.map_err(io::Error::other)?;
        self.left.start += length as u64;
        Ok(bytes)
    }
}
