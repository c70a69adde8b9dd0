//! A store in memory: for tests, and for agents that have no disk.
//!
//! State: the chunks' bytes.
//! Invariants: those of the crate; nothing of it outlives the process, so nothing is ever suspect.
//! Absent on purpose: a file system to keep free.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use shoal_chain::ChunkProof;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet};

use crate::proofs::{Ends, Proofs};
use crate::store::{check_chunk, check_range, check_same_size, links_limit};
use crate::{Candidate, Limits, Need, Pace, Shortage, Standing, Store, StoreError, StoredBlob, Usage, plan_eviction};

/// A store in memory. Of its limits, [`Limits::keep_free`] means nothing.
#[derive(Debug)]
pub struct MemoryStore {
    limits: Limits,
    blobs: Mutex<BTreeMap<BlobKey, Blob>>,
}

#[derive(Debug)]
struct Blob {
    info: BlobInfo,
    chunks: BTreeMap<ChunkIndex, (Ends, Box<[u8]>)>,
    verified: ChunkSet,
    sealed: bool,
    links: Vec<Vec<u8>>,
    changed: SystemTime,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, blobs: Mutex::new(BTreeMap::new()) }
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<BlobKey, Blob>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room(&self, blobs: &BTreeMap<BlobKey, Blob>, bytes: usize) -> Result<(), StoreError> {
        match self.limits.shortage(held(blobs), None, bytes as u64) {
            None => Ok(()),
            Some((shortage, lacking_bytes)) => Err(StoreError::Full { shortage, lacking_bytes }),
        }
    }
}

impl Store for MemoryStore {
    fn begin(&self, info: BlobInfo) -> Result<StoredBlob, StoreError> {
        let mut blobs = self.blobs();
        if let Some(blob) = blobs.get(&info.key()) {
            check_same_size(&blob.info, &info)?;
            return Ok(blob.stored());
        }
        if blobs.len() >= self.limits.max_blobs {
            return Err(StoreError::Full { shortage: Shortage::Blobs, lacking_bytes: 0 });
        }
        let blob = Blob {
            info,
            chunks: BTreeMap::new(),
            verified: ChunkSet::empty_of(info.geometry),
            sealed: false,
            links: Vec::new(),
            changed: SystemTime::now(),
        };
        let stored = blob.stored();
        blobs.insert(info.key(), blob);
        Ok(stored)
    }

    fn stored(&self, key: &BlobKey) -> Option<StoredBlob> {
        self.blobs().get(key).map(Blob::stored)
    }

    fn list(&self) -> Vec<StoredBlob> {
        self.blobs().values().map(Blob::stored).collect()
    }

    fn keep(&self, proof: &ChunkProof, bytes: &[u8]) -> Result<(), StoreError> {
        let mut blobs = self.blobs();
        let blob = blobs.get(&proof.blob().key()).ok_or(StoreError::Absent)?;
        check_chunk(&blob.info, proof, bytes)?;
        let chunk = proof.chunk();
        if blob.verified.contains(chunk) {
            return Ok(());
        }
        self.check_room(&blobs, bytes.len())?;
        let blob = blobs.get_mut(&proof.blob().key()).ok_or(StoreError::Absent)?;
        let ends = Ends { before: proof.link_before(), after: proof.link_after() };
        blob.chunks.insert(chunk, (ends, bytes.into()));
        blob.verified.insert(chunk);
        blob.changed = SystemTime::now();
        Ok(())
    }

    fn keep_links(&self, key: &BlobKey, links: &[u8]) -> Result<(), StoreError> {
        let mut blobs = self.blobs();
        let blob = blobs.get(key).ok_or(StoreError::Absent)?;
        let limit_bytes = links_limit(&blob.info);
        if blob.links_bytes().saturating_add(links.len() as u64) > limit_bytes {
            return Err(StoreError::TooManyLinks { limit_bytes });
        }
        self.check_room(&blobs, links.len())?;
        let blob = blobs.get_mut(key).ok_or(StoreError::Absent)?;
        blob.links.push(links.to_vec());
        Ok(())
    }

