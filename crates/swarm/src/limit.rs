//! Bytes a second, as a bucket that fills.
//!
//! State: the bucket's level and when it was last looked at.
//! Invariant: over any span at most rate × span + one burst passes.
//! Absent on purpose: waiting. The caller asks when and comes back.

use std::time::Duration;

use shoal_types::Time;

/// A limit on bytes a second; without a rate everything passes.
#[derive(Debug)]
pub(crate) struct Limit {
    rate: Option<u64>,
    /// Bytes that may pass; negative after a chunk larger than what was left.
    level: i64,
    at: Time,
}

impl Limit {
    pub(crate) const fn new(rate: Option<u64>) -> Self {
        Self { rate, level: 0, at: Time::ZERO }
    }

    /// When the next chunk may pass: now, if that isn't later than `now`.
    pub(crate) fn ready_at(&mut self, now: Time) -> Time {
        self.fill(now);
        match self.rate {
            Some(rate) if self.level < 0 => {
                let nanos = u128::from(self.level.unsigned_abs()) * 1_000_000_000 / u128::from(rate) + 1;
                now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            _ => now,
        }
    }

    /// Lets bytes pass. A chunk passes whole as soon as the level isn't negative, and its excess is paid back afterwards.
    pub(crate) fn take(&mut self, now: Time, bytes: u64) {
        if self.rate.is_some() {
            self.fill(now);
            self.level -= i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        }
    }

    fn fill(&mut self, now: Time) {
        let Some(rate) = self.rate else { return };
        let nanos = now.since(self.at).as_nanos();
        let gained = i64::try_from(u128::from(rate) * nanos / 1_000_000_000).unwrap_or(i64::MAX / 2);
        if gained == 0 && nanos > 0 {
            return; // Less than a byte: don't lose the time that passed.
        }
        // A burst of 50 ms: long enough for a timer's slack, short enough that nobody sees a peak.
        let burst = i64::try_from(rate / 20).unwrap_or(i64::MAX / 2);
        self.level = self.level.saturating_add(gained).min(burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_second_the_rate_and_one_burst_pass() {
        let mut limit = Limit::new(Some(1_000_000));
        let (mut now, mut passed) = (Time::from_nanos(1_000_000_000), 0);
        let end = now + Duration::from_secs(1);
        while now < end {
            let ready = limit.ready_at(now);
            if ready <= now {
                limit.take(now, 30_000);
                passed += 30_000;
            } else {
                now = ready;
            }
        }
        assert!((1_000_000..=1_000_000 + 50_000 + 30_000).contains(&passed), "{passed}");
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut limit = Limit::new(None);
        limit.take(Time::ZERO, u64::MAX);
        assert_eq!(limit.ready_at(Time::ZERO), Time::ZERO);
    }
}
