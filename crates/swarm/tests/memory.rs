//! What a blob with its neighbours occupies in an agent: at most 64 KiB for 40 neighbours and 512 chunks.
//!
//! State: none. Absent on purpose: an allocator that counts, which takes unsafe code. The engine's own figure, which goes by
//! capacities, is held against the arithmetic of what must be there.

mod common;

use std::time::Duration;

use shoal_swarm::{Action, Config, Engine, PeerHandle, StartBlob};
use shoal_types::{ChunkSet, NodeId, Time, Zone};
use shoal_wire::{Directive, JoinFlags, LeaseGrant, Load, PeerMessage};

use common::chunk;
use common::content::{Content, TRUE};

const NEIGHBOURS: u16 = 40;
const CHUNKS: u32 = 512;
const BOUND: usize = 64 << 10;

/// Links that one signature covers.
const MERGED: u32 = 8;

/// Who leads, and signs.
const LEAD: NodeId = NodeId::new(1);

/// An agent, its neighbours, and what it has asked them for.
struct Agent {
    engine: Engine,
    content: Content,
    now: Time,
    neighbours: Vec<PeerHandle>,
    requests: usize,
}

impl Agent {
    /// An agent that has these chunks and whose neighbours have those.
    fn new(config: Config, ours: &ChunkSet, theirs: &ChunkSet) -> Self {
        let content = Content::new(1, CHUNKS);
        let mut engine = Engine::new(NodeId::new(0), Zone::default(), config, 1);
        let now = Time::from_nanos(1_000_000_000);
        engine.start(now, StartBlob { blob: content.blob, have: ours.clone(), links: Vec::new(), priority: 0 });
        let mut agent = Self { engine, content, now, neighbours: Vec::new(), requests: 0 };
        for node in 1..=NEIGHBOURS {
            let node = NodeId::new(node.into());
            let peer = agent.engine.handle_connected(now, node, &Zone::default()).expect("room for a neighbour");
            let have = theirs.clone().into();
            let join = PeerMessage::Join { blob: content.blob, have, flags: JoinFlags::default() };
            agent.engine.handle_message(now, peer, &join);
            agent.engine.handle_message(now, peer, &PeerMessage::Unchoke);
            agent.neighbours.push(peer);
        }
        agent.settle();
        agent
    }

    /// An agent that has nothing, whose neighbours have everything and are asked for as much as may be.
    fn leech(config: Config) -> Self {
        Self::new(config, &ChunkSet::empty(CHUNKS), &ChunkSet::full(CHUNKS))
    }

