//! A net of a few engines in virtual time: messages after a fixed latency, chunks one after the other on each sender's uplink, a
//! tracker that grants one lease, an origin.
//!
//! State: the engines, their connections and contents, what is under way, a log of everything that they asked for.
//! Invariants: the same net gives the same log; an engine's invariants hold after whatever happens to it; a chunk leaves a node
//! only if its engine has it.
//! Absent on purpose: sharing of links (the simulator's), an honest tracker's caution (the tracker's core).

mod tracker;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use shoal_chain::{Link, LinkRun, VerifiedLinks};
use shoal_swarm::{Action, Config, Engine, PeerHandle, Recipients, StartBlob, VerifyTicket};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, NodeId, Time, Zone};
use shoal_wire::{Announce, AnnounceReply, Directive, PeerMessage};

use super::chunk;
use super::content::{CHUNK_BYTES, Content, LIE, TRUE, Variant};
use tracker::Tracker;

/// What a lying lead invents.
const INVENTION: Variant = 2;

/// Links that one signature covers once they are there.
const MERGED: usize = 8;

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// As its engine does.
    #[default]
    Honest,
    /// Sends wrong chunks.
    Liar,
    /// Promises chunks and sends none.
    Silent,
    /// Takes and never gives.
    Rider,
    /// Invents content and links that fit, if it gets the lease.
    LyingLead,
}

/// One node of a net.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) role: Role,
    pub(crate) zone: &'static str,
    /// Bytes a second.
    pub(crate) up: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { config: Config::default(), role: Role::Honest, zone: "home", up: 1_250_000_000 }
    }
}

struct Node {
    engine: Engine,
    setup: Setup,
    id: NodeId,
    zone: Zone,
    alive: bool,
    conns: BTreeMap<PeerHandle, (usize, PeerHandle)>,
    wakes_at: Time,
    uplink_free: Time,
    wrong: BTreeMap<(BlobKey, ChunkIndex), Variant>,
    arrived: BTreeMap<(BlobKey, ChunkIndex, PeerHandle), Variant>,
    /// What a driver keeps on disk beside the chunks.
    links: BTreeMap<BlobKey, Vec<VerifiedLinks>>,
    fetch: Option<Fetch>,
}

struct Fetch {
    serial: u64,
    key: BlobKey,
    epoch: u64,
    chunks: Range<u32>,
    before: Option<Link>,
    recent: Vec<(ChunkIndex, Link)>,
}

enum Event {
    Message { to: usize, from: PeerHandle, message: PeerMessage },
    PieceStarts { to: usize, from: PeerHandle, key: BlobKey, chunk: ChunkIndex },
    PieceEnds { to: usize, from: PeerHandle, key: BlobKey, chunk: ChunkIndex, variant: Variant },
    Sent { node: usize, to: PeerHandle, key: BlobKey, chunk: ChunkIndex },
    Verified { node: usize, ticket: VerifyTicket, variant: Variant, right: bool },
    OriginChunk { node: usize, serial: u64 },
    Announced { node: usize, announce: Box<Announce> },
    Replied { node: usize, reply: Box<AnnounceReply> },
    Directed { node: usize, directive: Directive },
    Connected { one: usize, other: usize },
    Closed { node: usize, peer: PeerHandle },
    Wake { node: usize },
}

/// A chunk that has come to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) at: Time,
    pub(crate) to: usize,
    pub(crate) from: usize,
    pub(crate) chunk: u32,
}

/// A few engines and what is between them.
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) contents: Vec<Content>,
    pub(crate) tracker: Tracker,
    pub(crate) latency: Duration,
    pub(crate) hash_time: Duration,
    /// Bytes a second that the origin sends to one lead.
    pub(crate) origin_rate: u64,
    /// The tracker withdraws a chain that anybody calls false, and bars its publisher.
    pub(crate) withdraws: bool,
    pub(crate) log: Vec<(Time, usize, Action)>,
    pub(crate) pieces: Vec<Piece>,
    /// Chunks that the origin sent.
    pub(crate) origin_chunks: u32,
    nodes: Vec<Node>,
    queue: BTreeMap<(Time, u64), Event>,
    serial: u64,
}

