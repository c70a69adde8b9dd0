//! Hashing what lies whole on this node: for its links, or to see whether our own copy is needed beside the runtime's.
//!
//! ```text
//!   waiting ── others ask for it: at once, at full speed ───────────────────┐
//!      └────── nothing is transferred here: one at a time, a tenth of a core ├──> running ──> linked, or checked
//! ```
//!
//! State: the blobs that wait, and those whose thread runs.
//! Invariants: a blob waits or runs, once; at most [`AT_ONCE`] run; a part of a blob is reported when its links are signed, the last one
//! when the digest is right. Every thread ends soon after it is told to.
//! Absent on purpose: which blobs (`lending.rs`).

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shoal_chain::{ChunkProof, ClosedChain, LinkBatch, LinkRun, SignedLinks, VerifiedLinks};
use shoal_store::containerd::ContentStore;
use shoal_store::{ComputeError, RuntimeStore, Store as _, compute_chain};
use shoal_swarm::Engine;
use shoal_tracker_server::client::NodeIdentity;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex};
use tokio::sync::mpsc;

use super::room::{Done, Room};
use super::transfer::TransferError;

/// Two blobs that others wait for: the layers of one image come in order, and a node has other things to do with its cores.
const AT_ONCE: usize = 2;

/// Links in one batch: a signature is a tenth of what it takes to hash the eight chunks of 64 KiB and less.
const LINKED_AT_ONCE: usize = 8;

/// In the background, for each moment of work so many of rest: a tenth of a core, 120 MB/s.
const REST: u32 = 9;

/// While transfers need the machine, it is looked so often whether they still do.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a blob is hashed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For its links, which are told as they come.
    Link,
    /// To let go of our own copy.
    Check,
}

/// Where a blob lies.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the runtime's content store.
    Runtime(ContentStore),
    /// In our own store.
    Own,
}

/// Chunks of a lent blob whose links are known.
pub(super) struct LinkedChunks {
    key: BlobKey,
    chunks: Range<u32>,
    links: VerifiedLinks,
}

/// A blob's thread has ended.
pub(super) struct HashEnded {
    blob: BlobInfo,
    purpose: Purpose,
    place: Place,
    result: Result<ClosedChain, ComputeError>,
}

