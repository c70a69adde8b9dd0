//! What is measured: the figures that are asked for with their limits, the presets over the number of nodes, the exchange's variants.
//!
//! State: none. Invariants: each row's limits are those of the project's goals, not of what was measured.
//! Absent on purpose: rows without a figure.

use super::{Store, Wanted};
use crate::plot::{COLOURS, Line};
use crate::report::{Figure, Report};
use crate::scenario::Preset;

pub(super) const GIB: u64 = 1 << 30;
const MIB_32: u64 = 32 << 20;

/// The swarms' sizes, and how many seeds each is measured with.
pub(super) const SCALES: [(usize, u64); 3] = [(100, 20), (1_000, 5), (10_000, 2)];

/// Nodes on the plot's axis.
const AXIS: [usize; 7] = [10, 30, 100, 300, 1_000, 3_000, 10_000];

/// The scale at which variants are compared.
pub(super) const VARIANTS_AT: (usize, u64) = (300, 3);

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Asked {
    AtMost(f64),
    AtLeast(f64),
    /// It is measured, without a limit.
    Shown,
    /// Nothing: not measured either.
    Nothing,
}

/// How a row's figure comes from its scenario's report, and of the report of what it is compared with.
pub(super) type Of = fn(&Report, Option<&Report>) -> Option<f64>;

/// One figure of one scenario.
pub(super) struct Row {
    pub(super) id: &'static str,
    pub(super) figure: &'static str,
    pub(super) scenario: &'static str,
    pub(super) preset: Preset,
    pub(super) size_bytes: u64,
    /// The figure is a ratio to this preset's.
    pub(super) against: Option<Preset>,
    pub(super) of: Of,
    pub(super) asked: [Asked; 3],
}

/// A change of the exchange's settings, and what it is about.
pub(super) const VARIANTS: &[(&[&str], &str)] = &[
    (&[], "the default"),
    (&["order=random"], "any missing chunk instead of the rarest"),
    (&["order=sequential"], "the first missing chunk"),
    (&["random-first=0"], "no random first chunks"),
    (&["stream-percent=20"], "a fifth of the choices for the first chunk that a reader of the blob lacks"),
    (&["stream-percent=50"], "half of them"),
    (&["serve-order=fifo"], "requests are served as they come"),
    (&["promises=no"], "nothing is asked for while it is still arriving at a neighbour"),
    (&["substitute=no"], "no other chunk in place of one that has got around"),
    (&["serving=tit-for-tat", "rechoke=100ms", "optimistic=300ms"], "tit-for-tat at a data centre's pace"),
    (&["serving=open", "uploads-at-once=4"], "everybody is served alike"),
    (&["endgame-percent=0"], "no endgame"),
    (&["inflight-chunks=1"], "at least one request in flight instead of two"),
    (&["inflight-chunks=4"], "at least four"),
    (&["max-peers=10"], "10 neighbours instead of 40"),
    (&["max-peers=20"], "20"),
    (&["have-interval=2ms"], "new chunks are told every 2 ms instead of every 0.84 ms, with 32 MiB 0.2 ms"),
    (&["target-chunks=512"], "512 chunks, as far as they are at least 64 KiB"),
    (&["target-chunks=1024"], "1,024 chunks"),
    (&["target-chunks=2048"], "2,048 chunks, the default"),
    (&["target-chunks=4096"], "4,096 chunks"),
    (&["mesh=cold"], "neighbours connect only when the pull begins"),
];

const fn row(id: &'static str, scenario: &'static str, figure: &'static str, of: Of, asked: [Asked; 3]) -> Row {
    Row { id, figure, scenario, preset: Preset::Shoal, size_bytes: GIB, against: None, of, asked }
}

const fn at_most(limits: [f64; 2]) -> [Asked; 3] {
    [Asked::AtMost(limits[0]), Asked::AtMost(limits[1]), Asked::Nothing]
}

const fn at_most_of_3(limits: [f64; 3]) -> [Asked; 3] {
    [Asked::AtMost(limits[0]), Asked::AtMost(limits[1]), Asked::AtMost(limits[2])]
}

const T_LAST: &str = "t_last/bound";
const VERSUS: &str = "vs_undisturbed";
const COPIES: &str = "origin_copies";

