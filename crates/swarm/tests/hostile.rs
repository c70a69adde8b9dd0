//! Whatever neighbours, the tracker and the network do, in whatever order: the engine doesn't panic, its invariants hold, its memory
//! is bounded, who breaks the protocol is dropped and counted, and an honest neighbour gets everything through afterwards.
//!
//! State: none; each case has its own engine. Absent on purpose: bytes that are no message. Those are the codec's to refuse.

mod common;

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use shoal_chain::{Link, LinkRun, VerifiedLinks};
use shoal_swarm::{Action, Config, DisconnectReason, Engine, PeerHandle, Recipients, Serving, StartBlob, VerifyTicket};
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Geometry, NodeId, Time, Zone};
use shoal_wire::{
    AnnounceReply, Directive, JoinFlags, LeaseGrant, LeaseState, Load, OriginFailure, PeerInfo, PeerMessage,
    RejectReason,
};

use common::content::{CHUNK_BYTES, Content, TRUE};
use common::ms;

/// Chunks of the blobs that are exchanged: within a bitmap's word, and beyond it.
const CHUNKS: [u32; 2] = [5, 70];

/// Different nodes that connect.
const NODES: u8 = 6;

/// What a blob may occupy here: a fraction of it is what 12 neighbours and 70 chunks take, the rest is capacity that was needed once.
const HEAP_BYTES: usize = 32 << 10;

/// One thing that happens, as numbers: what they mean is [`World::step`]'s business.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    who: u8,
    blob: u8,
    chunk: u32,
    other: u32,
    epoch: u64,
    flag: bool,
    /// Nonsense may be said: chunks that no blob has, bitmaps of another length, links that aren't checked.
    wild: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    let blob = prop_oneof![9 => 0_u8..2, 1 => Just(2_u8)];
    let index = || prop_oneof![9 => 0_u32..70, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    let epoch = prop_oneof![40 => 0_u64..6, 1 => Just(u64::MAX)];
    let numbers = (0_u8..100, any::<u8>(), blob, index(), index(), epoch, any::<bool>(), prop::bool::weighted(0.04));
    numbers.prop_map(|(what, who, blob, chunk, other, epoch, flag, wild)| Step {
        what,
        who,
        blob,
        chunk,
        other,
        epoch,
        flag,
        wild,
    })
}

fn any_config() -> impl Strategy<Value = Config> {
    let small = Config { max_peers: 3, queued_per_peer: 2, uploads_at_once: 1, endgame_percent: 100, ..common::open() };
    let limited = Config { upload_limit: Some(1_000_000), download_limit: Some(1_000_000), ..Config::default() };
    let serving = Serving::TitForTat { slots: 2, rechoke: ms(50), optimistic: ms(150) };
    let quick = Config { serving, snub_after: ms(100), impatient_after: ms(300), ..Config::default() };
    let few = Config { stream_percent: 50, endgame_percent: 50, ..common::credit(1, 1) };
    proptest::sample::select(vec![
        Config::default(),
        Config::classic(),
        Config::kraken_policy(),
        small,
        limited,
        quick,
        few,
    ])
}

/// An engine and what its driver keeps.
struct World {
    engine: Engine,
    now: Time,
    contents: Vec<Content>,
    /// Every handle that was ever valid.
    handles: Vec<PeerHandle>,
    connected: Vec<PeerHandle>,
    tickets: Vec<VerifyTicket>,
    sending: Vec<(PeerHandle, BlobKey, ChunkIndex)>,
    /// Neighbours that were dropped because they broke the protocol.
    dropped: u64,
    /// An epoch after which there is none has been spoken of.
    ends: bool,
    requests: Vec<(PeerHandle, BlobKey, ChunkIndex)>,
    fetches: Vec<(BlobKey, u64, Range<u32>)>,
}

impl World {
    fn new(config: Config, seed: u64) -> Self {
        config.validate().expect("settings that make sense");
        let engine = Engine::new(NodeId::new(1000), Zone::new("a").expect("a name"), config, seed);
        let contents = CHUNKS.iter().zip(1..).map(|(chunks, name)| Content::new(name, *chunks)).collect();
        let mut world = Self {
            engine,
            now: Time::from_nanos(1_000_000_000),
            contents,
            handles: Vec::new(),
            connected: Vec::new(),
            tickets: Vec::new(),
            sending: Vec::new(),
            dropped: 0,
            ends: false,
            requests: Vec::new(),
            fetches: Vec::new(),
        };
        world.start(0);
        world.start(1);
        world
    }

