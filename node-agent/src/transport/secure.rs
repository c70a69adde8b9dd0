//! A TLS connection whose bytes are moved as little as can be.
//!
//! ```text
//!   socket ──> incoming: | record | record | part of one |  ──decrypted where it is──> whoever reads
//!                        |<---- whole ---->|<- wanted: the rest of it ->
//!   socket <── outgoing: | records |  <──encrypted── whoever writes
//! ```
//!
//! TLS itself would read 4 KiB at a time into a buffer that it grows, clears and shrinks for every record: a third of what receiving costs. Here
//! rustls works on this buffer (`rustls::unbuffered`).
//!
//! TLS can't use a record's first half, but on a slow link a record of 16 KiB comes in a dozen packets, and each of them would wake the
//! process. So while a record is on its way the kernel is told to wake nobody before the rest of it is there; between records the first
//! byte wakes, because a message may be short. On two cores that run 8 nodes at 50 Mbit/s this is a third of what an agent costs.
//!
//! State: what was read and isn't decrypted; what is decrypted and had no room; what is encrypted and isn't written; how it ends.
//! Invariants: each of these is bounded, by 64 KiB and a little. What is handed on are the other side's bytes, in order. It never waits for more
//! than the record that has begun. An end that the other side didn't announce is an error.
//! Absent on purpose: who the other end is (`tls`, `handshake`).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// What is read from the socket at a time, and what is encrypted at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A record's type, version and length.
const HEADER_BYTES: usize = 5;

/// What encryption adds to [`BUFFER_BYTES`] at most, and room for an alert or a change of keys.
const COVER_BYTES: usize = 1 << 10;

/// A connection under TLS.
pub(crate) struct Secure {
    stream: TcpStream,
    session: Session,
    incoming: BytesMut,
    /// Decrypted, but there was no room for it.
    plain: BytesMut,
    outgoing: Outgoing,
    /// What the kernel waits for now.
    low_water: usize,
    /// The other side has said that no more comes.
    ended: bool,
    /// This side has said so.
    left: bool,
    /// The other side broke the protocol.
    failed: bool,
}

enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What is encrypted and isn't written: `bytes[from..to]`.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// What a side has to say.
#[derive(Clone, Copy, Debug)]
enum Say<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Farewell,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something: there may be more to do.
    Done,
    /// Nothing: all that is here was used. What there was to say is said, if the handshake is over.
    Idle,
    /// The other side says nothing more.
    Ended,
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Secure {
    /// Dials. The name isn't sent.
    ///
    /// # Errors
    /// If the other side is none that the configuration lets in, or the socket fails.
    pub(crate) async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> io::Result<Self> {
        let session = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::shake(Session::Client(session), stream).await
    }

    /// Accepts.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Self::shake(Session::Server(session), stream).await
    }

    /// What was agreed, and the other side's certificates.
    pub(crate) fn session(&self) -> &CommonState {
        match &self.session {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }

    async fn shake(session: Session, stream: TcpStream) -> io::Result<Self> {
        let mut this = Self {
            stream,
            session,
            incoming: BytesMut::new(),
            plain: BytesMut::new(),
            outgoing: Outgoing::default(),
            low_water: 1,
            ended: false,
            left: false,
            failed: false,
        };
        std::future::poll_fn(|context| this.poll_shake(context)).await?;
        Ok(this)
    }

    fn poll_shake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step(context, Say::Nothing, None)? {
                Step::Done => {}
                Step::Idle => {
                    ready!(self.poll_drain(context))?;
                    if !self.session().is_handshaking() {
                        return Poll::Ready(Ok(()));
                    }
                    ready!(self.poll_fill(context))?;
                }
                Step::Ended => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Uses what is here: at most one record. Where it fails, the other side is told why, if that can be written at once.
    fn step(&mut self, context: &mut Context<'_>, say: Say<'_>, out: Option<&mut ReadBuf<'_>>) -> io::Result<Step> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let step = self.session_step(say, out);
        if step.is_err() {
            self.failed = true;
            // What failed mustn't be looked at again, so there is no step without something to say.
            while self.session().wants_write() && self.session_step(Say::Nothing, None).is_ok() {}
            let _ = self.poll_drain(context);
        }
        step
    }

    fn session_step(&mut self, say: Say<'_>, out: Option<&mut ReadBuf<'_>>) -> io::Result<Step> {
        let (plain, outgoing) = (&mut self.plain, &mut self.outgoing);
        let (discard, step) = match &mut self.session {
            Session::Client(session) => {
                take_step(session.process_tls_records(&mut self.incoming), say, out, plain, outgoing)
            }
            Session::Server(session) => {
                take_step(session.process_tls_records(&mut self.incoming), say, out, plain, outgoing)
            }
        };
        self.incoming.advance(discard);
        step
    }

    /// Says something once the session lets it. What comes meanwhile is kept.
    fn say(&mut self, context: &mut Context<'_>, say: Say<'_>) -> io::Result<()> {
        loop {
            match self.step(context, say, None)? {
                Step::Idle => return Ok(()),
                // It may be that only the other side says nothing more.
                Step::Ended if self.ended => return Err(io::ErrorKind::BrokenPipe.into()),
                Step::Ended => self.ended = true,
                Step::Done => {}
            }
        }
    }

    /// Reads what has come, or waits for the rest of the record that has begun.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = BUFFER_BYTES.saturating_sub(self.incoming.len());
        if room == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake longer than any of ours")));
        }
        self.incoming.reserve(room);
        match poll_read_buf(Pin::new(&mut self.stream), context, &mut self.incoming) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(read) => Poll::Ready(read.map(drop)),
            Poll::Pending => {
                self.wait_for(wanted(&self.incoming));
                Poll::Pending
            }
        }
    }

    fn wait_for(&mut self, bytes: usize) {
        if self.low_water != bytes {
            self.low_water = bytes;
            // Without it more wake-ups come than are needed, and nothing else changes.
            #[cfg(target_os = "linux")]
            let _ = shoal_sockopt::set_receive_low_water(&self.stream, bytes);
        }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.waiting().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, self.outgoing.waiting()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.outgoing.from += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes one step; how much of what came is used up.
fn take_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    say: Say<'_>,
    out: Option<&mut ReadBuf<'_>>,
    plain: &mut BytesMut,
    outgoing: &mut Outgoing,
) -> (usize, io::Result<Step>) {
    let UnbufferedStatus { mut discard, state } = status;
    let invalid = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let step = match state.map_err(invalid) {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut out = out;
            let mut step = Ok(Step::Done);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        hand_on(record.payload, out.as_deref_mut(), plain);
                    }
                    Err(error) => step = Err(invalid(error)),
                }
            }
            step
        }
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            outgoing.put(BUFFER_BYTES, |room| message.encode(room).map_err(io::Error::other)).map(|()| Step::Done)
        }
        Ok(ConnectionState::TransmitTlsData(message)) => {
            // It leaves before everything that is encrypted later.
            message.done();
            Ok(Step::Done)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match say {
            Say::Nothing => Ok(()),
            Say::Bytes(bytes) => {
                outgoing.put(bytes.len(), |room| traffic.encrypt(bytes, room).map_err(io::Error::other))
            }
            Say::Farewell => outgoing.put(0, |room| traffic.queue_close_notify(room).map_err(io::Error::other)),
        }
        .map(|()| Step::Idle),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Idle),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
        Ok(state) => Err(io::Error::other(format!("{state:?} in a session that has none"))),
    };
    (discard, step)
}

