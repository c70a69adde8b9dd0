//! Promises: a chunk that has begun to arrive may be asked for before it is here, so that it goes on as soon as it is verified.
//!
//! Without them a hop of a chunk's spread takes three trips: told, asked for, sent. With them the first two are over while the chunk
//! is still coming. Whoever has a place here is told of the first bytes (`Coming`); a neighbour's request then waits until the chunk is
//! verified. A chunk that is asked for on a promise is asked for only if nothing that is there can be had, and it takes no room from that.
//!
//! State: per blob, what we have promised, and what neighbours have promised us and we haven't asked for.
//! Invariants: who has promised a chunk asks nobody for it on a promise, so nobody waits in a circle when it turns out wrong; the table is
//! bounded by [`HEARD`].
//! Absent on purpose: blame. A promise that isn't kept was broken by whoever sent the chunk there, more likely than not.

use std::collections::VecDeque;

use shoal_types::{BlobKey, ChunkIndex, ChunkSet, Time};
use shoal_wire::{PeerMessage, RejectReason};

use crate::action::{Action, Recipients};
use crate::engine::{Engine, Violation};
use crate::peer::{BlobSlot, Outstanding, Peer, PeerHandle};
use crate::transfer::{ChunkState, Transfer};

/// Promises that are remembered, the latest ones: twice as many sources as there usually are, with four chunks arriving at each, and as
/// much to spare.
const HEARD: usize = 64;

/// A neighbour that sends other chunks may take so many times longer for a promised one.
const KEPT_WAITING: u32 = 8;

/// What is promised of one blob.
#[derive(Debug)]
pub(crate) struct Promises {
    given: ChunkSet,
    heard: VecDeque<(u16, ChunkIndex)>,
}

impl Promises {
    pub(crate) fn new(chunks: u32) -> Self {
        Self { given: ChunkSet::empty(chunks), heard: VecDeque::new() }
    }

    /// Whether we have promised the chunk, at any time since links were withdrawn last.
    pub(crate) fn gave(&self, chunk: ChunkIndex) -> bool {
        self.given.contains(chunk)
    }

    /// A neighbour takes no part any more.
    pub(crate) fn forget(&mut self, peer: u16) {
        self.heard.retain(|(from, _)| *from != peer);
    }

    /// Links were withdrawn: what is arriving may be wrong.
    pub(crate) fn forget_all(&mut self) {
        *self = Self::new(self.given.capacity());
    }

    /// What this occupies on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.given.heap_bytes() + self.heard.capacity() * size_of::<(u16, ChunkIndex)>()
    }

    fn hear(&mut self, peer: u16, chunk: ChunkIndex) {
        if self.heard.len() == HEARD {
            self.heard.pop_front();
        }
        self.heard.push_back((peer, chunk));
    }
}

impl Transfer {
    /// Whether a chunk is on its way here and was promised.
    pub(crate) fn will_have(&self, chunk: ChunkIndex) -> bool {
        self.blob.geometry.contains(chunk)
            && self.promises.gave(chunk)
            && !matches!(self.state(chunk), ChunkState::Missing | ChunkState::Have)
    }
}

impl Engine {
    /// A chunk begins to arrive: those who have a place here and lack it are told, once.
    pub(crate) fn promise(&mut self, slot: BlobSlot, chunk: ChunkIndex) {
        if !self.config.promises || !self.transfer_mut(slot).promises.given.insert(chunk) {
            return;
        }
        let transfer = self.transfer(slot);
        let served = self.peers.served().iter().filter_map(|peer| transfer.member(*peer));
        let mut lacking: Vec<usize> = served.filter(|at| !transfer.member_has(*at, chunk)).collect();
        lacking.sort_unstable();
        let to: Vec<PeerHandle> =
            lacking.into_iter().map(|at| self.peers.handle_at(transfer.members[at].peer)).collect();
        if !to.is_empty() {
            let key = transfer.blob.key();
            self.act(Action::Send { to: Recipients::Many(to), message: PeerMessage::Coming { key, chunk } });
        }
    }

    /// A chunk is arriving at a neighbour.
    pub(crate) fn handle_coming(
        &mut self,
        now: Time,
        from: PeerHandle,
        key: BlobKey,
        chunk: ChunkIndex,
    ) -> Result<(), Violation> {
        let Some(slot) = self.find(key) else { return Ok(()) };
        let promises = self.config.promises;
        let transfer = self.transfer_mut(slot);
        if !transfer.blob.geometry.contains(chunk) {
            return Err(Violation);
        }
        let Some(member) = transfer.member(from.slot) else { return Ok(()) };
        if promises && transfer.state(chunk) == ChunkState::Missing && !transfer.member_has(member, chunk) {
            transfer.promises.hear(from.slot, chunk);
            self.fill(now);
        }
        Ok(())
    }

