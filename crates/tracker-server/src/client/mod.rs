//! The agent's side: joins, stays connected to every replica of the tracker, asks the one that a question belongs to.
//!
//! A [`TrackerClient`] starts at once, with or without a tracker: what it remembers from before is there ([`TrackerClient::identity`],
//! [`TrackerClient::known_contacts`]), the rest follows when a tracker answers. Events come from [`EventStream`]:
//!
//! | event | what its reader does |
//! |---|---|
//! | [`Event::Notice`] | hands the directive to the engine |
//! | [`Event::TrackerChanged`] | announces these digests again, with bitmaps and, as a lead, the links that it published |
//! | [`Event::TrackersLost`], [`Event::TrackersFound`] | goes on without a tracker, and with one again |
//!
//! [`TrackerClient::swarm_told`] says when to fetch the Swarm's document ([`TrackerClient::swarm`]).
//!
//! State: identity, connections, contacts; on disk: key, certificate, roots, replicas, contacts (`identity.pem`, `peers.json`, 0600).
//! Invariants: no byte goes to a tracker whose certificate wasn't verified. Every list, queue and wait is bounded.
//! Absent on purpose: what is announced, and when: that is the engine's.

mod backoff;
mod error;
mod identity;
mod link;
mod membership;
mod peers;
mod replica;
mod report;
mod requests;
mod routing;
mod tls;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use shoal_tracker::ReplicaName;
use shoal_types::{Digest, NodeId, Zone};
use shoal_wire::{Contact, NodeName, Notice};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{AnnounceFailure, ClientError};
pub use identity::NodeIdentity;
pub use report::Reporter;

use crate::protocol::TrackerAddress;
use crate::secret_file;
use link::Link;
use membership::Membership;
use peers::Peers;
use routing::Routing;

/// Events that wait to be taken. When there are more, the trackers' streams aren't read, and a tracker closes a stream that isn't.
const EVENTS: usize = 256;

/// Batches on their way at a time; more wait. A tracker takes four ([`crate::ServerLimits`]).
const ANNOUNCING: usize = 4;

/// What a client is to be.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where trackers are found to begin with. The others are heard of from these.
    pub trackers: Vec<TrackerAddress>,
    /// This node's name.
    pub name: NodeName,
    /// Its zone; where nobody told it, the certificate does.
    pub zone: Zone,
    /// Its address, where it isn't the one from which it speaks.
    pub peer_ip: Option<IpAddr>,
    /// From where it speaks to trackers, where the system's choice isn't meant.
    pub local_ip: Option<IpAddr>,
    /// The port at which it takes peers' connections.
    pub peer_port: u16,
    /// The file with the join token, or the service account's. It is read at each try.
    pub token_file: PathBuf,
    /// The file with the tracker's CA. Without it, the token must bring the CA's fingerprint.
    pub ca_file: Option<PathBuf>,
    /// Where to keep key, certificate and contacts. Made if it isn't there.
    pub state_dir: PathBuf,
}

/// What a tracker, or the client itself, has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A directive, with the contacts of the nodes that it names.
    Notice(Notice),
    /// These digests have another tracker now, or theirs has forgotten them: announce them again.
    TrackerChanged {
        /// The digests.
        digests: Vec<Digest>,
    },
    /// No tracker can be reached any more.
    TrackersLost,
    /// A tracker can be reached, after a time without one, or for the first time.
    TrackersFound,
}

/// The events, in the order in which they came.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
}

