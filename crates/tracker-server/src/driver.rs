//! The one task that owns the tracker's core and drives it.
//!
//! ```text
//!  requests ── Command, bounded ──> ┌────────┐ ── answers, oneshot ──> requests
//!  ended streams ── Departure ────> │ Driver │ ── frames, bounded ───> streams of events
//!  poll_timeout ── sleep ─────────> └────────┘
//! ```
//!
//! State: the core, and the stream of each connected node.
//! Invariants: the core takes a node for connected exactly while the node has a stream here. After each step all directives have
//! been polled. A node's requests wait behind at most one slice of announces of each other request.
//! Absent on purpose: signatures (checked before), bodies (read and written by the requests' tasks), locks across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_tracker::{Tracker, TrackerStatus};
use shoal_types::{Digest, NodeId, Time, Zone};
use shoal_wire::codec::MAX_CONTACTS;
use shoal_wire::{Accepted, Announce, AnnounceOutcome, AnnounceReply, Contact, Directive, LeaseState, Notice, Refusal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::event::{Hello, StreamEvent};
use crate::metrics::Metrics;
use crate::protocol::Replica;
use crate::stream::{EventSink, StreamNumber};

/// Commands that wait. A request's task waits for a place, and requests are bounded per node and connection.
const QUEUE: usize = 1_024;

/// Announces handled without a break. Their outcomes (430 KiB at the longest) fit one body together.
pub(crate) const SLICE: usize = 16;

/// The first epoch of an incarnation of a tracker, or of a stand-in, that starts now: it outranks what earlier ones granted.
///
/// Milliseconds, with room for 1,024 grants of one blob in each: more than moves of a lease that a tracker makes.
#[must_use]
pub fn first_epoch(now: SystemTime) -> u64 {
    let millis = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    // Until the year 36,000 it is below 2^50; the core's limit is 2^62.
    u64::try_from(millis).unwrap_or(u64::MAX >> 12) << 10
}

#[derive(Debug)]
pub(crate) enum Command {
    /// A node has opened a stream.
    Connect {
        contact: Contact,
        number: StreamNumber,
        instance: u64,
        sink: EventSink,
    },
    /// A slice of a node's announces.
    Announce {
        node: NodeId,
        announces: Vec<(u32, Announce)>,
        answer: oneshot::Sender<Vec<(u32, AnnounceOutcome)>>,
    },
    Members {
        node: NodeId,
        want: usize,
        answer: oneshot::Sender<Vec<Contact>>,
    },
    /// Whether a node holds a lease of a blob.
    MayFetch {
        node: NodeId,
        digest: Digest,
        answer: oneshot::Sender<bool>,
    },
    Snapshot {
        blobs: usize,
        banned: usize,
        answer: oneshot::Sender<TrackerStatus>,
    },
    /// Who has a stream.
    Connected {
        answer: oneshot::Sender<Vec<NodeId>>,
    },
    /// The Swarm's document has another version.
    Policy {
        version: String,
    },
    /// Other replicas are ready.
    Replicas(Vec<Replica>),
}

/// The requests' end.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    commands: mpsc::Sender<Command>,
    departures: mpsc::Sender<(NodeId, StreamNumber)>,
    connections: watch::Receiver<u64>,
}

/// The driver has ended: the server is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tracker is stopping")]
pub struct Stopping;

impl Commands {
    pub(crate) async fn send(&self, command: Command) -> Result<(), Stopping> {
        self.commands.send(command).await.map_err(|_| Stopping)
    }

    /// Sends a command with a place for its answer, and waits for that.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.send(command(answer)).await?;
        answered.await.map_err(|_| Stopping)
    }

    /// Counts changes of who has a stream.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// A place in the queue of departures; none, if there are as many streams as there may be.
    pub(crate) fn reserve(&self) -> Option<mpsc::OwnedPermit<(NodeId, StreamNumber)>> {
        self.departures.clone().try_reserve_owned().ok()
    }
}

