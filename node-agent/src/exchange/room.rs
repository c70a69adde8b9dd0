//! The one task that owns the engine: what comes in, in the order in which it comes.
//!
//! ```text
//!  commands ─┐
//!  peers ────┤                       ┌── actions.rs: frames, chunks, verification, the origin
//!  tracker ──┼──> room ──> engine ───┤
//!  results ──┤                       └── announces.rs: the tracker
//!  time ─────┘
//! ```
//!
//! State: the engine; per blob what its driver has to remember; connections; keys of links' publishers.
//! Invariants: after everything that comes in, the engine's actions are carried out until there are none; nothing here waits for a disk
//! or for the network, but for the removal of a blob whose chain failed.
//! Absent on purpose: policy.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use shoal_store::StoreError;
use shoal_swarm::{Engine, PeerHandle, StartBlob, VerifyTicket};
use shoal_tracker_server::NodeKey;
use shoal_tracker_server::client::{Event as TrackerEvent, EventStream, NodeIdentity, TrackerClient};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, Digest, NodeId, Rng, Time, Zone};
use shoal_wire::{CloseReason, Contact, PeerFrame, PeerMessage, node_id};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Origins;
use super::announces::Announced;
use super::blobs::{Blob, Kept};
use super::chunks::{Arriving, Chunks, Heard};
use super::hashing::{HashEnded, Hashing, LinkedChunks};
use super::lead::{Fetched, Runs};
use super::links::Links;
use super::standin::StandIn;
use super::start::{BlobSnapshot, Command, Desk, ExchangeConfig, Snapshot};
use super::trace::Trace;
use super::transfer::{CameFrom, Transfer, TransferError};
use super::verifying::{Backlog, Verifiers, Waiting};
use crate::transport::{ConnectError, Event, Events, Identity, Local, PeerId, PeerNet, Security};

/// Results of tasks that wait for the room: one for each verification and fetch under way is the usual number.
const RESULTS: usize = 256;

/// Neighbours to have before any blob is wanted: half of those that there may be, so that the others find room.
const STANDING_ONE_IN: usize = 2;

/// How often a standing mesh with gaps is mended.
const MEND_EVERY: Duration = Duration::from_secs(10);

/// How often new links are written down. What is lost by a crash in between is asked for again.
const KEEP_LINKS_EVERY: Duration = Duration::from_millis(500);

/// What tasks report.
pub(super) enum Done {
    Verified { ticket: VerifyTicket, outcome: Outcome, waiting: Waiting },
    Fetched { key: BlobKey, fetched: Fetched },
    Announced(Box<Announced>),
    Keys(BTreeMap<NodeId, Vec<NodeKey>>),
    Members(Vec<Contact>),
    Sealed { key: BlobKey, result: Result<(), StoreError> },
    Linked(Box<LinkedChunks>),
    HashEnded(HashEnded),
}

/// What a verification came to.
pub(super) enum Outcome {
    Right(Kept),
    Wrong,
    /// The links were withdrawn while it was verified.
    Stale,
    NoRoom,
}

/// A neighbour's connection.
pub(super) struct Neighbour {
    pub(super) handle: PeerHandle,
    pub(super) node: NodeId,
    pub(super) zone: Zone,
}

/// The connections, once there is an identity to prove.
pub(super) struct Net {
    pub(super) peers: PeerNet<Chunks>,
    events: Events<Arriving>,
    identity: watch::Sender<Arc<Identity>>,
}