    fn start(&mut self, blob: usize) {
        let blob = self.contents[blob].blob;
        let have = ChunkSet::empty_of(blob.geometry);
        self.engine.start(self.now, StartBlob { blob, have, links: Vec::new(), priority: 0 });
        self.settle();
    }

    /// A blob that takes part, or one that nobody has started.
    fn key(&self, step: &Step) -> BlobKey {
        let known = self.contents.get(usize::from(step.blob)).map(Content::key);
        known.unwrap_or_else(|| Content::new(99, 3).key())
    }

    fn content(&self, step: &Step) -> Content {
        self.contents[usize::from(step.blob) % self.contents.len()]
    }

    /// One of the blob's chunks, or any number.
    fn chunk(&self, step: &Step, index: u32) -> ChunkIndex {
        ChunkIndex::new(if step.wild { index } else { index % self.content(step).chunks() })
    }

    /// A few neighbours that begin as honest ones would.
    fn begin(&mut self) {
        for who in 0..4_u8 {
            self.connect(NodeId::new(who.into()), if who < 3 { "a" } else { "b" });
            let peer = self.handles[usize::from(who)];
            for content in self.contents.clone() {
                let have = if who < 2 { ChunkSet::full(content.chunks()) } else { ChunkSet::empty(content.chunks()) };
                let join = PeerMessage::Join { blob: content.blob, have: have.into(), flags: JoinFlags::default() };
                self.engine.handle_message(self.now, peer, &join);
            }
            self.engine.handle_message(self.now, peer, &PeerMessage::Unchoke);
            self.settle();
        }
        let content = self.contents[1];
        self.engine.handle_links(self.now, content.key(), &content.whole_chain(1, NodeId::new(0)));
        self.settle();
    }

    fn step(&mut self, step: Step) {
        let Step { what, who, chunk: index, other, epoch, flag, .. } = step;
        let (now, key, chunk) = (self.now, self.key(&step), self.chunk(&step, index));
        let node = NodeId::new(u128::from(who % NODES));
        let peer = self.handles.get(usize::from(who) % self.handles.len().max(1)).copied();
        self.ends |= epoch == u64::MAX;
        match (what, peer) {
            (0..=2, _) | (_, None) => self.connect(node, if flag { "a" } else { "b" }),
            (3, Some(peer)) => {
                self.connected.retain(|other| *other != peer);
                self.engine.handle_disconnected(now, peer);
            }
            (4..=44, Some(peer)) => {
                let message = self.message(&step);
                self.engine.handle_message(now, peer, &message);
            }
            (45..=49, _) => self.engine.handle_links(now, key, &[self.links(&step)]),
            (50, Some(peer)) => self.engine.handle_piece_started(now, peer, key, chunk),
            (51, Some(peer)) => drop(self.engine.handle_piece(now, peer, key, chunk)),
            // What was asked for comes, or begins to.
            (52..=68, _) => self.requested_comes(usize::from(who), flag),
            (69..=78, _) => {
                if let Some(ticket) = take(&mut self.tickets, usize::from(who)) {
                    if other == 0 {
                        self.tickets.push(ticket.clone()); // It will be answered twice.
                    }
                    self.engine.handle_verified(now, ticket, index % 8 > 0);
                }
            }
            (79, Some(peer)) => self.engine.handle_sent(now, peer, key, chunk),
            (80..=83, _) => {
                if let Some((peer, key, chunk)) = take(&mut self.sending, usize::from(who)) {
                    self.engine.handle_sent(now, peer, key, chunk);
                }
            }
            (84..=86, _) => self.origin_delivers(&step),
            (87, _) if flag => self.engine.handle_merged_links(now, key, &self.links(&step)),
            (87, _) => self.engine.handle_origin_mismatch(now, key, epoch),
            (88, _) => self.engine.handle_origin_failed(now, key, epoch, OriginFailure::Unreachable),
            (89..=90, _) => {
                let reply = self.reply(&step);
                self.engine.handle_announce_reply(now, &reply);
            }
            (91..=92, _) => {
                let directive = self.directive(&step);
                self.engine.handle_directive(now, &directive);
            }
            (93, _) if flag => self.start(usize::from(step.blob) % self.contents.len()),
            (93, _) => drop(self.engine.stop(now, key)),
            (94, _) => {
                self.engine.set_stream(key, Some(chunk).filter(|_| flag));
                self.engine.set_can_lead(other != 0);
            }
            (_, _) => self.wait(Duration::from_millis([1, 1, 1, 2, 2, 5, 5, 30, 120, 1100][index as usize % 10])),
        }
        self.settle();
    }

