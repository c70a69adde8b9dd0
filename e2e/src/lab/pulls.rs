//! Clients on all nodes, let go together or one after the other.
//!
//! State: their processes, which end with the pulls. Invariants: time counts from the first start; who never ends is given up after the
//! patience, and the others' results stand.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::Pulled;
use super::workers::{Job, Worker};
use crate::figures::Times;
use crate::network::Place;

/// Who pulls, and when.
pub(super) struct Pulls<'a> {
    /// The nodes.
    pub(super) nodes: &'a [Place],
    /// How many of them, from the first on, are waited for: the others are killed on the way, or lie.
    pub(super) awaited: usize,
    /// Over how much time their starts are spread, evenly.
    pub(super) spread: Duration,
    /// How long may all take?
    pub(super) patience: Duration,
}

/// How the pulls that were waited for went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// When each that has everything had it.
    pub(super) seconds: Vec<f64>,
    /// Those that have it not, and why.
    pub(super) unfinished: Vec<String>,
    /// Tries that failed.
    pub(super) failures: u32,
    /// Wrong bytes that clients were given.
    pub(super) wrong_bytes: u64,
}

impl<'a> Pulls<'a> {
    /// All of these nodes, at once.
    pub(super) const fn all(nodes: &'a [Place]) -> Self {
        Self { nodes, awaited: nodes.len(), spread: Duration::ZERO, patience: Duration::from_secs(600) }
    }

    /// A client with this command on each node, ready to go.
    pub(super) async fn clients(&self, client: &Worker) -> Result<Vec<Job>> {
        let jobs = self.nodes.iter().map(|place| Job::start(place, client));
        let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
        Self::ready(&mut jobs).await?;
        Ok(jobs)
    }

    /// Waits until all have said that they are ready.
    pub(super) async fn ready(jobs: &mut [Job]) -> Result<()> {
        try_join_all(jobs.iter_mut().map(Job::line)).await.map(drop)
    }

    /// Lets them go, and waits.
    pub(super) async fn run(&self, jobs: &mut [Job]) -> Result<Outcome> {
        let started = Instant::now();
        let last = u32::try_from(jobs.len().saturating_sub(1).max(1))?;
        let done = jobs.iter_mut().zip(0..).map(async |(job, ix): (&mut Job, u32)| {
            sleep(self.spread * ix / last).await;
            job.go().await?;
            if ix as usize >= self.awaited {
                return Ok(None);
            }
            let Ok(line) = timeout_at(started + self.patience, job.line()).await else {
                let error = Some(format!("not finished after {} s", self.patience.as_secs()));
                return Ok(Some((0.0, Pulled { error, ..Pulled::default() })));
            };
            let seconds = started.elapsed().as_secs_f64();
            anyhow::Ok(Some((seconds, serde_json::from_str(&line?).context("a client doesn't tell how it went")?)))
        });
        let mut outcome = Outcome::default();
        for done in join_all(done).await {
            if let Some((seconds, pulled)) = done? {
                outcome.count(seconds, pulled);
            }
        }
        Ok(outcome)
    }
}

impl Outcome {
    fn count(&mut self, seconds: f64, pulled: Pulled) {
        self.failures += pulled.failures;
        self.wrong_bytes += pulled.wrong_bytes;
        match pulled.error {
            None => self.seconds.push(seconds),
            Some(error) => self.unfinished.push(error),
        }
    }

    /// The times, if all have finished.
    pub(super) fn times(&self) -> Result<Times> {
        if let Some(error) = self.unfinished.first() {
            anyhow::bail!("{} nodes don't have it: {error}", self.unfinished.len());
        }
        Times::new(self.seconds.clone()).context("no node")
    }
}