impl EventStream {
    /// The next event; none, when the client has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

/// The client. A clone is the same one.
#[derive(Clone, Debug)]
pub struct TrackerClient {
    shared: Arc<Shared>,
}

/// What the client's tasks share.
#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    /// This process, so that a tracker can tell a new connection from a new process.
    instance: u64,
    identity: watch::Sender<Option<Arc<NodeIdentity>>>,
    problem: watch::Sender<Option<String>>,
    routing: Mutex<Routing>,
    peers: Mutex<Peers>,
    swarm_told: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    announcing: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl TrackerClient {
    /// Starts, with what was saved before. It works until `shutdown`, which is to be followed by [`Self::stopped`].
    ///
    /// # Errors
    /// If the directory can't be used. That no tracker answers is no error.
    pub async fn start(config: ClientConfig, shutdown: CancellationToken) -> Result<(Self, EventStream), ClientError> {
        let dir = config.state_dir.clone();
        let loaded = tokio::task::spawn_blocking(move || -> std::io::Result<_> {
            secret_file::create_dir(&dir)?;
            // What can't be read is as good as lost: it is got again from the tracker.
            let identity = NodeIdentity::load(&dir).unwrap_or_else(|error| {
                tracing::warn!(%error, "the saved certificate is unusable");
                None
            });
            let peers = Peers::load(&dir).unwrap_or_else(|error| {
                tracing::warn!(%error, "the saved contacts are unusable");
                Peers::default()
            });
            Ok((identity, peers))
        });
        let loaded = loaded.await.map_err(|_| ClientError::Stopped)?;
        let dir = config.state_dir.clone();
        let (identity, peers) = loaded.map_err(|source| ClientError::StateDir { path: dir, source })?;
        let is_own = |identity: &NodeIdentity| *identity.certificate().contact.name() == config.name;
        let identity = identity.filter(|identity| is_own(identity) && identity.is_valid_at(SystemTime::now()));
        let outdated = identity.as_ref().is_some_and(|identity| {
            let contact = &identity.certificate().contact;
            contact.address().port() != config.peer_port
                || (config.zone != Zone::default() && *contact.zone() != config.zone)
                || config.peer_ip.is_some_and(|ip| contact.address().ip() != ip)
        });
        let (events, taken) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            config,
            instance: backoff::seed(),
            identity: watch::Sender::new(identity.map(Arc::new)),
            problem: watch::Sender::new(None),
            routing: Mutex::default(),
            peers: Mutex::new(peers),
            swarm_told: watch::Sender::new(0),
            events,
            announcing: Semaphore::new(ANNOUNCING),
            tasks: TaskTracker::new(),
            shutdown,
        });
        shared.tasks.spawn(Membership::new(Arc::clone(&shared), outdated).run());
        shared.tasks.close();
        Ok((Self { shared }, EventStream { events: taken }))
    }

    /// Waits until everything that was started has ended and is saved. Before `shutdown` that is never.
    pub async fn stopped(&self) {
        self.shared.tasks.wait().await;
    }

    /// The node's certificate and key; none before the first join. Changes when it is renewed.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<Option<Arc<NodeIdentity>>> {
        self.shared.identity.subscribe()
    }

    /// Why the last attempt at getting a certificate failed; nothing, if it didn't.
    #[must_use]
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.shared.problem.subscribe()
    }

    /// Changes when a tracker says that it has another document of the Swarms, and when one is reached.
    #[must_use]
    pub fn swarm_told(&self) -> watch::Receiver<u64> {
        self.shared.swarm_told.subscribe()
    }

    /// Whether a tracker can be reached.
    #[must_use]
    pub fn has_tracker(&self) -> bool {
        !self.shared.routing().is_empty()
    }

    /// The tracker that a digest belongs to now.
    #[must_use]
    pub fn tracker_of(&self, digest: &Digest) -> Option<ReplicaName> {
        self.shared.routing().owner(digest).map(|(name, _)| name)
    }

    /// Where a node was found when it was last heard of, in this run or before.
    #[must_use]
    pub fn known_contact(&self, node: NodeId) -> Option<Contact> {
        self.shared.peers().contact(node)
    }

    /// All nodes ever heard of, but for those beyond the bound: the members for a lookup without a tracker.
    #[must_use]
    pub fn known_contacts(&self) -> Vec<Contact> {
        self.shared.peers().contacts()
    }

    /// Remembers contacts that came another way, such as from peers.
    pub fn learn(&self, contacts: &[Contact]) {
        self.shared.learn(contacts);
    }
}

impl Shared {
    fn routing(&self) -> MutexGuard<'_, Routing> {
        self.routing.lock().expect("no code panics with the routing in hand")
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().expect("no code panics with the peers in hand")
    }

    fn current_identity(&self) -> Result<Arc<NodeIdentity>, ClientError> {
        self.identity.borrow().clone().ok_or(ClientError::NotJoined)
    }

    fn learn(&self, contacts: &[Contact]) {
        self.peers().learn(contacts);
    }

    async fn reached(&self, follower: u64, tracker: &ReplicaName, link: Link, remembers: bool) {
        let events = self.routing().reached(follower, tracker, link, remembers);
        self.swarm_is_told();
        self.tell(events).await;
    }

    async fn lost(&self, follower: u64, tracker: &ReplicaName) {
        let events = self.routing().lost(follower, tracker);
        self.tell(events).await;
    }

    /// Each replica tells of a change, one earlier than another: asking for a document that is here already costs little.
    fn swarm_is_told(&self) {
        self.swarm_told.send_modify(|told| *told += 1);
    }

    async fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            // At the end nobody may be listening any more.
            let _ = self.shutdown.run_until_cancelled(self.events.send(event)).await;
        }
    }
}
