//! Runs a draft for its seeds, several at a time, and measures each.
//!
//! State: [`Usual`], what undisturbed runs took, so that several scenarios share them.
//! Invariants: samples come in the order of their seeds, whichever thread was first; a run that panics is a sample that says so.
//! Absent on purpose: threads inside a run. A world is one thread's.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_types::Time;

use super::{Draft, Plan};
use crate::bound::{self, is_to_finish};
use crate::report::nearest_rank;
use crate::setup::{NodeSetup, Role, Setup};
use crate::world::{Outcome, World};

/// Bytes that an agent may keep about a blob of 512 chunks and 40 neighbours.
const MEMORY_BYTES: usize = 64 << 10;
const MEMORY_PEERS: usize = 40;
const MEMORY_CHUNKS: usize = 512;

/// What one seed came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) seed: u64,
    pub(crate) t_last_over_bound: f64,
    pub(crate) p99_over_p50: f64,
    pub(crate) origin_copies: f64,
    pub(crate) wasted: f64,
    pub(crate) vs_undisturbed: Option<f64>,
    pub(crate) delay_seconds: Option<f64>,
    pub(crate) rider_over_giver: Option<f64>,
    pub(crate) bytes_across: Option<f64>,
    pub(crate) unfinished: usize,
    pub(crate) wrong_bytes: u64,
    pub(crate) honest_bans: usize,
    pub(crate) bound_seconds: f64,
    pub(crate) trace: u64,
    /// The invariants that didn't hold, a line each, with the seed and the command that shows it.
    pub(crate) violations: Vec<String>,
}

/// What undisturbed runs took.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    known: Mutex<BTreeMap<(String, u64), Took>>,
}

/// How long an undisturbed run took.
#[derive(Clone, Debug)]
struct Took {
    last: Time,
    p99: f64,
    violations: Vec<String>,
}

/// Runs the seeds on as many threads as there are jobs.
pub(crate) fn run(draft: &Draft, seeds: RangeInclusive<u64>, jobs: usize, usual: &Usual) -> Vec<Sample> {
    let next = AtomicU64::new(*seeds.start());
    let work = || {
        let mut samples = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return samples;
            }
            samples.push(sample(&draft.of_seed(seed), seed, usual));
        }
    };
    let mut samples: Vec<Sample> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    samples.sort_by_key(|sample| sample.seed);
    samples
}

fn sample(draft: &Draft, seed: u64, usual: &Usual) -> Sample {
    let run = AssertUnwindSafe(|| measured(&draft.plan, seed, usual));
    let mut sample = catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
        Sample { seed, violations: vec![text.to_owned()], ..Sample::default() }
    });
    for line in &mut sample.violations {
        *line = format!("seed {seed}: {line}; see {} --seed {seed}", draft.command());
    }
    sample
}

fn measured(plan: &Plan, seed: u64, usual: &Usual) -> Sample {
    if !plan.knobs.trouble.disturbs() {
        let (sample, took) = observe(plan, plan.undisturbed(seed), seed);
        usual.insert(plan, seed, took);
        return sample;
    }
    let took = usual.of(plan, seed);
    let (mut sample, disturbed) = observe(plan, plan.setup(seed, took.last), seed);
    let straggling = plan.knobs.trouble.stragglers.of(plan.nodes) > 0;
    let last = disturbed.last.as_secs_f64();
    let usually = took.last.as_secs_f64();
    let times = if straggling { (disturbed.p99, took.p99) } else { (last, usually) };
    sample.vs_undisturbed = Some(ratio(times.0, times.1));
    sample.delay_seconds = Some(last - usually);
    sample.violations.extend(took.violations.iter().map(|line| format!("undisturbed: {line}")));
    sample
}

impl Usual {
    fn of(&self, plan: &Plan, seed: u64) -> Took {
        if let Some(took) = self.lock().get(&key(plan, seed)) {
            return took.clone();
        }
        let (_, took) = observe(plan, plan.undisturbed(seed), seed);
        self.insert(plan, seed, took.clone());
        took
    }

