//! Starting the exchange, and the handle to it.
//!
//! State: the channel to the room, and what can be known without asking it.
//! Invariants: a want makes room and begins the blob in the store before the room hears of it.
//! Absent on purpose: the exchange itself (`room.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use shoal_store::{RuntimeStore, Standing, Store, StoreError, StoredBlob};
use shoal_swarm::Config;
use shoal_tracker_server::client::{EventStream, TrackerClient};
use shoal_types::{BlobInfo, BlobKey, ChunkSize, Digest, Geometry, NodeId, Zone};
use shoal_wire::NodeName;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::lending::{Offer, Offered};
use super::reads::Reads;
use super::room::Room;
use super::transfer::{Shared, Transfer};
use super::{Origins, Wanted};
use crate::transport;

/// Commands that wait for the room: as many as the mirror has connections.
const COMMANDS: usize = 256;

/// Failed chains that whoever follows them may lag behind: one is rare, several at a time are an attack.
const SPOILT: usize = 64;

/// What the exchange is to be.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    /// The engine's settings.
    pub engine: Config,
    /// This node's name.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
    /// Whether peers' links are unencrypted and unproven: only where a cluster chose that.
    pub plain_peers: bool,
    /// How much of what was verified last is read from memory: [`RECENT_BYTES`](super::RECENT_BYTES).
    pub recent_bytes: usize,
    /// The connections' settings.
    pub transport: transport::Settings,
    /// How long our own copy of a blob stays when the runtime has one, before that is checked and ours goes.
    pub own_copy_for: Duration,
    /// Decides every tie.
    pub seed: u64,
}

/// The handle to the exchange. A clone is the same one.
#[derive(Clone)]
pub struct Exchange {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) desk: Arc<Desk>,
}

/// Why a blob isn't exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// It can't be stored.
    #[error("there is no room to store the blob")]
    NoRoom(#[source] StoreError),
    /// The store fails, or contradicts the blob.
    #[error("the store can't take the blob")]
    Store(#[source] StoreError),
    /// Its size can't be that of a blob.
    #[error("no blob has {0} bytes")]
    Size(u64),
    /// The agent stops.
    #[error("the agent stops")]
    Ended,
}

/// What the room is asked for.
pub(super) enum Command {
    Want {
        wanted: Wanted,
        begun: Box<Begun>,
        span: Span,
        answer: oneshot::Sender<Transfer>,
    },
    Offer {
        offer: Offer,
        answer: oneshot::Sender<Offered>,
    },
    Retract {
        digest: Digest,
    },
    /// A reader waits for a blob that runs, with this priority.
    Hurry {
        digest: Digest,
        priority: u32,
    },
    Snapshot {
        answer: oneshot::Sender<Snapshot>,
    },
}

/// A blob that has begun in the store.
pub(super) struct Begun {
    pub(super) stored: StoredBlob,
    /// What had to go for it.
    pub(super) evicted: Vec<BlobKey>,
}

/// What the handle, the room and its tasks share.
pub(super) struct Desk {
    pub(super) store: Arc<dyn Store>,
    pub(super) reads: Reads,
    /// The same store, as the one that knows what the runtime lends.
    pub(super) lent: Arc<RuntimeStore>,
    /// Blobs of which wrong bytes may have gone to readers.
    pub(super) spoilt: broadcast::Sender<Digest>,
    /// The blobs that are exchanged, by digest.
    pub(super) transfers: Mutex<BTreeMap<Digest, Arc<Shared>>>,
    /// Blobs that stay, whatever else wants room.
    pinned: RwLock<BTreeSet<Digest>>,
    /// Nodes refused for good.
    pub(super) banned: RwLock<Vec<NodeId>>,
    pub(super) ready: AtomicBool,
    pub(super) traffic: TrafficCounters,
}

/// Bytes so far.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    pub(super) from_peers: AtomicU64,
    pub(super) to_peers: AtomicU64,
    pub(super) from_origin: AtomicU64,
    origin_millis: AtomicU64,
}

