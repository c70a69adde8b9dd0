//! A store in a directory. Its layout, its format and what survives are told at the crate's root.
//!
//! State: the blobs that have begun, by key.
//! Invariants: a blob's number is used once. The index names at most one blob a key; one that is being removed may still be in it.
//! Absent on purpose: threads; everything happens on the caller's.

mod account;
mod blob;
mod directory;
mod files;
mod journal;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_chain::ChunkProof;
use shoal_types::{BlobInfo, BlobKey};

use crate::store::{check_chunk, check_same_size};
use crate::{Candidate, Limits, Need, Pace, Shortage, Standing, Store, StoreError, StoredBlob, Usage, plan_eviction};
use account::Account;
use blob::{Blob, BlobName, Shared, absent_is_fine};
use directory::Directory;
use files::{Files, Kind};

pub use directory::OpenError;
pub use journal::BootId;

/// A store in a directory.
#[derive(Debug)]
pub struct DiskStore {
    shared: Shared,
    blobs: RwLock<BTreeMap<BlobKey, Arc<Blob>>>,
    next_number: AtomicU64,
}

impl DiskStore {
    /// Opens the store in this directory; creates it where there is none. Reads journals, no chunks.
    ///
    /// # Errors
    /// One line that says what is wrong with the directory.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, OpenError> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = BootId::parse(&text).unwrap_or_else(|| {
            tracing::warn!("the node's boot id can't be read: what is in the store is verified again");
            // No other process start has this one.
            BootId::new(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
        });
        Self::open_on_boot(dir, limits, boot)
    }

    /// As [`Self::open`], on a boot of the node that the caller knows.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_on_boot(dir: &Path, limits: Limits, boot: BootId) -> Result<Self, OpenError> {
        let directory = Directory::open(dir)?;
        let shared = Shared { directory, files: Files::default(), account: Account::new(limits), boot };
        let unreadable = |source| OpenError::Unreadable { dir: dir.to_owned(), source };
        let (blobs, next_number) = load(&shared).map_err(unreadable)?;
        Ok(Self { shared, blobs: RwLock::new(blobs), next_number: AtomicU64::new(next_number) })
    }

    fn blob(&self, key: &BlobKey) -> Result<Arc<Blob>, StoreError> {
        read(&self.blobs).get(key).cloned().ok_or(StoreError::Absent)
    }
}