#[derive(Debug)]
struct Stream {
    number: StreamNumber,
    instance: u64,
    zone: Zone,
    sink: EventSink,
}

#[derive(Debug)]
pub(crate) struct Driver {
    tracker: Tracker,
    started: Instant,
    streams: BTreeMap<NodeId, Stream>,
    /// What a stream starts with. It is changed here and nowhere else, so that no stream misses a change.
    hello: Hello,
    directory: Arc<Directory>,
    metrics: Metrics,
    commands: mpsc::Receiver<Command>,
    departures: mpsc::Receiver<(NodeId, StreamNumber)>,
    connections: watch::Sender<u64>,
}

impl Driver {
    /// `max_streams` bounds the nodes that are connected at a time.
    pub(crate) fn new(
        tracker: Tracker,
        hello: Hello,
        directory: Arc<Directory>,
        metrics: Metrics,
        max_streams: usize,
    ) -> (Self, Commands) {
        let (send_commands, commands) = mpsc::channel(QUEUE);
        let (send_departures, departures) = mpsc::channel(max_streams.max(1));
        let (streams, started) = (BTreeMap::new(), Instant::now());
        let (tell_connections, connections) = watch::channel(0);
        let driver = Self {
            tracker,
            started,
            streams,
            hello,
            directory,
            metrics,
            commands,
            departures,
            connections: tell_connections,
        };
        (driver, Commands { commands: send_commands, departures: send_departures, connections })
    }

    /// Runs until `stop`. At `drain` it ends all streams; answers go on being given.
    pub(crate) async fn run(mut self, drain: CancellationToken, stop: CancellationToken) {
        let mut draining = false;
        loop {
            let due = self.tracker.poll_timeout().map(|at| self.started + at.since(Time::ZERO));
            let sleep = sleep_until(due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    self.streams.clear();
                    self.metrics.streams.set(0);
                }
                Some((node, number)) = self.departures.recv() => self.depart(node, number),
                Some(command) = self.commands.recv() => match command {
                    Command::Connect { .. } if draining => {}
                    command => self.obey(command),
                },
                () = sleep => {
                    let now = self.now();
                    self.tracker.handle_timeout(now);
                }
            }
            self.pump();
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        // Whoever asked may have gone: then nobody wants the answer.
        match command {
            Command::Connect { contact, number, instance, sink } => {
                self.connect(contact.node(), Stream { number, instance, zone: contact.zone().clone(), sink });
            }
            Command::Announce { node, announces, answer } => {
                let outcomes = announces.into_iter().map(|(id, announce)| (id, self.announce(now, node, &announce)));
                let _ = answer.send(outcomes.collect());
            }
            Command::Members { node, want, answer } => {
                let members = self.tracker.members(node, want);
                let _ = answer.send(self.directory.contacts(members.into_iter().map(|member| member.node)));
            }
            Command::MayFetch { node, digest, answer } => {
                let _ = answer.send(self.tracker.may_fetch(node, &digest));
            }
            Command::Snapshot { blobs, banned, answer } => {
                let _ = answer.send(self.tracker.snapshot(now, blobs, banned));
            }
            Command::Connected { answer } => {
                let _ = answer.send(self.streams.keys().copied().collect());
            }
            Command::Policy { version } => {
                self.hello.swarm.clone_from(&version);
                self.broadcast(&StreamEvent::PolicyChanged { version });
            }
            Command::Replicas(replicas) => {
                self.hello.replicas.clone_from(&replicas);
                self.broadcast(&StreamEvent::Replicas(replicas));
            }
        }
    }

    fn broadcast(&mut self, event: &StreamEvent) {
        let Some(frame) = event.encode() else { return };
        let full = |(node, stream): (&NodeId, &Stream)| stream.sink.push(frame.clone()).is_err().then_some(*node);
        let full: Vec<NodeId> = self.streams.iter().filter_map(full).collect();
        full.into_iter().for_each(|node| self.overflow(node));
    }