/// Bytes so far, of chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// That came from peers.
    pub from_peers: u64,
    /// That went to peers.
    pub to_peers: u64,
    /// That this node fetched from an origin as a lead.
    pub from_origin: u64,
    /// For how long it fetched them, in milliseconds, all its blobs together.
    pub origin_millis: u64,
}

/// What is going on.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Whether peers and a tracker can be asked.
    pub ready: bool,
    /// Connected neighbours.
    pub peers: usize,
    /// Bytes so far.
    pub traffic: Traffic,
    /// Chunks whose links refuted them.
    pub chunks_wrong: u64,
    /// Nodes refused for good.
    pub bans: u64,
    /// Neighbours dropped because they broke the protocol.
    pub violations: u64,
    /// The blobs.
    pub blobs: Vec<BlobSnapshot>,
}

/// One blob.
#[derive(Clone, Debug, Serialize)]
pub struct BlobSnapshot {
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// Chunks that are verified here.
    pub have: u32,
    /// All its chunks.
    pub chunks: u32,
    /// Whether all of it is here and proven.
    pub complete: bool,
    /// Whether it lies in the runtime's content store, and not in our own.
    pub lent: bool,
    /// Whether this node fetches it from the origin now.
    pub leading: bool,
}

impl Exchange {
    /// Starts. It ends with `shutdown`; the task is to be awaited then. Peers are reached, and taken by the listener, whose port the tracker's
    /// client announces, as soon as that client has an identity.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    pub fn start(
        config: ExchangeConfig,
        listener: TcpListener,
        tracker: TrackerClient,
        events: EventStream,
        store: Arc<RuntimeStore>,
        origins: Arc<dyn Origins>,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), shoal_swarm::ConfigError> {
        config.engine.validate()?;
        let desk = Arc::new(Desk {
            reads: Reads::new(Arc::clone(&store) as _, config.recent_bytes),
            store: Arc::clone(&store) as _,
            lent: store,
            spoilt: broadcast::Sender::new(SPOILT),
            transfers: Mutex::default(),
            pinned: RwLock::default(),
            banned: RwLock::default(),
            ready: AtomicBool::new(false),
            traffic: TrafficCounters::default(),
        });
        let (commands, taken) = mpsc::channel(COMMANDS);
        let room = Room::new(config, listener, Arc::clone(&desk), tracker, origins);
        let task = tokio::spawn(room.run(taken, events, shutdown));
        Ok((Self { commands, desk }, task))
    }

    /// Whether there is an identity, so that peers and a tracker can be asked. Until then whoever needs a blob asks the origin.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.desk.ready.load(Ordering::Acquire)
    }

    /// Takes part in a blob's swarm, or goes on with it. Many wants share one transfer, and nothing that becomes of it cancels it.
    ///
    /// # Errors
    /// [`ExchangeError`]; with [`ExchangeError::NoRoom`] the blob can be had from the origin without being stored.
    pub async fn want(&self, wanted: Wanted) -> Result<Transfer, ExchangeError> {
        if let Some(shared) = self.desk.running(&wanted.digest) {
            let transfer = Transfer::new(&shared);
            if !transfer.is_complete() {
                let hurry = Command::Hurry { digest: wanted.digest, priority: wanted.priority };
                self.commands.send(hurry).await.map_err(|_| ExchangeError::Ended)?;
            }
            return Ok(transfer);
        }
        let size = wanted.size_bytes;
        let geometry = Geometry::new(size, ChunkSize::for_blob(size)).map_err(|_| ExchangeError::Size(size))?;
        let blob = BlobInfo { digest: wanted.digest, geometry };
        let desk = Arc::clone(&self.desk);
        let begun = tokio::task::spawn_blocking(move || desk.begin(blob)).await.map_err(|_| ExchangeError::Ended)??;
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Want { wanted, begun: Box::new(begun), span: Span::current(), answer })
            .await
            .map_err(|_| ExchangeError::Ended)?;
        answered.await.map_err(|_| ExchangeError::Ended)
    }

    /// A blob that is here whole.
    #[must_use]
    pub fn stored(&self, digest: &Digest) -> Option<Transfer> {
        self.desk.running(digest).map(|shared| Transfer::new(&shared)).filter(Transfer::is_complete)
    }

    /// A blob that is here, or coming.
    #[must_use]
    pub fn transfer(&self, digest: &Digest) -> Option<Transfer> {
        self.desk.running(digest).map(|shared| Transfer::new(&shared))
    }

    /// From now on these blobs stay in the store, and no others for that reason.
    pub fn pin(&self, digests: BTreeSet<Digest>) {
        *self.desk.pinned.write().unwrap_or_else(PoisonError::into_inner) = digests;
    }

    /// Nodes refused for good: the tracker, or their own chunks, say that they send false ones.
    #[must_use]
    pub fn banned(&self) -> Vec<NodeId> {
        self.desk.banned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.desk.traffic.read()
    }

    /// What is going on; nothing, if the exchange has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Snapshot { answer }).await.ok()?;
        answered.await.ok()
    }
}

