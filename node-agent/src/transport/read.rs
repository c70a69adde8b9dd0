//! The reading half of a connection.
//!
//! State: the bytes that came and aren't used yet; the chunk that has begun, and how much of it is still to come.
//! Invariants: a frame is taken whole, a chunk's bytes go to the store while they come; no more is buffered than one frame's limit and
//! what has come of one chunk. While the driver or the store is slow nothing is read, so that the sender feels it.
//! Absent on purpose: what frames mean, beyond what keeps a connection alive.

use bytes::{Buf, BytesMut};
use shoal_types::{BlobKey, ChunkIndex};
use shoal_wire::PeerFrame;
use shoal_wire::codec::{Decoded, decode_frame, encode_frame};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval_at};

use super::connection::Connection;
use super::event::{CloseCause, Event, Malformed};
use super::store::{ChunkStore, IncomingChunk};

/// Room for what comes next while no chunk does: dozens of messages, and not much of a chunk, whose bytes would be copied once more.
const READ_BYTES: usize = 4 << 10;

/// A chunk's bytes that are handed on together: large enough that a task switch and a write to disk cost little beside them,
/// small enough that hashing them (0.2 ms) doesn't hold up the connection's other half.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// How often silence is looked at.
const TICK: Duration = Duration::from_secs(1);

pub(crate) struct Reader<'a, S: ChunkStore, T> {
    connection: &'a Connection<S>,
    stream: ReadHalf<T>,
    buffer: BytesMut,
    tick: Interval,
    arriving: Option<Arriving<S::Incoming>>,
}

/// A chunk that has begun.
struct Arriving<I> {
    key: BlobKey,
    chunk: ChunkIndex,
    /// How much of it is still to come.
    left: usize,
    /// What the store hasn't been given yet.
    piece: BytesMut,
    received: I,
}

impl<'a, S: ChunkStore, T: AsyncRead> Reader<'a, S, T> {
    pub(crate) fn new(connection: &'a Connection<S>, stream: ReadHalf<T>, buffer: BytesMut) -> Self {
        let mut tick = interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { connection, stream, buffer, tick, arriving: None }
    }

    /// Reads until the connection ends, and says why.
    pub(crate) async fn run(mut self) -> CloseCause {
        match self.read_on().await {
            Ok(never) => match never {},
            Err(cause) => cause,
        }
    }

    async fn read_on(&mut self) -> Result<std::convert::Infallible, CloseCause> {
        let shared = &self.connection.shared;
        loop {
            while let Some(decoded) = decode_frame(&mut self.buffer).map_err(Malformed::Frame)? {
                match decoded {
                    Decoded::Known(frame) => self.handle(frame).await?,
                    Decoded::Unknown { .. } => shared.counters.unknown_frame(),
                }
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
                self.buffer.reserve(READ_BYTES);
            }
            let read = fill(self.connection, &mut self.stream, &mut self.tick, &mut self.buffer, READ_BYTES).await?;
            shared.download.take(read).await;
        }
    }

    async fn handle(&mut self, frame: PeerFrame) -> Result<(), CloseCause> {
        let Connection { shared, outgoing, peer, .. } = self.connection;
        match frame {
            PeerFrame::Chunk { key, chunk, length } => self.begin(key, chunk, length).await,
            PeerFrame::Slice { length } => self.take_slice(length).await,
            PeerFrame::Ping(number) => {
                outgoing.push_frames(&small(&PeerFrame::Pong(number)));
                Ok(())
            }
            PeerFrame::Pong(_) => Ok(()),
            PeerFrame::Hello(_) => Err(Malformed::Greeting.into()),
            PeerFrame::Close(reason) => Err(CloseCause::Remote(reason)),
            frame => shared.tell(Event::Frame { peer: *peer, frame }).await,
        }
    }

    async fn begin(&mut self, key: BlobKey, chunk: ChunkIndex, length: u32) -> Result<(), CloseCause> {
        if self.arriving.is_some() {
            return Err(Malformed::Slice.into());
        }
        let Connection { shared, peer, node, .. } = self.connection;
        let received = shared.store.receive(*node, key, chunk, length);
        shared.tell(Event::ChunkStarted { peer: *peer, key, chunk }).await?;
        // Memory is taken as it is filled.
        let piece = BytesMut::with_capacity(length as usize);
        let arriving = Arriving { key, chunk, left: length as usize, piece, received };
        if length == 0 {
            return self.end(arriving).await;
        }
        self.arriving = Some(arriving);
        Ok(())
    }

    async fn take_slice(&mut self, length: u32) -> Result<(), CloseCause> {
        let shared = &self.connection.shared;
        let length = length as usize;
        let arriving = self.arriving.take().filter(|arriving| (1..=arriving.left).contains(&length));
        let Some(mut arriving) = arriving else { return Err(Malformed::Slice.into()) };
        let mut left = length;
        while left > 0 {
            let piece = &mut arriving.piece;
            let want = left.min(PIECE_BYTES - piece.len());
            // What is here is copied, so that the buffer stays whole and is used again.
            let here = want.min(self.buffer.len());
            piece.extend_from_slice(&self.buffer[..here]);
            self.buffer.advance(here);
            let mut lacking = want - here;
            while lacking > 0 {
                let most = shared.download.piece(lacking);
                let read = fill(self.connection, &mut self.stream, &mut self.tick, piece, most).await?;
                shared.download.take(read).await;
                lacking -= read;
            }
            left -= want;
            arriving.left -= want;
            if piece.len() == PIECE_BYTES || arriving.left == 0 {
                arriving.received.put(piece.split()).await;
            }
        }
        if arriving.left == 0 {
            return self.end(arriving).await;
        }
        self.arriving = Some(arriving);
        Ok(())
    }

    async fn end(&mut self, arriving: Arriving<S::Incoming>) -> Result<(), CloseCause> {
        let Connection { shared, peer, .. } = self.connection;
        let Arriving { key, chunk, received, .. } = arriving;
        shared.tell(Event::Chunk { peer: *peer, key, chunk, received }).await
    }
}

/// Reads up to `most` bytes, at least one. Pings a silent peer, and gives it up in the end; time in which this side didn't read
/// doesn't count.
async fn fill<S: ChunkStore, T: AsyncRead>(
    connection: &Connection<S>,
    stream: &mut ReadHalf<T>,
    tick: &mut Interval,
    buffer: &mut BytesMut,
    most: usize,
) -> Result<usize, CloseCause> {
    let settings = &connection.shared.settings;
    let mut limited = bytes::BufMut::limit(buffer, most);
    let started = Instant::now();
    let mut pinged = false;
    loop {
        tokio::select! {
            biased;
            read = stream.read_buf(&mut limited) => match read {
                Ok(0) => return Err(CloseCause::Gone(None)),
                Ok(read) => {
                    connection.shared.counters.received(read);
                    return Ok(read);
                }
                Err(error) => return Err(CloseCause::Gone(Some(error))),
            },
            _ = tick.tick() => {
                let silent = started.elapsed();
                if silent >= settings.dead_after {
                    return Err(CloseCause::Silent);
                }
                if silent >= settings.ping_after && !pinged {
                    pinged = true;
                    connection.outgoing.push_frames(&small(&PeerFrame::Ping(0)));
                }
            }
        }
    }
}

/// A frame of the transport's own.
fn small(frame: &PeerFrame) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(16);
    encode_frame(frame, &mut bytes).expect("a ping is shorter than any limit");
    bytes
}

impl From<Malformed> for CloseCause {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
