//! The blobs that are exchanged: what their driver remembers of them, their beginning and their end.
//!
//! State: with each blob where it is fetched from, its readers, its place in the store, its announces.
//! Invariants: what was verified under links that are withdrawn isn't kept: a task that began before the withdrawal finds its shelf
//! closed.
//! Absent on purpose: chunks' states, which are the engine's.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use shoal_chain::{ChunkProof, VerifiedLinks};
use shoal_store::{Store, StoreError, StoredBlob};
use shoal_swarm::StartBlob;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, Digest};
use shoal_wire::Announce;
use tracing::Span;

use super::announces::Carried;
use super::hashing::{Place, Purpose};
use super::room::Room;
use super::trace::Trace;
use super::transfer::{Shared, TransferError};
use super::{Source, Wanted};

/// A blob's place in the store, for tasks: what was verified under links that are withdrawn isn't kept.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Arc<dyn Store>,
    gate: Arc<RwLock<u64>>,
    generation: u64,
}

impl Shelf {
    /// Keeps a chunk, if its links still hold.
    pub(super) fn keep(&self, proof: &ChunkProof, bytes: Bytes) -> Result<Option<Kept>, StoreError> {
        let generation = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *generation != self.generation {
            return Ok(None);
        }
        self.store.keep(proof, &bytes)?;
        Ok(Some(Kept { bytes, generation: self.generation }))
    }
}

/// A chunk that is in the store.
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    generation: u64,
}

/// A blob, as far as the engine doesn't know it.
pub(super) struct Blob {
    pub(super) info: BlobInfo,
    pub(super) source: Option<Source>,
    pub(super) shared: Arc<Shared>,
    gate: Arc<RwLock<u64>>,
    /// An announce is under way.
    pub(super) announcing: bool,
    pub(super) announces: VecDeque<Announce>,
    pub(super) carried: Carried,
    /// Links before this chunk are written down.
    links_kept: u32,
    pub(super) complete: bool,
    /// All its bytes are on this node, and are being hashed for their links.
    pub(super) local: bool,
    pub(super) trace: Trace,
}

impl Blob {
    pub(super) fn shelf(&self, store: &Arc<dyn Store>) -> Shelf {
        Shelf { store: Arc::clone(store), gate: Arc::clone(&self.gate), generation: self.generation() }
    }

