//! How fast the chain is compared with the ordinary hash, and two threads with one: the two of a pair run in turn, many times,
//! so that a machine whose speed varies is as slow for the one as for the other. Prints the medians of the pairs' ratios.
//!
//! `cargo run --release --example ratios -p shoal-chain`

#![allow(clippy::disallowed_types, reason = "it measures time: the library does not")]

#[path = "../benches/workload/mod.rs"]
mod workload;

use std::time::{Duration, Instant};

use shoal_types::Algorithm;
use workload::Workload;

/// Odd, so that there is a middle one; enough that a few disturbed pairs don't move it.
const PAIRS: usize = 25;

fn main() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let work = Workload::new(algorithm);
        let name = algorithm.name();
        report(&format!("{name}: in order / one-shot hash"), &work, Workload::in_order, Workload::one_shot);
        report(
            &format!("{name}: out of order, two threads / one"),
            &work,
            |work| work.out_of_order(2),
            |work| work.out_of_order(1),
        );
    }
}

/// Prints how many times the throughput of `base` that of `variant` is.
fn report(what: &str, work: &Workload, variant: impl Fn(&Workload), base: impl Fn(&Workload)) {
    let (variant, base) = (|| time(|| variant(work)), || time(|| base(work)));
    let mut pairs: Vec<(Duration, Duration)> = (0..PAIRS)
        .map(|pair| {
            // Who goes first changes, because the second may find the machine warmer.
            if pair % 2 == 0 {
                let variant = variant();
                (variant, base())
            } else {
                let base = base();
                (variant(), base)
            }
        })
        .collect();
    let ratio = |(variant, base): &(Duration, Duration)| base.as_secs_f64() / variant.as_secs_f64();
    pairs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let (median, low, high) = (&pairs[PAIRS / 2], &pairs[PAIRS / 4], &pairs[PAIRS * 3 / 4]);
    let rate = work.bytes() as f64 / median.0.as_secs_f64() / 1e9;
    println!(
        "{what}: {:.3} (half of {PAIRS} pairs between {:.3} and {:.3}; {rate:.2} GB/s)",
        ratio(median),
        ratio(low),
        ratio(high)
    );
}

fn time(run: impl Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}
