//! What waits to be sent to one peer.
//!
//! State: frames already encoded and chunks still to be read, in the order in which they leave; whether the connection is to end.
//! Invariants: strictly first in, first out: a chunk leaves after everything that was put in before it, as the engine demands. What is
//! put in while a chunk leaves may go ahead of the rest of it.
//! Bounded in bytes of frames and in number of chunks; what doesn't fit ends the connection, because the peer is too slow.
//! Absent on purpose: writing (`connection`), and the bytes of chunks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use shoal_types::{BlobKey, ChunkIndex};
use shoal_wire::CloseReason;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Buffers beyond this size aren't kept for reuse.
const SPARE_BYTES: usize = 64 << 10;

/// The queue of one connection. Whoever sends puts in, the connection's task takes out.
#[derive(Debug)]
pub(crate) struct Outgoing<S> {
    state: Mutex<State<S>>,
    more: Notify,
    ended: CancellationToken,
    max_bytes: usize,
    max_chunks: usize,
}

/// Something to write.
#[derive(Debug)]
pub(crate) enum Item<S> {
    /// Encoded frames, one after the other.
    Frames(BytesMut),
    /// A chunk, with its frame in front.
    Chunk(WaitingChunk<S>),
}

/// A chunk that waits.
#[derive(Debug)]
pub(crate) struct WaitingChunk<S> {
    pub(crate) key: BlobKey,
    pub(crate) chunk: ChunkIndex,
    pub(crate) length: u32,
    pub(crate) source: S,
}

#[derive(Debug)]
struct State<S> {
    items: VecDeque<Item<S>>,
    frame_bytes: usize,
    chunks: usize,
    spare: BytesMut,
    reason: Option<CloseReason>,
}

impl<S> Outgoing<S> {
    pub(crate) fn new(max_bytes: usize, max_chunks: usize, ended: CancellationToken) -> Self {
        let state = State { items: VecDeque::new(), frame_bytes: 0, chunks: 0, spare: BytesMut::new(), reason: None };
        Self { state: Mutex::new(state), more: Notify::new(), ended, max_bytes, max_chunks }
    }

    /// Puts encoded frames in.
    pub(crate) fn push_frames(&self, frames: &[u8]) {
        let mut state = self.lock();
        if state.reason.is_some() {
            return;
        }
        if state.frame_bytes + frames.len() > self.max_bytes {
            return self.end_locked(state, CloseReason::TooSlow);
        }
        state.frame_bytes += frames.len();
        if let Some(Item::Frames(last)) = state.items.back_mut() {
            last.extend_from_slice(frames);
        } else {
            let mut buffer = std::mem::take(&mut state.spare);
            buffer.extend_from_slice(frames);
            state.items.push_back(Item::Frames(buffer));
        }
        drop(state);
        self.more.notify_one();
    }

    /// Puts a chunk in.
    pub(crate) fn push_chunk(&self, chunk: WaitingChunk<S>) {
        let mut state = self.lock();
        if state.reason.is_some() {
            return;
        }
        if state.chunks >= self.max_chunks {
            return self.end_locked(state, CloseReason::TooSlow);
        }
        state.chunks += 1;
        state.items.push_back(Item::Chunk(chunk));
        drop(state);
        self.more.notify_one();
    }

    /// The next thing to write; waits for one. Only the connection's task takes out.
    pub(crate) async fn next(&self) -> Item<S> {
        loop {
            if let Some(item) = self.pop_if(|_| true) {
                return item;
            }
            self.more.notified().await;
        }
    }

    /// Frames, if they are the next thing to write.
    pub(crate) fn next_frames(&self) -> Option<BytesMut> {
        match self.pop_if(|item| matches!(item, Item::Frames(_)))? {
            Item::Frames(frames) => Some(frames),
            Item::Chunk(_) => None,
        }
    }

    /// Gives a buffer back whose frames were written.
    pub(crate) fn recycle(&self, mut buffer: BytesMut) {
        if buffer.capacity() <= SPARE_BYTES {
            buffer.clear();
            self.lock().spare = buffer;
        }
    }

    /// The connection is to end for this reason, unless it has another already. What waits is dropped.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.end_locked(self.lock(), reason);
    }

    /// Waits until the connection is to end.
    pub(crate) async fn ended(&self) -> CloseReason {
        self.ended.cancelled().await;
        // Without a reason of its own it ends with everything else.
        self.lock().reason.unwrap_or(CloseReason::Leaving)
    }

    /// The next thing to write, if it is wanted.
    fn pop_if(&self, wanted: impl FnOnce(&Item<S>) -> bool) -> Option<Item<S>> {
        let mut state = self.lock();
        let item = state.items.pop_front_if(|item| wanted(item))?;
        match &item {
            Item::Frames(frames) => state.frame_bytes -= frames.len(),
            Item::Chunk(_) => state.chunks -= 1,
        }
        Some(item)
    }

    fn end_locked(&self, mut state: MutexGuard<'_, State<S>>, reason: CloseReason) {
        state.reason.get_or_insert(reason);
        let dropped = std::mem::take(&mut state.items);
        (state.frame_bytes, state.chunks) = (0, 0);
        drop(state);
        drop(dropped);
        self.ended.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::{ChunkSize, Digest};

    use super::*;

    fn chunk(index: u32) -> WaitingChunk<()> {
        let key = BlobKey { digest: Digest::Sha256([1; 32]), chunk_size: ChunkSize::MIN };
        WaitingChunk { key, chunk: ChunkIndex::new(index), length: 1, source: () }
    }

    fn text(item: &Item<()>) -> String {
        match item {
            Item::Frames(frames) => String::from_utf8(frames.to_vec()).unwrap(),
            Item::Chunk(item) => format!("#{}", item.chunk),
        }
    }

    #[tokio::test]
    async fn what_was_put_in_first_leaves_first() {
        let queue = Outgoing::new(100, 10, CancellationToken::new());
        queue.push_frames(b"a");
        queue.push_frames(b"b");
        queue.push_chunk(chunk(1));
        queue.push_frames(b"c");
        queue.push_chunk(chunk(2));
        queue.push_chunk(chunk(3));
        let mut left = Vec::new();
        for _ in 0..5 {
            left.push(text(&queue.next().await));
        }
        assert_eq!(left, ["ab", "#1", "c", "#2", "#3"]);
    }

    #[tokio::test]
    async fn too_much_ends_the_connection_once() {
        let queue = Outgoing::<()>::new(10, 10, CancellationToken::new());
        queue.push_frames(&[0; 10]);
        drop(queue.next().await);
        queue.push_frames(&[0; 10]);
        queue.push_frames(&[0]);
        assert_eq!(queue.ended().await, CloseReason::TooSlow);
        queue.end(CloseReason::Banned);
        assert_eq!(queue.ended().await, CloseReason::TooSlow);

        let queue = Outgoing::new(10, 2, CancellationToken::new());
        (0..3).for_each(|index| queue.push_chunk(chunk(index)));
        assert_eq!(queue.ended().await, CloseReason::TooSlow);
    }
}
