//! A store beside containerd's: a blob that containerd keeps is read from its content store, everything else from a store of our own.
//!
//! ```text
//!                 ┌── lent: in containerd's content store; here only which chunks were hashed
//!  RuntimeStore ──┤
//!                 └── own: a store of ours, with its quota
//! ```
//!
//! State: for each lent blob the chunks that were hashed in this process.
//! Invariants: of a lent blob only hashed chunks are read, as of every other; nothing is ever written for it, so it takes nothing of the
//! quota. A blob is lent or our own; while one becomes the other, reads find it in the content store.
//! Absent on purpose: memory across restarts (a lent blob is hashed again: what lies in somebody else's directory may have changed), the
//! content store's coming and going ([`crate::containerd::Follower`]), and links, which the agent keeps while it runs.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use shoal_chain::{ChunkProof, ClosedChain};
use shoal_types::{BlobInfo, BlobKey, ChunkSet};

use crate::containerd::{ContentBlob, ContentStore};
use crate::store::{check_range, check_same_size};
use crate::{Pace, Standing, Store, StoreError, StoredBlob, Usage};

/// Our own store, and what containerd lends.
pub struct RuntimeStore {
    own: Arc<dyn Store>,
    lent: RwLock<BTreeMap<BlobKey, Lent>>,
}

#[derive(Clone, Debug)]
struct Lent {
    content: ContentStore,
    blob: BlobInfo,
    hashed: ChunkSet,
    since: SystemTime,
}

impl Lent {
    /// The file; none if it is gone, or isn't the blob's any more.
    fn open(&self) -> io::Result<Option<ContentBlob>> {
        let found = self.content.blob(&self.blob.digest)?;
        Ok(found.filter(|found| found.size_bytes() == self.blob.geometry.size_bytes()))
    }

    fn stored(&self) -> StoredBlob {
        StoredBlob {
            blob: self.blob,
            verified: self.hashed.clone(),
            suspect: ChunkSet::empty_of(self.blob.geometry),
            sealed: self.hashed.is_full(),
            links_bytes: 0,
            own_bytes: 0,
            changed: self.since,
        }
    }
}

impl RuntimeStore {
    /// Nothing is lent yet.
    #[must_use]
    pub const fn new(own: Arc<dyn Store>) -> Self {
        Self { own, lent: RwLock::new(BTreeMap::new()) }
    }

    /// Counts on a blob of the content store, of which no chunk has been hashed. Whether it is there, the reads find out.
    ///
    /// Our own store must not be getting the same blob: what is kept of a lent one is nothing but that it was hashed.
    pub fn borrow(&self, content: &ContentStore, blob: BlobInfo) {
        let hashed = ChunkSet::empty_of(blob.geometry);
        let lent = Lent { content: content.clone(), blob, hashed, since: SystemTime::now() };
        self.lent_mut().entry(blob.key()).or_insert(lent);
    }

    /// Removes our own copy of a blob that is lent, or what there is of it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove_own(&self, key: &BlobKey) -> Result<bool, StoreError> {
        self.own.remove(key)
    }

    /// Counts on a blob of the content store that was hashed to its end, and lets go of our own copy of it.
    ///
    /// # Errors
    /// [`StoreError::Io`], if our own copy can't be removed.
    pub fn replace(&self, content: &ContentStore, chain: &ClosedChain) -> Result<(), StoreError> {
        let blob = *chain.chain().blob();
        let hashed = ChunkSet::full_of(blob.geometry);
        let lent = Lent { content: content.clone(), blob, hashed, since: SystemTime::now() };
        self.lent_mut().insert(blob.key(), lent);
        self.remove_own(&blob.key()).map(drop)
    }

    /// A chunk of a lent blob has been hashed.
    pub fn hashed(&self, proof: &ChunkProof) {
        if let Some(lent) = self.lent_mut().get_mut(&proof.blob().key())
            && lent.blob == *proof.blob()
        {
            lent.hashed.insert(proof.chunk());
        }
    }

    /// Whether a blob is lent.
    #[must_use]
    pub fn is_lent(&self, key: &BlobKey) -> bool {
        self.lent().contains_key(key)
    }

    /// The content store that a blob is lent from; none if it isn't lent.
    #[must_use]
    pub fn content_of(&self, key: &BlobKey) -> Option<ContentStore> {
        self.lent().get(key).map(|lent| lent.content.clone())
    }

    /// Cuts a lent blob otherwise; none of its chunks is hashed then. Whether it is lent.
    pub fn recut(&self, key: &BlobKey, blob: BlobInfo) -> bool {
        let mut lent = self.lent_mut();
        let Some(found) = lent.remove(key) else { return false };
        lent.insert(blob.key(), Lent { blob, hashed: ChunkSet::empty_of(blob.geometry), ..found });
        true
    }

    /// Doesn't count on a blob of the content store any more; whether it did.
    pub fn give_back(&self, key: &BlobKey) -> bool {
        self.lent_mut().remove(key).is_some()
    }

    fn lent(&self) -> RwLockReadGuard<'_, BTreeMap<BlobKey, Lent>> {
        self.lent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lent_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<BlobKey, Lent>> {
        self.lent.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RuntimeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeStore").field("lent", &self.lent().len()).finish_non_exhaustive()
    }
}

