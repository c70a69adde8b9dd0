//! What the runtime beside this agent has: taken into the exchange, taken out of it, and told when it may have got wrong bytes.
//!
//! ```text
//!   offered ──┬── nothing of it is here ──> lent: claimed, linked as it is hashed, served in place
//!             ├── our own copy is whole ──> checked when there is time; then ours goes, and it is lent
//!             └── it is coming from peers ──> not now; taken over if it doesn't get on
//! ```
//!
//! State: that of the room.
//! Invariants: a blob that is lent isn't written to our own store. What is retracted is neither claimed nor served from that moment on.
//! Absent on purpose: which blobs are offered, and how they are found (`runtime`); hashing (`hashing.rs`).

use std::sync::Arc;

use shoal_store::containerd::ContentStore;
use shoal_types::{BlobInfo, BlobKey, ChunkSize, Digest, Geometry};
use tokio::sync::{broadcast, oneshot};

use super::hashing::{Place, Purpose};
use super::room::Room;
use super::start::{Command, Exchange, ExchangeError};
use super::trace::Trace;
use super::transfer::TransferError;

/// A layer's turn comes with whoever asks for it: nobody here does.
const PRIORITY: u32 = u32::MAX;

/// A blob that lies in the runtime's content store.
#[derive(Debug)]
pub(super) struct Offer {
    content: ContentStore,
    blob: BlobInfo,
    take_over: bool,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is claimed, and served from where it lies.
    Lent,
    /// Our own copy is served; it goes when the runtime's has been checked.
    Ours,
    /// It is coming from peers or the origin. To be offered again later.
    InTransfer,
}

impl Exchange {
    /// Takes in a blob that the runtime has. With `take_over`, also if it is coming from elsewhere: then that ends.
    ///
    /// # Errors
    /// [`ExchangeError::Size`], [`ExchangeError::Ended`].
    pub async fn offer(
        &self,
        content: &ContentStore,
        digest: Digest,
        size_bytes: u64,
        take_over: bool,
    ) -> Result<Offered, ExchangeError> {
        let geometry = Geometry::new(size_bytes, ChunkSize::for_blob(size_bytes));
        let geometry = geometry.map_err(|_| ExchangeError::Size(size_bytes))?;
        let offer = Offer { content: content.clone(), blob: BlobInfo { digest, geometry }, take_over };
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Offer { offer, answer }).await.map_err(|_| ExchangeError::Ended)?;
        answered.await.map_err(|_| ExchangeError::Ended)
    }

    /// The runtime no longer has a blob, or it is no longer to be given to others.
    ///
    /// # Errors
    /// [`ExchangeError::Ended`].
    pub async fn retract(&self, digest: Digest) -> Result<(), ExchangeError> {
        self.commands.send(Command::Retract { digest }).await.map_err(|_| ExchangeError::Ended)
    }

    /// The blobs of which wrong bytes may have gone to readers, from now on: their chains have failed. Their readers were cut before.
    #[must_use]
    pub fn spoilt(&self) -> broadcast::Receiver<Digest> {
        self.desk.spoilt.subscribe()
    }
}

impl Room {
    pub(super) fn offer(&mut self, offer: Offer) -> Offered {
        let Offer { content, blob, take_over } = offer;
        if let Some(known) = self.blobs.get(&blob.digest) {
            let info = known.info;
            if known.local || self.desk.lent.is_lent(&info.key()) {
                return Offered::Lent;
            }
            if known.complete {
                self.hashing.add(Place::Runtime(content), info, Purpose::Check);
                return Offered::Ours;
            }
            if !take_over {
                return Offered::InTransfer;
            }
            self.forget(blob.digest, TransferError::Ended);
            let lent = Arc::clone(&self.desk.lent);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = lent.remove_own(&info.key()) {
                    tracing::warn!(%error, digest = %info.digest, "a part of a blob that the runtime has stays in the store");
                }
            });
        }
        self.desk.lent.borrow(&content, blob);
        let Some(stored) = self.desk.store.stored(&blob.key()) else { return Offered::InTransfer };
        self.begin(stored, None, PRIORITY, Trace::none());
        self.hashing.add(Place::Runtime(content), blob, Purpose::Link);
        self.hash_next();
        Offered::Lent
    }

    /// Our own copy of a blob had to go: if the runtime has one, that is served from now on.
    pub(super) fn evicted(&mut self, key: BlobKey) {
        let offered = self.hashing.awaiting_check(&key);
        self.forget(key.digest, TransferError::Ended);
        if let Some((content, blob)) = offered {
            self.offer(Offer { content, blob, take_over: false });
        }
    }

    pub(super) fn retract(&mut self, digest: Digest) {
        let Some(key) = self.blobs.get(&digest).map(|blob| blob.info.key()) else { return };
        if self.desk.lent.is_lent(&key) {
            self.forget(digest, TransferError::Ended);
        } else {
            self.hashing.stop_check(&key);
        }
    }

    /// The cluster cuts a blob that is lent otherwise: it is hashed once more.
    pub(super) fn recut_lent(&mut self, key: BlobKey, info: BlobInfo) {
        let now = self.now();
        self.hashing.stop(&key);
        let (Some(content), true) = (self.desk.lent.content_of(&key), self.desk.lent.recut(&key, info)) else { return };
        let Some(blob) = self.blobs.get_mut(&key.digest) else { return };
        blob.info = info;
        blob.announces.clear();
        blob.shared.recut(info);
        (blob.complete, blob.local) = (false, true);
        self.engine.start_local(now, info, PRIORITY);
        self.hashing.add(Place::Runtime(content), info, Purpose::Link);
        self.hash_for_others(info.key());
    }

    /// Wrong bytes of a blob may have gone to readers, who have been cut.
    pub(super) fn spoilt(&self, digest: Digest) {
        // The send fails only if nobody listens: there is no runtime beside this agent.
        let _ = self.desk.spoilt.send(digest);
    }
}
