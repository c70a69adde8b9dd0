//! Whether the runtime asks the mirror: now and then it is told to pull a small image that only the mirror has.
//!
//! ```text
//!   Checker ── CRI: pull HOST/shoal-mirror-check/NONCE:1 ──> runtime ──?──> mirror ──> bait.rs: the image, and that it was asked for
//!      └── what is wrong, in a line (advice.rs) ──> the report to trackers ──> the Swarm's status
//! ```
//!
//! State: what was found last. Invariants: what is said of a runtime was seen three times in a row; a runtime that doesn't answer isn't judged.
//! Of a runtime that asks the mirror no registry hears.
//! Absent on purpose: changing the runtime's configuration, or reading it where the runtime doesn't tell it.

mod advice;
mod bait;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_api::{HostPattern, RegistryHost};
use shoal_types::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::Policies;
use crate::runtime::{ImageError, Images};
pub(crate) use bait::is_bait;
pub use bait::{Bait, Baited};

/// `hosts keep` has looked twice by then.
const FIRST_AFTER: Duration = Duration::from_secs(12);
/// While something is wrong, or isn't sure.
const AGAIN: Duration = Duration::from_secs(20);
/// While nothing is: a configuration changes when somebody changes it.
const RARELY: Duration = Duration::from_secs(600);
/// What is wrong for good, and was said: whoever mends it waits so long for the status.
const WRONG: Duration = Duration::from_secs(120);
/// An agent that starts is put in front while it is checked.
const SURE_AFTER: u32 = 3;
/// A registry that can't be reached keeps a runtime for 30 s.
const PULLED_WITHIN: Duration = Duration::from_secs(45);
/// Registries that are looked at. A configuration that is wrong is so for all of them, mostly.
const MOST_HOSTS: usize = 8;
/// Stands for every registry that nobody names. `invalid` is no domain (RFC 6761), so nobody else is asked for it.
const ANY_HOST: &str = "shoal-mirror-check.invalid";

/// What is checked.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// The directory that the runtime's `config_path` is to name.
    pub certs_dir: PathBuf,
    /// Where a Swarm says `*`: the registries whose pulls are to go through the mirror; all if none is named.
    pub registries: Vec<RegistryHost>,
}

/// Checks one runtime.
pub struct Checker {
    config: CheckConfig,
    socket: PathBuf,
    policies: Policies,
    bait: Arc<Bait>,
    found: watch::Sender<Option<String>>,
    rng: Rng,
}

impl Checker {
    /// A checker of the runtime at this socket, to be run. It tells of what it finds, of `None` if nothing is wrong.
    pub fn new(
        config: CheckConfig,
        socket: PathBuf,
        policies: Policies,
        bait: Arc<Bait>,
        found: watch::Sender<Option<String>>,
        seed: u64,
    ) -> Self {
        Self { config, socket, policies, bait, found, rng: Rng::new(seed) }
    }

    /// Checks, until the stop.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.check_for_ever()).await;
    }

    async fn check_for_ever(mut self) {
        let (mut wait, mut in_a_row) = (FIRST_AFTER, 0);
        loop {
            tokio::time::sleep(wait.mul_f64(0.75 + self.rng.unit() / 2.0)).await;
            match self.look().await {
                Ok(None) => {
                    (wait, in_a_row) = (RARELY, 0);
                    if self.found.send_replace(None).is_some() {
                        tracing::info!("the runtime asks the mirror now");
                    }
                }
                Ok(Some(why)) => {
                    in_a_row += 1;
                    wait = if in_a_row < SURE_AFTER { AGAIN } else { WRONG };
                    if in_a_row >= SURE_AFTER && self.found.borrow().as_ref() != Some(&why) {
                        tracing::warn!("{why}");
                        self.found.send_replace(Some(why));
                    }
                }
                Err(error) => {
                    wait = AGAIN;
                    tracing::debug!(%error, "whether the runtime asks the mirror can't be looked at");
                }
            }
        }
    }

    /// Looks once: what is wrong now, if anything is.
    ///
    /// # Errors
    /// If the runtime doesn't answer, so that nothing is known.
    pub async fn look(&mut self) -> Result<Option<String>, ImageError> {
        let images = Images::connect(&self.socket).await?;
        for host in self.hosts() {
            let image = self.bait.lay(&host, self.rng.next_u64());
            let pulled = images.pull(&image, PULLED_WITHIN).await;
            if pulled.is_ok() {
                images.remove(&image).await?;
            }
            match pulled {
                _ if self.bait.was_taken() => {}
                // Somebody else answers for everything; or the runtime has said that it didn't find it.
                Ok(()) => return self.wrong(&images, &host).await.map(Some),
                Err(error) if error.is_answer() => return self.wrong(&images, &host).await.map(Some),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn wrong(&self, images: &Images, host: &str) -> Result<String, ImageError> {
        let host = if host == ANY_HOST { "registries that no Swarm names" } else { host };
        Ok(advice::of(&images.about().await?, &self.config.certs_dir, host))
    }

    /// The registries to look at.
    fn hosts(&self) -> Vec<String> {
        let mut hosts = BTreeSet::new();
        for pattern in self.policies.registries() {
            match pattern {
                HostPattern::Exactly(host) => _ = hosts.insert(host.to_string()),
                HostPattern::Rest if self.config.registries.is_empty() => _ = hosts.insert(ANY_HOST.to_owned()),
                HostPattern::Rest => hosts.extend(self.config.registries.iter().map(ToString::to_string)),
            }
        }
        hosts.into_iter().take(MOST_HOSTS).collect()
    }
}
