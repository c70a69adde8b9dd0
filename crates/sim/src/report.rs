//! What several seeds came to: each figure's median and 95th percentile, as JSON or as a table.
//!
//! State: none. Invariants: percentiles are by nearest rank, so each is a value that was measured.
//! Absent on purpose: means. One bad run is what they hide.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::scenario::{Draft, Sample};

/// A figure over the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) p95: f64,
}

/// A scenario's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) nodes: usize,
    /// Bytes of the blob, or of an image.
    pub(crate) size: u64,
    pub(crate) seeds: usize,
    pub(crate) preset: String,
    /// When the last node was done, over the bound.
    pub(crate) t_last_over_bound: Figure,
    /// How long the 99th percentile of the nodes took, over the median.
    pub(crate) p99_over_p50: Figure,
    /// What the origin sent, over all content once.
    pub(crate) origin_copies: Figure,
    /// The fraction of the bytes received from peers that were there already or wrong.
    pub(crate) wasted: Figure,
    /// When the last node was done, over the same in the undisturbed run of the seed. With stragglers: the 99th percentile of the others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) vs_undisturbed: Option<Figure>,
    /// The same as a difference in seconds, of the last node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) delay_seconds: Option<Figure>,
    /// The free riders' median time over the others'.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rider_over_giver: Option<Figure>,
    /// The same at its 5th percentile: this one had better be large.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rider_over_giver_p5: Option<f64>,
    /// What crossed between zones, over all content once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) bytes_across: Option<Figure>,
    pub(crate) unfinished: usize,
    pub(crate) wrong_bytes: u64,
    pub(crate) honest_bans: usize,
    pub(crate) bound_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// Of everything that happened, in its order: equal runs have equal traces.
    pub(crate) trace: String,
    /// The invariants that didn't hold, each with the seed and the command that shows it.
    pub(crate) violations: Vec<String>,
}

impl Report {
    /// The samples' figures.
    pub(crate) fn new(draft: &Draft, samples: &[Sample], wall_seconds: f64) -> Self {
        let figure = |of: fn(&Sample) -> f64| Figure::of(samples.iter().map(of));
        let optional = |of: fn(&Sample) -> Option<f64>| {
            let values: Option<Vec<f64>> = samples.iter().map(of).collect();
            values.filter(|values| !values.is_empty()).map(|values| Figure::of(values.into_iter()))
        };
        let mut ratios: Vec<f64> = samples.iter().filter_map(|sample| sample.rider_over_giver).collect();
        ratios.sort_by(f64::total_cmp);
        let trace = samples.iter().fold(0_u64, |all, sample| all.rotate_left(7) ^ sample.trace);
        Self {
            scenario: draft.scenario.name.to_owned(),
            nodes: draft.plan.nodes,
            size: draft.plan.size.bytes(),
            seeds: samples.len(),
            preset: draft.preset.name().to_owned(),
            t_last_over_bound: figure(|sample| sample.t_last_over_bound),
            p99_over_p50: figure(|sample| sample.p99_over_p50),
            origin_copies: figure(|sample| sample.origin_copies),
            wasted: figure(|sample| sample.wasted),
            vs_undisturbed: optional(|sample| sample.vs_undisturbed),
            delay_seconds: optional(|sample| sample.delay_seconds),
            rider_over_giver: optional(|sample| sample.rider_over_giver),
            rider_over_giver_p5: (!ratios.is_empty()).then(|| nearest_rank(&ratios, 0.05)),
            bytes_across: optional(|sample| sample.bytes_across),
            unfinished: samples.iter().map(|sample| sample.unfinished).sum(),
            wrong_bytes: samples.iter().map(|sample| sample.wrong_bytes).sum(),
            honest_bans: samples.iter().map(|sample| sample.honest_bans).sum(),
            bound_seconds: figure(|sample| sample.bound_seconds).median,
            wall_seconds,
            trace: format!("{trace:016x}"),
            violations: samples.iter().flat_map(|sample| sample.violations.clone()).collect(),
        }
    }

    /// The figures that this scenario has, with their names.
    pub(crate) fn figures(&self) -> Vec<(&'static str, Figure)> {
        let always = [
            ("t_last_over_bound", Some(self.t_last_over_bound)),
            ("p99_over_p50", Some(self.p99_over_p50)),
            ("origin_copies", Some(self.origin_copies)),
            ("wasted", Some(self.wasted)),
            ("vs_undisturbed", self.vs_undisturbed),
            ("delay_seconds", self.delay_seconds),
            ("rider_over_giver", self.rider_over_giver),
            ("bytes_across", self.bytes_across),
        ];
        always.into_iter().filter_map(|(name, figure)| Some((name, figure?))).collect()
    }

    /// The report as a table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<18}  {:>9}  {:>9}\n", "", "median", "p95");
        for (name, figure) in self.figures() {
            let _ = writeln!(text, "{name:<18}  {:>9.4}  {:>9.4}", figure.median, figure.p95);
        }
        for (name, count) in [
            ("unfinished", self.unfinished as u64),
            ("wrong_bytes", self.wrong_bytes),
            ("honest_bans", self.honest_bans as u64),
        ] {
            let _ = writeln!(text, "{name:<18}  {count:>9}");
        }
        for (name, seconds) in [("bound_seconds", self.bound_seconds), ("wall_seconds", self.wall_seconds)] {
            let _ = writeln!(text, "{name:<18}  {seconds:>9.4}");
        }
        let _ = writeln!(text, "{:<18}  {}", "trace", self.trace);
        text
    }
}

impl Figure {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: nearest_rank(&values, 0.5), p95: nearest_rank(&values, 0.95) }
    }
}

/// The smallest of the sorted values that at least this share of them doesn't exceed. Of no values: 0.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank among as many values as there are nodes"
)]
pub(crate) fn nearest_rank(sorted: &[f64], share: f64) -> f64 {
    // A product that is a whole number but for its rounding is that number.
    let rank = (sorted.len() as f64 * share - 1e-9).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Preset, Scenario, Size};

    #[test]
    fn ranks_are_the_nearest_above() {
        let values = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        for (count, share, expected) in [
            (100, 0.99, 99.0),
            (100, 0.5, 50.0),
            (101, 0.5, 51.0),
            (20, 0.95, 19.0),
            (5, 0.95, 5.0),
            (2, 0.95, 2.0),
            (2, 0.5, 1.0),
            (1, 0.5, 1.0),
        ] {
            assert!((nearest_rank(&values(count), share) - expected).abs() < 1e-12, "{share} of {count}");
        }
        assert!(nearest_rank(&[], 0.5).abs() < 1e-12);
    }

    #[test]
    fn json_has_the_figures_that_the_scenario_has() {
        let draft =
            Scenario::named("burst").unwrap().draft(Preset::Shoal, 50, Size::new(1 << 20).unwrap(), &[]).unwrap();
        let sample = Sample { bytes_across: Some(1.5), ..Sample::default() };
        let json = serde_json::to_value(Report::new(&draft, &[sample], 1.0)).unwrap();
        assert_eq!(json["bytes_across"]["p95"], 1.5);
        assert!(json.get("vs_undisturbed").is_none());
        assert_eq!((json["scenario"].as_str(), json["size"].as_u64()), (Some("burst"), Some(1 << 20)));
    }
}