/// The rows, in the order of their letters.
pub(super) const ROWS: &[Row] = &[
    row("a", "burst", T_LAST, t_last, at_most_of_3([1.08, 1.10, 1.12])),
    Row {
        size_bytes: MIB_32,
        ..row("b", "burst", T_LAST, t_last, [Asked::AtMost(1.20), Asked::AtMost(1.25), Asked::Shown])
    },
    row("c", "burst", COPIES, copies, at_most_of_3([1.02, 1.02, 1.05])),
    Row { size_bytes: MIB_32, ..row("c", "burst", COPIES, copies, at_most_of_3([1.02, 1.02, 1.05])) },
    row("c", "staggered", COPIES, copies, at_most_of_3([1.02, 1.02, 1.05])),
    row("d", "burst", "p99/p50", |report, _| Some(report.p99_over_p50.p95), at_most_of_3([1.10, 1.10, 1.15])),
    Row {
        against: Some(Preset::KrakenPolicy),
        ..row(
            "e",
            "burst",
            "t_last of `shoal` / of `kraken-policy`",
            t_last_ratio,
            [Asked::Nothing, Asked::AtMost(0.88), Asked::AtMost(0.85)],
        )
    },
    Row {
        size_bytes: MIB_32,
        against: Some(Preset::KrakenPolicy),
        ..row(
            "e",
            "burst",
            "t_last of `shoal` / of `kraken-policy`",
            t_last_ratio,
            [Asked::Nothing, Asked::AtMost(0.60), Asked::Nothing],
        )
    },
    Row {
        preset: Preset::KrakenPolicy,
        ..row(
            "e",
            "burst",
            "t_last/bound of `kraken-policy`, at least",
            t_last_median,
            [Asked::Nothing, Asked::AtLeast(1.2), Asked::Nothing],
        )
    },
    Row {
        preset: Preset::KrakenPolicy,
        ..row("e", "burst", "the same, at most", t_last_median, [Asked::Nothing, Asked::AtMost(1.5), Asked::Nothing])
    },
    row("f", "churn", VERSUS, versus, at_most_of_3([1.25, 1.20, 1.20])),
    row("g", "liars", VERSUS, versus, at_most([1.25, 1.25])),
    row("g", "liars", "wrong_bytes", wrong_bytes, at_most([0.0, 0.0])),
    row("g", "liars", "honest_bans", honest_bans, at_most([0.0, 0.0])),
    row("g", "framers", VERSUS, versus, at_most([1.25, 1.25])),
    row("g", "framers", "wrong_bytes", wrong_bytes, at_most([0.0, 0.0])),
    row("g", "framers", "honest_bans", honest_bans, at_most([0.0, 0.0])),
    row("g", "lying-lead", VERSUS, versus, at_most([2.3, 2.3])),
    row("g", "lying-lead", "wrong_bytes", wrong_bytes, at_most([0.0, 0.0])),
    row("g", "lying-lead", "honest_bans", honest_bans, at_most([0.0, 0.0])),
    row("h", "stragglers", "fast nodes' p99 / the same without stragglers", versus, at_most([1.20, 1.20])),
    row("i", "tracker-outage", VERSUS, versus, at_most([1.10, 1.15])),
    row(
        "j",
        "free-riders",
        "rider_over_giver (5th percentile)",
        |report, _| report.rider_over_giver_p5,
        [Asked::AtLeast(1.25), Asked::AtLeast(1.25), Asked::Nothing],
    ),
    row("j", "free-riders", "unfinished", |report, _| Some(count(report.unfinished as u64)), at_most([0.0, 0.0])),
    row("k", "zones", "bytes_across", |report, _| p95(report.bytes_across), at_most([1.15, 1.10])),
    row("k", "zones", T_LAST, t_last, at_most([1.25, 1.25])),
    row("l", "images", T_LAST, t_last, at_most([1.15, 1.20])),
    row("m", "lead-dies", VERSUS, versus, at_most([1.10, 1.10])),
    row("m", "lead-dies", COPIES, copies, at_most([1.05, 1.05])),
    row("m", "lead-vanishes", "seconds over undisturbed", |report, _| p95(report.delay_seconds), at_most([1.5, 1.5])),
    row("m", "lead-vanishes", COPIES, copies, at_most([1.05, 1.05])),
    row(
        "–",
        "origin-outage",
        "seconds over undisturbed",
        |report, _| p95(report.delay_seconds),
        [Asked::Shown, Asked::Shown, Asked::Nothing],
    ),
];

impl Row {
    /// What is measured for it at a scale.
    pub(super) fn wanted(&self, scale: usize) -> Vec<Wanted> {
        if self.asked[scale] == Asked::Nothing {
            return Vec::new();
        }
        let (nodes, seeds) = SCALES[scale];
        let of = |preset| Wanted {
            scenario: self.scenario,
            preset,
            nodes,
            size_bytes: self.size_bytes,
            settings: &[],
            seeds,
        };
        [self.preset].into_iter().chain(self.against).map(of).collect()
    }

    /// Its figure at a scale, if that was measured.
    pub(super) fn value(&self, store: &Store, scale: usize) -> Option<f64> {
        let wanted = self.wanted(scale);
        let other = wanted.get(1).and_then(|wanted| store.of(wanted));
        (self.of)(store.of(wanted.first()?)?, other)
    }
}

