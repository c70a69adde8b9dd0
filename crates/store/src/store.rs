//! What every store does.
//!
//! State: none; the implementations have it.
//! Invariants: those of the crate. `tests/store/conformance.rs` is the suite that every implementation passes.
//! Absent on purpose: writing without a proof, reading without verification, deciding what is worth keeping.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use shoal_chain::ChunkProof;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet};

use crate::{Standing, StoreError};

/// Called between the pieces of long work, with the bytes of the last one. It may sleep, to go easy on the disk and the processor, or break
/// the work off.
pub type Pace<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Chunks of blobs, with what proves them. The calls block: make them from a thread that may.
///
/// All of them may be made at the same time from several threads; writes to one blob wait for each other, reads wait for no write.
pub trait Store: Send + Sync + 'static {
    /// Begins a blob, or goes on with what is here of it.
    ///
    /// # Errors
    /// [`StoreError::OtherSize`], [`StoreError::Full`], [`StoreError::Io`].
    fn begin(&self, blob: BlobInfo) -> Result<StoredBlob, StoreError>;

    /// What is here of a blob; none if it was never begun.
    fn stored(&self, key: &BlobKey) -> Option<StoredBlob>;

    /// Everything that is here, in the keys' order.
    fn list(&self) -> Vec<StoredBlob>;

    /// Keeps a chunk of a blob that has begun: when this returns, the chunk is verified here. A chunk that already is stays as it is.
    ///
    /// `bytes` are those from which the proof was made.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is no room: nothing was kept, and nothing counts. Else [`StoreError::Absent`],
    /// [`StoreError::OtherSize`], [`StoreError::ChunkLength`], [`StoreError::Io`].
    fn keep(&self, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError>;

    /// Keeps signed links of a blob that has begun, in the form in which the caller will want them back.
    ///
    /// # Errors
    /// [`StoreError::TooManyLinks`], [`StoreError::Full`], [`StoreError::Absent`], [`StoreError::Io`].
    fn keep_links(&self, key: &BlobKey, links: &[u8]) -> Result<(), StoreError>;

    /// What was given to [`Self::keep_links`], in order.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Io`].
    fn links(&self, key: &BlobKey) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Fills `buf` with the blob's bytes from `offset` on.
    ///
    /// # Errors
    /// [`StoreError::NotVerified`] if one of them is of a chunk that isn't verified here; [`StoreError::BeyondTheEnd`],
    /// [`StoreError::Absent`], [`StoreError::Io`]. What is in `buf` then is nobody's promise.
    fn read_at(&self, key: &BlobKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Hashes the blob's suspect chunks again: each becomes verified, or absent. Afterwards, or when `pace` breaks it off, says how
    /// things are.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Full`], [`StoreError::Io`].
    fn recheck(&self, key: &BlobKey, pace: &mut Pace<'_>) -> Result<StoredBlob, StoreError>;

    /// Seals a blob: its chunks are all here, and together they are the blob.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`]; [`StoreError::FalseChain`], after which the blob is to be removed; [`StoreError::Absent`],
    /// [`StoreError::Full`], [`StoreError::Io`].
    fn seal(&self, key: &BlobKey) -> Result<(), StoreError>;

    /// Removes a blob with all that is known of it; whether it was here.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove(&self, key: &BlobKey) -> Result<bool, StoreError>;

    /// Evicts blobs until `bytes` more fit, and one blob more; the evicted ones' keys. `standing` says what each is worth. What it reports
    /// as in use stays; so call this from where blobs are taken into use.
    ///
    /// # Errors
    /// [`StoreError::Full`] if evicting all that may go wouldn't make the room. Then nothing was evicted. [`StoreError::Io`].
    fn make_room(&self, bytes: u64, standing: &dyn Fn(&StoredBlob) -> Standing) -> Result<Vec<BlobKey>, StoreError>;

    /// How much is held.
    fn usage(&self) -> Usage;

    /// Removes blobs that nobody finished, where nothing was kept for `idle` and that `in_use` doesn't name; their keys. A blob of which
    /// only links are here isn't unfinished: its bytes lie elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove_abandoned(
        &self,
        now: SystemTime,
        idle: Duration,
        in_use: &dyn Fn(&BlobKey) -> bool,
    ) -> Result<Vec<BlobKey>, StoreError> {
        let mut removed = Vec::new();
        for stored in self.list() {
            let key = stored.blob.key();
            // A clock that was set back makes a blob look younger than it is: it stays a while longer.
            let age = now.duration_since(stored.changed).unwrap_or_default();
            if stored.is_unfinished() && age >= idle && !in_use(&key) && self.remove(&key)? {
                removed.push(key);
            }
        }
        Ok(removed)
    }
}

/// What is here of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// The blob.
    pub blob: BlobInfo,
    /// The chunks that may be read.
    pub verified: ChunkSet,
    /// The chunks that were verified before the node crashed: [`Store::recheck`] tells whether they still are what they were.
    pub suspect: ChunkSet,
    /// Whether the whole blob is here, proven up to its digest.
    pub sealed: bool,
    /// Bytes of links that were given to keep.
    pub links_bytes: u64,
    /// What it takes of the quota.
    pub own_bytes: u64,
    /// When something was kept last.
    pub changed: SystemTime,
}

