//! The writing half of a connection.
//!
//! State: whether the stream is in the middle of something.
//! Invariants: what leaves is whole: a frame, or a chunk's frame and exactly as many bytes as it says. Where that can't be kept, the
//! connection ends.
//! Absent on purpose: the order of what leaves: that is the queue's.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use shoal_wire::codec::encode_frame;
use shoal_wire::{CloseReason, PeerFrame};
use tokio::io::{AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::time::{Duration, Instant, timeout};

use super::connection::Connection;
use super::event::{CloseCause, Event};
use super::outgoing::{Item, WaitingChunk};
use super::read::PIECE_BYTES;
use super::store::{ChunkStore, OutgoingChunk};

/// A chunk's frame with the longest digest and a slice's, and room for a few messages.
const HEAD_BYTES: usize = 512;

/// A slice keeps messages waiting for about 2 ms.
const SLICES_A_SECOND: u64 = 500;

/// As much as the kernel keeps unsent: messages wait for that in any case, and every slice is a system call.
const MIN_SLICE: usize = 32 << 10;

/// How fast chunks leave.
#[derive(Debug, Default)]
struct Pace {
    bytes_per_second: u64,
}

impl Pace {
    fn sent(&mut self, bytes: u32, took: Duration) {
        let now = u64::from(bytes) * 1_000_000 / u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        // The first one counts in full, then half of each.
        self.bytes_per_second =
            if self.bytes_per_second == 0 { now } else { u64::midpoint(self.bytes_per_second, now) };
    }

    fn slice_bytes(&self) -> usize {
        usize::try_from(self.bytes_per_second / SLICES_A_SECOND).unwrap_or(usize::MAX).clamp(MIN_SLICE, PIECE_BYTES)
    }
}

pub(crate) struct Writer<'a, S: ChunkStore, T> {
    connection: &'a Connection<S>,
    stream: WriteHalf<T>,
    /// Something is written in part: what would be written now, would be taken for the rest of it.
    midway: bool,
    pace: Pace,
}

impl<'a, S: ChunkStore, T: AsyncWrite> Writer<'a, S, T> {
    pub(crate) fn new(connection: &'a Connection<S>, stream: WriteHalf<T>) -> Self {
        Self { connection, stream, midway: false, pace: Pace::default() }
    }

    /// Writes until the connection ends, and says why.
    pub(crate) async fn run(&mut self) -> CloseCause {
        match self.write_on().await {
            Ok(never) => match never {},
            Err(cause) => cause,
        }
    }

    /// Tells the other side why this one leaves, if there is something to tell and it can be understood, and closes the stream.
    pub(crate) async fn take_leave(&mut self, reason: Option<CloseReason>) -> io::Result<()> {
        if let (Some(reason), false) = (reason, self.midway) {
            let mut frame = BytesMut::with_capacity(16);
            encode_frame(&PeerFrame::Close(reason), &mut frame).map_err(io::Error::other)?;
            self.stream.write_all(&frame).await?;
        }
        self.stream.shutdown().await
    }

    async fn write_on(&mut self) -> Result<std::convert::Infallible, CloseCause> {
        let Connection { shared, outgoing, .. } = self.connection;
        loop {
            match outgoing.next().await {
                Item::Frames(frames) => {
                    // Messages don't wait, or a neighbour's request would wait for everybody's chunks: chunks wait for them.
                    shared.upload.charge(frames.len());
                    self.midway = true;
                    self.write(&mut &frames[..]).await?;
                    self.flush().await?;
                    outgoing.recycle(frames);
                }
                Item::Chunk(chunk) => self.write_chunk(chunk).await?,
            }
        }
    }

    async fn write_chunk(&mut self, waiting: WaitingChunk<S::Outgoing>) -> Result<(), CloseCause> {
        let Connection { shared, outgoing, peer, .. } = self.connection;
        let WaitingChunk { key, chunk, length, mut source } = waiting;
        let peer = *peer;
        let mut left = length as usize;
        let slice = even(left, shared.upload.piece(self.pace.slice_bytes()));
        let mut piece = match next(&mut source, slice.min(left)).await {
            Ok(first) => first,
            Err(error) => return shared.tell(Event::SendFailed { peer, key, chunk, error }).await,
        };
        let started = Instant::now();
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        put(&PeerFrame::Chunk { key, chunk, length }, &mut head)?;
        while left > 0 {
            shared.upload.take(piece.len()).await;
            // What was said meanwhile goes ahead: a request that waits for a chunk to leave costs a round trip of a full link.
            while let Some(frames) = outgoing.next_frames() {
                shared.upload.charge(frames.len());
                head.extend_from_slice(&frames);
                outgoing.recycle(frames);
            }
            put(&PeerFrame::Slice { length: u32::try_from(piece.len()).unwrap_or(u32::MAX) }, &mut head)?;
            left -= piece.len();
            self.midway = true;
            self.write(&mut (&head[..]).chain(piece)).await?;
            head.clear();
            piece = next(&mut source, slice.min(left)).await.map_err(CloseCause::Source)?;
        }
        if !head.is_empty() {
            self.midway = true;
            self.write(&mut &head[..]).await?;
        }
        self.flush().await?;
        self.pace.sent(length, started.elapsed());
        shared.tell(Event::Sent { peer, key, chunk }).await
    }

    async fn write(&mut self, bytes: &mut impl Buf) -> Result<(), CloseCause> {
        let shared = &self.connection.shared;
        let count = bytes.remaining();
        within(self.connection, self.stream.write_all_buf(bytes)).await?;
        shared.counters.sent(count);
        Ok(())
    }

    /// TLS may keep the end of what was written until it is told to let go.
    async fn flush(&mut self) -> Result<(), CloseCause> {
        within(self.connection, self.stream.flush()).await?;
        self.midway = false;
        Ok(())
    }
}

/// A peer that takes nothing for so long is as good as dead, whatever it sends.
async fn within<S: ChunkStore>(
    connection: &Connection<S>,
    write: impl Future<Output = io::Result<()>>,
) -> Result<(), CloseCause> {
    match timeout(connection.shared.settings.dead_after, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(CloseCause::Gone(Some(error))),
        Err(_) => Err(CloseCause::Local(CloseReason::TooSlow)),
    }
}

fn put(frame: &PeerFrame, out: &mut BytesMut) -> Result<(), CloseCause> {
    encode_frame(frame, out).map_err(|error| CloseCause::Source(io::Error::other(error)))
}

/// The size of as few slices as make up all of it, none of them short.
fn even(all: usize, most: usize) -> usize {
    all.div_ceil(all.div_ceil(most).max(1))
}

/// A piece of a chunk; none of an empty one.
async fn next(source: &mut impl OutgoingChunk, most: usize) -> io::Result<Bytes> {
    if most == 0 {
        return Ok(Bytes::new());
    }
    match source.next(most).await? {
        piece if piece.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        piece if piece.len() > most => Err(io::Error::other("more bytes of a chunk than were asked for")),
        piece => Ok(piece),
    }
}
