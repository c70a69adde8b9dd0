//! A socket under TLS, read by whole records.
//!
//! ```text
//!   buffer: | record | record | part of one |
//!           |<---- whole ---->|<- wanted: the rest of it ->
//! ```
//!
//! TLS can't use a record's first half, but on a slow link a record of 16 KiB comes in a dozen packets, and each of them would wake the
//! process. So while a record is on its way the kernel is told to wake nobody before the rest of it is there; between records the first
//! byte wakes, because a message may be short. On two cores that run 8 nodes at 50 Mbit/s this is a third of what an agent costs.
//!
//! State: what was read and TLS hasn't taken.
//! Invariants: what is handed on are the bytes that came, in order; a record is handed on only when all of it is there, but for what comes
//! before the end of the stream and for what can't be a record. It never waits for more than the record that has begun.
//! Absent on purpose: what records mean. Their lengths are in the clear.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// What is read from the socket at a time; TLS itself asks for 4 KiB at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A record's type, version and length.
const HEADER_BYTES: usize = 5;

/// TLS 1.3 allows 2^14 bytes and 256 of cover. What says to be longer is handed on as it is: TLS will refuse it.
const MAX_BODY_BYTES: usize = (16 << 10) + 256;

/// A connection that TLS reads.
#[derive(Debug)]
pub(crate) struct Records {
    stream: TcpStream,
    buffer: BytesMut,
    /// Of the buffer, what belongs to records that are here whole.
    whole: usize,
    /// What the kernel waits for now.
    low_water: usize,
    /// No more will come, or what comes isn't records.
    raw: bool,
}

impl Records {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new(), whole: 0, low_water: 1, raw: false }
    }

    /// Counts the records that are whole.
    fn count(&mut self) {
        while let Some(length) = record_bytes(&self.buffer[self.whole..]) {
            if length > HEADER_BYTES + MAX_BODY_BYTES || !is_tls(&self.buffer[self.whole..]) {
                self.raw = true;
                break;
            }
            if self.whole + length > self.buffer.len() {
                break;
            }
            self.whole += length;
        }
        if self.raw {
            self.whole = self.buffer.len();
        }
    }

    /// How much of the record that has begun is still to come; one byte, if none has or its length isn't here.
    fn wanted(&self) -> usize {
        let begun = &self.buffer[self.whole..];
        record_bytes(begun).map_or(1, |length| length.saturating_sub(begun.len()).max(1))
    }

    fn wait_for(&mut self, bytes: usize) {
        if self.low_water != bytes {
            self.low_water = bytes;
            // Without it more wake-ups come than are needed, and nothing else changes.
            #[cfg(target_os = "linux")]
            let _ = shoal_sockopt::set_receive_low_water(&self.stream, bytes);
        }
    }
}

/// The length of the record that begins here, with its header, if that is here.
fn record_bytes(begun: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = *begun.first_chunk::<HEADER_BYTES>()?;
    Some(HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])))
}

/// Whether a record of any kind begins here, by its type and the version's first half.
fn is_tls(begun: &[u8]) -> bool {
    matches!(begun, [20..=24, 3, ..])
}

impl AsyncRead for Records {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.whole == 0 {
            this.buffer.reserve(BUFFER_BYTES - this.buffer.len());
            match poll_read_buf(Pin::new(&mut this.stream), context, &mut this.buffer) {
                Poll::Pending => {
                    this.wait_for(this.wanted());
                    return Poll::Pending;
                }
                Poll::Ready(read) => {
                    if read? == 0 {
                        this.raw = true;
                        if this.buffer.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    this.count();
                }
            }
        }
        let taken = this.whole.min(out.remaining());
        out.put_slice(&this.buffer[..taken]);
        this.buffer.advance(taken);
        this.whole -= taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Records) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        dialled.set_nodelay(true).unwrap();
        (dialled, Records::new(listener.accept().await.unwrap().0))
    }

    fn record(length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut bytes = vec![23, 3, 3, high, low];
        bytes.resize(HEADER_BYTES + usize::from(length), 7);
        bytes
    }

    #[tokio::test]
    async fn it_waits_for_the_rest_of_a_record_and_for_no_more() {
        let (_sender, mut records) = pair().await;
        let mut take = |bytes: &[u8]| {
            records.buffer.extend_from_slice(bytes);
            records.count();
            (records.whole, records.wanted())
        };
        assert_eq!(take(&[]), (0, 1), "any byte may be all of a message that there is");
        assert_eq!(take(&[23, 3, 3, 0]), (0, 1));
        assert_eq!(take(&[100]), (0, 100));
        assert_eq!(take(&[0; 60]), (0, 40));
        assert_eq!(take(&[0; 40]), (105, 1));
        assert_eq!(take(&record(10)[..7]), (105, 8));
        assert_eq!(take(&record(10)[7..]), (120, 1));
        assert_eq!(take(&[22, 3, 3, 255, 255, 1]), (126, 1), "that is no record: TLS may say so");
        assert_eq!(take(b"GET / HTTP"), (136, 1));
    }

    #[tokio::test]
    async fn what_is_read_is_what_came_however_it_was_cut() {
        let (mut sender, mut records) = pair().await;
        let lengths = [0, 1, 16_640, 300, 16_384, 2, 16_640, 16_640, 16_640, 16_640, 5];
        let mut sent: Vec<u8> = lengths.into_iter().flat_map(record).collect();
        sent.extend([23, 3, 3, 1, 0, 9, 9]);
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(1_447) {
                sender.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut read = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match records.read(&mut piece).await.unwrap() {
                0 => break,
                length => read.extend_from_slice(&piece[..length]),
            }
        }
        writing.await.unwrap();
        assert!(read == expected, "{} bytes of {}", read.len(), expected.len());
    }

    #[tokio::test]
    async fn a_short_record_is_not_held_up_by_a_long_one_before_it() {
        let (mut sender, mut records) = pair().await;
        let (long, short) = (record(16_000), record(3));
        let mut first = vec![0; long.len()];
        for round in 0..20 {
            let cut = 1 + round * 700;
            sender.write_all(&long[..cut]).await.unwrap();
            let rest = async {
                tokio::task::yield_now().await;
                sender.write_all(&long[cut..]).await.unwrap();
            };
            tokio::join!(rest, async { records.read_exact(&mut first).await.unwrap() });
            sender.write_all(&short).await.unwrap();
            let mut second = [0; 8];
            records.read_exact(&mut second).await.unwrap();
            assert_eq!(second, short[..]);
        }
    }
}
