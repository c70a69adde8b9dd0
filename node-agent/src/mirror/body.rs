//! The bytes of an answer on their way to a client: exactly as many as were announced, or a cut.
//!
//! State: the content's stream, how many announced bytes are still owed, the rest of a piece that was too long, the request's span.
//! Invariants: never a byte more than announced; never padding; a body that owes bytes and can't get them turns its connection's switch and stays
//! pending (see `cut`). At most one piece is held here at a time, and hyper asks for the next when all but 16 KiB of the last is written.
//! Absent on purpose: errors. hyper would lose buffered bytes over one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tracing::Span;

use super::content::BlobStream;
use super::cut::{Cut, CutSwitch};
use super::metrics::Metrics;
use super::patience::Patience;

/// The most that is handed to hyper at once. With 256 KiB a 10 Gbit/s stream takes 5,000 polls a second, and a connection's share of memory
/// stays small enough for [`super::Settings::connections`].
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// What hyper sends.
pub(super) enum AnswerBody {
    /// All of it is in memory: a manifest, a list, an error.
    Whole(Full<Bytes>),
    /// It comes from the content.
    Streamed(StreamedBody),
}

impl AnswerBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Streamed(body) => body.poll_piece(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(body) => body.owed == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(body) => SizeHint::with_exact(body.owed),
        }
    }
}

/// A blob's bytes, or a range of them.
pub(super) struct StreamedBody {
    source: BlobStream,
    owed: u64,
    rest: Bytes,
    patience: Patience,
    cut: CutSwitch,
    metrics: Metrics,
    span: Span,
}

impl StreamedBody {
    /// A body of exactly `announced` bytes from a stream that may give nothing for `patience` at most. Its work belongs to the span that
    /// it was made in, the request's, which ends when the last byte is handed over.
    pub(super) fn new(
        source: BlobStream,
        announced: u64,
        patience: Duration,
        cut: CutSwitch,
        metrics: Metrics,
    ) -> Self {
        let (patience, span) = (Patience::new(patience), Span::current());
        Self { source, owed: announced, rest: Bytes::new(), patience, cut, metrics, span }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let _within = self.span.clone().entered();
        if self.owed == 0 {
            return Poll::Ready(None);
        }
        if self.cut.get().is_some() {
            return Poll::Pending;
        }
        while self.rest.is_empty() {
            match self.source.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.rest = bytes,
                Poll::Ready(Some(Err(failure))) => {
                    self.metrics.failed(&failure);
                    tracing::info!(%failure, "the source of a body failed");
                    return self.cut_short(Cut::SourceFailed);
                }
                Poll::Ready(None) => return self.cut_short(Cut::SourceEnded),
                Poll::Pending if self.patience.poll_over(cx).is_ready() => {
                    return self.cut_short(Cut::SourceStalled);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        self.patience.renew();
        let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES).min(owed));
        self.owed -= piece.len() as u64;
        self.metrics.sent(piece.len());
        Poll::Ready(Some(piece))
    }

    fn cut_short(&self, why: Cut) -> Poll<Option<Bytes>> {
        tracing::info!(cause = why.label(), owed = self.owed, "a body is cut: the runtime goes on elsewhere");
        self.cut.turn(why);
        Poll::Pending
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        if self.owed > 0 && self.cut.get().is_none() {
            self.metrics.left_early();
        }
    }
}
