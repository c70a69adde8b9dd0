//! Waiting before trying again: longer each time, up to a bound, and not all nodes at the same moment.
//!
//! State: how often it was in vain, and a generator.
//! Invariants: no wait is longer than [`MAX`] or shorter than half of [`MIN`].
//! Absent on purpose: the sleep.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use shoal_types::Rng;

/// A few round trips: a tracker that restarts is back within a second.
const MIN: Duration = Duration::from_millis(100);
/// 5,000 nodes that wait between 5 and 10 s are 700 handshakes a second.
const MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Backoff {
    tries: u32,
    rng: Rng,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { tries: 0, rng: Rng::new(seed()) }
    }

    pub(super) const fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let longest = MIN.saturating_mul(1 << self.tries.min(10)).min(MAX);
        self.tries = self.tries.saturating_add(1);
        longest.mul_f64(0.5 + self.rng.unit() / 2.0)
    }
}

/// Random bits. Where the system has none, the address space's randomness has to do: this is for jitter.
pub(super) fn seed() -> u64 {
    let mut bits = [0; 8];
    match SystemRandom::new().fill(&mut bits) {
        Ok(()) => u64::from_be_bytes(bits),
        Err(_) => std::ptr::from_ref(&bits).addr() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits[0] >= MIN / 2 && waits[0] <= MIN, "{waits:?}");
        assert!(waits[10..].iter().all(|wait| (MAX / 2..=MAX).contains(wait)), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() <= MIN);
    }
}
