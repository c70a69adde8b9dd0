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
use tokio::time::timeout;

use super::connection::Connection;
use super::event::{CloseCause, Event};
use super::outgoing::{Item, WaitingChunk};
use super::read::PIECE_BYTES;
use super::store::{ChunkStore, OutgoingChunk};

/// A chunk's frame with the longest digest.
const HEADER_BYTES: usize = 80;

pub(crate) struct Writer<'a, S: ChunkStore, T> {
    connection: &'a Connection<S>,
    stream: WriteHalf<T>,
    /// Something is written in part: what would be written now, would be taken for the rest of it.
    midway: bool,
}

impl<'a, S: ChunkStore, T: AsyncWrite> Writer<'a, S, T> {
    pub(crate) fn new(connection: &'a Connection<S>, stream: WriteHalf<T>) -> Self {
        Self { connection, stream, midway: false }
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
        let Connection { shared, peer, .. } = self.connection;
        let WaitingChunk { key, chunk, length, mut source } = waiting;
        let peer = *peer;
        let mut left = length as usize;
        let first = match next(&mut source, shared.upload.piece(PIECE_BYTES).min(left)).await {
            Ok(first) => first,
            Err(error) => return shared.tell(Event::SendFailed { peer, key, chunk, error }).await,
        };
        let mut header = BytesMut::with_capacity(HEADER_BYTES);
        encode_frame(&PeerFrame::Chunk { key, chunk, length }, &mut header)
            .map_err(|error| CloseCause::Source(io::Error::other(error)))?;
        shared.upload.take(first.len()).await;
        self.midway = true;
        left -= first.len();
        self.write(&mut header.chain(first)).await?;
        while left > 0 {
            let piece =
                next(&mut source, shared.upload.piece(PIECE_BYTES).min(left)).await.map_err(CloseCause::Source)?;
            left -= piece.len();
            shared.upload.take(piece.len()).await;
            self.write(&mut { piece }).await?;
        }
        self.flush().await?;
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
