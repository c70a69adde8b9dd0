//! What Swarms push: fetched ahead of any pull, kept while the Swarm says so, and reported to the trackers.
//!
//! ```text
//!  the Swarms' document ──> Pusher ── a task for each artifact ──> carry.rs ──┬── Cache: content ──> exchange, store
//!                             │                                               └── Runtime: CRI ──> runtime ──> mirror
//!                             ├── pins.rs: what stays in the store
//!                             └── report.rs ──> every tracker
//! ```
//!
//! An artifact is in exactly one of these states, and leaves all of them when its Swarm lets go of it:
//!
//! ```text
//!   Waiting ──its turn──> Fetching ──all is here──> Complete ──pinned, and gone from here──> Fetching
//!                           ▲   └──it doesn't come──> Failed
//!                           └──────── later ────────────┘
//! ```
//!
//! State: the artifacts with their tasks, the pins.
//! Invariants: at most `AT_ONCE` artifacts are fetched at a time, at most `MAX_ARTIFACTS` carried; pins are those of the document that was
//! heard last, in this run or before; nothing is let go before there is a word of the Swarms.
//! Absent on purpose: tags (resolved by who writes the document), and taking content out of a runtime or the store: both have their own eviction.

mod carry;
mod pins;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_api::ResolvedArtifact;
use shoal_tracker_server::client::TrackerClient;
use shoal_tracker_server::{MAX_ARTIFACTS, Report};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::content::{Metrics, SwarmContent};
use crate::exchange::Exchange;
use crate::runtime::RuntimeConfig;
use carry::{Carrier, Standing};
use pins::Pins;

/// Artifacts that are fetched at a time: one whose registry is slow leaves room for another.
const AT_ONCE: usize = 2;

/// The artifacts that a node is to have; none as long as there is no word of the Swarms.
pub type Wanted = Option<Arc<[ResolvedArtifact]>>;

/// What a pusher works with.
#[derive(Clone)]
pub struct Parts {
    /// Where content is fetched through.
    pub content: SwarmContent,
    /// Where it is kept.
    pub exchange: Exchange,
    /// Who is told.
    pub tracker: TrackerClient,
    /// What passes through is counted there.
    pub metrics: Metrics,
    /// The runtime beside this agent.
    pub runtime: Option<RuntimeConfig>,
    /// Why it pulls past the mirror, if it does: that is reported, too.
    pub bypass: watch::Receiver<Option<String>>,
    /// Decides the pauses between tries.
    pub seed: u64,
}

/// Carries out what Swarms push.
pub struct Pusher {
    parts: Parts,
    wanted: watch::Receiver<Wanted>,
    pins: Arc<Pins>,
    turns: Arc<Semaphore>,
    carried: BTreeMap<Key, Carried>,
}

/// An artifact by its Swarm and its name.
type Key = (Arc<str>, String);

struct Carried {
    artifact: ResolvedArtifact,
    standing: Arc<Standing>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pusher {
    /// A pusher, to be run. What was pinned before stays from now on; the directory must be there.
    pub fn new(parts: Parts, wanted: watch::Receiver<Wanted>, data_dir: &Path) -> Self {
        let pins = Arc::new(Pins::load(data_dir, parts.exchange.clone()));
        Self { parts, wanted, pins, turns: Arc::new(Semaphore::new(AT_ONCE)), carried: BTreeMap::new() }
    }

    /// Pushes and reports, until the stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let (reports, last) = watch::channel(Report::default());
        let telling = report::tell(self.parts.tracker.clone(), last);
        let telling = tokio::spawn(stop.clone().run_until_cancelled_owned(telling));
        let keeping = tokio::spawn(Arc::clone(&self.pins).keep(stop.clone()));
        let mut looks = tokio::time::interval(report::EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = self.wanted.clone();
        heard.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = heard.changed() => {
                    let wanted = heard.borrow_and_update().clone();
                    if let Some(wanted) = wanted {
                        self.take(&wanted, &stop).await;
                    }
                }
                _ = looks.tick() => {
                    let artifacts = self.carried.values().map(|carried| (&carried.artifact, &*carried.standing));
                    reports.send_replace(report::of(&self.parts, artifacts));
                }
            }
        }
        for (_, carried) in std::mem::take(&mut self.carried) {
            carried.end().await;
        }
        let _ = tokio::join!(keeping, telling);
    }

    /// Carries these artifacts, and no others.
    async fn take(&mut self, wanted: &[ResolvedArtifact], stop: &CancellationToken) {
        if wanted.len() > MAX_ARTIFACTS {
            let left_out = wanted.len() - MAX_ARTIFACTS;
            tracing::warn!(
                left_out,
                most = MAX_ARTIFACTS,
                "Swarms push more artifacts than a node carries: the last ones are left out"
            );
        }
        let key = |artifact: &ResolvedArtifact| (Arc::clone(&artifact.swarm), artifact.name.clone());
        let wanted: BTreeMap<Key, &ResolvedArtifact> =
            wanted.iter().take(MAX_ARTIFACTS).map(|artifact| (key(artifact), artifact)).collect();
        let outdated = |(key, carried): (&Key, &Carried)| {
            (wanted.get(key).copied() != Some(&carried.artifact)).then(|| key.clone())
        };
        for key in self.carried.iter().filter_map(outdated).collect::<Vec<_>>() {
            if let Some(carried) = self.carried.remove(&key) {
                carried.end().await;
            }
        }
        self.pins.retain(|key| wanted.get(key).is_some_and(|artifact| artifact.pin));
        for (key, artifact) in wanted {
            if self.carried.contains_key(&key) {
                continue;
            }
            let (standing, stop) = (Arc::new(Standing::default()), stop.child_token());
            let carrier = Carrier {
                parts: self.parts.clone(),
                key: key.clone(),
                artifact: artifact.clone(),
                standing: Arc::clone(&standing),
                pins: Arc::clone(&self.pins),
                turns: Arc::clone(&self.turns),
            };
            let task = stop.clone().run_until_cancelled_owned(carrier.run());
            let task = tokio::spawn(async move { _ = task.await });
            self.carried.insert(key, Carried { artifact: artifact.clone(), standing, stop, task });
        }
    }
}

impl Carried {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, artifact = self.artifact.name, "an artifact's task panicked");
        }
    }
}

/// Longer after each failure, and not on all nodes at the same moment.
pub(super) struct Backoff {
    tries: u32,
    rng: shoal_types::Rng,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    /// As long as a tag's lookup by default: whoever repairs something sees it within minutes.
    const MOST: Duration = Duration::from_secs(300);

    pub(super) fn new(seed: u64) -> Self {
        Self { tries: 0, rng: shoal_types::Rng::new(seed) }
    }

    pub(super) const fn reset(&mut self) {
        self.tries = 0;
    }

    pub(super) fn next(&mut self) -> Duration {
        let longest = Self::FIRST.saturating_mul(1 << self.tries.min(16)).min(Self::MOST);
        self.tries = self.tries.saturating_add(1);
        longest.mul_f64(0.5 + self.rng.unit() / 2.0)
    }
}
