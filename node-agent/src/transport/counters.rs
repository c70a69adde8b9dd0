//! What has happened on the connections, for metrics.
//!
//! State: counters.
//! Invariants: labels come from closed sets.
//! Absent on purpose: a metrics library; who exports them reads a snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    frames_unknown: AtomicU64,
    opened: AtomicU64,
    closed: Mutex<BTreeMap<&'static str, u64>>,
    failed: Mutex<BTreeMap<&'static str, u64>>,
}

/// The counters at one point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Bytes of frames and chunks that came, without TLS's own.
    pub bytes_received: u64,
    /// Bytes of frames and chunks that left, without TLS's own.
    pub bytes_sent: u64,
    /// Frames of later releases that were skipped.
    pub frames_unknown: u64,
    /// Connections that stood.
    pub opened: u64,
    /// Connections that have ended, by [`CloseCause::label`](super::CloseCause::label).
    pub closed: BTreeMap<&'static str, u64>,
    /// Handshakes that failed, of either side, by [`ConnectError::label`](super::ConnectError::label), and `crowded` for connections
    /// that were dropped before it because too many were in it.
    pub failed: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn unknown_frame(&self) {
        self.frames_unknown.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, label: &'static str) {
        count(&self.closed, label);
    }

    pub(crate) fn failed(&self, label: &'static str) {
        count(&self.failed, label);
    }

    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        CountersSnapshot {
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            frames_unknown: self.frames_unknown.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            closed: self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            failed: self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn count(counters: &Mutex<BTreeMap<&'static str, u64>>, label: &'static str) {
    *counters.lock().unwrap_or_else(PoisonError::into_inner).entry(label).or_default() += 1;
}
