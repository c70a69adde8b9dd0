//! What a run is judged by.
//!
//! State: none. Absent on purpose: verdicts. The figures' limits are in the documentation, beside the command that gives them.

use serde::Serialize;

/// When the nodes of a run were done, in seconds after the common start.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    sorted: Vec<f64>,
}

impl Times {
    /// None for no node.
    #[must_use]
    pub fn new(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        (!seconds.is_empty()).then_some(Self { sorted: seconds })
    }

    /// The first node's.
    #[must_use]
    pub fn first(&self) -> f64 {
        self.sorted[0]
    }

    /// The last node's.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// The median: of an even number the mean of the two in the middle.
    #[must_use]
    pub fn p50(&self) -> f64 {
        let middle = self.sorted.len() / 2;
        if self.sorted.len() % 2 == 1 {
            self.sorted[middle]
        } else {
            f64::midpoint(self.sorted[middle - 1], self.sorted[middle])
        }
    }

    /// That of which so many percent are at most as large.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.sorted.len() * percent.min(100)).div_ceil(100).max(1);
        self.sorted[rank - 1]
    }
}

/// Rounded for printing: what is measured isn't known better than to a thousandth.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Bytes for arithmetic.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "bytes of a run, far below 2^53")]
pub const fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// One node of a run.
#[derive(Clone, Debug, Serialize)]
pub struct NodeFigures {
    /// Its name.
    pub name: String,
    /// When it had everything, proven.
    pub seconds: f64,
    /// Bytes that came from peers, if its agent told.
    pub peer_bytes: Option<u64>,
    /// Bytes that came from the origin, if its agent told.
    pub origin_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times = Times::new((1..=300_u32).map(f64::from).collect()).unwrap();
        assert_eq!([0, 1, 50, 99, 100].map(|percent| times.percentile(percent)), [1.0, 3.0, 150.0, 297.0, 300.0]);
        assert_eq!(Times::new(vec![7.0]).unwrap().percentile(99), 7.0);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Times::new(Vec::new()), None);
        for (seconds, expected) in
            [(vec![2.0], (2.0, 2.0, 2.0)), (vec![3.0, 1.0], (1.0, 2.0, 3.0)), (vec![9.0, 1.0, 2.0], (1.0, 2.0, 9.0))]
        {
            let times = Times::new(seconds).unwrap();
            assert_eq!((times.first(), times.p50(), times.last()), expected);
        }
    }
}
