//! Which chunk to ask whom for: the leech's side of the exchange.
//!
//! State: none of its own; it moves chunks between the states of `transfer` and keeps the neighbours' outstanding lists.
//! Invariants: a chunk in state Requested or Arriving stands in that neighbour's outstanding list; more than one neighbour owes a
//! chunk only in the endgame; a neighbour owes at most `inflight_per_peer` chunks.
//! Absent on purpose: the order among chunks (`picker`), the bytes.

use std::time::Duration;

use shoal_types::{BlobKey, ChunkIndex, Time};
use shoal_wire::{PeerMessage, RejectReason};

use crate::action::{Action, Recipients, VerifyTicket};
use crate::config::{Config, Serving};
use crate::engine::{Engine, Violation};
use crate::peer::{BlobSlot, Outstanding, Peer, PeerHandle};
use crate::picker::{self, Situation};
use crate::transfer::{ChunkState, Transfer};

/// `Config::inflight_bytes` are asked for where they come within this time.
const QUEUED_FOR: Duration = Duration::from_millis(5);

/// A peer that said three times to have what it hadn't is not asked again for this blob.
pub(crate) const FALSE_CLAIMS: u16 = 3;

impl Engine {
    /// The first bytes of a chunk have come.
    pub fn handle_piece_started(&mut self, now: Time, from: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let Some(slot) = self.find(key) else { return };
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.heard = now;
        let Some(owed) = peer.outstanding.iter_mut().find(|owed| owed.blob == slot && owed.chunk == chunk) else {
            return;
        };
        owed.arriving = true;
        let waited = now.since(owed.asked);
        // The shortest seen: longer ones contain the sender's queue.
        self.round_trip = Some(self.round_trip.map_or(waited, |shortest| shortest.min(waited)));
        if let ChunkState::Requested { peer } = self.transfer(slot).state(chunk) {
            self.transfer_mut(slot).set_state(chunk, ChunkState::Arriving { peer: from.slot });
            if peer != from.slot {
                self.cancel_others(slot, chunk, from.slot);
            }
            self.promise(slot, chunk);
        }
    }