    fn requested_comes(&mut self, which: usize, whole: bool) {
        let Some((peer, key, chunk)) = take(&mut self.requests, which) else { return };
        self.engine.handle_piece_started(self.now, peer, key, chunk);
        if whole {
            let _ = self.engine.handle_piece(self.now, peer, key, chunk);
        } else {
            self.requests.push((peer, key, chunk));
        }
    }

    /// The next chunk of a fetch comes, or any.
    fn origin_delivers(&mut self, step: &Step) {
        let which = usize::from(step.who) % self.fetches.len().max(1);
        let next = self.fetches.get_mut(which);
        let next = next.and_then(|(key, epoch, chunks)| Some((*key, *epoch, chunks.next()?)));
        let any = (self.key(step), step.epoch, self.chunk(step, step.chunk).get());
        let (key, epoch, index) = next.filter(|_| !step.wild).unwrap_or(any);
        let content = *self.contents.iter().find(|content| content.key() == key).unwrap_or(&self.contents[0]);
        let linked = index.saturating_add(1) < content.chunks();
        let links = if step.wild || !linked {
            self.links(step)
        } else {
            content.batch(epoch, NodeId::new(1000), index..index + 1, TRUE)
        };
        let links = Some(&links).filter(|_| linked || step.wild);
        self.engine.handle_origin_chunk(self.now, key, epoch, ChunkIndex::new(index), links);
    }

    fn connect(&mut self, node: NodeId, zone: &str) {
        let zone = Zone::new(zone).expect("a name");
        if let Some(peer) = self.engine.handle_connected(self.now, node, &zone) {
            self.handles.push(peer);
            self.connected.push(peer);
        }
    }

    fn message(&self, step: &Step) -> PeerMessage {
        let Step { what, who, chunk: index, other, flag, wild, .. } = *step;
        let (key, chunk, sources) = (self.key(step), self.chunk(step, index), who);
        // Something of ours, where there is anything.
        let ours = self.engine.have(key).and_then(|have| have.iter().nth(index as usize % have.len().max(1) as usize));
        match what {
            4..=10 => {
                let blob = if wild && flag { self.another_blob(step) } else { self.content(step).blob };
                let chunks = if wild { index % 200 } else { blob.geometry.chunk_count() };
                let mut have = if flag { ChunkSet::full(chunks) } else { ChunkSet::empty(chunks) };
                for at in 0..chunks.min(index % 100) {
                    have.insert(ChunkIndex::new(at));
                }
                let flags = JoinFlags { gateway: other % 7 == 3, seed: flag, answer: other % 7 == 2 };
                PeerMessage::Join { blob, have: have.into(), flags }
            }
            11..=15 => {
                let chunks = [chunk, self.chunk(step, other)].into();
                PeerMessage::Have { key, chunks, load: Load { sources } }
            }
            16..=23 => {
                let chunk = ours.filter(|_| !wild).unwrap_or(chunk);
                PeerMessage::Request { key, chunk, needs_links: flag }
            }
            24 => PeerMessage::Cancel { key, chunk: ours.unwrap_or(chunk) },
            25..=27 => {
                let reasons =
                    [RejectReason::Absent, RejectReason::TooMany, RejectReason::Choked, RejectReason::Withdrawn];
                let asked = self.requests.get(usize::from(who) % self.requests.len().max(1));
                let (key, chunk) = asked.map_or((key, chunk), |(_, key, chunk)| (*key, *chunk));
                PeerMessage::Reject { key, chunk, reason: reasons[usize::from(who % 4)] }
            }
            28..=29 => PeerMessage::Choke,
            30..=35 => PeerMessage::Unchoke,
            36 => PeerMessage::Decline,
            37 => PeerMessage::Hungry { sources },
            38..=40 => {
                let asked = self.requests.iter().find(|(_, of, _)| *of == key);
                let asked = asked.map_or(chunk, |(_, _, chunk)| *chunk);
                PeerMessage::Substitute { key, asked, sent: self.chunk(step, other) }
            }
            41 => PeerMessage::LinksWanted { key, from: chunk },
            42 => PeerMessage::Coming { key, chunk },
            43 if wild => PeerMessage::Links { key, batches: vec![self.links(step).into_inner()] },
            _ => PeerMessage::Leave { key },
        }
    }

    /// The same digest and chunk size with another number of chunks.
    fn another_blob(&self, step: &Step) -> BlobInfo {
        let blob = self.content(step).blob;
        let size = blob.geometry.size_bytes() + CHUNK_BYTES;
        BlobInfo { geometry: Geometry::new(size, blob.geometry.chunk_size()).expect("a small blob"), ..blob }
    }