    /// A chunk that is arriving at a neighbour that may be asked for it: at the least busy one, and what fewest have.
    pub(crate) fn choose_promised(&mut self, now: Time, slot: BlobSlot) -> Option<(ChunkIndex, u16)> {
        let transfer = self.transfer(slot);
        let across = self.may_ask_across(now, transfer);
        let fits = |(peer, chunk): &(u16, ChunkIndex)| {
            transfer.state(*chunk) == ChunkState::Missing
                && !transfer.promises.gave(*chunk)
                && self.may_ask_for_promised(now, transfer, *peer, across)
        };
        let heard = transfer.promises.heard.iter().enumerate().filter(|(_, promise)| fits(promise));
        let (at, _) = heard.min_by_key(|(_, (peer, chunk))| {
            (self.peers.at(*peer).outstanding.len(), transfer.availability[chunk.as_usize()])
        })?;
        let (peer, chunk) = self.transfer_mut(slot).promises.heard.remove(at)?;
        Some((chunk, peer))
    }

    /// Whether a neighbour may be asked for what it hasn't yet: beside a pipeline of what it has.
    fn may_ask_for_promised(&self, now: Time, transfer: &Transfer, peer: u16, across: bool) -> bool {
        let Some(member) = transfer.member(peer) else { return false };
        let peer = self.peers.at(peer);
        let room = (2 * self.pipeline(peer, transfer)).min(usize::from(self.config.inflight_per_peer));
        !peer.chokes_us()
            && !transfer.members[member].suspect
            && peer.outstanding.len() < room
            && peer.snubbed_until <= now
            && (peer.near || across)
    }

    /// Why a chunk that is asked for isn't here: what was promised and turned out wrong was no false claim.
    pub(crate) fn why_absent(&self, slot: Option<BlobSlot>, chunk: ChunkIndex) -> RejectReason {
        let promised = |slot: BlobSlot| {
            let transfer = self.transfer(slot);
            transfer.blob.geometry.contains(chunk) && transfer.promises.gave(chunk)
        };
        if slot.is_some_and(promised) { RejectReason::Withdrawn } else { RejectReason::Absent }
    }

    /// A neighbour has what we asked it for: from now on it is to send it.
    pub(crate) fn promise_kept(&mut self, now: Time, slot: BlobSlot, chunk: ChunkIndex, peer: u16) {
        let owed = &mut self.peers.at_mut(peer).outstanding;
        if let Some(owed) = owed.iter_mut().find(|owed| (owed.blob, owed.chunk) == (slot, chunk)) {
            owed.promised = false;
            owed.asked = now;
        }
    }

    /// What was promised comes to the neighbour first and then to us: it may take twice what a chunk takes from there, and longer as long as other
    /// chunks come from there. Taken back sooner, on a slow link, it is on its way already and comes in vain.
    fn is_overdue(&self, now: Time, peer: &Peer, owed: &Outstanding) -> bool {
        let longest = self.config.snub_after;
        let takes = peer.pace.time_for(self.transfer(owed.blob).chunk_bytes(owed.chunk));
        let takes = takes.unwrap_or(longest).min(longest) + self.round_trip.unwrap_or_default();
        let patience = (Self::SWEEP + takes * 2).min(longest);
        !owed.is_due()
            && (now.since(owed.asked.max(peer.heard)) >= patience || now.since(owed.asked) >= patience * KEPT_WAITING)
    }

    /// What was promised a while ago and somebody else has by now is to be had there.
    pub(crate) fn give_up_promises(&mut self, now: Time) {
        let mut overdue = Vec::new();
        for (handle, peer) in self.peers.iter() {
            let late = peer.outstanding.iter().filter(|owed| self.is_overdue(now, peer, owed));
            let had = late.filter(|owed| self.transfer(owed.blob).availability[owed.chunk.as_usize()] > 0);
            overdue.extend(had.map(|owed| (owed.blob, owed.chunk, handle.slot)));
        }
        for (slot, chunk, peer) in overdue {
            self.send_cancel(slot, chunk, peer);
            self.lose_request(slot, chunk, peer);
        }
    }
}
