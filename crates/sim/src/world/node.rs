//! A simulated node: the engine's driver in virtual time.
//!
//! State: the engine, its connections, its cores, the content that it keeps, when it was done.
//! Invariants: a chunk is served only if the engine has verified it; a core does one thing at a time.
//! Absent on purpose: everything that the engine decides.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_swarm::{Engine, PeerHandle};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, Time};

use crate::content::{TRUE, Variant};
use crate::net::LinkId;
use crate::setup::{Costs, Role};
use crate::world::event::NodeIx;

/// A connection as one end has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    pub(crate) node: NodeIx,
    /// Our handle of the neighbour.
    pub(crate) local: PeerHandle,
    /// The neighbour's handle of us.
    pub(crate) remote: PeerHandle,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) role: Role,
    pub(crate) zone: usize,
    pub(crate) up: LinkId,
    pub(crate) down: LinkId,
    pub(crate) alive: bool,
    pub(crate) wants: Vec<usize>,
    pub(crate) missing: usize,
    pub(crate) pulls_at: Time,
    pub(crate) finished: Option<Time>,
    pub(crate) timer_at: Time,
    pub(crate) conns: Vec<Option<Conn>>,
    pub(crate) dialing: Vec<NodeIx>,
    /// Chunks whose content isn't the origin's.
    pub(crate) wrong: BTreeMap<(usize, ChunkIndex), Variant>,
    /// Content that has arrived and waits for its verification, and when it began to come.
    pub(crate) unverified: BTreeMap<(usize, ChunkIndex, PeerHandle), (Variant, Time)>,
    pub(crate) origin_connected: bool,
    cores: Vec<Time>,
    handshakes: Time,
}

impl Node {
    pub(crate) fn new(engine: Engine, role: Role, zone: usize, (up, down): (LinkId, LinkId), cores: usize) -> Self {
        Self {
            engine,
            role,
            zone,
            up,
            down,
            alive: true,
            wants: Vec::new(),
            missing: 0,
            pulls_at: Time::ZERO,
            finished: None,
            timer_at: Time::MAX,
            conns: Vec::new(),
            dialing: Vec::new(),
            wrong: BTreeMap::new(),
            unverified: BTreeMap::new(),
            origin_connected: false,
            cores: vec![Time::ZERO; cores.max(1)],
            handshakes: Time::ZERO,
        }
    }

    pub(crate) fn conn(&self, peer: PeerHandle) -> Option<Conn> {
        self.conns.get(peer.index()).copied().flatten().filter(|conn| conn.local == peer)
    }

    pub(crate) fn add_conn(&mut self, conn: Conn) {
        let at = conn.local.index();
        if self.conns.len() <= at {
            self.conns.resize(at + 1, None);
        }
        self.conns[at] = Some(conn);
    }

    pub(crate) fn drop_conn(&mut self, peer: PeerHandle) -> Option<Conn> {
        let conn = self.conn(peer)?;
        self.conns[peer.index()] = None;
        Some(conn)
    }

    /// Whoever pulls reads what has come, as far as it has come without a gap.
    pub(crate) fn read_on(&mut self, key: BlobKey) {
        let next = self.engine.have(key).map(ChunkSet::prefix_len).map(ChunkIndex::new);
        self.engine.set_stream(key, next);
    }

    /// When a chunk has been hashed that began to come at `began` and is here now. It is hashed while it comes, on whichever core
    /// is free first: done when that core has got through all of it, and not before the last piece has come and been hashed.
    pub(crate) fn hash(&mut self, began: Time, now: Time, bytes: u64) -> Time {
        let core = self.cores.iter_mut().min();
        let Some(core) = core else { unreachable!("a node has a core") };
        *core = (*core).max(began) + hash_time(bytes);
        (*core).max(now + hash_time(bytes.min(Costs::PIECE)))
    }

    /// When a handshake that comes now is worked off. Handshakes queue for one core of their own: a node has more than the
    /// agent's hashing may use.
    pub(crate) fn handshake(&mut self, now: Time) -> Time {
        self.handshakes = self.handshakes.max(now) + Costs::CONNECT_CPU;
        self.handshakes
    }

    /// The content of a chunk that the node has.
    pub(crate) fn variant(&self, blob: usize, chunk: ChunkIndex) -> Variant {
        self.wrong.get(&(blob, chunk)).copied().unwrap_or(TRUE)
    }
}

/// How long hashing takes on one core.
#[allow(clippy::cast_precision_loss, reason = "chunks are far below 2^53 bytes")]
pub(crate) fn hash_time(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / Costs::HASH_RATE)
}