    /// Links, true or false, that fit the blob or don't.
    fn links(&self, step: &Step) -> VerifiedLinks {
        let content = self.content(step);
        let publisher = NodeId::new(u128::from(step.who % NODES));
        let run = match (step.wild, step.flag) {
            (true, true) => LinkRun::single(ChunkIndex::new(step.chunk), Link::Sha512([step.who; 64])),
            (true, false) => LinkRun::single(ChunkIndex::new(step.chunk), Link::Sha256([step.who; 32])),
            (false, _) => {
                let first = step.chunk % content.chunks();
                let most = if step.flag { 70 } else { 9 };
                let end = first.saturating_add(1 + step.other % most).min(content.chunks());
                let variant = if step.who > 60 { TRUE } else { step.who % 3 };
                return content.batch(step.epoch, publisher, first..end, variant);
            }
        };
        content.signed(step.epoch, publisher, run)
    }

    fn lease(step: &Step) -> LeaseGrant {
        let holes = vec![ChunkIndex::new(step.other)];
        LeaseGrant { epoch: step.epoch, frontier: ChunkIndex::new(step.chunk), holes, impatient: step.flag }
    }

    fn reply(&mut self, step: &Step) -> AnnounceReply {
        let Step { who, other, epoch, flag, .. } = *step;
        let mut key = self.key(step);
        let other = other % 9;
        if other == 5 {
            key.chunk_size = ChunkSize::MAX;
        }
        let peers = (0..u128::from(who)).map(|node| PeerInfo { node: NodeId::new(node), zone: Zone::default() });
        let lease = match other {
            0 => LeaseState::Granted(Self::lease(step)),
            1 => LeaseState::HeldBy(NodeId::new(u128::from(who))),
            2 => LeaseState::Refused { failure: OriginFailure::NotFound, retry_after: Duration::MAX },
            _ => LeaseState::Nobody,
        };
        let interval = [Duration::ZERO, ms(1), Duration::from_secs(5), Duration::MAX][usize::from(who % 4)];
        AnnounceReply {
            key,
            peers: peers.collect(),
            lease,
            links: Vec::new(),
            withdrawn: Some(epoch).filter(|_| other == 3),
            gateway: flag.then_some(NodeId::new(if who % 2 == 0 { 1000 } else { 1 })),
            banned: if other == 4 { vec![NodeId::new(u128::from(who % NODES))] } else { Vec::new() },
            interval,
        }
    }

    fn directive(&self, step: &Step) -> Directive {
        let (key, node) = (self.key(step), NodeId::new(u128::from(step.who % NODES)));
        match step.other % 6 {
            0..=2 => Directive::Lease { key, grant: Self::lease(step) },
            3 => Directive::LeaseRevoked { key, epoch: step.epoch },
            4 => Directive::Withdraw { key, epoch: step.epoch },
            _ if step.flag => Directive::Gateway { key, node },
            _ => Directive::Ban { nodes: vec![node] },
        }
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        let mut calls = 0;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= end) {
            calls += 1;
            assert!(calls < 20_000, "the engine's timer stands still at {at:?}");
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.engine.poll_action() {
            actions += 1;
            assert!(actions < 2_000, "one event has no end of consequences");
            match action {
                Action::Verify { ticket, .. } => self.tickets.push(ticket),
                Action::SendChunk { to, key, chunk } => {
                    let have = self.engine.have(key).expect("a blob that is started");
                    assert!(have.contains(chunk), "what is sent is here");
                    self.sending.push((to, key, chunk));
                }
                Action::Send { to: Recipients::One(to), message: PeerMessage::Request { key, chunk, .. } } => {
                    assert!(self.connected.contains(&to), "who is asked is connected");
                    self.requests.push((to, key, chunk));
                }
                Action::Disconnect { peer, reason } => {
                    self.dropped += u64::from(reason == DisconnectReason::Violation);
                    self.connected.retain(|other| *other != peer);
                }
                Action::FetchOrigin { key, epoch, chunks, .. } => self.fetches.push((key, epoch, chunks)),
                _ => {}
            }
        }
        self.engine.check_invariants();
        assert_eq!(self.engine.counters().violations, self.dropped, "who breaks the protocol is dropped and counted");
        assert_eq!(self.engine.peer_count(), self.connected.len());
        for content in &self.contents {
            let bytes = self.engine.heap_bytes(content.key()).unwrap_or_default();
            assert!(bytes <= HEAP_BYTES, "{bytes} bytes for a small blob");
        }
    }

