//! A blob as its readers see it: bytes that can be read as soon as they are proven.
//!
//! ```text
//!   running ──every chunk verified, digest proven──> complete
//!      └──links withdrawn, no room, the exchange ends──> failed
//! ```
//!
//! State: which chunks are readable, shared by all readers of the blob; the room writes it, nobody else.
//! Invariants: the last chunk is readable only when the blob is complete; what failed stays failed, a new want gets a new transfer.
//! Absent on purpose: limits on time. A transfer never fails because it is slow: whoever reads knows how long to wait.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use shoal_oci::origin::OriginError;
use shoal_store::StoreError;
use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, Digest};
use tokio::sync::watch;

use super::reads::Reads;

/// A piece that is read at once: with a few dozen readers this is some MiB.
const MOST_AT_ONCE: usize = 256 << 10;

/// A blob that is coming, or is here. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Transfer {
    shared: Arc<Shared>,
}

/// Why a blob doesn't come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Its links were false: what was read may be wrong and must not be kept.
    #[error("the blob's chain was withdrawn: what was passed on is not to be trusted")]
    ChainFailed,
    /// The store is full.
    #[error("there is no room to store the blob")]
    NoRoom,
    /// The agent stops.
    #[error("the agent stops")]
    Ended,
}

/// Bytes of a blob by who gave them, since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameFrom {
    /// Other nodes.
    pub peers: u64,
    /// The origin.
    pub origin: u64,
}

/// What the room and the readers share.
pub(super) struct Shared {
    reads: Reads,
    state: Mutex<State>,
    /// Counts the changes of the state.
    changes: watch::Sender<u64>,
}

struct State {
    blob: BlobInfo,
    have: ChunkSet,
    complete: bool,
    given: bool,
    came_from: CameFrom,
    failed: Option<TransferError>,
    origin_error: Option<OriginError>,
}

impl Transfer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// The blob's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.shared.state().blob.digest
    }

    /// All its bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.state().blob.geometry.size_bytes()
    }

    /// Verified bytes from `offset` on, as soon as there are any: at most `most`, and nothing only at the blob's end. `strict`: not
    /// before the whole digest is proven.
    ///
    /// # Errors
    /// If they won't come any more.
    pub async fn read(&self, offset: u64, most: usize, strict: bool) -> Result<Bytes, TransferError> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            match self.shared.readable(offset, most.min(MOST_AT_ONCE), strict)? {
                Some((_, 0)) => return Ok(Bytes::new()),
                Some((blob, length)) => {
                    if let Some(bytes) = self.read_stored(blob, offset, length).await? {
                        return Ok(bytes);
                    }
                }
                None => {}
            }
            if changes.changed().await.is_err() {
                return Err(TransferError::Ended);
            }
        }
    }

    /// Waits until all of it is here and proven.
    ///
    /// # Errors
    /// If it won't come.
    pub async fn completed(&self) -> Result<(), TransferError> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let state = self.shared.state();
                if let Some(error) = state.failed {
                    return Err(error);
                }
                if state.complete {
                    return Ok(());
                }
            }
            if changes.changed().await.is_err() {
                return Err(TransferError::Ended);
            }
        }
    }

    /// Bytes that are verified here, and all there are.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let state = self.shared.state();
        let geometry = state.blob.geometry;
        let bytes = state.have.iter().filter_map(|chunk| geometry.byte_range(chunk)).map(|range| u64::from(range.len));
        (bytes.sum(), geometry.size_bytes())
    }

    /// Who gave its bytes, in this run of the agent.
    #[must_use]
    pub fn came_from(&self) -> CameFrom {
        self.shared.state().came_from
    }

    /// Whether all of it is here and proven.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.shared.state().complete
    }

    /// What the origin said last, if this node asked it and it refused.
    #[must_use]
    pub fn origin_error(&self) -> Option<OriginError> {
        self.shared.state().origin_error.clone()
    }

    async fn read_stored(&self, blob: BlobInfo, offset: u64, length: usize) -> Result<Option<Bytes>, TransferError> {
        match self.shared.reads.read(&blob, offset, length).await {
            Ok(bytes) => Ok(Some(bytes)),
            // It was removed in this moment: the state says why, or will.
            Err(StoreError::Absent | StoreError::NotVerified { .. }) => {
                if self.shared.state().complete {
                    // Evicted while nobody had it in use.
                    return Err(TransferError::Ended);
                }
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, digest = %blob.digest, "a stored blob can't be read");
                Err(TransferError::Ended)
            }
        }
    }
}

impl Shared {
    pub(super) fn new(reads: Reads, blob: BlobInfo, have: ChunkSet, complete: bool) -> Self {
        // What is here already, an agent that was killed may have given away.
        let given = !complete && have.iter().next().is_some();
        let state =
            State { blob, have, complete, given, came_from: CameFrom::default(), failed: None, origin_error: None };
        Self { reads, state: Mutex::new(state), changes: watch::Sender::new(0) }
    }

    /// Bytes have come. Readers have nothing to do about it before they are verified.
    pub(super) fn came(&self, from: CameFrom) {
        let came_from = &mut self.state().came_from;
        came_from.peers += from.peers;
        came_from.origin += from.origin;
    }

    /// A chunk is verified and kept.
    pub(super) fn got(&self, chunk: ChunkIndex) {
        self.change(|state| {
            state.have.insert(chunk);
        });
    }

    /// The digest is proven.
    pub(super) fn completed(&self) {
        self.change(|state| {
            state.have = ChunkSet::full_of(state.blob.geometry);
            state.complete = true;
        });
    }

    /// It won't come.
    pub(super) fn failed(&self, error: TransferError) {
        self.change(|state| state.failed = state.failed.or(Some(error)));
    }

    /// The cluster cuts the blob otherwise: nothing of it is here.
    pub(super) fn recut(&self, blob: BlobInfo) {
        self.change(|state| {
            state.blob = blob;
            state.complete = false;
            state.have = ChunkSet::empty_of(blob.geometry);
        });
    }

    pub(super) fn refused(&self, error: OriginError) {
        self.change(|state| state.origin_error = Some(error));
    }

    /// Whether readers may have bytes of it from before the digest was proven.
    pub(super) fn was_given(&self) -> bool {
        self.state().given
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// The blob, and how many bytes can be read at this offset now.
    fn readable(&self, offset: u64, most: usize, strict: bool) -> Result<Option<(BlobInfo, usize)>, TransferError> {
        let mut state = self.state();
        if let Some(error) = state.failed {
            return Err(error);
        }
        let geometry = state.blob.geometry;
        let Some(chunk) = geometry.chunk_at(offset) else { return Ok(Some((state.blob, 0))) };
        // The last chunk's link is the digest: under false links it is the one that would fail.
        let proven = state.complete || (!strict && chunk != geometry.last_chunk());
        let Some(range) = geometry.byte_range(chunk).filter(|_| proven && state.have.contains(chunk)) else {
            return Ok(None);
        };
        state.given |= !state.complete;
        let left = range.start + u64::from(range.len) - offset;
        Ok(Some((state.blob, usize::try_from(left).unwrap_or(most).min(most))))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics with the state in hand")
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Transfer").field(&self.state().blob.digest).finish()
    }
}
