//! Which of containerd's blobs are offered to other nodes.
//!
//! A blob is in exactly one of these states:
//!
//! ```text
//!            where is it from?                 a Swarm lets it be exchanged
//!   Asking ─────────────────────> Withheld <───────────────────────────────> Offering ──the exchange takes it──> Offered
//!     └── containerd names no source, for a while: a label comes after its blob                 │
//!                                                                   it is coming from peers ────┘ again later
//! ```
//!
//! State: every blob that lies there, across containerd's restarts.
//! Invariants: only what was pulled from a repository whose Swarm lets nodes exchange it is offered; at most [`MOST`] blobs. A blob that
//! vanishes, or that the policy no longer lets out, is retracted at once.
//! Absent on purpose: blobs that were built or loaded here: no registry has them, so nobody would ask; and who may have a blob: whoever
//! has its manifest, as with every other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_oci::{Registry, Repository};
use shoal_store::containerd::{Change, ContentStore};
use shoal_types::Digest;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::api::Api;
use crate::content::Policies;
use crate::exchange::{Exchange, ExchangeError, Offered};

/// Blobs that are offered: a node with a hundred images. Each costs the exchange up to 100 KiB and the tracker an announce every ten
/// seconds.
const MOST: usize = 1024;

/// Batches of changes that wait: the follower looks once a second at most.
const BATCHES: usize = 16;

/// How often what is due is looked at; and how much of it then: a question to containerd takes a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 256;

/// Labels come moments after their blob, mostly.
const SOURCE_TRIES: u32 = 6;

/// A transfer of a blob that the runtime has got from elsewhere goes on for so long, looked at so often, before it is given up.
const TRANSFER_TRIES: u32 = 6;
const TRANSFER_EVERY: Duration = Duration::from_secs(10);

/// How long a look at the content store waits for changes.
const WAIT: Duration = Duration::from_secs(1);
/// After a look that failed.
const AFTER_ERROR: Duration = Duration::from_secs(5);

type Sources = Vec<(Registry, Repository)>;

#[derive(Debug)]
struct Known {
    size_bytes: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Asking { tries: u32, due: Instant },
    Withheld(Sources),
    Offering { sources: Sources, tries: u32, due: Instant },
    Offered(Sources),
}

/// The blobs and what is done with them.
pub(super) struct Offers {
    exchange: Exchange,
    policies: Policies,
    known: BTreeMap<Digest, Known>,
    full: bool,
}

/// The other side is gone: containerd, or the exchange.
struct Gone;

impl From<ExchangeError> for Gone {
    fn from(_: ExchangeError) -> Self {
        Self
    }
}

impl Offers {
    pub(super) const fn new(exchange: Exchange, policies: Policies) -> Self {
        Self { exchange, policies, known: BTreeMap::new(), full: false }
    }