/// Everything that the task owns.
pub(super) struct Room {
    /// This node.
    pub(super) me: NodeId,
    pub(super) config: ExchangeConfig,
    pub(super) desk: Arc<Desk>,
    pub(super) tracker: TrackerClient,
    pub(super) origins: Arc<dyn Origins>,
    pub(super) engine: Engine,
    pub(super) blobs: BTreeMap<Digest, Blob>,
    /// Until there is an identity.
    listener: Option<TcpListener>,
    pub(super) net: Option<Net>,
    pub(super) identity: Option<Arc<NodeIdentity>>,
    pub(super) neighbours: BTreeMap<PeerId, Neighbour>,
    pub(super) connections: BTreeMap<PeerHandle, PeerId>,
    pub(super) links: Links,
    /// Chunks that have come and wait for their links.
    pub(super) held: BTreeMap<(BlobKey, ChunkIndex), Bytes>,
    pub(super) verifiers: Verifiers,
    pub(super) backlog: Backlog,
    pub(super) runs: Runs,
    pub(super) hashing: Hashing,
    heard: Heard,
    /// Once this node, or one that asks it, has been without a tracker.
    pub(super) stand_in: Option<StandIn>,
    /// When members begin to stand in for this node's tracker; never, while there is one.
    pub(super) stands_in_at: Option<Time>,
    /// That time is over.
    pub(super) left_alone: bool,
    /// Bans that others of this process have been told of.
    pub(super) bans_told: u64,
    pub(super) results: mpsc::Sender<Done>,
    done: mpsc::Receiver<Done>,
    rng: Rng,
    began: Instant,
    mend_at: Instant,
    keep_links_at: Instant,
}

impl Room {
    pub(super) fn new(
        config: ExchangeConfig,
        listener: TcpListener,
        desk: Arc<Desk>,
        tracker: TrackerClient,
        origins: Arc<dyn Origins>,
    ) -> Self {
        let (results, done) = mpsc::channel(RESULTS);
        let backlog = Backlog::default();
        let began = Instant::now();
        let me = node_id(&config.name);
        let (config_seed, own_copy_for) = (config.seed, config.own_copy_for);
        Self {
            me,
            engine: Engine::new(me, config.zone.clone(), config.engine.clone(), config.seed),
            config,
            desk,
            tracker,
            origins,
            blobs: BTreeMap::new(),
            listener: Some(listener),
            net: None,
            identity: None,
            neighbours: BTreeMap::new(),
            connections: BTreeMap::new(),
            links: Links::default(),
            held: BTreeMap::new(),
            verifiers: Verifiers::start(backlog.clone(), &results),
            backlog,
            runs: Runs::new(),
            hashing: Hashing::new(own_copy_for),
            heard: Heard::default(),
            stand_in: None,
            stands_in_at: None,
            left_alone: false,
            bans_told: 0,
            results,
            done,
            rng: Rng::new(config_seed),
            began,
            mend_at: began,
            keep_links_at: began + KEEP_LINKS_EVERY,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut tracker_events: EventStream,
        shutdown: CancellationToken,
    ) {
        let mut identities = self.tracker.identity();
        self.serve_what_is_stored();
        self.tracker_lost();
        let identity = identities.borrow_and_update().clone();
        self.take_identity(identity).await;
        loop {
            self.drain();
            let wake = self.wake_at();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(command) = commands.recv() => self.command(command),
                Some(done) = self.done.recv() => self.done(done),
                event = next_event(&mut self.net) => self.peer_event(event),
                Some(event) = tracker_events.next() => self.tracker_event(event),
                Ok(()) = identities.changed() => {
                    let identity = identities.borrow_and_update().clone();
                    self.take_identity(identity).await;
                }
                () = tokio::time::sleep_until(wake.into()) => self.time_has_passed(),
            }
        }
        self.end().await;
    }

    /// Who this node is on its connections.
    pub(super) fn transport_identity(&self) -> Option<Arc<Identity>> {
        self.net.as_ref().map(|net| Arc::clone(&net.identity.borrow()))
    }

    pub(super) fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wake_at(&self) -> Instant {
        let engine = self.engine.poll_timeout().map(|at| self.began + at.since(Time::ZERO));
        let stand_in = self.stand_in.as_ref().and_then(StandIn::wake_at).map(|at| self.began + at.since(Time::ZERO));
        let begins = self.stands_in_at.filter(|_| !self.left_alone && self.net.is_some());
        let begins = begins.map(|at| self.began + at.since(Time::ZERO));
        [engine, stand_in, begins].into_iter().flatten().fold(self.mend_at.min(self.keep_links_at), Instant::min)
    }