impl Store for RuntimeStore {
    fn begin(&self, blob: BlobInfo) -> Result<StoredBlob, StoreError> {
        if let Some(lent) = self.lent().get(&blob.key()) {
            check_same_size(&lent.blob, &blob)?;
            return Ok(lent.stored());
        }
        self.own.begin(blob)
    }

    fn stored(&self, key: &BlobKey) -> Option<StoredBlob> {
        let lent = self.lent().get(key).map(Lent::stored);
        lent.or_else(|| self.own.stored(key))
    }

    fn list(&self) -> Vec<StoredBlob> {
        let mut all: BTreeMap<BlobKey, StoredBlob> =
            self.own.list().into_iter().map(|stored| (stored.blob.key(), stored)).collect();
        all.extend(self.lent().iter().map(|(key, lent)| (*key, lent.stored())));
        all.into_values().collect()
    }

    fn keep(&self, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
        if self.is_lent(&proof.blob().key()) {
            // Its bytes are there: what matters is that these ones were hashed where they lie.
            return Ok(());
        }
        self.own.keep(proof, bytes)
    }

    fn keep_links(&self, key: &BlobKey, links: &[u8]) -> Result<(), StoreError> {
        if self.is_lent(key) { Ok(()) } else { self.own.keep_links(key, links) }
    }

    fn links(&self, key: &BlobKey) -> Result<Vec<Vec<u8>>, StoreError> {
        if self.is_lent(key) { Ok(Vec::new()) } else { self.own.links(key) }
    }

    fn read_at(&self, key: &BlobKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let Some(lent) = self.lent().get(key).cloned() else { return self.own.read_at(key, offset, buf) };
        check_range(&lent.blob, &lent.hashed, offset, buf.len())?;
        let doing = "read a blob of the content store";
        let file = lent.open().map_err(StoreError::io(doing))?.ok_or(StoreError::Absent)?;
        file.read_at(offset, buf).map_err(StoreError::io(doing))
    }

    fn recheck(&self, key: &BlobKey, pace: &mut Pace<'_>) -> Result<StoredBlob, StoreError> {
        let lent = self.lent().get(key).map(Lent::stored);
        lent.map_or_else(|| self.own.recheck(key, pace), Ok)
    }

    fn seal(&self, key: &BlobKey) -> Result<(), StoreError> {
        let Some(stored) = self.lent().get(key).map(Lent::stored) else { return self.own.seal(key) };
        let missing = stored.verified.capacity() - stored.verified.len();
        if missing == 0 { Ok(()) } else { Err(StoreError::Incomplete { missing }) }
    }

    /// What is lent is given back; containerd's copy stays where it is.
    fn remove(&self, key: &BlobKey) -> Result<bool, StoreError> {
        let given_back = self.give_back(key);
        Ok(self.own.remove(key)? || given_back)
    }

    fn make_room(&self, bytes: u64, standing: &dyn Fn(&StoredBlob) -> Standing) -> Result<Vec<BlobKey>, StoreError> {
        self.own.make_room(bytes, standing)
    }

    fn usage(&self) -> Usage {
        self.own.usage()
    }

    fn remove_abandoned(
        &self,
        now: SystemTime,
        idle: Duration,
        in_use: &dyn Fn(&BlobKey) -> bool,
    ) -> Result<Vec<BlobKey>, StoreError> {
        self.own.remove_abandoned(now, idle, in_use)
    }
}
