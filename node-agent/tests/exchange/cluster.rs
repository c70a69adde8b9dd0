//! A tracker and nodes on loopback, with an origin that counts what leaves it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use shoal_agent::exchange::{
    Exchange, ExchangeConfig, OriginStream, Origins, RECENT_BYTES, Source, SourceKind, Transfer, Wanted,
};
use shoal_agent::transport;

use shoal_store::{DiskStore, Faults, FaultyStore, Limits, OpenError, Percent, RuntimeStore};
use shoal_tracker::{Config, LeaseConfig, ReplicaName};
use shoal_tracker_server::client::{ClientConfig, TrackerClient};
use shoal_tracker_server::{
    Authority, Handle, ImageName, JoinToken, JoinTokens, Metrics, OriginResolver, ResolveError, Resolved, Server,
    ServerConfig, ServerLimits, TrackerAddress,
};
use shoal_types::{Digest, Zone};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Where nobody listens.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// What the origin sends at a time.
const PIECE: usize = 64 << 10;

/// A directory that goes with its owner.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shoal-exchange-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The node of this directory listens at the same address at each start, as in its certificate.
    async fn listen(&self) -> TcpListener {
        let file = self.0.join("address");
        let known = std::fs::read_to_string(&file);
        let listener = TcpListener::bind(known.as_deref().unwrap_or("127.0.0.1:0")).await.unwrap();
        std::fs::write(&file, listener.local_addr().unwrap().to_string()).unwrap();
        listener
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An origin with some blobs.
#[derive(Default)]
pub(crate) struct Origin {
    blobs: Mutex<Vec<(Digest, Bytes)>>,
    sent: Arc<AtomicU64>,
}

impl Origin {
    /// A blob of so many bytes that look random.
    pub(crate) fn add(&self, seed: u64, size: usize) -> (Digest, Bytes) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(size.div_ceil(8)).flatten().collect();
        bytes.truncate(size);
        let digest = Digest::Sha256(Sha256::digest(&bytes).into());
        let bytes = Bytes::from(bytes);
        self.blobs.lock().unwrap().push((digest, bytes.clone()));
        (digest, bytes)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Origins for Origin {
    fn fetch(&self, _: &Source, digest: &Digest, _: u64, range: Range<u64>) -> OriginStream {
        let blobs = self.blobs.lock().unwrap();
        let (_, bytes) = blobs.iter().find(|(known, _)| known == digest).expect("the origin has it");
        let bytes = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        let sent = Arc::clone(&self.sent);
        let pieces = (0..bytes.len()).step_by(PIECE).map(move |at| bytes.slice(at..bytes.len().min(at + PIECE)));
        stream::iter(pieces)
            .map(move |piece| {
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(piece)
            })
            .boxed()
    }
}

/// The same origin, for a node that it lies to: a bit of each piece is another.
struct Deceiving(Arc<Origin>);

impl Origins for Deceiving {
    fn fetch(&self, source: &Source, digest: &Digest, size: u64, range: Range<u64>) -> OriginStream {
        let flip = |piece: Bytes| {
            let mut bytes = piece.to_vec();
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            Bytes::from(bytes)
        };
        self.0.fetch(source, digest, size, range).map(move |piece| piece.map(flip)).boxed()
    }
}

/// What a node is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Honest,
    /// Its chunks are wrong when they are read, by peers or by itself.
    Liar,
    /// Its origin lies to it.
    Deceived,
    /// It doesn't reach the tracker.
    CutOff,
}

struct NoNames;

impl OriginResolver for NoNames {
    fn resolve<'a>(&'a self, _: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        async { Err(ResolveError::NotFound("nothing is here".to_owned())) }.boxed()
    }
}

/// A tracker, an origin, and what nodes need to join.
pub(crate) struct Cluster {
    pub(crate) origin: Arc<Origin>,
    dir: Dir,
    tracker: SocketAddr,
    handle: Handle,
    stop_tracker: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// On a busy machine a seed takes its time: whoever claims to have a blob is waited for as long as a test lasts.
    pub(crate) async fn new() -> Self {
        Self::with_claims_patience(LONG).await
    }

    pub(crate) async fn with_claims_patience(claims_patience: Duration) -> Self {
        let dir = Dir::new();
        let authority = Arc::new(Authority::generate().unwrap());
        let token = JoinToken::generate(authority.fingerprint()).unwrap();
        std::fs::write(dir.path().join("token"), token.reveal()).unwrap();
        let config = ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            replica: ReplicaName::new("t0").unwrap(),
            names: vec!["127.0.0.1".to_owned()],
            replicas: Vec::new(),
            swarm: Bytes::new().into(),
            authority,
            tracker: Config { lease: LeaseConfig { claims_patience, ..LeaseConfig::default() }, ..Config::default() },
            limits: ServerLimits::default(),
            admin_token: None,
            metrics: Metrics::default(),
        };
        let server = Server::bind(config, Arc::new(JoinTokens::fixed([token])), Arc::new(NoNames)).await.unwrap();
        let (tracker, handle, stop_tracker) = (server.local_addr(), server.handle(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop_tracker.clone()));
        let task = Mutex::new(Some(task));
        Self { origin: Arc::default(), dir, tracker, handle, stop_tracker, task }
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        Node::start(self, name, Dir::new(), Kind::Honest).await
    }

    /// A node that isn't what the others are.
    pub(crate) async fn node_that(&self, name: &str, kind: Kind) -> Node {
        Node::start(self, name, Dir::new(), kind).await
    }

    /// A node with what an earlier one has left behind.
    pub(crate) async fn node_again(&self, name: &str, dir: Dir) -> Node {
        Node::start(self, name, dir, Kind::Honest).await
    }

    /// The same, if it doesn't reach the tracker any more.
    pub(crate) async fn cut_off(&self, name: &str, dir: Dir) -> Node {
        Node::start(self, name, dir, Kind::CutOff).await
    }

    /// How many connected members of swarms the tracker knows.
    pub(crate) async fn members(&self) -> usize {
        self.handle.snapshot(0, 0).await.unwrap().memberships
    }

    /// Waits until the tracker knows so many connected members of swarms.
    pub(crate) async fn has_members(&self, memberships: usize) {
        let heard = async {
            while self.members().await < memberships {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, heard).await.expect("the tracker hears of it");
    }

    pub(crate) async fn kill_tracker(&self) {
        self.stop_tracker.cancel();
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            timeout(LONG, task).await.expect("a tracker stops").unwrap();
        }
    }
}

