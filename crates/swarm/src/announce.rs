//! What the tracker is told, and when.
//!
//! State: per blob when the next announce is due and what it has to carry.
//! Invariants: an announce that is due goes out at the next poll; links, accusations and verdicts on a chain or a lead go out once each.
//! Absent on purpose: which tracker, or which peer in its place: the driver routes.

use std::time::Duration;

use shoal_chain::{LinkRun, SignedLinks};
use shoal_types::{BlobKey, ChunkIndex, Time};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, Directive, LeaseRequest, LeaseState};

use crate::action::{Action, DisconnectReason};
use crate::engine::Engine;
use crate::peer::BlobSlot;

/// How often an agent announces until the tracker says otherwise.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);

/// Nobody announces more often, whatever it is told: an interval of nothing would be a loop without an end.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Accusations in one announce: what an honest node has at most, twice over (a tenth of 40 neighbours).
const MAX_ACCUSED: usize = 8;

/// A blob's announces.
#[derive(Debug)]
pub(crate) struct AnnounceState {
    pub(crate) due: Time,
    pub(crate) interval: Duration,
    pub(crate) started: bool,
    /// How many chunks the last announced bitmap had.
    pub(crate) announced: Option<u32>,
    pub(crate) unpublished: Vec<SignedLinks>,
    pub(crate) false_chain: Option<u64>,
    pub(crate) corrupt_lead: Option<u64>,
    /// The last announce has had no answer.
    pub(crate) unanswered: bool,
    /// Some announce has had one: a tracker knows of the membership.
    pub(crate) answered: bool,
    /// Something about a lease that is over.
    pub(crate) parting: Option<LeaseRequest>,
}

impl AnnounceState {
    pub(crate) const fn new(now: Time) -> Self {
        Self {
            due: now,
            interval: FIRST_INTERVAL,
            started: false,
            announced: None,
            unpublished: Vec::new(),
            false_chain: None,
            corrupt_lead: None,
            parting: None,
            unanswered: false,
            answered: false,
        }
    }

    /// A batch takes the place of those that it merges: everybody who comes later checks one signature instead of many. Unless the tracker
    /// has some of them already: it has no use for links twice.
    pub(crate) fn merge(&mut self, merged: &SignedLinks) {
        let end = |run: &LinkRun| run.first().get() + run.count();
        let whole = &merged.batch.run;
        let inside = |run: &LinkRun| whole.first() <= run.first() && end(run) <= end(whole);
        let waiting = self.unpublished.iter().map(|links| &links.batch.run).filter(|run| inside(run));
        if waiting.map(LinkRun::count).sum::<u32>() == whole.count() {
            self.unpublished.retain(|links| !inside(&links.batch.run));
            self.unpublished.push(merged.clone());
        }
    }

    /// How many links wait for the next announce.
    pub(crate) fn waiting_links(&self) -> u32 {
        self.unpublished.iter().map(|links| links.batch.run.count()).sum()
    }

    /// What this occupies on the heap: the links that a lead has not published yet.
    pub(crate) fn heap_bytes(&self) -> usize {
        let spare = self.unpublished.capacity() - self.unpublished.len();
        let links = |links: &SignedLinks| size_of_val(links) + links.batch.run.as_bytes().len();
        self.unpublished.iter().map(links).sum::<usize>() + spare * size_of::<SignedLinks>()
    }
}