    fn insert(&self, plan: &Plan, seed: u64, took: Took) {
        self.lock().insert(key(plan, seed), took);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, u64), Took>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Everything that an undisturbed run depends on.
fn key(plan: &Plan, seed: u64) -> (String, u64) {
    let quiet = Plan { knobs: plan.knobs.undisturbed(), ..plan.clone() };
    (format!("{quiet:?}"), seed)
}

/// Runs a setup and measures it.
fn observe(plan: &Plan, setup: Setup, seed: u64) -> (Sample, Took) {
    let nodes = setup.nodes.clone();
    let give_up = setup.give_up;
    let bound_seconds = bound::fluid(&setup);
    let memory = memory_bound(&setup);
    let outcome = World::new(setup).run();
    // Who hasn't finished would have been later than any time that was waited for.
    let last = if outcome.unfinished > 0 { None } else { outcome.finish_at.iter().flatten().max().copied() };
    let last = last.unwrap_or(give_up);
    let took = |wanted: &dyn Fn(&NodeSetup) -> bool| -> Vec<f64> {
        let all = nodes.iter().zip(&outcome.finish).filter(|(node, _)| is_to_finish(node.role) && wanted(node));
        let mut took: Vec<f64> = all.filter_map(|(_, took)| took.map(|took| took.as_secs_f64())).collect();
        took.sort_by(f64::total_cmp);
        took
    };
    let all = took(&|_| true);
    let givers = took(&|node| node.role == Role::Honest);
    let riders = took(&|node| node.role == Role::Rider);
    let fast = took(&|node| node.up >= plan.knobs.uplink);
    let copies = copies_of(outcome.origin_bytes, plan.distinct_bytes());
    let sample = Sample {
        seed,
        t_last_over_bound: last.as_secs_f64() / bound_seconds,
        p99_over_p50: ratio(nearest_rank(&all, 0.99), nearest_rank(&all, 0.5)),
        origin_copies: copies,
        wasted: copies_of(outcome.wasted_bytes, outcome.received_bytes),
        vs_undisturbed: None,
        delay_seconds: None,
        rider_over_giver: (!riders.is_empty()).then(|| ratio(nearest_rank(&riders, 0.5), nearest_rank(&givers, 0.5))),
        bytes_across: plan.knobs.zone_link.map(|_| copies_of(outcome.zone_bytes, plan.distinct_bytes())),
        unfinished: outcome.unfinished,
        wrong_bytes: outcome.wrong_bytes,
        honest_bans: outcome.honest_bans,
        bound_seconds,
        trace: outcome.trace,
        violations: violations(&outcome, copies, plan.origin_budget(), memory, give_up),
    };
    let took = Took { last, p99: nearest_rank(&fast, 0.99), violations: sample.violations.clone() };
    (sample, took)
}

fn violations(outcome: &Outcome, copies: f64, budget: f64, memory: usize, give_up: Time) -> Vec<String> {
    let Outcome { unfinished, wrong_bytes, honest_bans, largest_transfer_bytes: kept, .. } = *outcome;
    let waited = give_up.as_secs_f64();
    let checks = [
        (
            unfinished == 0,
            format!("{unfinished} nodes unfinished when given up at {waited:.0} s or when nothing was left to happen"),
        ),
        (wrong_bytes == 0, format!("{wrong_bytes} wrong bytes accepted")),
        (honest_bans == 0, format!("{honest_bans} honest nodes banned")),
        (copies <= budget, format!("the origin sent {copies:.3} copies, its budget is {budget:.3}")),
        (kept <= memory, format!("an agent kept {kept} bytes about a blob, its bound is {memory}")),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, line)| line).collect()
}

/// What an agent may keep about the setup's largest blob: in proportion to neighbours and chunks, where they are more than usual.
fn memory_bound(setup: &Setup) -> usize {
    let chunks = |blob: &crate::setup::BlobSetup| blob.size_bytes.div_ceil(u64::from(blob.chunk_size.bytes()));
    let chunks = setup.blobs.iter().map(chunks).max().unwrap_or(0);
    let chunks = usize::try_from(chunks).unwrap_or(usize::MAX).max(MEMORY_CHUNKS);
    let peers = usize::from(setup.config.max_peers).max(MEMORY_PEERS);
    MEMORY_BYTES.saturating_mul(chunks).saturating_mul(peers) / (MEMORY_CHUNKS * MEMORY_PEERS)
}

/// A ratio; 0 if there is nothing to compare with, because nobody has finished.
fn ratio(one: f64, other: f64) -> f64 {
    if other > 0.0 { one / other } else { 0.0 }
}

/// How much of a whole.
#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
fn copies_of(bytes: u64, of: u64) -> f64 {
    ratio(bytes as f64, of as f64)
}

#[cfg(test)]
mod tests {
    use super::super::{Preset, Scenario, Size};
    use super::*;

    fn draft(scenario: &str, settings: &[&str]) -> Draft {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let size = Size::new(1 << 20).unwrap();
        Scenario::named(scenario).unwrap().draft(Preset::Shoal, 10, size, &settings).unwrap()
    }

    #[test]
    fn samples_come_by_seed_and_do_not_depend_on_the_number_of_threads() {
        let draft = draft("burst", &[]);
        let one = run(&draft, 3..=8, 1, &Usual::default());
        assert_eq!(one.iter().map(|sample| sample.seed).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
        assert_eq!(one, run(&draft, 3..=8, 4, &Usual::default()));
        assert_ne!(one[0].trace, one[1].trace);
    }

    #[test]
    fn a_violation_names_the_seed_and_the_command() {
        // Nobody can finish before the origin sends again.
        let sample =
            sample(&draft("origin-outage", &["origin-stops-at=0%", "origin-outage=1000s"]), 17, &Usual::default());
        let [line] = &sample.violations[..] else { panic!("{:?}", sample.violations) };
        assert!(line.starts_with("seed 17: 10 nodes unfinished"), "{line}");
        let command =
            "cargo xtask sim origin-outage --nodes 10 --size 1MiB --set origin-stops-at=0% --set origin-outage=1000s";
        assert!(line.ends_with(&format!("; see {command} --seed 17")), "{line}");
    }

    #[test]
    fn a_disturbed_run_is_compared_with_the_undisturbed_one_of_its_seed() {
        let usual = Usual::default();
        let quiet = run(&draft("burst", &[]), 1..=1, 1, &usual);
        let late = run(&draft("origin-outage", &["origin-stops-at=50%", "origin-outage=300ms"]), 1..=1, 1, &usual);
        assert_eq!(quiet[0].vs_undisturbed, None);
        let delay = late[0].delay_seconds.unwrap();
        assert!((0.2..0.4).contains(&delay), "{delay}");
        let ratio = late[0].t_last_over_bound / quiet[0].t_last_over_bound;
        assert!((late[0].vs_undisturbed.unwrap() - ratio).abs() < 1e-9);
    }
}
