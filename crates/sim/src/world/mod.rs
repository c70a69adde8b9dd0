//! The world: nodes, tracker and origin in virtual time.
//!
//! State: all of it. One event at a time changes it, and the events' order depends on the setup and its seed alone.
//! Invariants: checked as the run goes on, see `invariants` of the engine and of the tracker: no wrong byte is accepted, everyone who can finishes.
//! Absent on purpose: policy (the engine's and the tracker's) and figures (the report's).

#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of nodes, chunks and blobs are far below 2^24; indices are u32"
)]

mod event;
mod node;
mod origin;
mod peers;
mod tracker;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_swarm::{Action, Engine, StartBlob};
use shoal_types::{BlobInfo, BlobKey, ChunkSet, NodeId, Rng, Time, Zone};

use crate::content;
use crate::net::{LinkId, Network};
use crate::setup::{Fault, Role, Setup};
use event::{Event, NodeIx, Queue};
use node::Node;
use origin::Origin;
use peers::Sends;
use tracker::TrackerHost;

/// A running simulation.
#[derive(Debug)]
pub(crate) struct World {
    setup: Setup,
    now: Time,
    queue: Queue,
    net: Network,
    nodes: Vec<Node>,
    ids: BTreeMap<NodeId, NodeIx>,
    blobs: Vec<BlobInfo>,
    blob_ix: BTreeMap<BlobKey, usize>,
    sends: Sends,
    origin: Origin,
    tracker: TrackerHost,
    zone_links: BTreeMap<(usize, usize), LinkId>,
    rng: Rng,
    unfinished: usize,
    trace: u64,
    wrong_bytes: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// When each node was done with all that it wanted, counted from its own start; none if it never was, or died.
    pub(crate) finish: Vec<Option<Duration>>,
    /// The same, counted from the beginning.
    pub(crate) finish_at: Vec<Option<Time>>,
    pub(crate) unfinished: usize,
    pub(crate) origin_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) zone_bytes: u64,
    pub(crate) wrong_bytes: u64,
    pub(crate) honest_bans: usize,
    pub(crate) trace: u64,
    pub(crate) largest_transfer_bytes: usize,
}

