//! The engine itself: its state, the blobs' and neighbours' coming and going, and the dispatch of messages.
//!
//! State: everything that the other modules work on.
//! Invariants: a membership exists only while its neighbour is connected and its blob started; totals equal the sums of their parts.
//! Absent on purpose: policy. That is in the modules named after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shoal_chain::VerifiedLinks;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, NodeId, Rng, Time, Zone};
use shoal_wire::{AnnounceEvent, PeerMessage};

use crate::action::{Action, DisconnectReason, Recipients};
use crate::chain_state::Learned;
use crate::choker::Choker;
use crate::config::{Config, Serving};
use crate::limit::Limit;
use crate::peer::{BlobSlot, PeerHandle, Peers};
use crate::serve::Uploads;
use crate::timers::Timers;
use crate::transfer::Transfer;

/// Batches of links in one message: with 4 MiB chunks and one link a batch this is a quarter of a GiB's chain.
const LINK_BATCHES: usize = 64;

/// The exchange of one agent.
#[derive(Debug)]
pub struct Engine {
    pub(crate) me: NodeId,
    pub(crate) zone: Zone,
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) peers: Peers,
    pub(crate) transfers: Vec<Option<Transfer>>,
    pub(crate) by_key: BTreeMap<BlobKey, BlobSlot>,
    /// The blobs by priority.
    pub(crate) order: Vec<BlobSlot>,
    pub(crate) uploads: Uploads,
    pub(crate) upload_limit: Limit,
    pub(crate) download_limit: Limit,
    pub(crate) choker: Choker,
    pub(crate) timers: Timers,
    pub(crate) banned: BTreeSet<NodeId>,
    /// Proven liars that the tracker has not been told of.
    pub(crate) accusations: Vec<NodeId>,
    /// Whether the origin may be fetched from: not with a full disk.
    pub(crate) can_lead: bool,
    /// The shortest time between a request and its chunk's first bytes.
    pub(crate) round_trip: Option<Duration>,
    pub(crate) counters: Counters,
    pub(crate) scratch: Scratch,
    actions: VecDeque<Action>,
}

/// Buffers that a choice of chunks needs, kept to save their allocation.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) candidates: Vec<u64>,
    pub(crate) askable: Vec<u16>,
    pub(crate) theirs: Vec<u64>,
}

/// A neighbour has broken the protocol.
#[derive(Debug)]
pub(crate) struct Violation;

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chunks' bytes that came from peers.
    pub bytes_received: u64,
    /// Chunks' bytes that went to peers.
    pub bytes_sent: u64,
    /// Of those received, bytes that were wrong or here already.
    pub bytes_wasted: u64,
    /// Chunks whose links refuted them.
    pub chunks_wrong: u64,
    /// Neighbours that were dropped because they broke the protocol.
    pub violations: u64,
    /// Times that a silent neighbour lost its requests.
    pub snubs: u64,
    /// Nodes refused for good.
    pub bans: u64,
}

/// A blob to take part in.
#[derive(Debug)]
pub struct StartBlob {
    /// The blob.
    pub blob: BlobInfo,
    /// The chunks that are here, verified under `links`: what was kept from last time.
    pub have: ChunkSet,
    /// The links that were kept.
    pub links: Vec<VerifiedLinks>,
    /// Lower comes first: the layer's place in its image.
    pub priority: u32,
}

impl Engine {
    /// An agent's engine. The seed decides every tie.
    #[must_use]
    pub fn new(me: NodeId, zone: Zone, config: Config, seed: u64) -> Self {
        let mut timers = Timers::idle();
        if matches!(config.serving, Serving::TitForTat { .. }) {
            timers.rechoke = Time::ZERO;
        }
        Self {
            me,
            zone,
            rng: Rng::new(seed),
            peers: Peers::default(),
            transfers: Vec::new(),
            by_key: BTreeMap::new(),
            order: Vec::new(),
            uploads: Uploads::default(),
            upload_limit: Limit::new(config.upload_limit),
            download_limit: Limit::new(config.download_limit),
            choker: Choker::default(),
            timers,
            banned: BTreeSet::new(),
            accusations: Vec::new(),
            can_lead: true,
            round_trip: None,
            counters: Counters::default(),
            scratch: Scratch::default(),
            actions: VecDeque::new(),
            config,
        }
    }

