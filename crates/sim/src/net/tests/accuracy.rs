//! The network's error against exact sharing on random swarms: rates at given moments, how long the same flows take from the same
//! starts, and how long the same work takes when each end causes the next start.
//!
//! `cargo test -p shoal-sim net::tests::accuracy -- --nocapture` prints the distributions that the module `net` quotes.

use shoal_types::Time;

use super::exact::{assert_fair_within_slack, max_min};
use super::world::{Exact, Measured, Shape, Span, Starts, World};

const EQUAL: Shape =
    Shape { name: "equal", nodes: 60, rounds: 25, has_stragglers: false, has_caps: false, has_zones: false };

/// So many nodes in two zones that a link between them has well over a hundred flows at a time, which `link` calls many.
const CROWD: Shape = Shape { name: "crowd", nodes: 300, rounds: 6, has_zones: true, ..EQUAL };

/// Swarms in which no link has many flows: exact but for a small slack.
const SMALL: [Shape; 5] = [
    EQUAL,
    Shape { name: "stragglers", has_stragglers: true, ..EQUAL },
    Shape { name: "caps", has_caps: true, ..EQUAL },
    Shape { name: "zones", has_zones: true, ..EQUAL },
    Shape { name: "all", has_stragglers: true, has_caps: true, has_zones: true, ..EQUAL },
];

const CROWDS: [Shape; 2] = [CROWD, Shape { name: "crowd, all", has_stragglers: true, has_caps: true, ..CROWD }];

/// Relative errors.
#[derive(Default)]
struct Errors(Vec<f64>);

impl Errors {
    fn add(&mut self, value: f64, exact: f64) {
        self.0.push(value / exact - 1.0);
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The size that this part of the errors doesn't exceed.
    #[allow(clippy::cast_possible_truncation, reason = "an index")]
    fn quantile(&self, part: f64) -> f64 {
        let mut sizes: Vec<_> = self.0.iter().map(|error| error.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        sizes[((sizes.len() - 1) as f64 * part) as usize]
    }

    fn print(&self, shape: &Shape, of: &str) {
        let figures = [self.mean(), self.quantile(0.5), self.quantile(0.99), self.quantile(1.0)];
        let [mean, p50, p99, max] = figures.map(|figure| figure * 100.0);
        println!("{:>10} {of:>24} {:>7} {mean:>8.4} {p50:>8.4} {p99:>8.4} {max:>8.4}", shape.name, self.0.len());
    }
}

/// The errors of a swarm's runs.
#[derive(Default)]
struct Report {
    rates: Errors,
    sums: Errors,
    durations: Errors,
    ends: Errors,
    last_ends: Errors,
}

#[test]
fn without_crowds_sharing_is_exact() {
    for shape in SMALL {
        let report = measure(&shape, 4);
        assert!(report.rates.quantile(1.0) < 1e-3);
        assert!(report.sums.quantile(1.0) < 1e-4);
        assert!(report.durations.quantile(1.0) < 1e-4);
        assert!(report.ends.quantile(0.99) < 1e-3);
        assert!(report.last_ends.quantile(1.0) < 1e-3);
    }
}

#[test]
fn a_crowd_costs_less_than_its_slack() {
    for shape in CROWDS {
        let report = measure(&shape, 1);
        assert!(report.rates.quantile(0.99) < 0.01 && report.rates.mean().abs() < 0.0025);
        assert!(report.sums.quantile(1.0) < 0.005);
        assert!(report.durations.quantile(0.99) < 0.03 && report.durations.mean().abs() < 0.005);
        assert!(report.ends.quantile(0.99) < 0.03 && report.ends.mean().abs() < 0.005);
        assert!(report.last_ends.quantile(1.0) < 0.005);
    }
}

fn measure(shape: &Shape, seeds: u64) -> Report {
    let mut report = Report::default();
    for seed in 0..seeds {
        let world = World::new(*shape, seed);
        let mut events = 0;
        let mut measured = Measured::new(&world);
        let chained = world.run(Starts::Chained, &mut measured, |measured| {
            events += 1;
            if events % 20 == 0 {
                compare(&world, measured, &mut report);
            }
        });
        assert_eq!(measured.net.counters().postponed, 0, "no work is left over");
        let exact = world.run(Starts::Chained, &mut Exact::new(&world), |_| ());
        for (chained, exact) in chained.iter().zip(&exact) {
            report.ends.add(chained.end.as_secs_f64(), exact.end.as_secs_f64());
        }
        report.last_ends.add(last_end(&chained), last_end(&exact));

        // The same starts for both, a fifth further apart: at full load a delay would never be made up for.
        let starts: Vec<_> = exact.iter().map(|span| Time::from_nanos(span.start.as_nanos() / 5 * 6)).collect();
        let replayed = world.run(Starts::At(&starts), &mut Measured::new(&world), |_| ());
        let exact = world.run(Starts::At(&starts), &mut Exact::new(&world), |_| ());
        for (replayed, exact) in replayed.iter().zip(&exact) {
            report.durations.add(replayed.seconds(), exact.seconds());
        }
    }
    println!(
        "{:>10} {:>24} {:>7} {:>8} {:>8} {:>8} {:>8}  (%)",
        "swarm", "error of", "samples", "mean", "|p50|", "|p99|", "|max|"
    );
    report.rates.print(shape, "a flow's rate");
    report.sums.print(shape, "the sum of rates");
    report.durations.print(shape, "a flow's duration");
    report.ends.print(shape, "a chained flow's end");
    report.last_ends.print(shape, "the last chained end");
    report
}

fn compare(world: &World, measured: &mut Measured, report: &mut Report) {
    let got = measured.rates();
    assert_fair_within_slack(&measured.net);
    let wishes: Vec<_> = got.iter().map(|&(job, _)| world.wish(job).clone()).collect();
    let exact = max_min(&world.capacities, &wishes);
    if !got.is_empty() {
        report.sums.add(got.iter().map(|&(_, rate)| rate).sum(), exact.iter().sum());
    }
    for ((_, rate), exact) in got.into_iter().zip(exact) {
        report.rates.add(rate, exact);
    }
}

fn last_end(spans: &[Span]) -> f64 {
    spans.iter().map(|span| span.end.as_secs_f64()).fold(0.0, f64::max)
}
