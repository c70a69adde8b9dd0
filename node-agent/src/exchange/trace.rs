//! One transfer in the traces: a span from the first want to the last chunk, below the request that wanted it.
//!
//! State: the span, and how many bytes came from where.
//! Invariants: it ends when the blob is whole or given up. What a lead fetches is a span below it.
//! Absent on purpose: a span for each chunk, which would be thousands a second.

use tracing::field::Empty;
use tracing::{Instrument, Span};

use shoal_types::BlobInfo;

/// The span of a transfer.
#[derive(Debug)]
pub(super) struct Trace {
    span: Span,
    from_peers: u64,
    from_origin: u64,
}

impl Trace {
    /// Begins below the span of whoever wants it.
    pub(super) fn new(parent: &Span, blob: &BlobInfo) -> Self {
        let span = tracing::info_span!(
            parent: parent,
            "transfer",
            digest = %blob.digest,
            bytes = blob.geometry.size_bytes(),
            from_peers = Empty,
            from_origin = Empty,
        );
        Self { span, from_peers: 0, from_origin: 0 }
    }

    /// For what nobody here waits for.
    pub(super) fn none() -> Self {
        Self { span: Span::none(), from_peers: 0, from_origin: 0 }
    }

    pub(super) fn add_from_peers(&mut self, bytes: u64) {
        self.from_peers += bytes;
    }

    pub(super) fn add_from_origin(&mut self, bytes: u64) {
        self.from_origin += bytes;
    }

    /// Work at the origin that belongs to it.
    pub(super) fn fetch<F: Future>(&self, first: u32, end: u32, fetch: F) -> impl Future<Output = F::Output> + use<F> {
        fetch.instrument(tracing::info_span!(parent: &self.span, "origin.fetch", first, end))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.span.record("from_peers", self.from_peers).record("from_origin", self.from_origin);
    }
}