    /// This node's zone, where it is learnt only after the start. Who is near is decided when a neighbour connects, so it comes before the first.
    pub fn set_zone(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// Takes part in a blob's swarm. A blob that is started already only gets the better priority.
    pub fn start(&mut self, now: Time, start: StartBlob) {
        let StartBlob { blob, have, links, priority } = start;
        assert_eq!(have.capacity(), blob.geometry.chunk_count(), "the caller's set is one of this blob");
        if let Some(slot) = self.find(blob.key()) {
            let transfer = self.transfer_mut(slot);
            transfer.priority = transfer.priority.min(priority);
            self.sort_order();
            return;
        }
        let mut transfer = Transfer::new(blob, have, priority, now);
        for batch in &links {
            let _ = transfer.chain.learn(batch);
        }
        if transfer.finished {
            transfer.chain.close();
        }
        self.enter(now, transfer);
    }

    /// Gives a blob its place and tells everybody.
    pub(crate) fn enter(&mut self, now: Time, transfer: Transfer) {
        let key = transfer.blob.key();
        let free = self.transfers.iter().position(Option::is_none).unwrap_or(self.transfers.len());
        // 65,536 blobs at a time is more than any node pulls; the driver bounds it far lower.
        let slot = BlobSlot(u16::try_from(free).unwrap_or_else(|_| panic!("{free} blobs at a time")));
        if free == self.transfers.len() {
            self.transfers.push(None);
        }
        self.transfers[free] = Some(transfer);
        self.by_key.insert(key, slot);
        self.order.push(slot);
        self.sort_order();
        let to: Vec<PeerHandle> = self.peers.handles().collect();
        if !to.is_empty() {
            let message = self.join_message(slot, true);
            self.act(Action::Send { to: Recipients::Many(to), message });
        }
        self.timers.sweep = self.timers.sweep.min(now + Self::SWEEP);
        self.timers.rechoke = self.timers.rechoke.min(now + Self::SWEEP);
        self.announce_soon(now, slot);
        self.announce_due(now);
    }

    /// Leaves a blob's swarm; the chunks that are here stay the caller's.
    pub fn stop(&mut self, now: Time, key: BlobKey) -> Option<ChunkSet> {
        let slot = self.find(key)?;
        self.end_lease(now, slot, None);
        self.announce(now, slot, AnnounceEvent::Stopped);
        let members: Vec<u16> = self.transfer(slot).members.iter().map(|member| member.peer).collect();
        let to = members.iter().map(|peer| self.peers.handle_at(*peer)).collect();
        self.act(Action::Send { to: Recipients::Many(to), message: PeerMessage::Leave { key } });
        members.into_iter().for_each(|peer| self.end_membership(slot, peer));
        let peers = &mut self.peers;
        self.uploads.sending.retain(|sent| {
            let stays = sent.blob != slot;
            if let (false, Some(peer)) = (stays, peers.get_mut(sent.peer)) {
                peer.sending -= 1;
            }
            stays
        });
        self.by_key.remove(&key);
        self.order.retain(|other| *other != slot);
        let transfer = self.transfers[usize::from(slot.0)].take()?;
        self.fill(now);
        self.pump(now);
        Some(transfer.have)
    }

    /// Somebody reads the blob as a stream and has come to this chunk; nobody does any more, if none.
    pub fn set_stream(&mut self, key: BlobKey, next: Option<ChunkIndex>) {
        if let Some(slot) = self.find(key) {
            self.transfer_mut(slot).stream_next = next;
        }
    }

    /// Whether this agent would fetch from an origin: not with a full disk.
    pub fn set_can_lead(&mut self, can_lead: bool) {
        self.can_lead = can_lead;
    }

    /// A connection to a node stands, whoever opened it. None if it is refused: the node is banned, is connected already, or
    /// there are twice as many neighbours as this agent looks for itself.
    pub fn handle_connected(&mut self, now: Time, node: NodeId, zone: &Zone) -> Option<PeerHandle> {
        let full = self.peers.len() >= 2 * usize::from(self.config.max_peers);
        if node == self.me || full || self.banned.contains(&node) {
            return None;
        }
        let handle = self.peers.insert(node, zone, &self.zone, now)?;
        if self.config.serving != Serving::Open {
            self.peers.note_choked(handle.slot, true);
            self.peers.note_chokes_us(handle.slot, true);
        }
        for slot in self.slots() {
            let message = self.join_message(slot, true);
            self.act(Action::Send { to: Recipients::One(handle), message });
        }
        Some(handle)
    }

    /// A connection is gone.
    pub fn handle_disconnected(&mut self, now: Time, peer: PeerHandle) {
        self.forget_peer(now, peer);
    }

    /// A neighbour has said something. Links go to [`Self::handle_links`] instead, once the driver has checked their signatures.
    pub fn handle_message(&mut self, now: Time, from: PeerHandle, message: &PeerMessage) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        if !matches!(message, PeerMessage::Request { .. } | PeerMessage::Have { .. } | PeerMessage::Coming { .. })
            || peer.outstanding.is_empty()
        {
            peer.heard = now;
        }
        let result = match message {
            PeerMessage::Join { blob, have, flags } => self.handle_join(now, from, *blob, have, *flags),
            PeerMessage::Have { key, chunks, load } => self.handle_have(now, from, *key, chunks, *load),
            PeerMessage::Coming { key, chunk } => self.handle_coming(now, from, *key, *chunk),
            PeerMessage::Request { key, chunk, needs_links } => {
                self.handle_request(now, from, (*key, *chunk), *needs_links);
                Ok(())
            }
            PeerMessage::Cancel { key, chunk } => {
                self.handle_cancel(now, from, *key, *chunk);
                Ok(())
            }
            PeerMessage::Reject { key, chunk, reason } => {
                self.handle_reject(now, from, (*key, *chunk), *reason);
                Ok(())
            }
            PeerMessage::Leave { key } => {
                self.handle_leave(now, from, *key);
                Ok(())
            }
            PeerMessage::Choke => {
                self.peers.note_chokes_us(from.slot, true);
                self.lose_waiting_requests_of(from.slot);
                self.fill(now);
                Ok(())
            }
            PeerMessage::Unchoke => {
                self.handle_unchoke(now, from);
                Ok(())
            }
            PeerMessage::Decline => {
                self.handle_decline(now, from);
                Ok(())
            }
            PeerMessage::Hungry { sources } => {
                self.handle_hungry(now, from, *sources);
                Ok(())
            }
            PeerMessage::Substitute { key, asked, sent } => self.handle_substitute(now, from, *key, (*asked, *sent)),
            // Unchecked links would let anyone blame anyone.
            PeerMessage::Links { .. } => Err(Violation),
            PeerMessage::LinksWanted { key, from: first } => {
                self.handle_links_wanted(from, *key, *first);
                Ok(())
            }
        };
        if let Err(Violation) = result {
            self.counters.violations += 1;
            self.forget_peer(now, from);
            self.act(Action::Disconnect { peer: from, reason: DisconnectReason::Violation });
        }
    }

