//! Who has what: joins, haves, and chunks that have become ours.
//!
//! State: the chunks that the neighbours have not been told yet (in `transfer`).
//!
//! Partners, that is who has a place here or serves us, are told at once: they ask for it next, or need not send it. The others choose
//! whom to ask and what is rare by it, which a few chunks more or less don't change: they are told [`LATER`] chunks at a time. With
//! forty neighbours that is a third of the messages.
//!
//! Invariants: only verified chunks are told; every member is told every chunk once, in batches at most every `have_interval`; a
//! member that becomes a partner is told first.
//! Absent on purpose: acting on it (`requests`, `serve`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, Time};
use shoal_wire::{JoinFlags, Load, PeerMessage};

use crate::action::{Action, Recipients};
use crate::engine::{Engine, Violation};
use crate::peer::{BlobSlot, PeerHandle};
use crate::transfer::{ChunkState, Transfer};

/// Chunks that those who aren't partners are told together …
const LATER: usize = 8;

/// … but no later than this: links on which eight chunks take longer carry a message for each of them easily.
const LATEST: Duration = Duration::from_millis(100);

/// Whom to tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    Partners,
    Everyone,
}

impl Engine {
    pub(crate) fn handle_join(
        &mut self,
        now: Time,
        from: PeerHandle,
        blob: BlobInfo,
        have: &ChunkSet,
        flags: JoinFlags,
    ) -> Result<(), Violation> {
        if have.capacity() != blob.geometry.chunk_count() {
            return Err(Violation);
        }
        let Some(slot) = self.find(blob.key()) else { return Ok(()) };
        if self.transfer(slot).blob != blob {
            return Err(Violation);
        }
        let near = self.peers.at(from.slot).near;
        self.transfer_mut(slot).join(from.slot, near, have, flags);
        self.remember_blame(slot, from);
        // What it no longer has, it won't send.
        let owed: Vec<ChunkIndex> =
            self.peers.at(from.slot).outstanding.iter().filter(|o| o.blob == slot).map(|o| o.chunk).collect();
        for chunk in owed.into_iter().filter(|chunk| !have.contains(*chunk)) {
            self.lose_request(slot, chunk, from.slot);
        }
        // Nor would it vouch for what it has sent and links are awaited for.
        self.drop_held(slot, from.slot, |chunk| !have.contains(chunk));
        if flags.answer {
            let message = self.join_message(slot, false);
            self.act(Action::Send { to: Recipients::One(from), message });
        }
        self.watch_slots(now);
        self.fill_slots(now);
        self.fill(now);
        Ok(())
    }

    pub(crate) fn handle_leave(&mut self, now: Time, from: PeerHandle, key: BlobKey) {
        let Some(slot) = self.find(key) else { return };
        self.end_membership(slot, from.slot);
        self.fill(now);
    }

    pub(crate) fn handle_have(
        &mut self,
        now: Time,
        from: PeerHandle,
        key: BlobKey,
        chunks: &[ChunkIndex],
        load: Load,
    ) -> Result<(), Violation> {
        let Some(peer) = self.peers.get_mut(from) else { return Ok(()) };
        peer.load = load;
        let Some(slot) = self.find(key) else { return Ok(()) };
        let Some(member) = self.transfer(slot).member(from.slot) else { return Ok(()) };
        let mut news = false;
        for &chunk in chunks {
            let transfer = self.transfer_mut(slot);
            if !transfer.blob.geometry.contains(chunk) {
                return Err(Violation);
            }
            if !transfer.member_got(member, chunk) {
                continue;
            }
            let state = transfer.state(chunk);
            news |= state == ChunkState::Missing;
            if state == (ChunkState::Requested { peer: from.slot }) {
                self.promise_kept(now, slot, chunk, from.slot);
            }
            let transfer = self.transfer_mut(slot);
            if transfer.lead.is_leading()
                && let Some(before) = transfer.only_holder_before(member, chunk)
            {
                self.passed_on(slot, before, chunk);
            }
        }
        // Most neighbours don't serve us at the moment: what they get changes nothing yet.
        if news && !self.peers.at(from.slot).chokes_us() {
            self.fill(now);
        }
        Ok(())
    }

