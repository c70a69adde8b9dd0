//! How long a distribution takes: without exchange, at best, and by simulation. For those who plan one.
//!
//! A simulation takes time in proportion to nodes, chunks and virtual seconds, so a large distribution is simulated smaller: with fewer nodes, of which the time hardly
//! depends (docs/simulation.md: 1,000 take 3 % longer than 100), and with fewer bytes. What the simulated one takes over its bound is what the
//! planned one is said to take over its own.
//!
//! State: none. Invariant: the same distribution gives the same forecast, everywhere.
//! Absent on purpose: trouble, zones, several blobs: whoever wants these runs the simulator itself.

use std::fmt;

use crate::bound;
use crate::scenario::{Draft, Knobs, Plan, Preset, Scenario, Size, Usual, run, units};

/// Nodes that are simulated at most.
const NODES: usize = 50;
/// Bytes that are simulated at most: 2,048 of the largest chunks.
const BYTES: u64 = 8 << 30;
/// Virtual time that is simulated at most, by the bound: nodes do something every few milliseconds of it.
const SECONDS: f64 = 5.0;
/// Bytes that are simulated at least, where there are so many: 512 of the smallest chunks. With fewer, what connecting takes would count.
const LEAST_BYTES: u64 = 32 << 20;

/// A blob that equal nodes pull at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution {
    /// How many nodes.
    pub nodes: usize,
    /// How large the blob is.
    pub size_bytes: u64,
    /// What a node's link carries each way, in bytes a second.
    pub node_rate: f64,
    /// What the origin sends, in bytes a second.
    pub origin_rate: f64,
}

/// What it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// If the origin sends every node its copy.
    pub client_server_seconds: f64,
    /// The least that is possible.
    pub bound_seconds: f64,
    /// With Shoal, by the simulation.
    pub shoal_seconds: f64,
    /// What that is over the bound.
    pub over_bound: f64,
    /// Copies that the origin sent in the simulation.
    pub origin_copies: f64,
    /// How many nodes were simulated.
    pub simulated_nodes: usize,
    /// With a blob of how many bytes.
    pub simulated_bytes: u64,
}

/// Why there is no forecast; one line that says what would be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForecastError(String);

impl fmt::Display for ForecastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ForecastError {}

/// Bytes a second of a rate in bits, as in 10Gbit, 2.5Gbit, 100Mbit.
///
/// # Errors
/// If it is none.
pub fn rate(text: &str) -> Result<f64, ForecastError> {
    units::rate(text).map_err(ForecastError)
}

impl Distribution {
    /// What it takes: some seconds of one core.
    ///
    /// # Errors
    /// If there are no nodes or bytes, or too many.
    pub fn forecast(&self) -> Result<Forecast, ForecastError> {
        let whole = self.plan()?;
        let setup = whole.undisturbed(SEED);
        let bound_seconds = bound::fluid(&setup);
        let alone = float(self.size_bytes) / self.node_rate;
        let smaller = self.smaller(bound_seconds);
        let plan = smaller.plan()?;
        let burst = Scenario::named("burst").and_then(|burst| burst.draft(Preset::Shoal, plan.nodes, plan.size, &[]));
        let draft = Draft { plan, ..burst.map_err(ForecastError)? };
        let samples = run(&draft, SEED..=SEED, 1, &Usual::default());
        let sample = samples.first().filter(|sample| sample.unfinished == 0 && sample.t_last_over_bound > 0.0);
        let sample = sample.ok_or_else(|| ForecastError("the simulation didn't come to an end".to_owned()))?;
        Ok(Forecast {
            client_server_seconds: bound::client_server(&setup).max(alone),
            bound_seconds,
            shoal_seconds: bound_seconds * sample.t_last_over_bound,
            over_bound: sample.t_last_over_bound,
            origin_copies: sample.origin_copies,
            simulated_nodes: smaller.nodes,
            simulated_bytes: smaller.size_bytes,
        })
    }

    fn plan(&self) -> Result<Plan, ForecastError> {
        let knobs = Knobs {
            uplink: self.node_rate,
            downlink: self.node_rate,
            origin_rate: self.origin_rate,
            ..Knobs::of(Preset::Shoal)
        };
        let size = Size::new(self.size_bytes).ok_or_else(|| ForecastError("the size is zero".to_owned()))?;
        let plan = Plan { knobs, nodes: self.nodes, size };
        plan.check().map_err(ForecastError)?;
        Ok(plan)
    }

    /// As much of it as is simulated.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the size, which is a u64")]
    fn smaller(self, bound_seconds: f64) -> Self {
        let in_time = float(self.size_bytes) * (SECONDS / bound_seconds).min(1.0);
        let most = BYTES.min((in_time as u64).max(LEAST_BYTES));
        Self { nodes: self.nodes.min(NODES), size_bytes: self.size_bytes.min(most), ..self }
    }
}

/// Any: seeds differ by a hundredth.
const SEED: u64 = 1;

#[allow(clippy::cast_precision_loss, reason = "bytes of a blob, far below 2^53")]
const fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABIT: f64 = 1.25e8;

    #[test]
    fn what_is_small_is_simulated_as_it_is() {
        let small = Distribution { nodes: 8, size_bytes: 64 << 20, node_rate: GIGABIT, origin_rate: GIGABIT };
        let forecast = small.forecast().unwrap();
        assert_eq!((forecast.simulated_nodes, forecast.simulated_bytes), (8, 64 << 20));
        assert!((forecast.client_server_seconds / forecast.bound_seconds - 8.0).abs() < 1e-9, "{forecast:?}");
        assert!((1.0..1.5).contains(&forecast.over_bound), "{forecast:?}");
        assert!(forecast.shoal_seconds < forecast.client_server_seconds, "{forecast:?}");
        assert_eq!(small.forecast(), Ok(forecast));
        let one = Distribution { nodes: 1, node_rate: GIGABIT / 10.0, ..small };
        let forecast = one.forecast().unwrap();
        assert!((forecast.client_server_seconds - float(64 << 20) / one.node_rate).abs() < 1e-9, "{forecast:?}");
    }

    #[test]
    fn what_is_large_is_simulated_smaller() {
        let large = Distribution { nodes: 5_000, size_bytes: 1 << 40, node_rate: GIGABIT, origin_rate: GIGABIT };
        let smaller = large.smaller(float(1 << 40) / GIGABIT);
        assert_eq!(smaller.nodes, NODES);
        assert!((float(smaller.size_bytes) / GIGABIT - SECONDS).abs() < 0.1, "{smaller:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let none = Distribution { nodes: 0, size_bytes: 1, node_rate: GIGABIT, origin_rate: GIGABIT };
        assert!(none.forecast().unwrap_err().to_string().starts_with("nodes: expected 1 to "));
        let empty = Distribution { nodes: 1, size_bytes: 0, ..none };
        assert_eq!(empty.forecast().unwrap_err().to_string(), "the size is zero");
        assert!(rate("fast").is_err());
    }
}