impl StoredBlob {
    /// Whether chunks of it are missing, and some came or none of its links are here.
    #[must_use]
    pub const fn is_unfinished(&self) -> bool {
        let links_only = self.verified.is_empty() && self.suspect.is_empty() && self.links_bytes > 0;
        !self.sealed && !links_only
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its own bytes.
    pub own_bytes: u64,
    /// How many it may have.
    pub quota_bytes: u64,
    /// How many blobs it keeps track of.
    pub blobs: usize,
}

/// How many bytes of links are kept for a blob. A batch takes some 160 bytes beside its links: a lead that published every link of 64 bytes
/// in a batch of its own would come to a quarter of this, so there is room for four leads of the most talkative kind.
pub(crate) const fn links_limit(blob: &BlobInfo) -> u64 {
    blob.geometry.chunk_count() as u64 * 1024
}

pub(crate) const fn check_same_size(stored: &BlobInfo, given: &BlobInfo) -> Result<(), StoreError> {
    let (stored, given) = (stored.geometry.size_bytes(), given.geometry.size_bytes());
    if stored == given { Ok(()) } else { Err(StoreError::OtherSize { stored, given }) }
}

/// Whether a proof and its bytes are of the blob that is stored.
pub(crate) fn check_chunk(stored: &BlobInfo, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
    check_same_size(stored, proof.blob())?;
    let chunk = proof.chunk();
    let expected = stored.geometry.byte_range(chunk).map_or(0, |range| range.len);
    if bytes.len() == expected as usize {
        Ok(())
    } else {
        Err(StoreError::ChunkLength { chunk, expected, given: bytes.len() })
    }
}

/// Whether every byte of a range is of a verified chunk.
pub(crate) fn check_range(blob: &BlobInfo, verified: &ChunkSet, offset: u64, len: usize) -> Result<(), StoreError> {
    let geometry = blob.geometry;
    let end = offset.checked_add(len as u64).filter(|end| *end <= geometry.size_bytes());
    let Some(end) = end else {
        return Err(StoreError::BeyondTheEnd { offset, len, size_bytes: geometry.size_bytes() });
    };
    let last_byte = end.checked_sub(1).filter(|last_byte| *last_byte >= offset);
    let (Some(first), Some(last)) = (geometry.chunk_at(offset), last_byte.and_then(|at| geometry.chunk_at(at))) else {
        return Ok(());
    };
    let missing = (first.get()..=last.get()).map(ChunkIndex::new).find(|chunk| !verified.contains(*chunk));
    missing.map_or(Ok(()), |chunk| Err(StoreError::NotVerified { chunk }))
}