    /// A verified chunk is ours: it is told, and perhaps the blob is complete.
    pub(crate) fn chunk_is_here(&mut self, now: Time, slot: BlobSlot, chunk: ChunkIndex) {
        let interval = self.have_interval(slot);
        let transfer = self.transfer_mut(slot);
        transfer.set_state(chunk, ChunkState::Have);
        transfer.progressed = now;
        if transfer.untold.is_empty() {
            transfer.untold_since = now;
        }
        transfer.untold.push(chunk);
        let due = transfer.told + interval;
        let complete = transfer.have.is_full();
        if complete {
            self.tell(now, slot, Audience::Everyone);
        } else if due <= now {
            self.tell_due(now, slot);
        } else {
            self.timers.tell = self.timers.tell.min(due);
        }
        self.fill_slots(now);
        if complete {
            self.complete(now, slot);
        }
    }

    /// Tells the members of every blob what is due.
    pub(crate) fn tell_all(&mut self, now: Time) {
        let mut next = Time::MAX;
        for slot in self.slots() {
            let transfer = self.transfer(slot);
            if transfer.untold.is_empty() {
                continue;
            }
            let due = transfer.told + self.have_interval(slot);
            if due <= now {
                self.tell_due(now, slot);
            }
            let transfer = self.transfer(slot);
            if !transfer.untold.is_empty() {
                next = next.min(if due <= now { transfer.untold_since + LATEST } else { due });
            }
        }
        self.timers.tell = next;
    }

    /// A neighbour becomes a partner: it is told what the others aren't told yet.
    pub(crate) fn tell_partner(&mut self, peer: PeerHandle) {
        for slot in self.slots() {
            if let Some(member) = self.transfer(slot).member(peer.slot) {
                self.tell_members(slot, &[member]);
            }
        }
    }

    /// Tells every neighbour what we have and who we are in this swarm.
    pub(crate) fn send_joins(&mut self, slot: BlobSlot, answer: bool) {
        let to: Vec<PeerHandle> = self.peers.handles().collect();
        if !to.is_empty() {
            let message = self.join_message(slot, answer);
            self.act(Action::Send { to: Recipients::Many(to), message });
        }
    }

    pub(crate) fn join_message(&self, slot: BlobSlot, answer: bool) -> PeerMessage {
        let transfer = self.transfer(slot);
        let flags = JoinFlags { gateway: transfer.gateway == Some(self.me), seed: transfer.is_served(), answer };
        PeerMessage::Join { blob: transfer.blob, have: transfer.have_now(), flags }
    }

    /// Chunks that were verified under withdrawn links are missing again.
    pub(crate) fn drop_chunks(&mut self, now: Time, slot: BlobSlot, shaken: &ChunkSet) {
        let key = self.transfer(slot).blob.key();
        for chunk in self.transfer(slot).blob.geometry.chunks() {
            match self.transfer(slot).state(chunk) {
                ChunkState::Have | ChunkState::Held { .. } if shaken.contains(chunk) => self.reopen(slot, chunk),
                // Whatever its links: the answer will be one of an earlier generation, which counts for nothing.
                ChunkState::Verifying { .. } => self.reopen(slot, chunk),
                // What is under way was verified under these links, and was asked for without any.
                ChunkState::Requested { .. } | ChunkState::Arriving { .. } if shaken.contains(chunk) => {
                    self.forget_debtors(slot, chunk);
                }
                ChunkState::Have
                | ChunkState::Held { .. }
                | ChunkState::Missing
                | ChunkState::Requested { .. }
                | ChunkState::Arriving { .. }
                | ChunkState::Origin => {}
            }
        }
        let transfer = self.transfer_mut(slot);
        transfer.promises.forget_all();
        transfer.untold.clear();
        transfer.members.iter_mut().for_each(|member| member.told = 0);
        transfer.progressed = now;
        transfer.duplicates = 0;
        let waiting: Vec<(PeerHandle, ChunkIndex)> = self
            .uploads
            .waiting
            .iter()
            .filter(|waiting| waiting.blob == slot && !self.transfer(slot).have.contains(waiting.chunk))
            .map(|waiting| (self.peers.handle_at(waiting.peer), waiting.chunk))
            .collect();
        for (to, chunk) in waiting {
            let reason = shoal_wire::RejectReason::Withdrawn;
            self.act(Action::Send { to: Recipients::One(to), message: PeerMessage::Reject { key, chunk, reason } });
        }
        let have = self.transfer(slot).have.clone();
        self.drop_waiting(|waiting| waiting.blob == slot && !have.contains(waiting.chunk));
    }