impl Store for DiskStore {
    fn begin(&self, info: BlobInfo) -> Result<StoredBlob, StoreError> {
        let mut blobs = self.blobs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(blob) = blobs.get(&info.key())
            && let Some(stored) = blob.stored()
        {
            check_same_size(blob.info(), &info)?;
            return Ok(stored);
        }
        let others = blobs.len() - usize::from(blobs.contains_key(&info.key()));
        if others >= self.shared.account.limits().max_blobs {
            return Err(StoreError::Full { shortage: Shortage::Blobs, lacking_bytes: 0 });
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let blob = Arc::new(Blob::create(&self.shared, info, number)?);
        let stored = blob.stored().ok_or(StoreError::Absent);
        blobs.insert(info.key(), blob);
        stored
    }

    fn stored(&self, key: &BlobKey) -> Option<StoredBlob> {
        self.blob(key).ok()?.stored()
    }

    fn list(&self) -> Vec<StoredBlob> {
        read(&self.blobs).values().filter_map(|blob| blob.stored()).collect()
    }

    fn keep(&self, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
        let blob = self.blob(&proof.blob().key())?;
        check_chunk(blob.info(), proof, bytes)?;
        blob.keep(&self.shared, proof, bytes)
    }

    fn keep_links(&self, key: &BlobKey, links: &[u8]) -> Result<(), StoreError> {
        self.blob(key)?.keep_links(&self.shared, links)
    }

    fn links(&self, key: &BlobKey) -> Result<Vec<Vec<u8>>, StoreError> {
        self.blob(key)?.links(&self.shared)
    }

    fn read_at(&self, key: &BlobKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.blob(key)?.read_at(&self.shared, offset, buf)
    }

    fn recheck(&self, key: &BlobKey, pace: &mut Pace<'_>) -> Result<StoredBlob, StoreError> {
        let blob = self.blob(key)?;
        blob.recheck(&self.shared, pace)?;
        blob.stored().ok_or(StoreError::Absent)
    }

    fn seal(&self, key: &BlobKey) -> Result<(), StoreError> {
        self.blob(key)?.seal(&self.shared)
    }

    fn remove(&self, key: &BlobKey) -> Result<bool, StoreError> {
        let Ok(blob) = self.blob(key) else { return Ok(false) };
        let removed = blob.remove(&self.shared)?;
        let mut blobs = self.blobs.write().unwrap_or_else(PoisonError::into_inner);
        // It may have begun again meanwhile, as another one.
        if let Entry::Occupied(entry) = blobs.entry(*key)
            && Arc::ptr_eq(entry.get(), &blob)
        {
            entry.remove();
        }
        Ok(removed)
    }

    fn make_room(&self, bytes: u64, standing: &dyn Fn(&StoredBlob) -> Standing) -> Result<Vec<BlobKey>, StoreError> {
        let space = self.shared.directory.space().map_err(StoreError::io("see how full its disk is"))?;
        let stored = self.list();
        let lacking = self.shared.account.lacking(bytes, space);
        let blobs = (stored.len() + 1).saturating_sub(self.shared.account.limits().max_blobs);
        let candidates: Vec<Candidate> = stored
            .iter()
            .map(|stored| Candidate { key: stored.blob.key(), own_bytes: stored.own_bytes, standing: standing(stored) })
            .collect();
        let Some(goes) = plan_eviction(Need { bytes: lacking.map_or(0, |(_, bytes)| bytes), blobs }, &candidates)
        else {
            let (shortage, lacking_bytes) = lacking.unwrap_or((Shortage::Blobs, 0));
            return Err(StoreError::Full { shortage, lacking_bytes });
        };
        for key in &goes {
            self.remove(key)?;
        }
        Ok(goes)
    }

    fn usage(&self) -> Usage {
        Usage {
            own_bytes: self.shared.account.held(),
            quota_bytes: self.shared.account.limits().quota_bytes,
            blobs: read(&self.blobs).len(),
        }
    }
}

/// Panics leave nothing half-done under these locks: each holds plain figures that are changed last.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(index: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    index.read().unwrap_or_else(PoisonError::into_inner)
}

/// What an earlier process left, and the first number that none of it has. What can't be used is deleted.
fn load(shared: &Shared) -> io::Result<(BTreeMap<BlobKey, Arc<Blob>>, u64)> {
    let dir = shared.directory.blobs();
    // Whether the blob has a journal. In order of key and number, so that the latest of a key comes last.
    let mut names: BTreeMap<BlobName, bool> = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let file_name = entry?.file_name();
        match file_name.to_str().and_then(BlobName::parse) {
            Some((name, kind)) => *names.entry(name).or_default() |= kind == Kind::Journal,
            None => tracing::warn!(file = ?file_name, "a file that isn't the store's lies in its directory"),
        }
    }
    let next_number = names.keys().map(|name| name.number + 1).max().unwrap_or(0);
    let mut blobs: BTreeMap<BlobKey, Arc<Blob>> = BTreeMap::new();
    for (name, has_journal) in names {
        let loaded = if has_journal { load_or_none(shared, name) } else { None };
        match loaded {
            None => delete(dir, name)?,
            Some(blob) => {
                // A removal was cut short, and the blob had begun again: the later one holds.
                if let Some(earlier) = blobs.insert(name.key, Arc::new(blob)) {
                    earlier.remove(shared).map_err(io::Error::other)?;
                }
            }
        }
    }
    Ok((blobs, next_number))
}

/// A blob whose files can't be read is one that isn't here.
fn load_or_none(shared: &Shared, name: BlobName) -> Option<Blob> {
    Blob::load(shared, name).unwrap_or_else(|error| {
        tracing::warn!(digest = %name.key.digest, %error, "a blob can't be read and is dropped");
        None
    })
}

fn delete(dir: &Path, name: BlobName) -> io::Result<()> {
    for kind in [Kind::Journal, Kind::Data] {
        fs::remove_file(name.file(dir, kind)).or_else(absent_is_fine)?;
    }
    Ok(())
}