impl Engine {
    /// The tracker has answered an announce.
    pub fn handle_announce_reply(&mut self, now: Time, reply: &AnnounceReply) {
        for node in &reply.banned {
            self.ban(now, *node);
        }
        let Some(slot) = self.find_digest(reply.key.digest) else { return };
        let key = self.transfer(slot).blob.key();
        if key != reply.key {
            self.act(Action::Recut { key, chunk_size: reply.key.chunk_size });
            return;
        }
        let transfer = self.transfer_mut(slot);
        transfer.announce.interval = reply.interval.max(MIN_INTERVAL);
        transfer.announce.unanswered = false;
        transfer.announce.answered = true;
        let new_gateway = std::mem::replace(&mut transfer.gateway, reply.gateway) != reply.gateway;
        if new_gateway && reply.gateway == Some(self.me) {
            self.send_joins(slot, false);
        }
        if let Some(epoch) = reply.withdrawn {
            self.withdraw(now, slot, epoch);
        }
        match &reply.lease {
            LeaseState::Granted(grant) => self.take_lease(now, slot, grant),
            LeaseState::HeldBy(_) | LeaseState::Nobody | LeaseState::Refused { .. } => {}
        }
        let unknown = reply.peers.iter().map(|peer| peer.node).filter(|node| self.peers.handle_of(*node).is_none());
        let unknown: Vec<_> = unknown.filter(|node| *node != self.me && !self.banned.contains(node)).collect();
        // Neighbours stand across blobs: only a swarm with too few of them is worth new connections.
        let places = usize::from(self.config.max_peers)
            .saturating_sub(self.transfer(slot).members.len())
            .min(usize::from(self.config.max_peers).saturating_sub(self.peers.len()));
        for node in unknown.into_iter().take(places) {
            self.act(Action::Connect { node });
        }
        self.fill(now);
    }

    /// A blob has another tracker now, or the one that it has knows nothing any more: it is told everything again.
    pub fn handle_tracker_changed(&mut self, now: Time, digest: shoal_types::Digest) {
        let Some(slot) = self.find_digest(digest) else { return };
        let me = self.me;
        let transfer = self.transfer_mut(slot);
        transfer.announce.announced = None;
        // Who was a member goes on: the new tracker waits for the lead that it doesn't know. Who never was one just comes.
        transfer.announce.started &= transfer.announce.answered;
        if transfer.lead.is_leading() {
            let own = |links: &SignedLinks| links.publisher == me;
            let all = transfer.chain.batches_from(ChunkIndex::new(0), usize::MAX);
            transfer.announce.unpublished = all.into_iter().filter(own).collect();
        }
        self.announce_soon(now, slot);
    }

    /// All links that are known of a blob, from this chunk on: for a driver that keeps them.
    #[must_use]
    pub fn links_from(&self, key: BlobKey, first: ChunkIndex) -> Vec<SignedLinks> {
        self.find(key).map(|slot| self.transfer(slot).chain.batches_from(first, usize::MAX)).unwrap_or_default()
    }

    /// The tracker has said something unasked.
    pub fn handle_directive(&mut self, now: Time, directive: &Directive) {
        match directive {
            Directive::Lease { key, grant } => {
                if let Some(slot) = self.find(*key) {
                    self.take_lease(now, slot, grant);
                    // The tracker takes a silent holder for a dead one.
                    self.announce_soon(now, slot);
                }
            }
            Directive::LeaseRevoked { key, epoch } => {
                if let Some(slot) = self.find(*key) {
                    self.lose_lease(now, slot, *epoch);
                }
            }
            Directive::Withdraw { key, epoch } => {
                if let Some(slot) = self.find(*key) {
                    self.withdraw(now, slot, *epoch);
                }
            }
            Directive::Gateway { key, node } => {
                if let Some(slot) = self.find(*key) {
                    self.transfer_mut(slot).gateway = Some(*node);
                    self.send_joins(slot, false);
                }
            }
            Directive::Ban { nodes } => nodes.iter().for_each(|node| self.ban(now, *node)),
        }
        self.fill(now);
    }

    pub(crate) fn announce_soon(&mut self, now: Time, slot: BlobSlot) {
        self.transfer_mut(slot).announce.due = now;
        self.timers.announce = self.timers.announce.min(now);
    }

    /// Sends the announces that are due.
    pub(crate) fn announce_due(&mut self, now: Time) {
        for slot in self.slots() {
            if self.transfer(slot).announce.due <= now {
                let event = match self.transfer(slot) {
                    transfer if transfer.is_served() => AnnounceEvent::Completed,
                    transfer if transfer.announce.started => AnnounceEvent::Progress,
                    _ => AnnounceEvent::Started,
                };
                self.announce(now, slot, event);
            }
        }
        self.timers.announce =
            self.slots().into_iter().map(|slot| self.transfer(slot).announce.due).min().unwrap_or(Time::MAX);
    }