    fn time_has_passed(&mut self) {
        let instant = Instant::now();
        if instant >= self.mend_at {
            self.mend_at = instant + MEND_EVERY;
            self.mend();
        }
        if instant >= self.keep_links_at {
            self.keep_links_at = instant + KEEP_LINKS_EVERY;
            self.hash_next();
            let unfinished = self.blobs.values().filter(|blob| !blob.complete && !blob.local);
            let unfinished: Vec<BlobKey> = unfinished.map(|blob| blob.info.key()).collect();
            for key in unfinished {
                // Nobody waits for it: what a crash takes is asked for again.
                tokio::task::spawn_blocking(self.new_links(key));
            }
        }
        self.stand_in_timeout();
        let now = self.now();
        for node in std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner)) {
            if let Some(neighbour) = self.neighbours.values().find(|neighbour| neighbour.node == node) {
                self.engine.handle_piece_progress(now, neighbour.handle);
            }
        }
        self.engine.handle_timeout(now);
    }

    /// Whole blobs from earlier are served from the start.
    fn serve_what_is_stored(&mut self) {
        for stored in self.desk.store.list().into_iter().filter(|stored| stored.sealed) {
            self.begin(stored, None, u32::MAX, Trace::none());
        }
    }

    async fn take_identity(&mut self, identity: Option<Arc<NodeIdentity>>) {
        let Some(identity) = identity else { return };
        let made = Identity::new(identity.chain(), &identity.key(), identity.trust().certificates());
        let made = match made {
            Ok(made) => Arc::new(made),
            Err(error) => {
                tracing::error!(%error, "the certificate that the tracker issued can't be used");
                return;
            }
        };
        self.links.certified(Arc::clone(made.certificate()));
        let certified_zone = identity.certificate().contact.zone().clone();
        self.identity = Some(identity);
        if let Some(net) = &self.net {
            net.identity.send_replace(made);
            return;
        }
        if self.config.zone == Zone::default() {
            // In Kubernetes the certificate says what the Node's label does.
            self.config.zone = certified_zone;
            self.engine.set_zone(self.config.zone.clone());
        }
        let Some(listener) = self.listener.take() else { return };
        let ExchangeConfig { name, zone, plain_peers, transport, .. } = self.config.clone();
        let (sender, receiver) = watch::channel(made);
        let security = if plain_peers { Security::Plain } else { Security::Tls(receiver) };
        let chunks = Chunks::new(&self.heard, &self.backlog);
        match PeerNet::start(Local { name, zone }, listener, security, transport, chunks) {
            Ok((peers, events)) => {
                tracing::info!(address = %peers.local_addr(), "peers are taken");
                self.net = Some(Net { peers, events, identity: sender });
                self.desk.ready.store(true, Ordering::Release);
                self.mend_at = Instant::now();
            }
            Err(error) => tracing::error!(%error, "no peers are taken: every blob comes from its origin"),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Want { wanted, begun, span, answer } => {
                for key in begun.evicted {
                    self.evicted(key);
                }
                let shared = self.want(wanted, begun.stored, &span);
                // Whoever asked may have left.
                let _ = answer.send(Transfer::new(&shared));
            }
            Command::Offer { offer, answer } => {
                // Whoever asked may have left.
                let _ = answer.send(self.offer(offer));
            }
            Command::Retract { digest } => self.retract(digest),
            Command::Hurry { digest, priority } => {
                if let Some(blob) = self.blobs.get(&digest).map(|blob| blob.info) {
                    // It may have begun with a worse one, as what is pushed does.
                    let have = ChunkSet::empty_of(blob.geometry);
                    let now = self.now();
                    self.engine.start(now, StartBlob { blob, have, links: Vec::new(), priority });
                    self.hash_for_others(blob.key());
                }
            }
            Command::Snapshot { answer } => self.snapshot(answer),
        }
    }

    fn tracker_event(&mut self, event: TrackerEvent) {
        let now = self.now();
        match event {
            TrackerEvent::Notice(notice) => {
                self.tracker.learn(&notice.contacts);
                self.engine.handle_directive(now, &notice.directive);
            }
            TrackerEvent::TrackerChanged { digests } => {
                digests.into_iter().for_each(|digest| self.engine.handle_tracker_changed(now, digest));
            }
            TrackerEvent::TrackersFound => {
                self.stand_down();
                let digests: Vec<Digest> = self.blobs.keys().copied().collect();
                digests.into_iter().for_each(|digest| self.engine.handle_tracker_changed(now, digest));
                self.mend_at = Instant::now();
            }
            TrackerEvent::TrackersLost => self.tracker_lost(),
        }
    }

    fn peer_event(&mut self, event: Event<Arriving>) {
        let now = self.now();
        match event {
            Event::Connected(connected) => {
                let node = connected.contact.node();
                self.tracker.learn(std::slice::from_ref(&connected.contact));
                if let Some(certificate) = connected.certificate {
                    self.links.certified(certificate);
                    self.release_links();
                }
                match self.engine.handle_connected(now, node, connected.contact.zone()) {
                    Some(handle) => {
                        let zone = connected.contact.zone().clone();
                        self.neighbours.insert(connected.peer, Neighbour { handle, node, zone: zone.clone() });
                        self.connections.insert(handle, connected.peer);
                        self.member_connected(node, &zone);
                    }
                    None => self.close(connected.peer, CloseReason::Full),
                }
            }
            Event::ConnectFailed { node, error } => {
                if !matches!(error, ConnectError::Refused(CloseReason::Duplicate)) {
                    tracing::debug!(%node, %error, "no connection");
                    self.member_lost(node, false);
                }
            }
            Event::Frame { peer, frame } => self.frame(peer, frame),
            Event::ChunkStarted { peer, key, chunk } => {
                if let Some(handle) = self.handle(peer) {
                    self.engine.handle_piece_started(now, handle, key, chunk);
                }
            }
            Event::Chunk { peer, key, chunk, received } => {
                let Some(handle) = self.handle(peer) else { return };
                let bytes = received.into_bytes();
                self.desk.traffic.from_peers.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if let Some(blob) = self.blobs.get_mut(&key.digest) {
                    blob.trace.add_from_peers(bytes.len() as u64);
                    blob.shared.came(CameFrom { peers: bytes.len() as u64, origin: 0 });
                }
                if self.engine.handle_piece(now, handle, key, chunk) {
                    self.held.insert((key, chunk), bytes);
                }
            }
            Event::Sent { peer, key, chunk } => {
                if let Some(handle) = self.handle(peer) {
                    if let Some(range) =
                        self.blobs.get(&key.digest).and_then(|blob| blob.info.geometry.byte_range(chunk))
                    {
                        self.desk.traffic.to_peers.fetch_add(u64::from(range.len), Ordering::Relaxed);
                    }
                    self.engine.handle_sent(now, handle, key, chunk);
                }
            }
            Event::SendFailed { peer, key, chunk, error } => {
                tracing::warn!(%error, digest = %key.digest, %chunk, "a stored chunk can't be read");
                if let Some(handle) = self.handle(peer) {
                    let reason = shoal_wire::RejectReason::Absent;
                    self.send(&[peer], PeerFrame::Message(PeerMessage::Reject { key, chunk, reason }));
                    self.engine.handle_sent(now, handle, key, chunk);
                }
            }
            Event::Closed { peer, cause } => {
                if let Some(neighbour) = self.neighbours.remove(&peer) {
                    tracing::debug!(node = %neighbour.node, cause = cause.label(), "a connection is gone");
                    self.connections.remove(&neighbour.handle);
                    self.engine.handle_disconnected(now, neighbour.handle);
                    self.member_lost(neighbour.node, true);
                }
            }
        }
    }

    fn handle(&self, peer: PeerId) -> Option<PeerHandle> {
        self.neighbours.get(&peer).map(|neighbour| neighbour.handle)
    }

    fn snapshot(&self, answer: oneshot::Sender<Snapshot>) {
        let counters = self.engine.counters();
        let blobs = self.blobs.iter().map(|(digest, blob)| BlobSnapshot {
            digest: digest.to_string(),
            size_bytes: blob.info.geometry.size_bytes(),
            have: self.engine.have(blob.info.key()).map_or(0, ChunkSet::len),
            chunks: blob.info.geometry.chunk_count(),
            complete: blob.complete,
            lent: self.desk.lent.is_lent(&blob.info.key()),
            leading: self.runs.contains_key(&blob.info.key()),
        });
        let snapshot = Snapshot {
            ready: self.net.is_some(),
            peers: self.neighbours.len(),
            traffic: self.desk.traffic.read(),
            chunks_wrong: counters.chunks_wrong,
            bans: counters.bans,
            violations: counters.violations,
            blobs: blobs.collect(),
        };
        // Whoever asked may have left.
        let _ = answer.send(snapshot);
    }

    /// Tells the tracker and the peers, and lets go.
    async fn end(mut self) {
        self.desk.ready.store(false, Ordering::Release);
        let now = self.now();
        let keys: Vec<BlobKey> = self.blobs.values().map(|blob| blob.info.key()).collect();
        let mut writing = Vec::new();
        for key in keys {
            writing.push(tokio::task::spawn_blocking(self.new_links(key)));
            self.stop_run(key);
            self.engine.stop(now, key);
        }
        self.hashing.stop_all();
        let mut parting = Vec::new();
        while let Some(action) = self.engine.poll_action() {
            if let shoal_swarm::Action::Announce(announce) = action {
                parting.push(announce);
            }
        }
        for blob in self.blobs.values() {
            blob.shared.failed(TransferError::Ended);
        }
        let told = tokio::time::timeout(Duration::from_secs(2), self.tracker.announce(&parting)).await;
        if told.is_err() {
            tracing::debug!("the tracker took no leave");
        }
        if let Some(net) = &self.net {
            net.peers.shutdown().await;
        }
        futures_util::future::join_all(writing).await;
    }
}