impl Desk {
    pub(super) fn running(&self, digest: &Digest) -> Option<Arc<Shared>> {
        let transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        transfers.get(digest).filter(|shared| !shared.has_failed()).cloned()
    }

    /// From now on readers of a blob get this transfer.
    pub(super) fn publish(&self, digest: Digest, shared: &Arc<Shared>) {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::clone(shared));
    }

    /// Makes room for a blob and begins it, or finds what is here of it, however it is cut.
    fn begin(&self, blob: BlobInfo) -> Result<Begun, ExchangeError> {
        let known = self.store.list().into_iter().find(|stored| stored.blob.digest == blob.digest);
        if let Some(stored) = known {
            return Ok(Begun { stored, evicted: Vec::new() });
        }
        let full = |error: StoreError| {
            if error.is_full() { ExchangeError::NoRoom(error) } else { ExchangeError::Store(error) }
        };
        let running: Vec<Digest> = {
            let transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
            let unfinished = transfers.iter().filter(|(_, shared)| !Transfer::new(shared).is_complete());
            unfinished.map(|(digest, _)| *digest).collect()
        };
        // Whole blobs may go although they are served: whoever asks for a chunk of theirs then is told that it isn't here.
        let pinned = self.pinned.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Nobody tells how many others have it, so what is pinned counts as the last copy.
        let standing = |stored: &StoredBlob| Standing {
            in_use: running.contains(&stored.blob.digest),
            pinned: pinned.contains(&stored.blob.digest),
            ..Standing::default()
        };
        let evicted = self.store.make_room(blob.geometry.size_bytes(), &standing).map_err(full)?;
        let stored = self.store.begin(blob).map_err(full)?;
        Ok(Begun { stored, evicted })
    }
}

impl TrafficCounters {
    pub(super) fn read(&self) -> Traffic {
        Traffic {
            from_peers: self.from_peers.load(Ordering::Relaxed),
            to_peers: self.to_peers.load(Ordering::Relaxed),
            from_origin: self.from_origin.load(Ordering::Relaxed),
            origin_millis: self.origin_millis.load(Ordering::Relaxed),
        }
    }
}

/// A run at an origin: its time counts when it ends, also if it is broken off.
pub(super) struct RunTime {
    desk: Arc<Desk>,
    began: Instant,
}

impl RunTime {
    pub(super) fn begin(desk: &Arc<Desk>) -> Self {
        Self { desk: Arc::clone(desk), began: Instant::now() }
    }
}

impl Drop for RunTime {
    fn drop(&mut self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.desk.traffic.origin_millis.fetch_add(millis, Ordering::Relaxed);
    }
}
