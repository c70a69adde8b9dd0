//! The streams that were cut a moment ago: their runtimes reopen them here first, and have to be sent on to the origin (RUNTIMES.md 5).
//!
//! State: a bounded table of moments.
//! Invariants: a blob's first byte is never refused for it: who asks for that begins a pull of its own.
//! Absent on purpose: who reads which stream. A reader that is sent to the origin without need loses nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bounded::Bounded;
use super::known::Place;

/// Runtimes reopen at once; this leaves time for one that was busy.
const COUNTS_FOR: Duration = Duration::from_secs(60);
/// As many as the mirror has connections, and each was cut a few times within a minute.
const MAX_CUTS: usize = 1 << 10;

#[derive(Debug)]
pub(super) struct Cuts(Mutex<Bounded<Place, Instant>>);

impl Cuts {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Bounded::new(MAX_CUTS)))
    }

    pub(super) fn note(&self, place: &Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), Instant::now());
    }

    /// Whether a stream that starts here is one that was cut.
    pub(super) fn is_reopened(&self, place: &Place, start: u64) -> bool {
        let mut cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        start > 0 && cuts.get(place).is_some_and(|at| at.elapsed() < COUNTS_FOR)
    }
}