impl World {
    /// The world as the setup describes it, with nothing happened yet.
    pub(crate) fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let mut net = Network::new();
        let zones: Vec<Zone> = (0..=setup.nodes.iter().map(|node| node.zone).max().unwrap_or(0))
            .map(|zone| Zone::new(&format!("zone-{zone}")).unwrap_or_default())
            .collect();
        let mut zone_links = BTreeMap::new();
        if let Some(rate) = setup.between_zones {
            for from in 0..zones.len() {
                for to in (0..zones.len()).filter(|to| *to != from) {
                    zone_links.insert((from, to), net.add_link(rate));
                }
            }
        }
        let blobs: Vec<BlobInfo> = setup
            .blobs
            .iter()
            .enumerate()
            .filter_map(|(name, blob)| {
                Some(content::blob(name as u64, content::geometry(blob.size_bytes, blob.chunk_size)?))
            })
            .collect();
        let origin = Origin::new(net.add_link(setup.origin_up));
        let origin_is_peer = setup.nodes.iter().any(|node| node.role == Role::Origin);
        let mut ids = BTreeMap::new();
        let mut nodes = Vec::with_capacity(setup.nodes.len());
        for (ix, node) in setup.nodes.iter().enumerate() {
            let id = NodeId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
            ids.insert(id, ix as NodeIx);
            let mut engine = Engine::new(id, zones[node.zone].clone(), setup.config.clone(), rng.next_u64());
            engine.set_can_lead(!origin_is_peer);
            let up = if node.role == Role::Origin { origin.link } else { net.add_link(node.up) };
            let links = (up, net.add_link(node.down));
            nodes.push(Node::new(engine, node.role, node.zone, links, setup.cores));
        }
        let tracker = TrackerHost::new(&setup, rng.next_u64(), ids.keys().copied().zip(ids.values().copied()), zones);
        let blob_ix = blobs.iter().enumerate().map(|(ix, blob)| (blob.key(), ix)).collect();
        let mut world = Self {
            now: Time::ZERO,
            queue: Queue::default(),
            net,
            nodes,
            ids,
            blobs,
            blob_ix,
            sends: Sends::default(),
            origin,
            tracker,
            zone_links,
            unfinished: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            wrong_bytes: 0,
            rng,
            setup,
        };
        world.populate();
        world
    }

    /// Runs until everyone is done.
    pub(crate) fn run(mut self) -> Outcome {
        while self.unfinished > 0 && self.now < self.setup.give_up {
            if !self.step() {
                break;
            }
        }
        self.outcome()
    }

    /// Lets the next thing happen; false if nothing is left.
    fn step(&mut self) -> bool {
        let flow = self.net.next_event();
        let event = self.queue.next_time();
        match (flow, event) {
            (Some(flow), event) if event.is_none_or(|event| flow <= event) => {
                self.now = flow;
                while let Some(finished) = self.net.poll_finished(self.now) {
                    self.note(0, finished.tag);
                    self.flow_ended(finished.tag);
                }
            }
            (_, Some(_)) => {
                if let Some((at, event)) = self.queue.pop() {
                    // Ends of flows at this instant come first, so that the network's time can move on.
                    while let Some(finished) = self.net.poll_finished(at) {
                        self.now = finished.at;
                        self.note(0, finished.tag);
                        self.flow_ended(finished.tag);
                    }
                    self.now = at;
                    self.handle(event);
                }
            }
            _ => return false,
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, message } => {
                self.note(1, u64::from(to));
                self.deliver(to, from, &message);
            }
            Event::DeliverMany { to, message } => {
                for (node, from) in &to {
                    self.note(1, u64::from(*node));
                    self.deliver(*node, *from, &message);
                }
            }
            Event::PieceStarts { send, serial } => self.piece_starts(send, serial),
            Event::PieceEnds { send } => self.piece_ends(send),
            Event::Verified { node, ticket, right } => {
                self.note(2, u64::from(node));
                self.verified(node, ticket, right);
            }
            Event::OriginBegins { stream } => self.origin_begins(stream),
            Event::OriginChunk { stream } => self.origin_chunk(stream),
            Event::AnnounceArrives { node, announce } => self.announce_arrives(node, announce),
            Event::AnnounceDone { node, announce } => self.announce_done(node, &announce),
            Event::Reply { node, reply } => self.reply(node, &reply),
            Event::Directive { node, directive } => self.directive(node, &directive),
            Event::Connected { from, to } => self.connected(from, to),
            Event::Closed { node, peer } => self.closed(node, peer),
            Event::TrackerLoses { node } => self.tracker_loses(node),
            Event::Timer { node } => self.timer(node),
            Event::TrackerTimer => self.tracker_timer(),
            Event::Pull { node } => self.pull(node),
            Event::Fault { fault } => self.fault(&fault),
        }
    }

    fn populate(&mut self) {
        self.connect_mesh();
        for ix in 0..self.nodes.len() {
            let setup = self.setup.nodes[ix].clone();
            let node = &mut self.nodes[ix];
            node.missing = setup.wants.len();
            node.wants = setup.wants;
            node.pulls_at = setup.pulls_at;
            if node.missing > 0 && counts(node.role) {
                self.unfinished += 1;
            }
            self.queue.push(setup.pulls_at, Event::Pull { node: ix as NodeIx });
        }
        for (at, fault) in std::mem::take(&mut self.setup.faults) {
            self.queue.push(at, Event::Fault { fault });
        }
    }

    fn pull(&mut self, ix: NodeIx) {
        let now = self.now;
        if self.setup.client_server {
            self.pull_alone(ix);
            return;
        }
        let node = &mut self.nodes[ix as usize];
        if !node.alive {
            return;
        }
        if node.role == Role::Origin {
            for (name, blob) in self.blobs.iter().enumerate() {
                let links = content::chain(name as u64, *blob, self.tracker.id(ix));
                let have = ChunkSet::full_of(blob.geometry);
                node.engine.start(now, StartBlob { blob: *blob, have, links, priority: 0 });
            }
        }
        for (priority, blob) in node.wants.clone().into_iter().enumerate() {
            let blob = self.blobs[blob];
            let have = ChunkSet::empty_of(blob.geometry);
            node.engine.start(now, StartBlob { blob, have, links: Vec::new(), priority: priority as u32 });
            node.read_on(blob.key());
        }
        self.drain(ix);
    }

    /// Does what a node's engine asks for, and sees to its timer.
    fn drain(&mut self, ix: NodeIx) {
        while let Some(action) = self.nodes[ix as usize].engine.poll_action() {
            self.act(ix, action);
        }
        let node = &mut self.nodes[ix as usize];
        if let Some(at) = node.engine.poll_timeout()
            && at < node.timer_at
        {
            let at = at.max(self.now);
            node.timer_at = at;
            self.queue.push(at, Event::Timer { node: ix });
        }
    }

    fn timer(&mut self, ix: NodeIx) {
        let now = self.now;
        let node = &mut self.nodes[ix as usize];
        if !node.alive || node.timer_at > now {
            return;
        }
        node.timer_at = Time::MAX;
        node.engine.handle_timeout(now);
        self.drain(ix);
    }

    fn act(&mut self, ix: NodeIx, action: Action) {
        match action {
            Action::Send { to, message } => self.send(ix, to, message),
            Action::SendChunk { to, key, chunk } => self.send_chunk(ix, to, key, chunk),
            Action::Verify { ticket, before, after } => self.verify(ix, ticket, before, after),
            Action::FetchOrigin { key, epoch, chunks, before } => self.fetch_origin(ix, key, epoch, chunks, before),
            Action::StopOrigin { key } => self.stop_origin(ix, key),
            Action::Announce(announce) => self.announce(ix, announce),
            Action::Connect { node } => self.dial(ix, node),
            Action::Disconnect { peer, .. } => self.hang_up(ix, peer),
            Action::Completed { key } => self.completed(ix, key),
            Action::ChainFailed { .. } | Action::Recut { .. } => {}
        }
    }

    fn completed(&mut self, ix: NodeIx, key: BlobKey) {
        let blob = self.blob_ix[&key];
        let count = self.blobs[blob].geometry.chunk_count();
        let node = &mut self.nodes[ix as usize];
        if node.role == Role::LyingLead {
            return;
        }
        let wrong: u64 = node
            .wrong
            .keys()
            .filter(|(of, chunk)| *of == blob && chunk.get() < count)
            .filter_map(|(_, chunk)| self.blobs[blob].geometry.byte_range(*chunk))
            .map(|range| u64::from(range.len))
            .sum();
        self.wrong_bytes += wrong;
        self.one_done(ix);
    }

    fn one_done(&mut self, ix: NodeIx) {
        let now = self.now;
        let node = &mut self.nodes[ix as usize];
        node.missing = node.missing.saturating_sub(1);
        if node.missing == 0 && node.finished.is_none() {
            node.finished = Some(now);
            if counts(node.role) {
                self.unfinished -= 1;
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill { nodes, silently } => nodes.iter().for_each(|node| self.kill(*node, *silently)),
            Fault::KillLead { silently } => {
                if let Some(lead) = self.current_lead() {
                    self.kill(lead, *silently);
                }
            }
            Fault::TrackerDies => self.tracker.alive = false,
            Fault::OriginStops => self.net.set_capacity(self.now, self.origin.link, 0.0),
            Fault::OriginResumes => self.net.set_capacity(self.now, self.origin.link, self.setup.origin_up),
        }
    }

    /// Ends a node. Silently: its links stand still and nobody hears anything.
    fn kill(&mut self, ix: NodeIx, silently: bool) {
        let now = self.now;
        if !self.nodes[ix as usize].alive {
            return;
        }
        self.nodes[ix as usize].alive = false;
        if self.nodes[ix as usize].finished.is_none() && counts(self.nodes[ix as usize].role) {
            self.unfinished -= 1;
        }
        self.stop_streams_of(ix);
        let (up, down) = (self.nodes[ix as usize].up, self.nodes[ix as usize].down);
        if silently {
            self.net.set_capacity(now, up, 0.0);
            self.net.set_capacity(now, down, 0.0);
            return;
        }
        let conns: Vec<_> = self.nodes[ix as usize].conns.iter().flatten().copied().collect();
        let later = now + self.setup.round_trip / 2;
        for conn in conns {
            self.cancel_sends(ix, conn.node);
            self.queue.push(later, Event::Closed { node: conn.node, peer: conn.remote });
        }
        self.queue.push(later, Event::TrackerLoses { node: ix });
    }

    fn latency(&self) -> Duration {
        self.setup.round_trip / 2
    }

    /// Mixes an event into the trace's hash.
    fn note(&mut self, kind: u64, of: u64) {
        let word = self.now.as_nanos() ^ kind << 56 ^ of << 32;
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    fn outcome(self) -> Outcome {
        for ix in 0..self.nodes.len() {
            if self.nodes[ix].alive {
                self.nodes[ix].engine.check_invariants();
            }
        }
        let origin_bytes = self.net.carried_bytes(self.origin.link);
        let zone_bytes = self.zone_links.values().map(|link| self.net.carried_bytes(*link)).sum();
        let counters = self.nodes.iter().map(|node| node.engine.counters());
        let (received_bytes, wasted_bytes) =
            counters.fold((0, 0), |(got, lost), c| (got + c.bytes_received, lost + c.bytes_wasted));
        let done = |node: &Node| node.finished.filter(|_| node.alive && counts(node.role));
        let largest =
            self.nodes.iter().flat_map(|node| self.blobs.iter().filter_map(|b| node.engine.heap_bytes(b.key())));
        Outcome {
            finish: self.nodes.iter().map(|node| done(node).map(|at| at.since(node.pulls_at))).collect(),
            finish_at: self.nodes.iter().map(done).collect(),
            unfinished: self.unfinished,
            origin_bytes,
            received_bytes,
            wasted_bytes,
            zone_bytes,
            wrong_bytes: self.wrong_bytes,
            honest_bans: self.honest_bans(),
            trace: self.trace,
            largest_transfer_bytes: largest.max().unwrap_or(0),
        }
    }
}

/// Whether a node's finish counts: those that misbehave on purpose may fail.
fn counts(role: Role) -> bool {
    matches!(role, Role::Honest | Role::Rider)
}