impl Net {
    /// Nodes that don't know each other, and a blob of this many chunks.
    pub(crate) fn new(chunks: u32, setups: impl IntoIterator<Item = Setup>) -> Self {
        Self::with_seed(chunks, setups, 1)
    }

    pub(crate) fn with_seed(chunks: u32, setups: impl IntoIterator<Item = Setup>, seed: u64) -> Self {
        let node = |(at, setup): (usize, Setup)| {
            setup.config.validate().expect("settings that make sense");
            let zone = Zone::new(setup.zone).expect("a name");
            let id = NodeId::new(at as u128 + 1);
            let engine = Engine::new(id, zone.clone(), setup.config.clone(), seed * 1000 + at as u64);
            Node {
                engine,
                setup,
                id,
                zone,
                alive: true,
                conns: BTreeMap::new(),
                wakes_at: Time::MAX,
                uplink_free: Time::ZERO,
                wrong: BTreeMap::new(),
                arrived: BTreeMap::new(),
                links: BTreeMap::new(),
                fetch: None,
            }
        };
        Self {
            now: Time::from_nanos(1_000_000_000),
            contents: vec![Content::new(seed, chunks)],
            tracker: Tracker::default(),
            latency: Duration::from_micros(250),
            hash_time: Duration::from_micros(50),
            origin_rate: 1_250_000_000,
            withdraws: false,
            log: Vec::new(),
            pieces: Vec::new(),
            origin_chunks: 0,
            nodes: setups.into_iter().enumerate().map(node).collect(),
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Connects everybody with everybody.
    pub(crate) fn mesh(&mut self) {
        for one in 0..self.nodes.len() {
            (0..one).for_each(|other| self.connect(one, other));
        }
    }

    pub(crate) fn connect(&mut self, one: usize, other: usize) {
        let now = self.now;
        let (one_id, one_zone) = (self.nodes[one].id, self.nodes[one].zone.clone());
        let (other_id, other_zone) = (self.nodes[other].id, self.nodes[other].zone.clone());
        let Some(ours) = self.nodes[one].engine.handle_connected(now, other_id, &other_zone) else { return };
        match self.nodes[other].engine.handle_connected(now, one_id, &one_zone) {
            Some(theirs) => {
                self.nodes[one].conns.insert(ours, (other, theirs));
                self.nodes[other].conns.insert(theirs, (one, ours));
            }
            None => self.nodes[one].engine.handle_disconnected(now, ours),
        }
        self.settle(one);
        self.settle(other);
    }

    /// A node starts the blob with everything, and the links.
    pub(crate) fn seeds(&mut self, node: usize) {
        let content = self.contents[0];
        let have = ChunkSet::full(content.chunks());
        self.starts_with(node, have, content.whole_chain(1, NodeId::new(999)));
    }

    /// Nodes start the blob with nothing.
    pub(crate) fn start(&mut self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            self.starts_with(node, ChunkSet::empty(self.contents[0].chunks()), Vec::new());
        }
    }

    pub(crate) fn starts_with(&mut self, node: usize, have: ChunkSet, links: Vec<VerifiedLinks>) {
        let blob = self.contents[0].blob;
        self.nodes[node].links.insert(blob.key(), links.clone());
        self.nodes[node].engine.start(self.now, StartBlob { blob, have, links, priority: 0 });
        self.settle(node);
    }

    /// A node leaves the swarm; what it keeps on disk.
    pub(crate) fn stop(&mut self, node: usize) -> (ChunkSet, Vec<VerifiedLinks>) {
        let key = self.contents[0].key();
        let have = self.nodes[node].engine.stop(self.now, key).expect("a started blob");
        let links = self.nodes[node].links.remove(&key).unwrap_or_default();
        self.settle(node);
        (have, links)
    }

    /// A node dies, and its connections close.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.nodes[node].fetch = None;
        for (other, theirs) in std::mem::take(&mut self.nodes[node].conns).into_values() {
            self.push(self.now + self.latency, Event::Closed { node: other, peer: theirs });
        }
        let key = self.contents[0].key();
        if let Some(members) = self.tracker.members.get_mut(&key) {
            members.retain(|member| *member != node);
        }
        self.end_lease_of(key, node);
    }