    /// Some bytes of a chunk have come: on a slow link a large one takes longer than a silent neighbour is waited for.
    pub fn handle_piece_progress(&mut self, now: Time, from: PeerHandle) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.heard = now;
        }
    }

    /// All bytes of a chunk have come. Whether the driver is to keep them until a `Verify` follows; else they are of no use.
    #[must_use]
    pub fn handle_piece(&mut self, now: Time, from: PeerHandle, key: BlobKey, chunk: ChunkIndex) -> bool {
        let Some(slot) = self.find(key) else { return false };
        if self.peers.get(from).is_none() || !self.transfer(slot).blob.geometry.contains(chunk) {
            return false;
        }
        let bytes = self.transfer(slot).chunk_bytes(chunk);
        self.counters.bytes_received += bytes;
        let owed = self.settle(slot, chunk, from.slot);
        if let Some(peer) = self.peers.get_mut(from) {
            peer.heard = now;
            peer.pace.received(now, bytes);
            if owed.is_some() {
                peer.bytes_from += bytes;
                peer.merit += bytes;
                peer.snubbed_until = Time::ZERO;
            }
        }
        let transfer = self.transfer(slot);
        // What was cancelled may come all the same. From a stranger nobody could drop it when the connection ends, and a suspect
        // could keep a chunk from ever being right.
        let trusted = transfer.member(from.slot).is_some_and(|member| !transfer.members[member].suspect);
        let useful = match transfer.state(chunk) {
            // Its links may travel with the one that was asked for.
            ChunkState::Missing | ChunkState::Requested { .. } | ChunkState::Arriving { .. } => {
                owed.is_some() || trusted && transfer.chain.can_verify(chunk)
            }
            _ => false,
        };
        if !useful {
            self.counters.bytes_wasted += bytes;
            self.fill(now);
            return false;
        }
        self.cancel_others(slot, chunk, from.slot);
        self.transfer_mut(slot).set_state(chunk, ChunkState::Held { peer: from.slot });
        self.verify_if_possible(slot, chunk);
        self.fill(now);
        true
    }

    /// The driver has verified a chunk: it is kept, or its bytes are gone.
    pub fn handle_verified(&mut self, now: Time, ticket: VerifyTicket, right: bool) {
        let VerifyTicket { key, chunk, from, generation } = ticket;
        let Some(slot) = self.find(key) else { return };
        let transfer = self.transfer_mut(slot);
        let verifying = matches!(transfer.state(chunk), ChunkState::Verifying { peer } if peer == from.slot);
        if !verifying || transfer.generation != generation {
            return;
        }
        let bytes = transfer.chunk_bytes(chunk);
        if right {
            transfer.bytes_from_peers += bytes;
            self.chunk_is_here(now, slot, chunk);
        } else {
            self.counters.bytes_wasted += bytes;
            self.reopen(slot, chunk);
            self.blame(now, slot, chunk, from);
        }
        self.fill(now);
        self.pump(now);
    }

    /// Asks for chunks until enough are under way.
    pub(crate) fn fill(&mut self, now: Time) {
        if self.transfers.iter().flatten().all(Transfer::is_served) {
            return;
        }
        for at in 0..self.order.len() {
            let slot = self.order[at];
            if !self.transfer(slot).is_served() && !self.fill_one(now, slot) {
                break;
            }
        }
        self.note_useless(now);
    }

    /// Asks for chunks of one blob; whether there is room for more.
    fn fill_one(&mut self, now: Time, slot: BlobSlot) -> bool {
        let mut candidates = std::mem::take(&mut self.scratch.candidates);
        let mut askable = std::mem::take(&mut self.scratch.askable);
        let mut room = true;
        loop {
            self.collect(now, slot, &mut askable, &mut candidates);
            let here = self.choose(slot, &mut askable, &candidates);
            let Some((chunk, peer)) = here.or_else(|| self.choose_promised(now, slot)) else { break };
            let ready = self.download_limit.ready_at(now);
            if ready > now {
                self.timers.limit = self.timers.limit.min(ready);
                room = false;
                break;
            }
            self.download_limit.take(now, self.transfer(slot).chunk_bytes(chunk));
            self.transfer_mut(slot).set_state(chunk, ChunkState::Requested { peer });
            self.ask(now, slot, chunk, peer);
        }
        self.scratch.candidates = candidates;
        self.scratch.askable = askable;
        if room {
            self.endgame(now, slot);
        }
        room
    }

    /// The members that may be asked, and the wanted chunks that at least one of them has.
    fn collect(&self, now: Time, slot: BlobSlot, askable: &mut Vec<u16>, candidates: &mut Vec<u64>) {
        let transfer = self.transfer(slot);
        askable.clear();
        candidates.clear();
        candidates.resize(transfer.wanted.len(), 0);
        if transfer.nothing_missing() {
            return;
        }
        let across = self.may_ask_across(now, transfer);
        for at in self.peers.sources().iter().filter_map(|peer| transfer.member(*peer)) {
            if self.may_ask(now, transfer, at, across) {
                askable.push(u16::try_from(at).unwrap_or_else(|_| unreachable!("as many members as neighbours")));
                for (candidate, has) in candidates.iter_mut().zip(transfer.member_words(at)) {
                    *candidate |= has;
                }
            }
        }
        askable.sort_unstable();
        for (candidate, wanted) in candidates.iter_mut().zip(&transfer.wanted) {
            *candidate &= wanted;
        }
    }

    /// Whether a zone's ordinary agent may ask across: its gateway is itself, or nothing has come for a while.
    pub(crate) fn may_ask_across(&self, now: Time, transfer: &Transfer) -> bool {
        transfer.gateway == Some(self.me) || transfer.idle(now) >= self.config.zone_patience
    }

    fn may_ask(&self, now: Time, transfer: &Transfer, member: usize, across: bool) -> bool {
        let member = &transfer.members[member];
        let peer = self.peers.at(member.peer);
        member.count > 0
            && !peer.chokes_us()
            && !member.suspect
            && peer.owed_now() < self.pipeline(peer, transfer)
            && peer.outstanding.len() < usize::from(self.config.inflight_per_peer)
            && peer.snubbed_until <= now
            && (peer.near || across)
    }

    /// How many chunks a neighbour may owe: twice what it sends in a round trip and a chunk, so that its queue never runs dry, or a few
    /// milliseconds' worth. More would wait there, while somebody else could have sent it.
    pub(crate) fn pipeline(&self, peer: &Peer, transfer: &Transfer) -> usize {
        let Config { inflight_chunks, inflight_bytes, inflight_round_trips, inflight_per_peer, .. } = self.config;
        let chunk_bytes = u64::from(transfer.blob.geometry.chunk_size().bytes());
        let in_flight = u64::from(inflight_round_trips) * peer.pace.bytes_in(self.round_trip.unwrap_or_default());
        let queued = match peer.pace.bytes_in(QUEUED_FOR) {
            0 => u64::from(inflight_bytes),
            soon => soon.min(u64::from(inflight_bytes)),
        };
        let chunks = (1 + in_flight.div_ceil(chunk_bytes)).max(queued / chunk_bytes);
        let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
        chunks.max(usize::from(inflight_chunks)).min(usize::from(inflight_per_peer))
    }

    /// The least busy of those that may be asked, near ones first, and the best chunk that it has.
    fn choose(&mut self, slot: BlobSlot, askable: &mut Vec<u16>, candidates: &[u64]) -> Option<(ChunkIndex, u16)> {
        let stream_percent = usize::from(self.config.stream_percent);
        let follow_stream = stream_percent > 0 && self.rng.below(100) < stream_percent;
        let situation = Situation {
            order: self.config.order,
            random_first: self.transfer(slot).have.len() < self.config.random_first_chunks,
            stream_next: self.transfer(slot).stream_next.filter(|_| follow_stream),
        };
        let Self { transfers, rng, peers, scratch, .. } = self;
        let transfer = transfers[usize::from(slot.0)].as_ref()?;
        while !askable.is_empty() {
            let start = rng.below(askable.len());
            let order = (start..askable.len()).chain(0..start);
            let best = order.min_by_key(|at| {
                let peer = peers.at(transfer.members[usize::from(askable[*at])].peer);
                (!peer.near, peer.outstanding.len())
            })?;
            let member = usize::from(askable.swap_remove(best));
            scratch.theirs.clear();
            scratch.theirs.extend(candidates.iter().zip(transfer.member_words(member)).map(|(all, has)| all & has));
            if let Some(chunk) = picker::pick(situation, &scratch.theirs, &transfer.availability, rng) {
                return Some((chunk, transfer.members[member].peer));
            }
        }
        None
    }

    /// Sends a request; the chunk's state is the caller's.
    fn ask(&mut self, now: Time, slot: BlobSlot, chunk: ChunkIndex, peer: u16) {
        let to = self.peers.handle_at(peer);
        let transfer = self.transfer(slot);
        let key = transfer.blob.key();
        let needs_links = !transfer.chain.can_verify(chunk);
        self.owe(now, slot, chunk, peer);
        let message = PeerMessage::Request { key, chunk, needs_links };
        self.act(Action::Send { to: Recipients::One(to), message });
    }

    /// Notes that a neighbour is to send a chunk.
    fn owe(&mut self, now: Time, slot: BlobSlot, chunk: ChunkIndex, peer: u16) {
        let transfer = self.transfer_mut(slot);
        let mut promised = false;
        if let Some(member) = transfer.member(peer) {
            transfer.members[member].outstanding += 1;
            promised = !transfer.member_has(member, chunk);
        }
        let entry = self.peers.at_mut(peer);
        entry.useless_since = None;
        if entry.outstanding.is_empty() {
            entry.heard = now;
            entry.pace.restart(now);
        }
        entry.outstanding.push(Outstanding { blob: slot, chunk, asked: now, arriving: false, promised });
    }

    /// A neighbour no longer owes the chunk.
    fn settle(&mut self, slot: BlobSlot, chunk: ChunkIndex, peer: u16) -> Option<Outstanding> {
        let owed = self.peers.at_mut(peer).forget_outstanding(slot, chunk)?;
        let transfer = self.transfer_mut(slot);
        if let Some(member) = transfer.member(peer) {
            transfer.members[member].outstanding -= 1;
        }
        Some(owed)
    }

    /// Neighbours that serve us and owe us nothing, because there is nothing to ask them for, are noticed.
    fn note_useless(&mut self, now: Time) {
        let Serving::Credit { idle, sources, .. } = self.config.serving else { return };
        let mut found = false;
        for at in 0..self.peers.sources().len() {
            let peer = self.peers.at_mut(self.peers.sources()[at]);
            if peer.outstanding.is_empty() && peer.useless_since.is_none() {
                peer.useless_since = Some(now);
                found = true;
            }
        }
        if found || self.source_count() < usize::from(sources) {
            self.timers.slots = self.timers.slots.min(now + idle);
        }
    }

    /// A neighbour won't send the chunk: someone else may be asked.
    pub(crate) fn lose_request(&mut self, slot: BlobSlot, chunk: ChunkIndex, peer: u16) {
        if self.settle(slot, chunk, peer).is_none() {
            return;
        }
        match self.transfer(slot).state(chunk) {
            ChunkState::Requested { peer: owner } | ChunkState::Arriving { peer: owner } if owner == peer => {
                self.reopen(slot, chunk);
            }
            _ => {}
        }
    }

    /// A chunk is to be had again: from a neighbour that owes it still, be it cancelled, or from any.
    pub(crate) fn reopen(&mut self, slot: BlobSlot, chunk: ChunkIndex) {
        let state = match self.debtors(slot, chunk).next() {
            Some((other, true)) => ChunkState::Arriving { peer: other },
            Some((other, false)) => ChunkState::Requested { peer: other },
            None => ChunkState::Missing,
        };
        self.transfer_mut(slot).set_state(chunk, state);
    }

    /// Everything that a neighbour owes of a blob, or of all blobs, is lost.
    pub(crate) fn lose_requests_of(&mut self, peer: u16, blob: Option<BlobSlot>) {
        let owed: Vec<(BlobSlot, ChunkIndex)> =
            self.peers.at(peer).outstanding.iter().map(|o| (o.blob, o.chunk)).collect();
        for (slot, chunk) in owed.into_iter().filter(|(slot, _)| blob.is_none_or(|blob| blob == *slot)) {
            self.lose_request(slot, chunk, peer);
        }
    }

    /// What a neighbour owes and has not begun to send is lost: it has choked us.
    pub(crate) fn lose_waiting_requests_of(&mut self, peer: u16) {
        let waiting = self.peers.at(peer).outstanding.iter().filter(|owed| !owed.arriving);
        let waiting: Vec<(BlobSlot, ChunkIndex)> = waiting.map(|owed| (owed.blob, owed.chunk)).collect();
        waiting.into_iter().for_each(|(slot, chunk)| self.lose_request(slot, chunk, peer));
    }

    pub(crate) fn handle_reject(
        &mut self,
        now: Time,
        from: PeerHandle,
        (key, chunk): (BlobKey, ChunkIndex),
        reason: RejectReason,
    ) {
        let Some(slot) = self.find(key) else { return };
        if self.peers.get(from).is_none_or(|peer| peer.owes(slot, chunk).is_none()) {
            return;
        }
        self.lose_request(slot, chunk, from.slot);
        match reason {
            RejectReason::Choked => self.peers.note_chokes_us(from.slot, true),
            // Something else will be asked of it when what waits there has become less.
            RejectReason::TooMany => {
                let back_off = now + self.config.have_interval * 4;
                self.peers.at_mut(from.slot).snubbed_until = back_off;
                self.timers.sweep = self.timers.sweep.min(back_off);
            }
            RejectReason::Absent | RejectReason::Withdrawn => {
                let transfer = self.transfer_mut(slot);
                if let Some(member) = transfer.member(from.slot) {
                    transfer.member_lost(member, chunk);
                    if reason == RejectReason::Absent {
                        let member = &mut transfer.members[member];
                        member.false_claims += 1;
                        member.suspect |= member.false_claims >= FALSE_CLAIMS;
                    }
                }
            }
        }
        self.fill(now);
    }

    /// A neighbour sends another chunk than the one we asked for.
    pub(crate) fn handle_substitute(
        &mut self,
        now: Time,
        from: PeerHandle,
        key: BlobKey,
        (asked, sent): (ChunkIndex, ChunkIndex),
    ) -> Result<(), Violation> {
        let Some(slot) = self.find(key) else { return Ok(()) };
        let geometry = self.transfer(slot).blob.geometry;
        if !geometry.contains(asked) || !geometry.contains(sent) {
            return Err(Violation);
        }
        if self.peers.get(from).is_none_or(|peer| peer.owes(slot, asked).is_none()) {
            return Ok(()); // Cancelled meanwhile: it will come, and count as unasked.
        }
        self.lose_request(slot, asked, from.slot);
        if let Some(member) = self.transfer(slot).member(from.slot) {
            self.transfer_mut(slot).member_got(member, sent);
        }
        match self.transfer(slot).state(sent) {
            ChunkState::Missing => {}
            ChunkState::Requested { peer } if peer != from.slot => {
                self.send_cancel(slot, sent, peer);
                self.lose_request(slot, sent, peer);
            }
            _ => return Ok(()),
        }
        if self.transfer(slot).state(sent) == ChunkState::Missing {
            self.transfer_mut(slot).set_state(sent, ChunkState::Requested { peer: from.slot });
            self.owe(now, slot, sent, from.slot);
        }
        self.fill(now);
        Ok(())
    }

    /// Nothing is left to ask for: asks a second neighbour for what hasn't begun to arrive.
    fn endgame(&mut self, now: Time, slot: BlobSlot) {
        let transfer = self.transfer(slot);
        let percent = u32::from(self.config.endgame_percent);
        let count = transfer.blob.geometry.chunk_count();
        let budget = if percent == 0 { 0 } else { (count * percent / 100).max(1) };
        if transfer.duplicates >= budget || !transfer.nothing_missing() {
            return;
        }
        let across = self.may_ask_across(now, transfer);
        let waiting: Vec<(ChunkIndex, u16)> = transfer
            .blob
            .geometry
            .chunks()
            .filter_map(|chunk| match transfer.state(chunk) {
                ChunkState::Requested { peer } => Some((chunk, peer)),
                _ => None,
            })
            .take((budget - transfer.duplicates) as usize)
            .collect();
        for (chunk, owner) in waiting {
            let transfer = self.transfer(slot);
            if self.debtors(slot, chunk).count() > 1 {
                continue;
            }
            let other = (0..transfer.members.len())
                .filter(|at| transfer.members[*at].peer != owner && transfer.member_has(*at, chunk))
                .filter(|at| self.may_ask(now, transfer, *at, across))
                .min_by_key(|at| self.peers.at(transfer.members[*at].peer).outstanding.len())
                .map(|at| transfer.members[at].peer);
            if let Some(other) = other {
                self.ask(now, slot, chunk, other);
                self.transfer_mut(slot).duplicates += 1;
            }
        }
    }

    /// Peers that are silent although they owe something lose their requests.
    pub(crate) fn snub(&mut self, now: Time) {
        let patience = self.config.snub_after;
        let silent: Vec<u16> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.outstanding.is_empty() && now.since(peer.heard) >= patience)
            .filter(|(_, peer)| peer.outstanding.iter().any(|owed| owed.is_due() && now.since(owed.asked) >= patience))
            .map(|(handle, _)| handle.slot)
            .collect();
        for slot in silent {
            self.counters.snubs += 1;
            self.lose_requests_of(slot, None);
            let peer = self.peers.at_mut(slot);
            // Back after ten times as long: it may have been a pause.
            peer.snubbed_until = now + patience * 10;
        }
    }

    /// Chunks that have come and wait for links are verified now if those are here.
    pub(crate) fn verify_held(&mut self, slot: BlobSlot) {
        let held: Vec<ChunkIndex> = {
            let transfer = self.transfer(slot);
            let geometry = transfer.blob.geometry;
            geometry.chunks().filter(|chunk| matches!(transfer.state(*chunk), ChunkState::Held { .. })).collect()
        };
        held.into_iter().for_each(|chunk| self.verify_if_possible(slot, chunk));
    }

    /// Chunks have come and wait for links: asks for them if nothing else happens. Links travel with the chunks that need them, but
    /// what was asked for before a withdrawal didn't need any.
    pub(crate) fn seek_links(&mut self, now: Time, slot: BlobSlot) {
        let transfer = self.transfer(slot);
        let patience = if transfer.nothing_missing() { Self::SWEEP } else { self.config.hole_patience };
        let transfer = self.transfer_mut(slot);
        if transfer.idle(now) < patience || now.since(transfer.sought_links) < patience {
            return;
        }
        let mut chunks = transfer.blob.geometry.chunks();
        let Some(held) = chunks.find(|chunk| matches!(transfer.state(*chunk), ChunkState::Held { .. })) else { return };
        transfer.sought_links = now;
        let key = transfer.blob.key();
        let from = ChunkIndex::new(held.get().saturating_sub(1));
        // Three: one of them may be silent, another one gone.
        let holders = (0..transfer.members.len()).filter(|at| transfer.member_has(*at, held)).take(3);
        let holders: Vec<u16> = holders.map(|at| transfer.members[at].peer).collect();
        let to = holders.into_iter().map(|peer| self.peers.handle_at(peer)).collect();
        self.act(Action::Send { to: Recipients::Many(to), message: PeerMessage::LinksWanted { key, from } });
    }

    fn verify_if_possible(&mut self, slot: BlobSlot, chunk: ChunkIndex) {
        let transfer = self.transfer(slot);
        let ChunkState::Held { peer } = transfer.state(chunk) else { return };
        let (Some(before), Some(after)) = (transfer.chain.link_before(chunk), transfer.chain.link_after(chunk)) else {
            return;
        };
        let from = self.peers.handle_at(peer);
        let ticket = VerifyTicket { key: transfer.blob.key(), chunk, from, generation: transfer.generation };
        self.transfer_mut(slot).set_state(chunk, ChunkState::Verifying { peer });
        self.act(Action::Verify { ticket, before, after });
    }

    /// Takes back what was asked of others.
    fn cancel_others(&mut self, slot: BlobSlot, chunk: ChunkIndex, keep: u16) {
        // More than one neighbour owes a chunk only in the endgame.
        if self.transfer(slot).duplicates == 0
            && matches!(self.transfer(slot).state(chunk),
                ChunkState::Requested { peer } | ChunkState::Arriving { peer } if peer == keep)
        {
            return;
        }
        self.cancel_debtors(slot, chunk, |peer| peer != keep);
    }

    /// Takes back a chunk from everybody that was asked for it.
    pub(crate) fn cancel_all(&mut self, slot: BlobSlot, chunk: ChunkIndex) {
        self.cancel_debtors(slot, chunk, |_| true);
    }

    /// Whatever is under way of a chunk is of no use any more.
    pub(crate) fn forget_debtors(&mut self, slot: BlobSlot, chunk: ChunkIndex) {
        self.cancel_all(slot, chunk);
        let arriving: Vec<u16> = self.debtors(slot, chunk).map(|(peer, _)| peer).collect();
        for peer in arriving {
            self.settle(slot, chunk, peer);
        }
        self.transfer_mut(slot).set_state(chunk, ChunkState::Missing);
    }

    fn cancel_debtors(&mut self, slot: BlobSlot, chunk: ChunkIndex, whom: impl Fn(u16) -> bool) {
        let others: Vec<(u16, bool)> = self.debtors(slot, chunk).filter(|(peer, _)| whom(*peer)).collect();
        for (peer, arriving) in others {
            self.send_cancel(slot, chunk, peer);
            if !arriving {
                self.settle(slot, chunk, peer);
            }
        }
    }

    pub(crate) fn send_cancel(&mut self, slot: BlobSlot, chunk: ChunkIndex, peer: u16) {
        let key = self.transfer(slot).blob.key();
        let to = Recipients::One(self.peers.handle_at(peer));
        self.act(Action::Send { to, message: PeerMessage::Cancel { key, chunk } });
    }

    /// Who owes the chunk, and whether it is arriving from there.
    fn debtors(&self, slot: BlobSlot, chunk: ChunkIndex) -> impl Iterator<Item = (u16, bool)> + '_ {
        self.transfer(slot).members.iter().filter(|member| member.outstanding > 0).filter_map(move |member| {
            self.peers.at(member.peer).owes(slot, chunk).map(|owed| (member.peer, owed.arriving))
        })
    }
}
