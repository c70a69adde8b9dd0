//! Whom to serve next: what waits at this agent, and in which order it leaves.
//!
//! State: the waiting requests and the chunks on the link.
//! Invariants: at most `uploads_at_once` chunks are on the link and at most `uploads_per_link` to one neighbour, at most
//! `queued_per_peer` requests of a neighbour wait, a request waits only for a chunk that is here or was promised, and never twice.
//! Absent on purpose: the choice of who may ask at all (`choker`), and the bytes.

use shoal_types::{BlobKey, ChunkIndex, Time};
use shoal_wire::{PeerMessage, RejectReason};

use crate::action::{Action, Recipients};
use crate::config::{ServeOrder, Serving};
use crate::engine::Engine;
use crate::peer::{BlobSlot, PeerHandle};
use crate::picker;

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) peer: u16,
    pub(crate) blob: BlobSlot,
    pub(crate) chunk: ChunkIndex,
    needs_links: bool,
}

/// A chunk on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) peer: PeerHandle,
    pub(crate) blob: BlobSlot,
    pub(crate) chunk: ChunkIndex,
}

/// Uploads of all blobs to all neighbours.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// In the order in which they came.
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) sending: Vec<Sending>,
}

/// In which order requests leave: the least first, and of equals the one that came first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Those that only take get what is left over.
    only_takes: bool,
    /// Another zone's gateway comes first: what it gets, its whole zone gets.
    waits_longer: bool,
    rarity: u16,
}

impl Engine {
    /// The chunk has left, or the connection that it was to leave by is gone.
    pub fn handle_sent(&mut self, now: Time, to: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let Some(slot) = self.find(key) else { return };
        let uploads = &mut self.uploads;
        let Some(at) = uploads.sending.iter().position(|sent| (sent.peer, sent.blob, sent.chunk) == (to, slot, chunk))
        else {
            return;
        };
        uploads.sending.swap_remove(at);
        let bytes = self.transfer(slot).chunk_bytes(chunk);
        let giving = self.transfer(slot).is_served();
        self.counters.bytes_sent += bytes;
        if let Some(peer) = self.peers.get_mut(to) {
            peer.sending -= 1;
            peer.bytes_to += bytes;
            if giving {
                peer.merit += bytes;
            }
        }
        let served = self.peers.get(to).is_some_and(|peer| !peer.choked());
        if served && self.transfer(slot).lead.is_leading() && self.peers.at(to.slot).hoards {
            self.rebalance(now);
        }
        self.pump(now);
    }

    pub(crate) fn handle_request(
        &mut self,
        now: Time,
        from: PeerHandle,
        (key, chunk): (BlobKey, ChunkIndex),
        needs_links: bool,
    ) {
        let slot = self.find(key);
        let limit = self.config.queued_per_peer;
        let Some(peer) = self.peers.get_mut(from) else { return };
        let (choked, full) = (peer.choked(), peer.queued >= limit);
        // Who takes no part has nothing to get: its requests would outlast its connection.
        let serves = |slot: BlobSlot| {
            let transfer = self.transfer(slot);
            (transfer.have.contains(chunk) || transfer.will_have(chunk)) && transfer.member(from.slot).is_some()
        };
        let here = slot.filter(|slot| serves(*slot));
        let slot = match here {
            _ if choked => return self.reject(from, key, chunk, RejectReason::Choked),
            None => return self.reject(from, key, chunk, self.why_absent(slot, chunk)),
            Some(_) if full => return self.reject(from, key, chunk, RejectReason::TooMany),
            Some(slot) => slot,
        };
        let same = |peer: u16, blob: BlobSlot, other: ChunkIndex| (peer, blob, other) == (from.slot, slot, chunk);
        let waits = self.uploads.waiting.iter().any(|waiting| same(waiting.peer, waiting.blob, waiting.chunk));
        let leaves = self.uploads.sending.iter().any(|sent| same(sent.peer.slot, sent.blob, sent.chunk));
        if waits || leaves {
            return;
        }
        self.uploads.waiting.push(Waiting { peer: from.slot, blob: slot, chunk, needs_links });
        self.peers.at_mut(from.slot).queued += 1;
        self.pump(now);
    }

    pub(crate) fn handle_cancel(&mut self, now: Time, from: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let Some(slot) = self.find(key) else { return };
        self.drop_waiting(|waiting| (waiting.peer, waiting.blob, waiting.chunk) == (from.slot, slot, chunk));
        self.pump(now);
    }

    /// Forgets waiting requests.
    pub(crate) fn drop_waiting(&mut self, gone: impl Fn(&Waiting) -> bool) {
        let peers = &mut self.peers;
        self.uploads.waiting.retain(|waiting| {
            let goes = gone(waiting);
            if goes {
                peers.at_mut(waiting.peer).queued -= 1;
            }
            !goes
        });
    }

    /// Puts chunks on the link while there is room.
    pub(crate) fn pump(&mut self, now: Time) {
        while self.uploads.sending.len() < usize::from(self.config.uploads_at_once) && !self.uploads.waiting.is_empty()
        {
            let ready = self.upload_limit.ready_at(now);
            if ready > now {
                self.timers.limit = self.timers.limit.min(ready);
                return;
            }
            let Some(best) = self.next_upload(now) else { return };
            self.put_on_link(now, best);
        }
    }