    /// Everybody goes, the tracker withdraws all there was, and one honest neighbour has everything and tells the links. The origin
    /// is out of reach.
    fn an_honest_neighbour_comes(&mut self) {
        while let Some(peer) = self.connected.pop() {
            self.engine.handle_disconnected(self.now, peer);
            self.settle();
        }
        let keys: Vec<BlobKey> = self.contents.iter().map(Content::key).collect();
        for (blob, key) in keys.iter().enumerate() {
            self.start(blob);
            self.engine.handle_directive(self.now, &Directive::Withdraw { key: *key, epoch: 10 });
            self.settle();
        }
        self.connect(NodeId::new(500), "a");
        let honest = *self.connected.last().expect("an honest neighbour is welcome");
        for content in self.contents.clone() {
            let have = ChunkSet::full(content.chunks()).into();
            let join = PeerMessage::Join { blob: content.blob, have, flags: JoinFlags::default() };
            self.engine.handle_message(self.now, honest, &join);
            self.engine.handle_links(self.now, content.key(), &content.whole_chain(11, NodeId::new(500)));
        }
        self.engine.handle_message(self.now, honest, &PeerMessage::Unchoke);
        self.requests.retain(|(peer, ..)| *peer == honest);
        for _ in 0..2_000 {
            self.settle();
            if keys.iter().all(|key| self.engine.have(*key).is_some_and(ChunkSet::is_full)) {
                return;
            }
            for (key, epoch, _) in std::mem::take(&mut self.fetches) {
                self.engine.handle_origin_failed(self.now, key, epoch, OriginFailure::Unreachable);
            }
            for (peer, key, chunk) in std::mem::take(&mut self.requests) {
                self.engine.handle_piece_started(self.now, peer, key, chunk);
                let _ = self.engine.handle_piece(self.now, peer, key, chunk);
            }
            for ticket in std::mem::take(&mut self.tickets) {
                self.engine.handle_verified(self.now, ticket, true);
            }
            self.settle();
            self.engine.handle_message(self.now, honest, &PeerMessage::Unchoke);
            self.wait(ms(100));
        }
        let have: Vec<String> = keys.iter().filter_map(|key| self.engine.have(*key)).map(common::text).collect();
        panic!("an honest neighbour doesn't get through: {have:?}");
    }
}

/// One of the items, if there are any.
fn take<T>(items: &mut Vec<T>, which: usize) -> Option<T> {
    let at = which.checked_rem(items.len())?;
    Some(items.swap_remove(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_breaks(
        config in any_config(), seed in 0_u64..4, begin in prop::bool::weighted(0.8),
        steps in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut world = World::new(config, seed);
        if begin {
            world.begin();
        }
        for step in steps {
            world.step(step);
        }
        if !world.ends {
            world.an_honest_neighbour_comes();
        }
    }
}

/// What breaks the protocol, for a blob of five chunks that a neighbour takes part in.
#[test]
fn every_breach_of_the_protocol_is_named() {
    let content = Content::new(1, CHUNKS[0]);
    let key = content.key();
    let join = |blob: BlobInfo, chunks| {
        let have = ChunkSet::empty(chunks).into();
        PeerMessage::Join { blob, have, flags: JoinFlags::default() }
    };
    let larger = Geometry::new(6 * CHUNK_BYTES, content.blob.geometry.chunk_size()).expect("a small blob");
    let breaches = [
        ("a bitmap of another length", join(content.blob, 6)),
        ("another size of the same blob", join(BlobInfo { geometry: larger, ..content.blob }, 6)),
        ("a have beyond the end", {
            PeerMessage::Have { key, chunks: [ChunkIndex::new(5)].into(), load: Load::default() }
        }),
        ("a promise beyond the end", PeerMessage::Coming { key, chunk: ChunkIndex::new(5) }),
        ("a substitute beyond the end", {
            PeerMessage::Substitute { key, asked: ChunkIndex::new(0), sent: ChunkIndex::new(5) }
        }),
        ("links that nobody has checked", PeerMessage::Links { key, batches: Vec::new() }),
    ];
    for (name, breach) in breaches {
        let mut world = World::new(Config::default(), 1);
        world.connect(NodeId::new(1), "a");
        world.connect(NodeId::new(2), "a");
        let peer = world.connected[0];
        world.engine.handle_message(world.now, peer, &join(content.blob, 5));
        world.settle();
        assert_eq!(world.dropped, 0, "{name}");
        world.engine.handle_message(world.now, peer, &breach);
        world.settle();
        assert_eq!((world.dropped, world.engine.counters().violations, world.engine.peer_count()), (1, 1, 1), "{name}");
        // What it says afterwards reaches nobody.
        world.engine.handle_message(world.now, peer, &breach);
        world.settle();
        assert_eq!(world.dropped, 1, "{name}");
    }
}