    /// Links as a lead publishes them: each on its own, and eight of them again in one batch.
    fn learn(&mut self) {
        for index in 0..CHUNKS - 1 {
            let single = self.content.singles(1, LEAD, index..index + 1);
            self.engine.handle_links(self.now, self.content.key(), &single);
            if (index + 1) % MERGED == 0 {
                let batch = self.content.batch(1, LEAD, index + 1 - MERGED..index + 1, TRUE);
                self.engine.handle_links(self.now, self.content.key(), &[batch]);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            let asks = matches!(action, Action::Send { message: PeerMessage::Request { .. }, .. });
            self.requests += usize::from(asks);
        }
        self.engine.check_invariants();
    }

    fn bytes(&self) -> usize {
        self.engine.heap_bytes(self.content.key()).expect("a started blob")
    }
}

/// What can't be done without: a bitmap each, a state, an availability and a link a chunk, a signature a batch, a chunk's index and
/// the time of each request.
fn arithmetic(requests: usize) -> usize {
    let chunks = CHUNKS as usize;
    let bitmap = chunks / 8;
    let bitmaps = (usize::from(NEIGHBOURS) + 2) * bitmap;
    let per_chunk = chunks * (1 + 2 + 32);
    let signatures = (chunks - 1).div_ceil(MERGED as usize) * 64;
    bitmaps + per_chunk + signatures + requests * (4 + 8)
}

#[test]
fn forty_neighbours_and_512_chunks_take_at_most_64_kib() {
    let deep = Config { inflight_chunks: 64, ..common::open() };
    for (name, config) in [("default", Config::default()), ("classic", Config::classic()), ("deep pipelines", deep)] {
        let mut agent = Agent::leech(config);
        let before = agent.bytes();
        agent.learn();
        let (bytes, least) = (agent.bytes(), arithmetic(agent.requests));
        println!("{name}: {bytes} bytes, {before} before the links, {} requests, {least} at least", agent.requests);
        assert!(bytes <= BOUND, "{name}: {bytes}");
        assert!(bytes >= least, "{name}: the estimate leaves something out: {bytes} of {least}");
        assert!(bytes <= 2 * least, "{name}: more than half is overhead: {bytes} of {least}");
    }
}

#[test]
fn full_queues_of_requests_are_counted_and_bounded() {
    let config = Config::default();
    let queued = usize::from(config.queued_per_peer);
    let mut agent = Agent::new(config, &ChunkSet::full(CHUNKS), &ChunkSet::empty(CHUNKS));
    let before = agent.bytes();
    let key = agent.content.key();
    for peer in agent.neighbours.clone() {
        for index in 0..CHUNKS {
            let message = PeerMessage::Request { key, chunk: chunk(index), needs_links: true };
            agent.engine.handle_message(agent.now, peer, &message);
        }
    }
    agent.settle();
    let bytes = agent.bytes();
    println!("a seed: {bytes} bytes, {before} without requests");
    // Four neighbours have a place; each of their requests takes a chunk's index, a neighbour and a blob.
    assert!(bytes >= before + 4 * queued * (4 + 2 + 2), "the queues are counted: {before}, {bytes}");
    assert!(bytes <= BOUND, "{bytes}");
}

#[test]
fn a_lead_with_what_it_has_not_published_yet_stays_within_the_bound() {
    let mut agent = Agent::new(Config::default(), &ChunkSet::empty(CHUNKS), &ChunkSet::empty(CHUNKS));
    let (key, me) = (agent.content.key(), NodeId::new(0));
    let grant = LeaseGrant { epoch: 1, frontier: chunk(0), holes: Vec::new(), impatient: false };
    agent.engine.handle_directive(agent.now, &Directive::Lease { key, grant });
    let mut most = 0;
    for index in 0..CHUNKS - 1 {
        // 1 GiB at 10 Gbit/s: a chunk of 2 MiB each 1.7 ms.
        agent.now += Duration::from_micros(1_700);
        agent.engine.handle_timeout(agent.now);
        let link = agent.content.batch(1, me, index..index + 1, TRUE);
        agent.engine.handle_origin_chunk(agent.now, key, 1, chunk(index), Some(&link));
        if (index + 1) % MERGED == 0 {
            let batch = agent.content.batch(1, me, index + 1 - MERGED..index + 1, TRUE);
            agent.engine.handle_merged_links(agent.now, key, &batch);
        }
        for peer in agent.neighbours.clone() {
            let message = PeerMessage::Have { key, chunks: [chunk(index)].into(), load: Load::default() };
            agent.engine.handle_message(agent.now, peer, &message);
        }
        agent.settle();
        most = most.max(agent.bytes());
    }
    println!("a lead: {most} bytes at most");
    assert_eq!(agent.engine.have(key).map(ChunkSet::len), Some(CHUNKS - 1));
    assert!(most <= BOUND, "{most}");
}

#[test]
fn what_is_kept_does_not_grow_with_time() {
    let mut agent = Agent::leech(Config::default());
    agent.learn();
    let mut most = agent.bytes();
    for _ in 0..200 {
        agent.now += Duration::from_millis(500);
        agent.engine.handle_timeout(agent.now);
        for peer in agent.neighbours.clone() {
            agent.engine.handle_message(agent.now, peer, &PeerMessage::Choke);
            agent.engine.handle_message(agent.now, peer, &PeerMessage::Unchoke);
        }
        agent.settle();
        most = most.max(agent.bytes());
    }
    println!("after 100 s of silence: {most} bytes at most");
    assert!(most <= BOUND, "{most}");
}