    /// Follows a content store, until containerd's connection ends. May be dropped at any time.
    pub(super) async fn follow(&mut self, api: &Api, content: &ContentStore) {
        let (batches, mut changes) = mpsc::channel(BATCHES);
        let store = content.clone();
        // It sees the channel's end within a second.
        tokio::task::spawn_blocking(move || look(&store, &batches));
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first = true;
        let mut policies = self.policies.clone();
        loop {
            let went_on = tokio::select! {
                batch = changes.recv() => match batch {
                    Some(batch) => self.take(batch, std::mem::take(&mut first)).await,
                    None => Err(Gone),
                },
                () = policies.changed() => self.judge_again().await,
                _ = ticks.tick() => if api.is_closed() { Err(Gone) } else { self.do_what_is_due(api, content).await },
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, batch: Vec<Change>, first: bool) -> Result<(), Gone> {
        if first {
            // All that is there: what was known and isn't among it went while nobody looked.
            let there: BTreeSet<Digest> = batch.iter().filter_map(added).collect();
            let gone: Vec<Digest> = self.known.keys().filter(|digest| !there.contains(digest)).copied().collect();
            for digest in gone {
                self.remove(&digest).await?;
            }
        }
        for change in batch {
            match change {
                Change::Added { digest, size_bytes } => {
                    if self.known.get(&digest).is_some_and(|known| known.size_bytes == size_bytes) {
                        continue;
                    }
                    self.remove(&digest).await?;
                    let state = State::Asking { tries: 0, due: Instant::now() };
                    self.known.insert(digest, Known { size_bytes, state });
                }
                Change::Removed { digest } => self.remove(&digest).await?,
            }
        }
        Ok(())
    }

    async fn remove(&mut self, digest: &Digest) -> Result<(), Gone> {
        if let Some(Known { state: State::Offered(_) | State::Offering { .. }, .. }) = self.known.remove(digest) {
            self.exchange.retract(*digest).await?;
        }
        Ok(())
    }

    /// The policy has changed.
    async fn judge_again(&mut self) -> Result<(), Gone> {
        let mut retracted = Vec::new();
        for (digest, known) in &mut self.known {
            match &mut known.state {
                State::Withheld(sources) if self.policies.let_out(sources) => {
                    let sources = std::mem::take(sources);
                    known.state = State::Offering { sources, tries: 0, due: Instant::now() };
                }
                State::Offered(sources) | State::Offering { sources, .. } if !self.policies.let_out(sources) => {
                    known.state = State::Withheld(std::mem::take(sources));
                    retracted.push(*digest);
                }
                _ => {}
            }
        }
        for digest in retracted {
            self.exchange.retract(digest).await?;
        }
        Ok(())
    }

    async fn do_what_is_due(&mut self, api: &Api, content: &ContentStore) -> Result<(), Gone> {
        let now = Instant::now();
        let is_due = |known: &Known| match &known.state {
            State::Asking { due, .. } | State::Offering { due, .. } => *due <= now,
            State::Withheld(_) | State::Offered(_) => false,
        };
        let due = self.known.iter().filter(|(_, known)| is_due(known)).map(|(digest, _)| *digest);
        let due: Vec<Digest> = due.take(AT_ONCE).collect();
        for digest in due {
            let Some(known) = self.known.get_mut(&digest) else { continue };
            if let State::Asking { tries, .. } = known.state {
                known.state = match api.sources(&digest).await {
                    Ok(sources) if sources.is_empty() && tries < SOURCE_TRIES => {
                        State::Asking { tries: tries + 1, due: now + LOOK_EVERY * (1 << tries) }
                    }
                    Ok(sources) if self.policies.let_out(&sources) => State::Offering { sources, tries: 0, due: now },
                    Ok(sources) => State::Withheld(sources),
                    Err(error) if error.is_answer() => {
                        tracing::debug!(%digest, %error, "containerd doesn't say where a blob is from");
                        State::Asking { tries, due: now + AFTER_ERROR }
                    }
                    Err(_) => return Err(Gone),
                };
            }
            self.offer(digest, content).await?;
        }
        Ok(())
    }

    /// Offers a blob, if that is its state.
    async fn offer(&mut self, digest: Digest, content: &ContentStore) -> Result<(), Gone> {
        let offered = self.known.values().filter(|known| matches!(known.state, State::Offered(_))).count();
        let Some(known) = self.known.get_mut(&digest) else { return Ok(()) };
        let State::Offering { sources, tries, .. } = &mut known.state else { return Ok(()) };
        if known.size_bytes == 0 || offered >= MOST {
            if offered >= MOST && !std::mem::replace(&mut self.full, true) {
                tracing::warn!(most = MOST, "the runtime has more blobs than are offered to other nodes");
            }
            known.state = State::Withheld(std::mem::take(sources));
            return Ok(());
        }
        known.state = match self.exchange.offer(content, digest, known.size_bytes, *tries >= TRANSFER_TRIES).await {
            Ok(Offered::Lent | Offered::Ours) => State::Offered(std::mem::take(sources)),
            Ok(Offered::InTransfer) => {
                let (sources, tries) = (std::mem::take(sources), *tries + 1);
                State::Offering { sources, tries, due: Instant::now() + TRANSFER_EVERY }
            }
            Err(ExchangeError::Ended) => return Err(Gone),
            Err(error) => {
                tracing::debug!(%digest, %error, "a blob of the runtime's can't be exchanged");
                State::Withheld(Vec::new())
            }
        };
        Ok(())
    }
}

const fn added(change: &Change) -> Option<Digest> {
    match change {
        Change::Added { digest, .. } => Some(*digest),
        Change::Removed { .. } => None,
    }
}

/// Looks at the content store until nobody listens. The first batch is all that is there.
fn look(content: &ContentStore, batches: &mpsc::Sender<Vec<Change>>) {
    let mut follower = content.follow();
    let mut first = true;
    while !batches.is_closed() {
        match follower.next(WAIT) {
            Ok(changes) if changes.is_empty() && !first => {}
            Ok(changes) => {
                first = false;
                if batches.blocking_send(changes).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, path = %content.path().display(), "the runtime's content store can't be read");
                let until = Instant::now() + AFTER_ERROR;
                while Instant::now() < until && !batches.is_closed() {
                    std::thread::sleep(WAIT);
                }
            }
        }
    }
}