/// The next event of the connections; never, while there are none.
async fn next_event(net: &mut Option<Net>) -> Event<Arriving> {
    match net {
        Some(net) => match net.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Room {
    /// Looks for neighbours, if there are few.
    fn mend(&mut self) {
        let want = usize::from(self.config.engine.max_peers) / STANDING_ONE_IN;
        if self.net.is_none() || self.neighbours.len() >= want {
            return;
        }
        if !self.tracker.has_tracker() {
            let mut known = self.tracker.known_contacts();
            self.rng.shuffle(&mut known);
            known.truncate(want);
            return self.connect_to(known);
        }
        let (tracker, results) = (self.tracker.clone(), self.results.clone());
        tokio::spawn(async move {
            if let Ok(members) = tracker.members(want).await {
                // The room ends before its channel does.
                let _ = results.send(Done::Members(members)).await;
            }
        });
    }

    fn connect_to(&self, contacts: Vec<Contact>) {
        let me = self.me;
        let Some(net) = &self.net else { return };
        let connected = |contact: &Contact| self.neighbours.values().any(|known| known.node == contact.node());
        let others = contacts.into_iter().filter(|contact| contact.node() != me && !connected(contact));
        others.for_each(|contact| net.peers.connect(contact));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Verified { ticket, outcome, waiting } => {
                self.verified(ticket, outcome);
                drop(waiting);
            }
            Done::Fetched { key, fetched } => self.fetched(key, fetched),
            Done::Announced(announced) => self.announced(*announced),
            Done::Keys(keys) => {
                keys.into_iter().for_each(|(node, keys)| self.links.told(node, keys));
                self.release_links();
            }
            Done::Members(contacts) => self.connect_to(contacts),
            Done::Sealed { key, result } => self.sealed(key, result),
            Done::Linked(linked) => self.linked(*linked),
            Done::HashEnded(ended) => self.hash_ended(ended),
        }
    }
}