/// Gives as much as there is room for, and keeps the rest.
fn hand_on(payload: &[u8], out: Option<&mut ReadBuf<'_>>, plain: &mut BytesMut) {
    let given = match out {
        Some(out) if plain.is_empty() => {
            let given = payload.len().min(out.remaining());
            out.put_slice(&payload[..given]);
            given
        }
        _ => 0,
    };
    plain.extend_from_slice(&payload[given..]);
}

/// The length of the record that begins here, with its header, if that is here.
fn record_bytes(begun: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = *begun.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])))
}

/// How much of the record that has begun is still to come; one byte, if none has or its length isn't here.
fn wanted(begun: &[u8]) -> usize {
    record_bytes(begun).map_or(1, |length| length.saturating_sub(begun.len()).max(1))
}

impl Outgoing {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Has something put behind what waits: so many bytes, encrypted.
    fn put(&mut self, bytes: usize, put: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
        let end = self.to + bytes + COVER_BYTES;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.to += put(&mut self.bytes[self.to..])?;
        Ok(())
    }
}

impl AsyncRead for Secure {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        while out.filled().len() == before && out.remaining() > 0 {
            if !this.plain.is_empty() {
                let taken = this.plain.len().min(out.remaining());
                out.put_slice(&this.plain[..taken]);
                this.plain.advance(taken);
                break;
            }
            // Records for which there is room all at once, so that none is copied twice.
            while !this.ended
                && (out.filled().len() == before
                    || record_bytes(&this.incoming).is_some_and(|it| it <= out.remaining()))
            {
                match this.step(context, Say::Nothing, Some(&mut *out))? {
                    Step::Done => {}
                    Step::Idle => break,
                    Step::Ended => this.ended = true,
                }
            }
            if out.filled().len() == before {
                if this.ended {
                    break;
                }
                ready!(this.poll_fill(context))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Secure {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    /// Takes what fits into one buffer once the last one has left.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(context))?;
        let mut taken = 0;
        for piece in pieces {
            let piece = &piece[..piece.len().min(BUFFER_BYTES - taken)];
            if !piece.is_empty() {
                self.say(context, Say::Bytes(piece))?;
                taken += piece.len();
            }
        }
        // What doesn't leave now leaves before the next, or when it is flushed.
        if let Poll::Ready(written) = self.poll_drain(context) {
            written?;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.left {
            self.left = true;
            self.say(context, Say::Farewell)?;
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
