//! Starting transfers, where there is somebody to exchange with.
//!
//! State: that of [`Shared`].
//! Invariants: every transfer that is started here is counted while it is in flight.
//! Absent on purpose: waiting for bytes (`wait`).

use std::sync::Arc;

use shoal_types::Digest;

use super::Shared;
use super::metrics::Fallback;
use crate::exchange::{Transfer, Wanted};

impl Shared {
    /// Starts a transfer, or joins one that runs; without one, why there is none.
    pub(super) async fn start(&self, wanted: Wanted) -> Result<Transfer, Fallback> {
        let digest = wanted.digest;
        if !self.flights.has_room_for(&digest) {
            return Err(Fallback::NoRoom);
        }
        // Alone there is nobody to share with, and the exchange would wait for a tracker before it helped itself.
        if !self.flights.has(&digest) && self.is_alone().await && !self.is_stored(digest).await {
            return Err(Fallback::NoTracker);
        }
        match self.parts.exchange.want(wanted).await {
            Ok(transfer) => {
                self.flights.follow(transfer.clone());
                Ok(transfer)
            }
            Err(error) => {
                tracing::info!(%digest, %error, "a blob isn't exchanged");
                Err(Fallback::NoRoom)
            }
        }
    }

    /// Whether there is neither a tracker nor any other node that could stand in for it.
    async fn is_alone(&self) -> bool {
        let tracker = &self.parts.tracker;
        if tracker.has_tracker() {
            return false;
        }
        let me = tracker.identity().borrow().as_ref().map(|identity| identity.node());
        if tracker.known_contacts().iter().any(|contact| Some(contact.node()) != me) {
            return false;
        }
        self.parts.exchange.snapshot().await.is_none_or(|seen| seen.peers == 0)
    }

    /// Whether all of it lies in the store, as after a restart. The exchange tells only of what it was asked for in this run.
    async fn is_stored(&self, digest: Digest) -> bool {
        let store = Arc::clone(&self.parts.store);
        let looked = tokio::task::spawn_blocking(move || {
            store.list().iter().any(|stored| stored.sealed && stored.blob.digest == digest)
        });
        looked.await.unwrap_or(false)
    }
}