    pub(crate) fn announce(&mut self, now: Time, slot: BlobSlot, event: AnnounceEvent) {
        let accused_left = self.accusations.split_off(self.accusations.len().min(MAX_ACCUSED));
        let accused = std::mem::replace(&mut self.accusations, accused_left);
        let (impatient_after, lead_report) = (self.config.impatient_after, self.config.lead_report);
        let want = self.config.want_peers;
        let max_peers = usize::from(self.config.max_peers);
        let can_lead = self.can_lead;
        let holding = self.holding(slot);
        let transfer = self.transfer_mut(slot);
        let lease = match transfer.announce.parting.take().or(holding) {
            Some(word) => word,
            None if !can_lead || transfer.is_served() => LeaseRequest::Declined,
            None if transfer.idle(now) >= impatient_after => LeaseRequest::Impatient,
            None => LeaseRequest::Willing,
        };
        // A local blob is claimed at once: its chunks are told to those who ask for them, as they are linked.
        let announced = if transfer.local { transfer.blob.geometry.chunk_count() } else { transfer.have.len() };
        let changed = transfer.announce.announced != Some(announced);
        let holding = matches!(lease, LeaseRequest::Holding { .. });
        let announce = Announce {
            digest: transfer.blob.digest,
            size_bytes: transfer.blob.geometry.size_bytes(),
            chunk_size: Some(transfer.blob.geometry.chunk_size()),
            event,
            have: changed.then(|| transfer.have_to_announce()),
            want_peers: if transfer.is_served() || transfer.members.len() >= max_peers { 0 } else { want },
            lease,
            links: std::mem::take(&mut transfer.announce.unpublished),
            false_chain: transfer.announce.false_chain.take(),
            corrupt_lead: transfer.announce.corrupt_lead.take(),
            accused,
            bytes_from_peers: transfer.bytes_from_peers,
            bytes_from_origin: transfer.bytes_from_origin,
        };
        transfer.announce.announced = Some(announced);
        transfer.announce.started = true;
        transfer.announce.unanswered = true;
        let interval = if holding && !transfer.is_served() { lead_report } else { transfer.announce.interval };
        transfer.announce.due = now + interval;
        self.act(Action::Announce(announce));
    }

    /// The links of an epoch and of all before it prove nothing: what was verified under them is gone.
    pub(crate) fn withdraw(&mut self, now: Time, slot: BlobSlot, epoch: u64) {
        let transfer = self.transfer_mut(slot);
        // What is hashed here rests on nobody's links.
        if transfer.local || transfer.chain.is_withdrawn(epoch) {
            return;
        }
        let shaken = transfer.chain.withdraw(epoch);
        transfer.withdrawn = Some(now);
        transfer.evidence.clear();
        // What the neighbours said to have may have rested on the same links: they say it again.
        transfer.forget_claims();
        let key = transfer.blob.key();
        if !shaken.is_empty() {
            self.transfer_mut(slot).generation += 1;
            self.drop_chunks(now, slot, &shaken);
            self.act(Action::ChainFailed { key });
        }
        self.send_joins(slot, true);
    }

    /// Refuses a node from now on.
    pub(crate) fn ban(&mut self, now: Time, node: shoal_types::NodeId) {
        if node == self.me || !self.banned.insert(node) {
            return;
        }
        self.counters.bans += 1;
        if let Some(peer) = self.peers.handle_of(node) {
            self.forget_peer(now, peer);
            self.act(Action::Disconnect { peer, reason: DisconnectReason::Banned });
        }
    }

    pub(crate) fn find(&self, key: BlobKey) -> Option<BlobSlot> {
        self.by_key.get(&key).copied()
    }

    fn find_digest(&self, digest: shoal_types::Digest) -> Option<BlobSlot> {
        self.by_key.iter().find(|(key, _)| key.digest == digest).map(|(_, slot)| *slot)
    }
}