impl Asked {
    /// Whether a value meets it.
    pub(super) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Shown | Self::Nothing => true,
        }
    }
}

/// Everything to measure, by the part of the page that shows it.
pub(super) fn parts() -> Vec<(String, Vec<Wanted>)> {
    let of_row = |row: &Row| (row.id.to_owned(), (0..SCALES.len()).flat_map(|scale| row.wanted(scale)).collect());
    let mut parts: Vec<_> = ROWS.iter().map(of_row).collect();
    parts.push(("presets".to_owned(), Preset::ALL.iter().flat_map(|preset| points(*preset)).collect()));
    parts.push(("variants".to_owned(), VARIANTS.iter().flat_map(|(settings, _)| variant(settings)).collect()));
    parts
}

/// A variant with a large and with a small blob. How many chunks there are matters to the large one only: the small one's are the
/// smallest that there are.
pub(super) fn variant(settings: &'static [&'static str]) -> [Wanted; 2] {
    let (nodes, seeds) = VARIANTS_AT;
    [GIB, MIB_32].map(|size_bytes| Wanted {
        scenario: "burst",
        preset: Preset::Shoal,
        nodes,
        size_bytes,
        settings,
        seeds,
    })
}

/// A preset over the number of nodes.
pub(super) fn points(preset: Preset) -> Vec<Wanted> {
    // The textbook's many small chunks take minutes of simulation for each thousand nodes.
    let axis = AXIS.iter().filter(|nodes| preset != Preset::Classic || **nodes <= 1_000);
    let of = |nodes: &usize| {
        // The same runs as the rows', where there are any.
        let of_rows = SCALES.iter().find(|(scale, _)| scale == nodes).map(|(_, seeds)| *seeds);
        let of_rows = of_rows.filter(|_| matches!(preset, Preset::Shoal | Preset::KrakenPolicy) && *nodes >= 1_000);
        let seeds = of_rows.unwrap_or(if *nodes >= 1_000 { 2 } else { 3 });
        Wanted { scenario: "burst", preset, nodes: *nodes, size_bytes: GIB, settings: &[], seeds }
    };
    axis.map(of).collect()
}

/// The plot's lines, of what was measured.
pub(super) fn lines(store: &Store) -> Vec<Line> {
    let of = |(preset, colour): (Preset, _)| {
        let points = points(preset).into_iter().filter_map(|wanted| {
            let report = store.of(&wanted)?;
            Some((wanted.nodes, report.t_last_over_bound.median * report.bound_seconds, report.bound_seconds))
        });
        Line { name: preset.name(), colour, points: points.collect() }
    };
    Preset::ALL.into_iter().zip(COLOURS).map(of).collect()
}

fn t_last(report: &Report, _: Option<&Report>) -> Option<f64> {
    Some(report.t_last_over_bound.p95)
}

fn t_last_median(report: &Report, _: Option<&Report>) -> Option<f64> {
    Some(report.t_last_over_bound.median)
}

/// Of one's worse runs to the other's median: a ratio that is met by no luck of the other.
fn t_last_ratio(report: &Report, other: Option<&Report>) -> Option<f64> {
    Some(report.t_last_over_bound.p95 / other?.t_last_over_bound.median)
}

fn copies(report: &Report, _: Option<&Report>) -> Option<f64> {
    Some(report.origin_copies.p95)
}

fn versus(report: &Report, _: Option<&Report>) -> Option<f64> {
    p95(report.vs_undisturbed)
}

fn wrong_bytes(report: &Report, _: Option<&Report>) -> Option<f64> {
    Some(count(report.wrong_bytes))
}

fn honest_bans(report: &Report, _: Option<&Report>) -> Option<f64> {
    Some(count(report.honest_bans as u64))
}

fn p95(figure: Option<Figure>) -> Option<f64> {
    figure.map(|figure| figure.p95)
}

#[allow(clippy::cast_precision_loss, reason = "a count to be compared with none")]
const fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_letters_and_none_is_missing() {
        let mut ids: Vec<_> = ROWS.iter().map(|row| row.id).collect();
        ids.dedup();
        assert_eq!(ids.concat(), "abcdefghijklm–");
    }

    #[test]
    fn each_wants_its_own_runs() {
        let row = ROWS.iter().find(|row| row.against.is_some()).unwrap();
        let wanted = row.wanted(1);
        assert_eq!(
            wanted.iter().map(|wanted| wanted.preset).collect::<Vec<_>>(),
            [Preset::Shoal, Preset::KrakenPolicy]
        );
        assert_eq!((wanted[0].nodes, wanted[0].seeds), (1_000, 5));
        assert!(row.wanted(0).is_empty(), "nothing is asked of 100 nodes");
        assert!(Asked::AtMost(1.0).is_met(1.0) && !Asked::AtLeast(1.25).is_met(1.2));
    }
}
