//! The transfers that were started and haven't ended, bounded.
//!
//! State: their digests, one task each.
//! Invariants: never more than [`MAX_FLIGHTS`]; a digest is in it at most once.
//! Absent on purpose: ending transfers. What nobody reads goes on for the other nodes' sake; it only stops counting here when it stops
//! moving.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_types::Digest;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::Transfer;

/// A transfer holds 1 KiB for each neighbour's chunks and for its own, 40 KiB in all, and a chunk or two on their way: with 512 of them
/// 20 MiB of an agent's 128. They are 25 images of 20 layers at once.
const MAX_FLIGHTS: usize = 512;
/// How often it is looked whether one moves …
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// … and after how many looks in vain it no longer counts: as long as runtimes wait.
const LOOKS: u32 = 10;

/// The transfers in flight.
#[derive(Clone, Debug)]
pub(super) struct Flights {
    running: Arc<Mutex<BTreeSet<Digest>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Flights {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { running: Arc::default(), tasks: TaskTracker::new(), stop }
    }

    /// Whether this one is in flight.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// Whether one more may start, or this one is in flight already.
    pub(super) fn has_room_for(&self, digest: &Digest) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.contains(digest) || running.len() < MAX_FLIGHTS
    }

    /// Counts a transfer until it ends.
    pub(super) fn follow(&self, transfer: Transfer) {
        let digest = transfer.digest();
        if !self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return;
        }
        let (running, stop) = (Arc::clone(&self.running), self.stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(ended(&transfer)).await;
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        });
    }

    /// Waits for the tasks, after the stop.
    pub(super) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn ended(transfer: &Transfer) {
    let (mut moved, mut in_vain) = (transfer.progress().0, 0);
    let mut completed = std::pin::pin!(transfer.completed());
    while in_vain < LOOKS {
        match timeout(LOOK_EVERY, completed.as_mut()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::info!(digest = %transfer.digest(), %error, "a blob doesn't come");
                return;
            }
            Err(_) => {}
        }
        let verified = transfer.progress().0;
        in_vain = if verified == moved { in_vain + 1 } else { 0 };
        moved = verified;
    }
}