/// The blobs to hash.
#[derive(Debug)]
pub(super) struct Hashing {
    own_copy_for: Duration,
    waiting: BTreeMap<BlobKey, Job>,
    running: BTreeMap<BlobKey, Running>,
    /// Transfers are under way on this node.
    busy: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Job {
    place: Place,
    blob: BlobInfo,
    purpose: Purpose,
    wanted: bool,
    not_before: Instant,
}

/// A blob whose thread runs.
#[derive(Debug)]
struct Running {
    purpose: Purpose,
    orders: Orders,
}

/// What a thread is told while it runs.
#[derive(Clone, Debug, Default)]
struct Orders {
    hurry: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Hashing {
    /// Nothing yet. Our own copy of a blob stays so long before the runtime's is checked.
    pub(super) fn new(own_copy_for: Duration) -> Self {
        Self { own_copy_for, waiting: BTreeMap::new(), running: BTreeMap::new(), busy: Arc::default() }
    }

    /// Adds a blob, unless it is here already.
    pub(super) fn add(&mut self, place: Place, blob: BlobInfo, purpose: Purpose) {
        if self.running.contains_key(&blob.key()) {
            return;
        }
        let wait = if purpose == Purpose::Check { self.own_copy_for } else { Duration::ZERO };
        let job = Job { place, blob, purpose, wanted: false, not_before: Instant::now() + wait };
        self.waiting.entry(blob.key()).or_insert(job);
    }

    /// Where the runtime's copy of a blob lies, if it is to be checked.
    pub(super) fn awaiting_check(&self, key: &BlobKey) -> Option<(ContentStore, BlobInfo)> {
        self.waiting.get(key).filter(|job| job.purpose == Purpose::Check).and_then(|job| match &job.place {
            Place::Runtime(content) => Some((content.clone(), job.blob)),
            Place::Own => None,
        })
    }

    /// The blob isn't to be hashed any more.
    pub(super) fn stop(&mut self, key: &BlobKey) {
        self.waiting.remove(key);
        if let Some(running) = self.running.remove(key) {
            running.orders.stop.store(true, Ordering::Relaxed);
        }
    }

    /// The runtime's copy of a blob isn't to be checked any more.
    pub(super) fn stop_check(&mut self, key: &BlobKey) {
        let waits = self.waiting.get(key).is_some_and(|job| job.purpose == Purpose::Check);
        if waits || self.running.get(key).is_some_and(|running| running.purpose == Purpose::Check) {
            self.stop(key);
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.waiting.clear();
        let running = std::mem::take(&mut self.running);
        running.values().for_each(|running| running.orders.stop.store(true, Ordering::Relaxed));
    }

    /// Somebody waits for a blob's links; whether it is still to be begun.
    fn hurry(&mut self, key: &BlobKey) -> bool {
        if let Some(running) = self.running.get(key) {
            running.orders.hurry.store(true, Ordering::Relaxed);
        }
        let waiting = self.waiting.get_mut(key).filter(|job| job.purpose == Purpose::Link);
        waiting.is_some_and(|job| !std::mem::replace(&mut job.wanted, true))
    }

    /// The next blob to begin with.
    fn next(&mut self, now: Instant) -> Option<Job> {
        let idle = self.running.is_empty() && !self.busy.load(Ordering::Relaxed);
        let may = |job: &&Job| job.wanted || (idle && job.not_before <= now);
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let key = self.waiting.values().filter(may).max_by_key(|job| job.wanted)?.blob.key();
        self.waiting.remove(&key)
    }
}

impl Room {
    /// Somebody waits for a blob: if it is to be linked, this is done now.
    pub(super) fn hash_for_others(&mut self, key: BlobKey) {
        if self.hashing.hurry(&key) {
            self.hash_next();
        }
    }

    /// Begins to hash what is due.
    pub(super) fn hash_next(&mut self) {
        let busy = self.blobs.values().any(|blob| !blob.complete && !blob.local);
        self.hashing.busy.store(busy, Ordering::Relaxed);
        // Links that aren't signed are of no use.
        let Some(identity) = self.identity.clone() else { return };
        while let Some(job) = self.hashing.next(Instant::now()) {
            let orders = Orders { hurry: Arc::new(AtomicBool::new(job.wanted)), ..Orders::default() };
            let running = Running { purpose: job.purpose, orders: orders.clone() };
            self.hashing.running.insert(job.blob.key(), running);
            let work = Work {
                job,
                orders,
                busy: Arc::clone(&self.hashing.busy),
                store: Arc::clone(&self.desk.lent),
                identity: Arc::clone(&identity),
                results: self.results.clone(),
            };
            // It is told to end with the room, which then drops the channel that it reports to.
            tokio::task::spawn_blocking(move || work.run());
        }
    }

    pub(super) fn linked(&mut self, linked: LinkedChunks) {
        let LinkedChunks { key, chunks, links } = linked;
        let now = self.now();
        let Some(blob) = self.blobs.get(&key.digest).filter(|blob| blob.info.key() == key && blob.local) else {
            return;
        };
        chunks.clone().for_each(|chunk| blob.shared.got(ChunkIndex::new(chunk)));
        self.engine.handle_local_chunks(now, key, chunks, &links);
    }

    pub(super) fn hash_ended(&mut self, ended: HashEnded) {
        let HashEnded { blob, purpose, place, result } = ended;
        let key = blob.key();
        // One that was stopped counts for nothing: the same blob may be running again.
        if matches!(result, Err(ComputeError::BrokenOff)) || self.hashing.running.remove(&key).is_none() {
            return self.hash_next();
        }
        let digest = blob.digest;
        match (result, purpose) {
            (Ok(_), Purpose::Link) => tracing::debug!(%digest, "a blob that was here is linked"),
            (Ok(chain), Purpose::Check) => {
                let known = self.blobs.get(&digest).is_some_and(|known| known.complete && known.info == blob);
                let lent = Arc::clone(&self.desk.lent);
                if let (true, Place::Runtime(content)) = (known, place) {
                    tokio::task::spawn_blocking(move || match lent.replace(&content, &chain) {
                        Ok(()) => tracing::debug!(%digest, "the runtime has the blob: our own copy is gone"),
                        Err(error) => tracing::warn!(%digest, %error, "our own copy of a blob can't be removed"),
                    });
                }
            }
            (Err(error), Purpose::Link) => {
                tracing::warn!(%digest, %error, ?place, "what is here isn't the blob: it isn't served");
                self.forget(digest, TransferError::Ended);
                if let Place::Own = place {
                    let lent = Arc::clone(&self.desk.lent);
                    tokio::task::spawn_blocking(move || lent.remove_own(&key));
                }
            }
            (Err(error), Purpose::Check) => {
                tracing::warn!(%digest, %error, "what the runtime has isn't the blob: our own copy stays");
            }
        }
        self.hash_next();
    }
}

/// What a thread does.
struct Work {
    job: Job,
    orders: Orders,
    busy: Arc<AtomicBool>,
    store: Arc<RuntimeStore>,
    identity: Arc<NodeIdentity>,
    results: mpsc::Sender<Done>,
}

impl Work {
    fn run(self) {
        let result = self.hash();
        let Job { place, blob, purpose, .. } = self.job;
        // The room ends before its channel does.
        let _ = self.results.blocking_send(Done::HashEnded(HashEnded { blob, purpose, place, result }));
    }

    fn hash(&self) -> Result<ClosedChain, ComputeError> {
        let blob = self.job.blob;
        let bytes = self.open().map_err(ComputeError::Read)?;
        let mut since = Instant::now();
        let mut pace = |_: u64| {
            self.rest(since.elapsed());
            since = Instant::now();
            if self.orders.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut run = Vec::with_capacity(LINKED_AT_ONCE);
        let mut proven = |proof: &ChunkProof| {
            if self.job.purpose == Purpose::Link {
                self.store.hashed(proof);
                run.push(proof.clone());
                if run.len() == LINKED_AT_ONCE || proof.chunk() == blob.geometry.last_chunk() {
                    self.report(&run);
                    run.clear();
                }
            }
        };
        compute_chain(bytes, blob, &mut proven, &mut pace)
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        let blob = self.job.blob;
        Ok(match &self.job.place {
            Place::Runtime(content) => {
                let file = content.blob(&blob.digest)?.ok_or(io::ErrorKind::NotFound)?;
                Box::new(file.into_reader())
            }
            Place::Own => Box::new(Own { store: Arc::clone(&self.store), blob, at: 0 }),
        })
    }

    /// Signs the links of these chunks and tells of them.
    fn report(&self, run: &[ChunkProof]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        let bytes = run.iter().flat_map(|proof| proof.link_after().as_bytes().to_vec()).collect();
        let blob = self.job.blob;
        let links = LinkRun::new(blob.digest.algorithm(), first.chunk(), bytes).expect("whole links, few of them");
        let batch = LinkBatch { blob, epoch: Engine::LOCAL_EPOCH, run: links };
        let signature = self.identity.sign(&batch.signed_bytes());
        let links = VerifiedLinks::trusted(SignedLinks { batch, publisher: self.identity.node(), signature });
        let chunks = first.chunk().get()..last.chunk().get() + 1;
        let linked = LinkedChunks { key: blob.key(), chunks, links };
        if self.results.blocking_send(Done::Linked(Box::new(linked))).is_err() {
            self.orders.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Leaves the machine to others, for `worked`; not at all, if others wait for the blob.
    fn rest(&self, worked: Duration) {
        let on = || !self.orders.stop.load(Ordering::Relaxed) && !self.orders.hurry.load(Ordering::Relaxed);
        if on() {
            std::thread::sleep(worked * REST);
        }
        while on() && self.busy.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A blob in our own store, from its first byte on.
struct Own {
    store: Arc<RuntimeStore>,
    blob: BlobInfo,
    at: u64,
}

impl Read for Own {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.blob.geometry.size_bytes() - self.at).unwrap_or(usize::MAX);
        let length = left.min(buf.len());
        self.store.read_at(&self.blob.key(), self.at, &mut buf[..length]).map_err(io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}