    /// How often new chunks are told: two at a time at 10 Gbit/s, 1.6 ns a byte. One at a time is twice the messages and gains nothing;
    /// on a slower link it comes to one at a time.
    fn have_interval(&self, slot: BlobSlot) -> Duration {
        if self.config.have_interval.is_zero() {
            return Duration::ZERO;
        }
        let chunk_bytes = u64::from(self.transfer(slot).blob.geometry.chunk_size().bytes());
        self.config.have_interval.max(Duration::from_nanos(chunk_bytes * 8 / 5))
    }

    fn tell_due(&mut self, now: Time, slot: BlobSlot) {
        let transfer = self.transfer(slot);
        let everyone = transfer.untold.len() >= LATER || transfer.untold_since + LATEST <= now;
        if !everyone {
            self.timers.tell = self.timers.tell.min(transfer.untold_since + LATEST);
        }
        self.tell(now, slot, if everyone { Audience::Everyone } else { Audience::Partners });
    }

    fn tell(&mut self, now: Time, slot: BlobSlot, audience: Audience) {
        let transfer = self.transfer(slot);
        let members = match audience {
            Audience::Everyone => (0..transfer.members.len()).collect(),
            Audience::Partners => {
                let partners = self.peers.sources().iter().chain(self.peers.served());
                let mut members: Vec<usize> = partners.filter_map(|peer| transfer.member(*peer)).collect();
                members.sort_unstable();
                members.dedup();
                members
            }
        };
        self.tell_members(slot, &members);
        let transfer = self.transfer_mut(slot);
        transfer.told = now;
        if audience == Audience::Everyone {
            transfer.untold.clear();
            transfer.members.iter_mut().for_each(|member| member.told = 0);
        }
    }

    /// Tells these members what they haven't been told, with one message for all that have been told alike.
    fn tell_members(&mut self, slot: BlobSlot, members: &[usize]) {
        let load = Load { sources: u8::try_from((self.source_quarters() + 2) / 4).unwrap_or(u8::MAX) };
        let transfer = self.transfer_mut(slot);
        let key = transfer.blob.key();
        let all = transfer.untold.len();
        let mut alike: BTreeMap<usize, Vec<u16>> = BTreeMap::new();
        for &member in members {
            let member = &mut transfer.members[member];
            if member.told < all {
                alike.entry(member.told).or_default().push(member.peer);
                member.told = all;
            }
        }
        for (told, peers) in alike {
            let chunks: Arc<[ChunkIndex]> = self.transfer(slot).untold[told..].into();
            let to = peers.into_iter().map(|peer| self.peers.handle_at(peer)).collect();
            let message = PeerMessage::Have { key, chunks, load };
            self.act(Action::Send { to: Recipients::Many(to), message });
        }
    }

    fn complete(&mut self, now: Time, slot: BlobSlot) {
        // A lead that has everything tells for the last time how much of it has reached nobody.
        let last_word = self.holding(slot);
        let transfer = self.transfer_mut(slot);
        if last_word.is_some() {
            transfer.announce.parting = last_word;
        }
        transfer.finished = true;
        transfer.local = false;
        transfer.chain.close();
        transfer.lead = crate::lead::Lead::default();
        self.forget_fed(slot);
        let transfer = self.transfer(slot);
        let key = transfer.blob.key();
        self.settle_evidence(now, slot);
        if self.transfers.iter().flatten().all(Transfer::is_served) {
            self.return_all_slots();
        }
        self.announce_soon(now, slot);
        self.act(Action::Completed { key });
    }

    pub(crate) fn end_membership(&mut self, slot: BlobSlot, peer: u16) {
        self.lose_requests_of(peer, Some(slot));
        self.drop_waiting(|waiting| waiting.peer == peer && waiting.blob == slot);
        self.drop_held(slot, peer, |_| true);
        self.transfer_mut(slot).lead.fed.forget(peer);
        self.transfer_mut(slot).promises.forget(peer);
        self.transfer_mut(slot).leave(peer);
    }

    /// What a neighbour sent and can't be verified yet goes with it: nobody would be to blame for it.
    fn drop_held(&mut self, slot: BlobSlot, peer: u16, goes: impl Fn(ChunkIndex) -> bool) {
        let transfer = self.transfer(slot);
        let held = |chunk: &ChunkIndex| transfer.state(*chunk) == ChunkState::Held { peer } && goes(*chunk);
        let held: Vec<ChunkIndex> = transfer.blob.geometry.chunks().filter(held).collect();
        held.into_iter().for_each(|chunk| self.reopen(slot, chunk));
    }
}
