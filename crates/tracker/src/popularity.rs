//! How much a blob is wanted: newcomers, counted with a half-life.
//!
//! State: a score and when it was last brought up to date.
//! Invariants: the score is finite and not negative.
//! Absent on purpose: periodic announces. A blob that a thousand nodes keep is not thereby wanted.

use std::time::Duration;

use shoal_types::Time;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Popularity {
    score: f64,
    at: Time,
}

impl Popularity {
    /// Somebody wants the blob.
    pub(crate) fn count(&mut self, now: Time, half_life: Duration) {
        self.score = self.at(now, half_life) + 1.0;
        self.at = now;
    }

    /// The score now.
    pub(crate) fn at(&self, now: Time, half_life: Duration) -> f64 {
        let halvings = now.since(self.at).as_secs_f64() / half_life.as_secs_f64();
        self.score * (-halvings).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves() {
        let half_life = Duration::from_secs(10);
        let mut popularity = Popularity::default();
        for _ in 0..8 {
            popularity.count(Time::ZERO, half_life);
        }
        assert!((popularity.at(Time::ZERO + half_life, half_life) - 4.0).abs() < 1e-9);
        popularity.count(Time::ZERO + half_life * 2, half_life);
        assert!((popularity.at(Time::ZERO + half_life * 2, half_life) - 3.0).abs() < 1e-9);
    }
}