/// What a node that has stopped still hashes lets its store go a moment later.
async fn open(dir: &Path, limits: Limits) -> DiskStore {
    loop {
        match DiskStore::open(dir, limits) {
            Err(OpenError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
}

/// An agent without a mirror.
pub(crate) struct Node {
    pub(crate) exchange: Exchange,
    client: TrackerClient,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    dir: Dir,
}

impl Node {
    async fn start(cluster: &Cluster, name: &str, dir: Dir, kind: Kind) -> Self {
        let listener = dir.listen().await;
        let shutdown = CancellationToken::new();
        let client = ClientConfig {
            trackers: vec![TrackerAddress::from(if kind == Kind::CutOff { NOWHERE } else { cluster.tracker })],
            name: name.parse().unwrap(),
            zone: Zone::default(),
            peer_ip: None,
            local_ip: None,
            peer_port: listener.local_addr().unwrap().port(),
            token_file: cluster.dir.path().join("token"),
            ca_file: None,
            state_dir: dir.path().join("identity"),
        };
        let (client, events) = TrackerClient::start(client, shutdown.clone()).await.unwrap();
        let limits = Limits { keep_free: Percent::new(0).unwrap(), ..Limits::new(1 << 30) };
        let disk = timeout(LONG, open(&dir.path().join("store"), limits)).await.expect("nobody else has the store");
        let faults = Faults { corrupt_reads: kind == Kind::Liar, ..Faults::default() };
        let store = Arc::new(RuntimeStore::new(Arc::new(FaultyStore::new(disk, faults))));
        let config = ExchangeConfig {
            engine: shoal_swarm::Config::default(),
            name: name.parse().unwrap(),
            zone: Zone::default(),
            plain_peers: false,
            // A liar's wrong bytes come from its store.
            recent_bytes: if kind == Kind::Liar { 0 } else { RECENT_BYTES },
            transport: transport::Settings::default(),
            own_copy_for: Duration::ZERO,
            seed: 1,
        };
        let origins: Arc<dyn Origins> = match kind {
            Kind::Deceived => Arc::new(Deceiving(Arc::clone(&cluster.origin))),
            Kind::Honest | Kind::Liar | Kind::CutOff => Arc::clone(&cluster.origin) as _,
        };
        let (exchange, task) =
            Exchange::start(config, listener, client.clone(), events, store, origins, shutdown.clone()).unwrap();
        let node = Self { exchange, client, shutdown, task, dir };
        let ready = async {
            while !node.exchange.is_ready() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, ready).await.expect("a node gets an identity");
        node
    }

    pub(crate) async fn want(&self, digest: Digest, size: usize) -> Transfer {
        let source = Source {
            registry: "registry.test".parse().unwrap(),
            repository: "library/blob".parse().unwrap(),
            kind: SourceKind::Blob,
            private: false,
        };
        let wanted = Wanted { digest, size_bytes: size as u64, source, priority: 0 };
        self.exchange.want(wanted).await.unwrap()
    }

    /// Reads a blob as a stream.
    pub(crate) async fn read(&self, digest: Digest, size: usize) -> Vec<u8> {
        let transfer = self.want(digest, size).await;
        let mut all = Vec::with_capacity(size);
        while all.len() < size {
            let read = transfer.read(all.len() as u64, 128 << 10, false);
            all.extend_from_slice(&timeout(LONG, read).await.expect("it comes").unwrap());
        }
        assert!(transfer.read(size as u64, 1, false).await.unwrap().is_empty(), "nothing comes after the end");
        all
    }

    /// Waits until it has heard of so many other nodes, and asks the tracker for more.
    pub(crate) async fn knows(&self, others: usize) {
        let heard = async {
            while self.client.known_contacts().len() < others {
                let _ = self.client.members(others).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, heard).await.expect("a node hears of the others");
    }

    /// The files in which its own store keeps blobs' bytes.
    pub(crate) fn own_files(&self) -> usize {
        let files = std::fs::read_dir(self.dir.path().join("store/blobs")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "data")).count()
    }

    pub(crate) async fn stop(self) -> Dir {
        self.shutdown.cancel();
        timeout(LONG, self.task).await.expect("an exchange stops").unwrap();
        timeout(LONG, self.client.stopped()).await.expect("a client stops");
        self.dir
    }
}
