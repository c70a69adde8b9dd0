//! What the transport wants of those who keep chunks.
//!
//! State: none.
//! Absent on purpose: verification, and which chunks are wanted at all: a chunk that nobody asked for is received like any other,
//! and the engine says what it is good for.

use std::future::Future;
use std::io;

use bytes::{Bytes, BytesMut};
use shoal_types::{BlobKey, ChunkIndex, NodeId};

/// Where chunks that come are put, and where those that are sent are read from.
pub trait ChunkStore: Send + Sync + 'static {
    /// A chunk that is coming.
    type Incoming: IncomingChunk;
    /// A chunk that is being sent.
    type Outgoing: OutgoingChunk;

    /// A chunk of `length` bytes is about to come. Called on the connection's task, so it must not block.
    fn receive(&self, from: NodeId, key: BlobKey, chunk: ChunkIndex, length: u32) -> Self::Incoming;
}

/// Takes a chunk's bytes while they come. Dropped before all are there, if the connection ends.
pub trait IncomingChunk: Send + 'static {
    /// The next bytes, up to 256 KiB, which lie in memory where the ones before them end: `unsplit` joins them without a copy. The
    /// connection's next bytes are read when this is done, so a slow disk slows the sender down.
    /// What goes wrong is kept until somebody asks for the chunk: the transport goes on.
    fn put(&mut self, bytes: BytesMut) -> impl Future<Output = ()> + Send;
}

/// Gives a chunk's bytes in order.
pub trait OutgoingChunk: Send + 'static {
    /// The next bytes: at least one, at most `most`.
    fn next(&mut self, most: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// A chunk in memory.
impl OutgoingChunk for Bytes {
    async fn next(&mut self, most: usize) -> io::Result<Bytes> {
        Ok(self.split_to(most.min(self.len())))
    }
}