    fn generation(&self) -> u64 {
        *self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    pub(super) fn want(&mut self, wanted: Wanted, stored: StoredBlob, span: &Span) -> Arc<Shared> {
        let Wanted { digest, source, priority, .. } = wanted;
        if let Some(blob) = self.blobs.get_mut(&digest) {
            if blob.source.is_none() {
                blob.source = Some(source);
            }
            let (key, shared) = (blob.info.key(), Arc::clone(&blob.shared));
            self.hash_for_others(key);
            return shared;
        }
        let trace = if stored.sealed { Trace::none() } else { Trace::new(span, &stored.blob) };
        self.begin(stored, Some(source), priority, trace)
    }

    /// Takes part with what is stored.
    pub(super) fn begin(
        &mut self,
        stored: StoredBlob,
        source: Option<Source>,
        priority: u32,
        trace: Trace,
    ) -> Arc<Shared> {
        let StoredBlob { blob, verified, sealed, .. } = stored;
        // There was room for it, so there may be for what a lead fetches.
        self.engine.set_can_lead(true);
        let shared = Arc::new(Shared::new(self.desk.reads.clone(), blob, verified.clone(), sealed));
        self.desk.publish(blob.digest, &shared);
        let kept = self.desk.store.links(&blob.key()).unwrap_or_default();
        let links = kept.iter().flat_map(|bytes| super::actions::decode_links(bytes)).map(VerifiedLinks::trusted);
        let links: Vec<VerifiedLinks> = links.collect();
        let local = if sealed { !lead_to_the_end(&blob, &links) } else { self.desk.lent.is_lent(&blob.key()) };
        let entry = Blob {
            info: blob,
            source,
            shared: Arc::clone(&shared),
            gate: Arc::default(),
            announcing: false,
            announces: VecDeque::new(),
            carried: Carried::default(),
            links_kept: 0,
            complete: sealed,
            local,
            trace,
        };
        self.blobs.insert(blob.digest, entry);
        let now = self.now();
        if local {
            self.engine.start_local(now, blob, priority);
            if sealed {
                // Its links were lost, as with a crash between the last chunk and them.
                self.hashing.add(Place::Own, blob, Purpose::Link);
            }
        } else {
            self.engine.start(now, StartBlob { blob, have: verified, links, priority });
        }
        shared
    }

    /// A chunk may be read, unless its links were withdrawn since it was kept.
    pub(super) fn publish_chunk(&self, key: BlobKey, chunk: ChunkIndex, kept: Kept) {
        let blob = self.blobs.get(&key.digest).filter(|blob| blob.info.key() == key);
        if let Some(blob) = blob.filter(|blob| blob.generation() == kept.generation) {
            self.desk.reads.kept(key, chunk, kept.bytes);
            blob.shared.got(chunk);
        }
    }

    /// Leaves a blob's swarm and tells its readers why.
    pub(super) fn forget(&mut self, digest: Digest, why: TransferError) {
        let Some(blob) = self.blobs.remove(&digest) else { return };
        let key = blob.info.key();
        let now = self.now();
        self.stop_run(key);
        self.hashing.stop(&key);
        self.desk.lent.give_back(&key);
        self.engine.stop(now, key);
        self.links.forget(key);
        self.desk.reads.forget(key);
        self.held.retain(|(of, _), _| *of != key);
        if !blob.complete || why != TransferError::Ended {
            blob.shared.failed(why);
        }
        self.desk.transfers.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
    }

    /// The links under which a blob's chunks were verified prove nothing: what is stored of it goes, now, and it begins anew.
    pub(super) fn chain_failed(&mut self, key: BlobKey) {
        let Some(blob) = self.blobs.get_mut(&key.digest) else { return };
        blob.shared.failed(TransferError::ChainFailed);
        let mut generation = blob.gate.write().unwrap_or_else(PoisonError::into_inner);
        *generation += 1;
        self.desk.reads.forget(key);
        let fresh = self.desk.store.remove(&key).and_then(|_| self.desk.store.begin(blob.info));
        drop(generation);
        blob.links_kept = 0;
        blob.complete = false;
        self.held.retain(|(of, _), _| *of != key);
        match fresh {
            Ok(stored) => {
                let shared = Shared::new(self.desk.reads.clone(), stored.blob, stored.verified, false);
                blob.shared = Arc::new(shared);
                self.desk.publish(key.digest, &blob.shared);
            }
            Err(error) => {
                tracing::error!(%error, digest = %key.digest, "a blob whose chain failed can't be begun anew");
                self.forget(key.digest, TransferError::ChainFailed);
            }
        }
    }

    /// Writes down what is new of a blob's links, in a task that may block.
    pub(super) fn new_links(&mut self, key: BlobKey) -> impl FnOnce() + Send + 'static + use<> {
        let batches = self.take_new_links(key);
        let store = Arc::clone(&self.desk.store);
        move || {
            for bytes in batches {
                if let Err(error) = store.keep_links(&key, &bytes) {
                    tracing::debug!(%error, digest = %key.digest, "links aren't kept");
                    return;
                }
            }
        }
    }

    fn take_new_links(&mut self, key: BlobKey) -> Vec<Vec<u8>> {
        let Some(blob) = self.blobs.get_mut(&key.digest) else { return Vec::new() };
        let links = self.engine.links_from(key, ChunkIndex::new(blob.links_kept));
        let mut batches = Vec::new();
        for links in links {
            let run = &links.batch.run;
            let (first, end) = (run.first().get(), run.first().get() + run.count());
            if first > blob.links_kept || end <= blob.links_kept {
                continue;
            }
            blob.links_kept = end;
            batches.extend(super::actions::encode_links(key, links));
        }
        batches
    }
}

/// Whether these links are all of a blob's: the last one, which is the digest, needs none.
fn lead_to_the_end(blob: &BlobInfo, links: &[VerifiedLinks]) -> bool {
    let geometry = blob.geometry;
    let mut linked = ChunkSet::empty_of(geometry);
    linked.insert(geometry.last_chunk());
    for (chunk, _) in links.iter().flat_map(|links| links.get().batch.run.iter()) {
        if geometry.contains(chunk) {
            linked.insert(chunk);
        }
    }
    linked.is_full()
}