    /// Whether somebody waits for a chunk of this blob that is here, once all has been put on the link that there is room for. Where nobody
    /// does it is the others who are slow to ask.
    pub(crate) fn uplink_is_taken(&self, slot: BlobSlot) -> bool {
        let have = &self.transfer(slot).have;
        self.uploads.waiting.iter().any(|waiting| waiting.blob == slot && have.contains(waiting.chunk))
    }

    fn put_on_link(&mut self, now: Time, at: usize) {
        let Waiting { peer, blob, chunk: asked, needs_links } = self.uploads.waiting.remove(at);
        let to = self.peers.handle_at(peer);
        self.peers.at_mut(peer).queued -= 1;
        self.peers.at_mut(peer).sending += 1;
        let chunk = self.substitute(blob, peer, asked).unwrap_or(asked);
        let transfer = self.transfer_mut(blob);
        let key = transfer.blob.key();
        let bytes = transfer.chunk_bytes(chunk);
        let batches = if needs_links || chunk != asked { transfer.chain.batches_for(chunk) } else { Vec::new() };
        // Counted as delivered from now on: whoever asked will have it, and the next choice should know.
        let fresh = transfer.lead.is_leading() && transfer.availability[chunk.as_usize()] == 0;
        if let Some(member) = transfer.member(peer) {
            transfer.member_got(member, chunk);
        }
        if fresh {
            self.feed(blob, peer, chunk);
        }
        self.upload_limit.take(now, bytes);
        self.uploads.sending.push(Sending { peer: to, blob, chunk });
        if chunk != asked {
            let message = PeerMessage::Substitute { key, asked, sent: chunk };
            self.act(Action::Send { to: Recipients::One(to), message });
        }
        if !batches.is_empty() {
            let message = PeerMessage::Links { key, batches };
            self.act(Action::Send { to: Recipients::One(to), message });
        }
        self.act(Action::SendChunk { to, key, chunk });
    }

    /// A chunk that none of our neighbours has, if the one asked for has got around: super-seeding. Only such a chunk can't be on its
    /// way to the asker from somebody else.
    fn substitute(&self, blob: BlobSlot, peer: u16, asked: ChunkIndex) -> Option<ChunkIndex> {
        let transfer = self.transfer(blob);
        if !self.config.substitute || !self.peers.at(peer).near || transfer.availability[asked.as_usize()] == 0 {
            return None;
        }
        let waits = |chunk: ChunkIndex| {
            self.uploads.waiting.iter().any(|other| (other.peer, other.blob, other.chunk) == (peer, blob, chunk))
        };
        // The newest that nobody asked for is the last in line: the oldest first.
        picker::ones(transfer.have.words()).find(|chunk| transfer.availability[chunk.as_usize()] == 0 && !waits(*chunk))
    }

    fn next_upload(&self, now: Time) -> Option<usize> {
        let per_link = self.config.uploads_per_link;
        let waiting = self.uploads.waiting.iter().enumerate();
        let ready = waiting.filter(|(_, waiting)| {
            self.peers.at(waiting.peer).sending < per_link && self.transfer(waiting.blob).have.contains(waiting.chunk)
        });
        ready.map(|(at, waiting)| (self.rank(now, waiting), at)).min().map(|(_, at)| at)
    }

    fn rank(&self, now: Time, waiting: &Waiting) -> Rank {
        let transfer = self.transfer(waiting.blob);
        let rarity = match self.config.serve_order {
            ServeOrder::RarestFirst => transfer.availability[waiting.chunk.as_usize()],
            ServeOrder::Fifo => 0,
        };
        Rank { only_takes: self.only_takes(now, waiting.peer), waits_longer: !self.comes_first(waiting.peer), rarity }
    }

    /// Whether a neighbour gets only what is left over.
    pub(crate) fn only_takes(&self, now: Time, peer: u16) -> bool {
        let Serving::Credit { allowance_chunks, .. } = self.config.serving else { return false };
        let entry = self.peers.at(peer);
        if self.is_leading() {
            // A lead needs nothing from anybody: it goes by what spreads. What another zone has from it, it gives to its own once more.
            return entry.hoards || !entry.near;
        }
        let allowance = u64::from(allowance_chunks) * u64::from(self.largest_chunk());
        entry.only_takes(allowance, now) && !self.is_far_gateway(peer)
    }

    /// Whether a neighbour is served before others: another zone waits for its gateway. It gets from those that the lead gave to: what
    /// it had from the lead itself, its own zone would have to get once more.
    pub(crate) fn comes_first(&self, peer: u16) -> bool {
        !self.is_leading() && self.is_far_gateway(peer)
    }

    /// Whether a neighbour brings some blob to another zone.
    pub(crate) fn is_far_gateway(&self, peer: u16) -> bool {
        !self.peers.at(peer).near
            && self
                .transfers
                .iter()
                .flatten()
                .any(|transfer| transfer.member(peer).is_some_and(|member| transfer.members[member].flags.gateway))
    }

    fn reject(&mut self, to: PeerHandle, key: BlobKey, chunk: ChunkIndex, reason: RejectReason) {
        let message = PeerMessage::Reject { key, chunk, reason };
        self.act(Action::Send { to: Recipients::One(to), message });
    }
}
