//! A store around another one that has the faults one asks for: slow, corrupt, full.
//!
//! State: which faults it has now.
//! Invariants: without a fault it is the store inside.
//! Absent on purpose: chance. A fault that is set is always there.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use shoal_chain::ChunkProof;
use shoal_types::{BlobInfo, BlobKey};

use crate::{Pace, Shortage, Standing, Store, StoreError, StoredBlob, Usage};

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What each read and each write takes longer.
    pub delay: Duration,
    /// The first byte of what is read has a bit flipped.
    pub corrupt_reads: bool,
    /// Whatever is to be kept finds the device full.
    pub full: bool,
}

/// A store with faults.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Mutex<Faults>,
}

impl<S: Store> FaultyStore<S> {
    /// The store, with these faults.
    pub const fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults: Mutex::new(faults) }
    }

    /// Other faults from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before_write(&self) -> Result<(), StoreError> {
        let faults = self.faults();
        thread::sleep(faults.delay);
        if faults.full { Err(StoreError::Full { shortage: Shortage::Device, lacking_bytes: 0 }) } else { Ok(()) }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn begin(&self, blob: BlobInfo) -> Result<StoredBlob, StoreError> {
        match self.inner.stored(&blob.key()) {
            None => self.before_write()?,
            Some(_) => thread::sleep(self.faults().delay),
        }
        self.inner.begin(blob)
    }

    fn stored(&self, key: &BlobKey) -> Option<StoredBlob> {
        self.inner.stored(key)
    }

    fn list(&self) -> Vec<StoredBlob> {
        self.inner.list()
    }

    fn keep(&self, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
        self.before_write()?;
        self.inner.keep(proof, bytes)
    }

    fn keep_links(&self, key: &BlobKey, links: &[u8]) -> Result<(), StoreError> {
        self.before_write()?;
        self.inner.keep_links(key, links)
    }

    fn links(&self, key: &BlobKey) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.links(key)
    }

    fn read_at(&self, key: &BlobKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let faults = self.faults();
        thread::sleep(faults.delay);
        self.inner.read_at(key, offset, buf)?;
        if let (true, Some(first)) = (faults.corrupt_reads, buf.first_mut()) {
            *first ^= 1;
        }
        Ok(())
    }

    fn recheck(&self, key: &BlobKey, pace: &mut Pace<'_>) -> Result<StoredBlob, StoreError> {
        self.inner.recheck(key, pace)
    }

    fn seal(&self, key: &BlobKey) -> Result<(), StoreError> {
        self.before_write()?;
        self.inner.seal(key)
    }

    fn remove(&self, key: &BlobKey) -> Result<bool, StoreError> {
        self.inner.remove(key)
    }

    fn make_room(&self, bytes: u64, standing: &dyn Fn(&StoredBlob) -> Standing) -> Result<Vec<BlobKey>, StoreError> {
        // Whatever goes, this device stays full.
        self.before_write()?;
        self.inner.make_room(bytes, standing)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
