//! A client's connection as hyper sees it: it gives up on a client that takes nothing, it fails once a cut's last byte is written, and it is
//! closed without a reset.
//!
//! State: the stream, and how long a write has waited for the client.
//! Invariants: a flush fails only after hyper has handed over all that it had buffered (it flushes its own buffer first).
//! Absent on purpose: time limits on reading. hyper has its own for a request's head, and a request has no body here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::cut::{Cut, CutSwitch};
use super::patience::Patience;

/// How long a closed connection waits for the client's own end. Closing earlier may turn into a reset, if the client still sends; a client
/// that has read an end of file closes within a round trip, which is microseconds on loopback.
const LINGER: Duration = Duration::from_secs(1);

/// How many of the client's bytes are thrown away meanwhile: four times the largest request head, so pipelined requests fit.
const LINGER_BYTES: usize = 64 << 10;

/// One connection.
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    cut: CutSwitch,
    patience: Patience,
}

impl Socket {
    /// A connection whose client may take nothing for `patience` at most.
    pub(super) fn new(stream: TcpStream, cut: CutSwitch, patience: Duration) -> Self {
        Self { stream: TokioIo::new(stream), cut, patience: Patience::new(patience) }
    }

    /// Ends it: FIN behind what was written, then the client's bytes are read and dropped until it has ended too.
    pub(super) async fn close(self) {
        let mut stream = self.stream.into_inner();
        if stream.shutdown().await.is_err() {
            return;
        }
        let drain = async {
            let mut scratch = [0_u8; 2048];
            let mut left = LINGER_BYTES;
            while left > 0 {
                match stream.read(&mut scratch).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        };
        // Either way the socket is dropped now: the limit is what bounds a client that never ends.
        let _ = timeout(LINGER, drain).await;
    }

    /// Passes a write's outcome on, and turns the switch if the client has let it wait for too long.
    fn watch(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.patience.renew();
            return outcome;
        }
        ready!(self.patience.poll_over(cx));
        self.cut.turn(Cut::ReaderStalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(match self.cut.get() {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