    fn connect(&mut self, node: NodeId, stream: Stream) {
        let now = self.now();
        let older = self.streams.remove(&node);
        if older.as_ref().is_some_and(|older| older.number > stream.number) {
            // Two requests overtook each other on their way here: the newer one has won already.
            self.streams.extend(older.map(|older| (node, older)));
            return;
        }
        // The same process, which has heard everything so far, with a new certificate or connection: it keeps its leases.
        let same =
            |older: &Stream| older.instance == stream.instance && older.zone == stream.zone && older.sink.is_drained();
        let resumed = older.as_ref().is_some_and(same);
        if !resumed {
            self.tracker.handle_disconnected(now, node);
        }
        self.tracker.handle_connected(now, node, stream.zone.clone());
        let hello = StreamEvent::Hello(Hello { resumed, ..self.hello.clone() }).encode();
        if hello.is_some_and(|hello| stream.sink.push(hello).is_ok()) {
            self.streams.insert(node, stream);
        } else {
            self.tracker.handle_disconnected(now, node);
        }
        self.count_streams();
    }

    fn depart(&mut self, node: NodeId, number: StreamNumber) {
        if self.streams.get(&node).is_some_and(|stream| stream.number == number) {
            self.streams.remove(&node);
            self.tracker.handle_disconnected(self.now(), node);
            self.count_streams();
        }
    }

    fn announce(&mut self, now: Time, node: NodeId, announce: &Announce) -> AnnounceOutcome {
        let reply = self.tracker.handle_announce(now, node, announce);
        let reply = reply.map_err(|error| Refusal::new(&error.to_string()))?;
        let contacts = self.directory.contacts(named_in(&reply, node));
        Ok(Accepted { reply, contacts })
    }

    /// Sends what the core has to say.
    fn pump(&mut self) {
        while let Some((node, directive)) = self.tracker.poll_directive() {
            let Some(stream) = self.streams.get(&node) else { continue };
            let contacts = match &directive {
                Directive::Gateway { node, .. } => self.directory.contacts([*node]),
                _ => Vec::new(),
            };
            let pushed = match StreamEvent::Notice(Notice { directive, contacts }).encode() {
                Some(frame) => stream.sink.push(frame),
                None => Ok(()),
            };
            if pushed.is_err() {
                self.overflow(node);
            }
        }
    }

    /// A node that doesn't read is as good as gone. Its answer ends; it connects again when it is back.
    fn overflow(&mut self, node: NodeId) {
        self.metrics.slow_streams.inc();
        self.streams.remove(&node);
        self.tracker.handle_disconnected(self.now(), node);
        self.count_streams();
    }

    fn count_streams(&self) {
        self.connections.send_modify(|count| *count += 1);
        self.metrics.streams.set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }
}

/// The nodes whose whereabouts the reader of a reply needs.
fn named_in(reply: &AnnounceReply, reader: NodeId) -> BTreeSet<NodeId> {
    let holder = match &reply.lease {
        LeaseState::HeldBy(holder) => Some(*holder),
        LeaseState::Granted(_) | LeaseState::Nobody | LeaseState::Refused { .. } => None,
    };
    let peers = reply.peers.iter().map(|peer| peer.node);
    let publishers = reply.links.iter().map(|links| links.publisher);
    let mut named = BTreeSet::new();
    for node in peers.chain(holder).chain(reply.gateway).chain(publishers) {
        if named.len() < MAX_CONTACTS && node != reader {
            named.insert(node);
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_incarnation_outranks_an_earlier_one_and_the_core_takes_it() {
        let at = |millis| first_epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let today = 1_800_000_000_000;
        assert!(at(today) + 1_000 < at(today + 1));
        let config = shoal_tracker::Config { first_epoch: at(today * 10), ..shoal_tracker::Config::default() };
        assert_eq!(config.check(), Ok(()));
    }
}
