//! A limit on bytes a second that several connections share.
//!
//! State: until when the bytes that passed have used the rate up.
//! Invariants: over any span at most rate × span and one burst pass, and what was let pass without waiting. Who asks is served in
//! the order of asking, a piece at a time, so connections share evenly.
//! Absent on purpose: classes and weights.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Unused time that may be made up for: the timer's granularity and a scheduler's delay, a few times.
const BURST: Duration = Duration::from_millis(10);

/// Bytes that pass at a time under a limit: a record of TLS. Larger ones would leave the others waiting for longer.
const LIMITED_PIECE: usize = 16 << 10;

/// A limit, or none.
#[derive(Debug)]
pub(crate) struct Rate {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: u64,
    used_until: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        let limit = bytes_per_second
            .map(|rate| Limit { bytes_per_second: rate.max(1), used_until: Mutex::new(Instant::now()) });
        Self { limit }
    }

    /// How many bytes to move at a time, if it would be `most` without a limit.
    pub(crate) fn piece(&self, most: usize) -> usize {
        if self.limit.is_some() { most.min(LIMITED_PIECE) } else { most }
    }

    /// Waits until so many bytes may pass.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Some(limit) = &self.limit {
            let from = limit.reserve(bytes);
            // The next tick of the clock is as good as now.
            if from > Instant::now() {
                sleep_until(from).await;
            }
        }
    }

    /// Counts bytes that pass at once; others wait for them.
    pub(crate) fn charge(&self, bytes: usize) {
        if let Some(limit) = &self.limit {
            limit.reserve(bytes);
        }
    }
}

impl Limit {
    /// From when on the bytes may pass.
    fn reserve(&self, bytes: usize) -> Instant {
        let span = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut used_until = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let from = (*used_until).max(now.checked_sub(BURST).unwrap_or(now));
        *used_until = from + span;
        from
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Bytes that pass for each of so many connections in a second.
    async fn pass(rate: u64, connections: usize) -> Vec<usize> {
        let rate = Arc::new(Rate::new(Some(rate)));
        let end = Instant::now() + Duration::from_secs(1);
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let rate = rate.clone();
                tokio::spawn(async move {
                    let mut passed = 0;
                    let piece = rate.piece(256 << 10);
                    loop {
                        rate.take(piece).await;
                        if Instant::now() >= end {
                            return passed;
                        }
                        passed += piece;
                    }
                })
            })
            .collect();
        let mut passed = Vec::new();
        for task in tasks {
            passed.push(task.await.unwrap());
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn over_a_second_the_rate_and_one_burst_pass() {
        for rate in [1_000_000, 25_000_000, 1_250_000_000_u64] {
            let passed: usize = pass(rate, 3).await.iter().sum();
            let expected = usize::try_from(rate).unwrap();
            let slack = expected / 50 + 4 * LIMITED_PIECE;
            assert!((expected - slack..=expected + slack).contains(&passed), "{passed} of {expected}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_share_evenly() {
        let passed = pass(25_000_000, 7).await;
        let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
        assert!(most - least <= 2 * LIMITED_PIECE, "{passed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_charged_is_waited_for_by_the_others() {
        let rate = Rate::new(Some(1_000_000));
        let start = Instant::now();
        rate.charge(1_000_000);
        rate.take(1).await;
        let waited = start.elapsed();
        assert!((Duration::from_millis(985)..Duration::from_millis(1_005)).contains(&waited), "{waited:?}");
        Rate::new(None).take(usize::MAX).await;
    }
}