    pub(crate) fn engine(&self, node: usize) -> &Engine {
        &self.nodes[node].engine
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].id
    }

    /// How many chunks a node has.
    pub(crate) fn count(&self, node: usize) -> u32 {
        self.nodes[node].engine.have(self.contents[0].key()).map_or(0, ChunkSet::len)
    }

    /// Whether a node has everything, as the origin has it.
    pub(crate) fn is_complete(&self, node: usize) -> bool {
        self.count(node) == self.contents[0].chunks() && self.nodes[node].wrong.is_empty()
    }

    /// Who fetches from the origin.
    pub(crate) fn lead(&self) -> Option<usize> {
        self.tracker.holders.get(&self.contents[0].key()).map(|(holder, _)| *holder)
    }

    /// When a node had everything.
    pub(crate) fn finished_at(&self, node: usize) -> Option<Time> {
        let done = |(_, of, action): &&(Time, usize, Action)| *of == node && matches!(action, Action::Completed { .. });
        self.log.iter().find(done).map(|(at, ..)| *at)
    }

    /// Chunks that came to a node from peers.
    pub(crate) fn pieces_to(&self, node: usize) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.to == node)
    }

    /// Runs until these nodes have everything.
    pub(crate) fn run_until_complete(&mut self, nodes: Range<usize>, at_most: Duration) {
        let end = self.now + at_most;
        while nodes.clone().any(|node| self.nodes[node].alive && self.count(node) < self.contents[0].chunks()) {
            let missing: Vec<_> = nodes.clone().map(|node| self.count(node)).collect();
            assert!(self.step(end), "unfinished after {at_most:?}: {missing:?}");
        }
    }

    /// Runs while this holds.
    pub(crate) fn run_while(&mut self, at_most: Duration, holds: impl Fn(&Self) -> bool) {
        let end = self.now + at_most;
        while holds(self) {
            assert!(self.step(end), "it holds for {at_most:?}");
        }
    }

    /// Runs for a time.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// The next event that is due by `end`, if there is one.
    fn step(&mut self, end: Time) -> bool {
        let due = self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end);
        let next = if due { self.queue.pop_first() } else { None };
        let Some(((at, _), event)) = next else { return false };
        self.now = at;
        self.handle(event);
        true
    }

    fn push(&mut self, at: Time, event: Event) {
        self.serial += 1;
        assert!(self.serial < 20_000_000, "the net comes to no end");
        self.queue.insert((at, self.serial), event);
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Message { to, from, message } => self.deliver(to, from, &message),
            Event::PieceStarts { to, from, key, chunk } => {
                if self.connected(to, from) {
                    self.nodes[to].engine.handle_piece_started(now, from, key, chunk);
                    self.settle(to);
                }
            }
            Event::PieceEnds { to, from, key, chunk, variant } => {
                if let Some((sender, _)) = self.nodes[to].conns.get(&from).copied().filter(|_| self.nodes[to].alive) {
                    self.pieces.push(Piece { at: now, to, from: sender, chunk: chunk.get() });
                    if self.nodes[to].engine.handle_piece(now, from, key, chunk) {
                        self.nodes[to].arrived.insert((key, chunk, from), variant);
                    }
                    self.settle(to);
                }
            }
            Event::Sent { node, to, key, chunk } => {
                if self.nodes[node].alive {
                    self.nodes[node].engine.handle_sent(now, to, key, chunk);
                    self.settle(node);
                }
            }
            Event::Verified { node, ticket, variant, right } => {
                if self.nodes[node].alive {
                    let (key, chunk) = (ticket.key(), ticket.chunk());
                    let Node { engine, wrong, .. } = &mut self.nodes[node];
                    let has = |engine: &Engine| engine.have(key).is_some_and(|have| have.contains(chunk));
                    let had = has(engine);
                    engine.handle_verified(now, ticket, right);
                    // The answer counts for nothing if the links have been withdrawn meanwhile.
                    if !had && has(engine) {
                        note_content(wrong, (key, chunk), variant);
                    }
                    self.settle(node);
                }
            }
            Event::OriginChunk { node, serial } => self.origin_chunk(node, serial),
            Event::Announced { node, announce } => self.announced(node, *announce),
            Event::Replied { node, reply } => {
                if self.nodes[node].alive {
                    let links: Vec<_> = reply.links.iter().cloned().map(VerifiedLinks::trusted).collect();
                    self.keep_links(node, reply.key, &links);
                    self.nodes[node].engine.handle_announce_reply(now, &reply);
                    self.nodes[node].engine.handle_links(now, reply.key, &links);
                    self.settle(node);
                }
            }
            Event::Directed { node, directive } => {
                if self.nodes[node].alive {
                    self.nodes[node].engine.handle_directive(now, &directive);
                    self.settle(node);
                }
            }
            Event::Connected { one, other } => {
                if self.nodes[one].alive && self.nodes[other].alive {
                    self.connect(one, other);
                }
            }
            Event::Closed { node, peer } => {
                if self.nodes[node].conns.remove(&peer).is_some() && self.nodes[node].alive {
                    self.nodes[node].engine.handle_disconnected(now, peer);
                    self.settle(node);
                }
            }
            Event::Wake { node } => {
                if self.nodes[node].alive && self.nodes[node].wakes_at <= now {
                    self.nodes[node].wakes_at = Time::MAX;
                    self.nodes[node].engine.handle_timeout(now);
                    self.settle(node);
                }
            }
        }
    }

    fn connected(&self, node: usize, peer: PeerHandle) -> bool {
        self.nodes[node].alive && self.nodes[node].conns.contains_key(&peer)
    }

    fn keep_links(&mut self, node: usize, key: BlobKey, links: &[VerifiedLinks]) {
        self.nodes[node].links.entry(key).or_default().extend_from_slice(links);
    }

    fn deliver(&mut self, to: usize, from: PeerHandle, message: &PeerMessage) {
        if !self.connected(to, from) {
            return;
        }
        if let PeerMessage::Links { key, batches } = message {
            let links: Vec<_> = batches.iter().cloned().map(VerifiedLinks::trusted).collect();
            self.keep_links(to, *key, &links);
            self.nodes[to].engine.handle_links(self.now, *key, &links);
        } else {
            self.nodes[to].engine.handle_message(self.now, from, message);
        }
        self.settle(to);
    }

    /// Does what a node's engine asks for.
    fn settle(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].engine.poll_action() {
            self.log.push((self.now, node, action.clone()));
            self.act(node, action);
        }
        // Looking at every chunk of every neighbour after every event of a larger net takes minutes.
        if self.contents[0].chunks() <= 64 || self.serial.is_multiple_of(32) {
            self.nodes[node].engine.check_invariants();
        }
        if let Some(at) = self.nodes[node].engine.poll_timeout()
            && at < self.nodes[node].wakes_at
        {
            self.nodes[node].wakes_at = at.max(self.now);
            self.push(at.max(self.now), Event::Wake { node });
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Send { to, message } => {
                let to = match to {
                    Recipients::One(peer) => vec![peer],
                    Recipients::Many(peers) => peers,
                };
                if self.nodes[node].setup.role == Role::Rider && message == PeerMessage::Unchoke {
                    return;
                }
                for peer in to {
                    let Some((to, from)) = self.nodes[node].conns.get(&peer).copied() else { continue };
                    let message = message.clone();
                    self.push(self.now + self.latency, Event::Message { to, from, message });
                }
            }
            Action::SendChunk { to, key, chunk } => self.send_chunk(node, to, key, chunk),
            Action::Verify { ticket, before, after } => {
                let place = (ticket.key(), ticket.chunk(), ticket.from());
                let variant = self.nodes[node].arrived.remove(&place).expect("a verification of what has come");
                let right = self.content_of(ticket.key()).link_after(before, ticket.chunk(), variant) == after;
                self.push(self.now + self.hash_time, Event::Verified { node, ticket, variant, right });
            }
            Action::FetchOrigin { key, epoch, chunks, before } => {
                self.serial += 1;
                let serial = self.serial;
                self.nodes[node].fetch = Some(Fetch { serial, key, epoch, chunks, before, recent: Vec::new() });
                self.push(self.now + self.latency * 2 + self.origin_time(), Event::OriginChunk { node, serial });
            }
            Action::StopOrigin { .. } => self.nodes[node].fetch = None,
            Action::Announce(announce) => {
                let announce = Box::new(announce);
                self.push(self.now + self.latency, Event::Announced { node, announce });
            }
            Action::Connect { node: id } => {
                let other = self.nodes.iter().position(|other| other.id == id).expect("a node of this net");
                self.push(self.now + self.latency * 4, Event::Connected { one: node, other });
            }
            Action::Disconnect { peer, .. } => {
                if let Some((other, theirs)) = self.nodes[node].conns.remove(&peer) {
                    self.push(self.now + self.latency, Event::Closed { node: other, peer: theirs });
                }
            }
            Action::ChainFailed { .. } => self.nodes[node].wrong.clear(),
            Action::Completed { .. } | Action::Recut { .. } => {}
        }
    }

    fn send_chunk(&mut self, node: usize, to: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let Node { setup, conns, uplink_free, wrong, engine, .. } = &mut self.nodes[node];
        assert!(engine.have(key).is_some_and(|have| have.contains(chunk)), "a node sends what it has");
        let Some((receiver, from)) = conns.get(&to).copied() else { return };
        let variant = match setup.role {
            Role::Silent => return,
            Role::Liar => LIE,
            _ => wrong.get(&(key, chunk)).copied().unwrap_or(TRUE),
        };
        let begins = self.now.max(*uplink_free);
        let ends = begins + transfer_time(CHUNK_BYTES, setup.up);
        *uplink_free = ends;
        let latency = self.latency;
        self.push(begins + latency, Event::PieceStarts { to: receiver, from, key, chunk });
        self.push(ends, Event::Sent { node, to, key, chunk });
        self.push(ends + latency, Event::PieceEnds { to: receiver, from, key, chunk, variant });
    }

    fn content_of(&self, key: BlobKey) -> Content {
        *self.contents.iter().find(|content| content.key() == key).expect("a blob of this net")
    }

    fn origin_time(&self) -> Duration {
        transfer_time(CHUNK_BYTES, self.origin_rate)
    }

    fn origin_chunk(&mut self, node: usize, serial: u64) {
        let (now, id) = (self.now, self.nodes[node].id);
        let next = now + self.origin_time();
        let lies = self.nodes[node].setup.role == Role::LyingLead;
        let variant = if lies { INVENTION } else { TRUE };
        let Some(fetch) = self.nodes[node].fetch.as_mut().filter(|fetch| fetch.serial == serial) else { return };
        let (key, epoch) = (fetch.key, fetch.epoch);
        let Some(index) = fetch.chunks.next().map(chunk) else { return };
        let goes_on = !fetch.chunks.is_empty();
        let content = *self.contents.iter().find(|content| content.key() == key).expect("a blob of this net");
        let link = content.link_after(fetch.before, index, variant);
        fetch.before = Some(link);
        fetch.recent.push((index, link));
        let last = index == content.blob.geometry.last_chunk();
        let merged = if fetch.recent.len() == MERGED { std::mem::take(&mut fetch.recent) } else { Vec::new() };
        if !goes_on {
            self.nodes[node].fetch = None;
        }
        self.origin_chunks += 1;
        note_content(&mut self.nodes[node].wrong, (key, index), variant);
        if !lies && last && link != content.blob.digest.into() {
            self.nodes[node].engine.handle_origin_mismatch(now, key, epoch);
            return self.settle(node);
        }
        let links = (!last).then(|| content.signed(epoch, id, LinkRun::single(index, link)));
        self.keep_links(node, key, links.as_slice());
        self.nodes[node].engine.handle_origin_chunk(now, key, epoch, index, links.as_ref());
        if let (Some((first, _)), false) = (merged.first(), last) {
            let bytes = merged.iter().flat_map(|(_, link)| link.as_bytes().to_vec()).collect();
            let run = LinkRun::new(content.blob.digest.algorithm(), *first, bytes).expect("whole links");
            let links = content.signed(epoch, id, run);
            self.nodes[node].engine.handle_merged_links(now, key, &links);
        }
        self.settle(node);
        if goes_on {
            self.push(next, Event::OriginChunk { node, serial });
        }
    }
}

/// Keeps book of a chunk whose content isn't the origin's.
fn note_content(wrong: &mut BTreeMap<(BlobKey, ChunkIndex), Variant>, place: (BlobKey, ChunkIndex), variant: Variant) {
    if variant == TRUE {
        wrong.remove(&place);
    } else {
        wrong.insert(place, variant);
    }
}

fn transfer_time(bytes: u64, rate: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / rate)
}