    /// Links have come, from a neighbour or from the tracker, and their signatures are their publishers'.
    pub fn handle_links(&mut self, now: Time, key: BlobKey, batches: &[VerifiedLinks]) {
        let Some(slot) = self.find(key).filter(|slot| !self.transfer(*slot).local) else { return };
        let mut news = false;
        for batch in batches {
            match self.transfer_mut(slot).chain.learn(batch) {
                Learned::New => news = true,
                Learned::Nothing => {}
                Learned::Contradicts { epoch } => {
                    // Two publishers contradict each other: the tracker weighs it. A later lead has read the origin itself.
                    if batch.get().batch.epoch > epoch {
                        self.transfer_mut(slot).announce.false_chain = Some(epoch);
                        self.announce_soon(now, slot);
                    }
                }
            }
        }
        if news {
            self.verify_held(slot);
            self.drive_lead(now, slot);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Nodes that are refused for good.
    pub fn banned(&self) -> impl Iterator<Item = NodeId> {
        self.banned.iter().copied()
    }

    /// How many neighbours are connected.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// The chunks of a blob that are here, verified.
    #[must_use]
    pub fn have(&self, key: BlobKey) -> Option<&ChunkSet> {
        Some(&self.transfer(self.find(key)?).have)
    }

    /// What the engine occupies for a blob and its neighbours, in bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self, key: BlobKey) -> Option<usize> {
        let peers: usize = self
            .peers
            .iter()
            .map(|(_, peer)| size_of_val(peer) + peer.outstanding.capacity() * size_of::<crate::peer::Outstanding>())
            .sum();
        let waiting = self.uploads.waiting.capacity() * size_of::<crate::serve::Waiting>();
        Some(self.transfer(self.find(key)?).heap_bytes() + peers + waiting)
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn slots(&self) -> Vec<BlobSlot> {
        self.order.clone()
    }

    /// The size of the largest chunks of any blob.
    pub(crate) fn largest_chunk(&self) -> u32 {
        let sizes = self.transfers.iter().flatten().map(|transfer| transfer.blob.geometry.chunk_size().bytes());
        sizes.max().unwrap_or_default()
    }

    pub(crate) fn transfer(&self, slot: BlobSlot) -> &Transfer {
        match &self.transfers[usize::from(slot.0)] {
            Some(transfer) => transfer,
            None => unreachable!("a slot in by_key or order holds a transfer"),
        }
    }

    pub(crate) fn transfer_mut(&mut self, slot: BlobSlot) -> &mut Transfer {
        match &mut self.transfers[usize::from(slot.0)] {
            Some(transfer) => transfer,
            None => unreachable!("a slot in by_key or order holds a transfer"),
        }
    }

    pub(crate) fn forget_peer(&mut self, now: Time, peer: PeerHandle) {
        if self.peers.get(peer).is_none() {
            return;
        }
        for slot in self.slots() {
            if self.transfer(slot).member(peer.slot).is_some() {
                self.end_membership(slot, peer.slot);
            }
        }
        self.uploads.sending.retain(|sent| sent.peer != peer);
        self.peers.remove(peer);
        self.fill_slots(now);
        self.fill(now);
        self.pump(now);
    }

    fn handle_links_wanted(&mut self, from: PeerHandle, key: BlobKey, first: ChunkIndex) {
        let Some(slot) = self.find(key) else { return };
        let batches = self.transfer(slot).chain.batches_from(first, LINK_BATCHES);
        if !batches.is_empty() {
            self.act(Action::Send { to: Recipients::One(from), message: PeerMessage::Links { key, batches } });
        }
    }

    fn sort_order(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.sort_by_key(|slot| (self.transfer(*slot).priority, *slot));
        self.order = order;
    }
}