    fn links(&self, key: &BlobKey) -> Result<Vec<Vec<u8>>, StoreError> {
        self.blobs().get(key).map(|blob| blob.links.clone()).ok_or(StoreError::Absent)
    }

    fn read_at(&self, key: &BlobKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let blobs = self.blobs();
        let blob = blobs.get(key).ok_or(StoreError::Absent)?;
        let geometry = blob.info.geometry;
        check_range(&blob.info, &blob.verified, offset, buf.len())?;
        let (mut at, mut rest) = (offset, buf);
        while let (false, Some(chunk)) = (rest.is_empty(), geometry.chunk_at(at)) {
            let (_, bytes) = &blob.chunks[&chunk];
            let from = usize::try_from(at % u64::from(geometry.chunk_size().bytes())).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(rest.len().min(bytes.len() - from));
            now.copy_from_slice(&bytes[from..from + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn recheck(&self, key: &BlobKey, _pace: &mut Pace<'_>) -> Result<StoredBlob, StoreError> {
        self.stored(key).ok_or(StoreError::Absent)
    }

    fn seal(&self, key: &BlobKey) -> Result<(), StoreError> {
        let mut blobs = self.blobs();
        let blob = blobs.get_mut(key).ok_or(StoreError::Absent)?;
        if !blob.verified.is_full() {
            return Err(StoreError::Incomplete { missing: blob.verified.capacity() - blob.verified.len() });
        }
        let mut proofs = Proofs::none(blob.info);
        blob.chunks.iter().for_each(|(chunk, (ends, _))| proofs.set(*chunk, *ends));
        proofs.check_joined()?;
        blob.sealed = true;
        Ok(())
    }

    fn remove(&self, key: &BlobKey) -> Result<bool, StoreError> {
        Ok(self.blobs().remove(key).is_some())
    }

    fn make_room(&self, bytes: u64, standing: &dyn Fn(&StoredBlob) -> Standing) -> Result<Vec<BlobKey>, StoreError> {
        // Judged outside the lock: what the caller does there is its own business.
        let stored = self.list();
        let candidates: Vec<Candidate> = stored
            .iter()
            .map(|stored| Candidate { key: stored.blob.key(), own_bytes: stored.own_bytes, standing: standing(stored) })
            .collect();
        let mut blobs = self.blobs();
        let lacking = self.limits.shortage(held(&blobs), None, bytes);
        let need = Need {
            bytes: lacking.map_or(0, |(_, bytes)| bytes),
            blobs: (blobs.len() + 1).saturating_sub(self.limits.max_blobs),
        };
        let Some(goes) = plan_eviction(need, &candidates) else {
            let (shortage, lacking_bytes) = lacking.unwrap_or((Shortage::Blobs, 0));
            return Err(StoreError::Full { shortage, lacking_bytes });
        };
        for key in &goes {
            blobs.remove(key);
        }
        Ok(goes)
    }

    fn usage(&self) -> Usage {
        let blobs = self.blobs();
        Usage { own_bytes: held(&blobs), quota_bytes: self.limits.quota_bytes, blobs: blobs.len() }
    }
}

impl Blob {
    fn stored(&self) -> StoredBlob {
        StoredBlob {
            blob: self.info,
            verified: self.verified.clone(),
            suspect: ChunkSet::empty_of(self.info.geometry),
            sealed: self.sealed,
            links_bytes: self.links_bytes(),
            own_bytes: self.own_bytes(),
            changed: self.changed,
        }
    }

    fn links_bytes(&self) -> u64 {
        self.links.iter().map(|links| links.len() as u64).sum()
    }

    fn own_bytes(&self) -> u64 {
        self.chunks.values().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() + self.links_bytes()
    }
}

fn held(blobs: &BTreeMap<BlobKey, Blob>) -> u64 {
    blobs.values().map(Blob::own_bytes).sum()
}
