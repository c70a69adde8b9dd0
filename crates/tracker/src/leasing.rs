//! Choosing the lead: who gets the lease, when, and what it is told.
//!
//! State: none of its own; it keeps each blob's [`LeaseBook`](crate::lease::LeaseBook) right.
//! Invariants: a lead is live, not banned, not barred; a blob that somebody wants, that has no whole copy and that somebody could
//! fetch has a lead, or waits for a time that is armed.
//! Absent on purpose: taking a lead's word for anything. What it reports moves its own lease only.
//!
//! When nobody leads, the first willing announcer gets the lease at once, unless something speaks for waiting a little: see
//! [`Wait`]. When a lead is lost, its successor is chosen from a sample and told: the one who leads least, of the home zone if
//! possible (bytes across zones are the dearer ones), with the most chunks.

use std::cmp::Reverse;

use shoal_types::{ChunkIndex, Digest, NodeId, Time};
use shoal_wire::{Directive, LeaseGrant, LeaseRequest, LeaseState};

use crate::blob::{Blob, Member, Will};
use crate::chain::ChainState;
use crate::config::Quorum;
use crate::lease::{End, Grantee, Lead, Lease, Mark, Wait};
use crate::pool::Draw;
use crate::slab::{BlobIx, Slot};
use crate::tracker::Tracker;

/// Who asks for the lease in an announce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) slot: Slot,
    /// It joins with something that it got before this tracker knew it: so may a lead.
    pub(crate) comes_back: bool,
}

impl Tracker {
    /// Names a lead if the blob needs one and can have one now.
    pub(crate) fn settle_lead(&mut self, now: Time, blob: BlobIx) {
        self.decide_lead(now, blob, None);
    }

    /// Takes over a lead from before this tracker's time, if the announcer is one.
    pub(crate) fn adopt_lead(&mut self, now: Time, blob: BlobIx, slot: Slot, word: &LeaseRequest) {
        let entry = &mut self.blobs[blob];
        let member = &entry.members[slot];
        if let LeaseRequest::Holding { epoch, .. } = word
            && entry.leases.may_adopt(*epoch)
            && !entry.chain.is_barred(member.id)
        {
            let to = Grantee { holder: slot, node: member.id, frontier: 0, mark: Mark::default() };
            entry.leases.adopt(now, to, *epoch, &self.config.lease);
            self.nodes[member.node].leads += 1;
            self.counters.leases_granted += 1;
        }
    }

    /// What an announce says about the lease.
    pub(crate) fn take_lease_word(
        &mut self,
        now: Time,
        blob: BlobIx,
        slot: Slot,
        word: &LeaseRequest,
        completed: bool,
    ) {
        let entry = &mut self.blobs[blob];
        let member = &mut entry.members[slot];
        member.will = match word {
            LeaseRequest::Declined => Will::Declined,
            LeaseRequest::Impatient => Will::Impatient,
            _ => Will::Willing,
        };
        let (id, chunks, bytes) = (member.id, member.chunks(), member.bytes());
        let own = if entry.leases.held_by(slot).is_some() {
            entry.leases.held_by(slot)
        } else {
            entry.leases.impatient_of(slot)
        };
        let Some(lease) = own else {
            if let LeaseRequest::Holding { epoch, .. } = word {
                self.outbox.push(id, Directive::LeaseRevoked { key: entry.info.key(), epoch: *epoch });
            }
            return;
        };
        lease.hear(now, chunks, bytes);
        let end = match word {
            _ if completed => Some(End::Completed),
            LeaseRequest::Declined => Some(End::Yielded),
            LeaseRequest::Yielded { epoch } if *epoch == lease.epoch => Some(End::Yielded),
            LeaseRequest::Failed { epoch, failure } if *epoch == lease.epoch => Some(End::Failed(*failure)),
            LeaseRequest::Holding { epoch, frontier, backlog } if *epoch == lease.epoch => {
                lease.report(now, frontier.get(), *backlog);
                None
            }
            LeaseRequest::Holding { epoch, .. } => {
                self.outbox.push(id, Directive::LeaseRevoked { key: entry.info.key(), epoch: *epoch });
                None
            }
            // It hasn't heard of its lease yet: the reply says it again.
            _ => None,
        };
        if entry.leases.held_by(slot).is_none() {
            // What an impatient one meets at the origin moves nobody else.
            entry.leases.impatient.retain(|lease| lease.holder != slot || end.is_none());
            return;
        }
        let slow = entry.leases.held().is_some_and(|lease| entry.leases.is_too_slow(now, lease, &self.config.lease));
        // A slow lead is better than none.
        let end =
            end.or_else(|| (slow && self.choose_successor(now, blob, Some(slot)).is_some()).then_some(End::Backlog));
        if let Some(end) = end {
            self.end_lease(now, blob, end);
            self.settle_lead(now, blob);
        }
    }

    /// Whether a node may fetch a blob from its origin now: as its lead, or out of impatience.
    #[must_use]
    pub fn may_fetch(&self, node: NodeId, digest: &Digest) -> bool {
        self.by_content.range((*digest, 0)..=(*digest, u64::MAX)).any(|(_, blob)| {
            let entry = &self.blobs[*blob];
            let leases = entry.leases.held().into_iter().chain(&entry.leases.impatient);
            leases.into_iter().any(|lease| entry.members[lease.holder].id == node)
        })
    }

    /// Grants what an announcer may have, and says how things stand.
    pub(crate) fn lease_state(&mut self, now: Time, blob: BlobIx, asker: Asker) -> LeaseState {
        self.decide_lead(now, blob, Some(asker));
        self.grant_impatience(now, blob, asker.slot);
        let entry = &mut self.blobs[blob];
        let whole = entry.has_whole_copy(self.config.quorum);
        let held = entry.leases.held_by(asker.slot).map(|lease| (lease.epoch, lease.frontier, false));
        let own =
            held.or_else(|| entry.leases.impatient_of(asker.slot).map(|lease| (lease.epoch, lease.frontier, true)));
        if let Some((epoch, frontier, impatient)) = own {
            let (_, holes) = entry.holes(frontier, self.config.lease.max_holes);
            return LeaseState::Granted(LeaseGrant { epoch, frontier: ChunkIndex::new(frontier), holes, impatient });
        }
        match &entry.leases.lead {
            Lead::Held(lease) => LeaseState::HeldBy(entry.members[lease.holder].id),
            Lead::Refused { failure, until } if !whole => {
                LeaseState::Refused { failure: *failure, retry_after: until.since(now) }
            }
            Lead::Vacant | Lead::Waiting { .. } | Lead::Refused { .. } => LeaseState::Nobody,
        }
    }

    /// Ends the lead's lease. Whoever calls this settles the lead afterwards.
    pub(crate) fn end_lease(&mut self, now: Time, blob: BlobIx, end: End) {
        let entry = &mut self.blobs[blob];
        let holder = entry.leases.held().expect("a lease that ends is held").holder;
        let member = &mut entry.members[holder];
        let lease = entry.leases.end(now, member.id, end, &self.config.lease);
        if end.passes_holder() {
            member.passed_until = now + self.config.lease.passed_for;
        }
        if end.is_news_to_holder() {
            self.outbox.push(member.id, Directive::LeaseRevoked { key: entry.info.key(), epoch: lease.epoch });
        }
        self.nodes[member.node].leads -= 1;
        *self.counters.leases_ended.entry(end.name()).or_default() += 1;
    }

    /// Names this member the lead's successor, if it may lead.
    pub(crate) fn succeed(&mut self, now: Time, blob: BlobIx, slot: Slot) {
        let entry = &self.blobs[blob];
        let vacant = matches!(entry.leases.lead, Lead::Vacant) && needs_lead(entry, self.config.quorum);
        if vacant && may_lead(entry, &entry.members[slot]) {
            self.grant(now, blob, slot);
        } else {
            self.settle_lead(now, blob);
        }
    }

    /// Ends the leases out of impatience that bring nothing.
    pub(crate) fn end_idle_impatience(&mut self, now: Time, blob: BlobIx) {
        let entry = &mut self.blobs[blob];
        let chunks = entry.chunks();
        let idle = |lease: &&Lease| lease.is_silent(now) || lease.is_stalled(now, chunks);
        let ended = entry.leases.impatient.iter().filter(idle).map(|lease| (lease.holder, lease.epoch));
        let ended: Vec<(Slot, u64)> = ended.collect();
        for (holder, epoch) in ended {
            entry.leases.impatient.retain(|lease| lease.epoch != epoch);
            self.outbox.push(entry.members[holder].id, Directive::LeaseRevoked { key: entry.info.key(), epoch });
        }
    }

    fn decide_lead(&mut self, now: Time, blob: BlobIx, asker: Option<Asker>) {
        let entry = &mut self.blobs[blob];
        match entry.leases.lead {
            Lead::Refused { until, .. } if until <= now => entry.leases.lead = Lead::Vacant,
            Lead::Held(_) | Lead::Refused { .. } => return,
            Lead::Vacant | Lead::Waiting { .. } => {}
        }
        if !needs_lead(entry, self.config.quorum) {
            entry.leases.lead = Lead::Vacant;
            return;
        }
        let eligible = asker.filter(|asker| may_lead(entry, &entry.members[asker.slot])).map(|asker| asker.slot);
        let comes_back = asker.is_some_and(|asker| asker.comes_back);
        if let Some((until, why)) = self.reason_to_wait(now, blob, eligible, comes_back) {
            self.blobs[blob].leases.lead = Lead::Waiting { until, why };
            self.arm_blob(now, blob);
            return;
        }
        let entry = &mut self.blobs[blob];
        if matches!(entry.leases.lead, Lead::Waiting { why: Wait::Claims, .. }) {
            entry.leases.doubts_claims = true;
        }
        let fresh = eligible.filter(|slot| entry.members[*slot].passed_until <= now);
        if let Some(slot) = fresh {
            self.grant(now, blob, slot);
        } else if let Some(successor) = self.choose_successor(now, blob, None) {
            self.grant(now, blob, successor);
            self.tell_grant(blob, successor);
        } else if let Some(slot) = eligible {
            self.grant(now, blob, slot);
        } else {
            self.blobs[blob].leases.lead = Lead::Vacant;
        }
    }

    /// Whether a blob that needs a lead is better off without one for a while, and until when.
    fn reason_to_wait(&self, now: Time, blob: BlobIx, asker: Option<Slot>, comes_back: bool) -> Option<(Time, Wait)> {
        let config = &self.config.lease;
        let entry = &self.blobs[blob];
        let leads_others = |slot: Slot| self.nodes[entry.members[slot].node].leads > 0;
        // Who claims to have everything and isn't believed yet is waited for once; not where a lead was lost, or lied.
        let doubts = entry.leases.doubts_claims || entry.chain.state() == ChainState::Quarantined;
        let claims = entry.claims() > 0 && !doubts && !asker.is_some_and(|slot| entry.members[slot].claims());
        match entry.leases.lead {
            Lead::Waiting { until, why } if until > now => {
                let found = why == Wait::Spread && asker.is_some_and(|slot| !leads_others(slot));
                (!found).then_some((until, why))
            }
            Lead::Waiting { .. } => {
                // The wait is over, unless those who claim have been delivering.
                let until = entry.progressed_at + config.seed_silence;
                (claims && entry.progressed_at > Time::ZERO && until > now).then_some((until, Wait::Claims))
            }
            _ if comes_back && !entry.leases.is_used() => Some((now + config.settle, Wait::Settle)),
            _ if claims => Some((now + config.claims_patience, Wait::Claims)),
            _ if entry.chunks() > 1 && asker.is_some_and(leads_others) => Some((now + config.spread, Wait::Spread)),
            _ => None,
        }
    }

    fn grant(&mut self, now: Time, blob: BlobIx, slot: Slot) {
        let entry = &mut self.blobs[blob];
        let (frontier, _) = entry.holes(entry.frontier(self.config.quorum), self.config.lease.max_holes);
        let member = &mut entry.members[slot];
        // It may lack links up to the frontier: they come with the next replies.
        member.owed = (entry.chain.generation(), 0..entry.chain.batch_count());
        let to = Grantee { holder: slot, node: member.id, frontier, mark: member.mark() };
        entry.leases.grant(now, to, &self.config.lease);
        entry.leases.impatient.retain(|lease| lease.holder != slot);
        self.nodes[entry.members[slot].node].leads += 1;
        self.counters.leases_granted += 1;
        self.arm_blob(now, blob);
    }

    fn tell_grant(&mut self, blob: BlobIx, slot: Slot) {
        let entry = &self.blobs[blob];
        let lease = entry.leases.held().expect("granted before it is told");
        let (_, holes) = entry.holes(lease.frontier, self.config.lease.max_holes);
        let frontier = ChunkIndex::new(lease.frontier);
        let grant = LeaseGrant { epoch: lease.epoch, frontier, holes, impatient: false };
        self.outbox.push(entry.members[slot].id, Directive::Lease { key: entry.info.key(), grant });
    }

    /// A lease for oneself: beside the lead's, where there should be a whole copy, or for one who may not lead and is left alone.
    fn grant_impatience(&mut self, now: Time, blob: BlobIx, slot: Slot) {
        let entry = &mut self.blobs[blob];
        let member = &entry.members[slot];
        let closed = matches!(entry.leases.lead, Lead::Waiting { .. } | Lead::Refused { .. });
        let has_one = entry.leases.held().is_some_and(|lease| lease.holder == slot)
            || entry.leases.impatient.iter().any(|lease| lease.holder == slot);
        let room = entry.leases.impatient.len() < self.config.lease.max_impatient;
        if member.will != Will::Impatient || member.claims() || has_one || !room || closed {
            return;
        }
        let (frontier, _) = entry.holes(entry.frontier(self.config.quorum), self.config.lease.max_holes);
        let to = Grantee { holder: slot, node: member.id, frontier, mark: member.mark() };
        entry.leases.grant_impatient(now, to, &self.config.lease);
        self.counters.leases_impatient += 1;
        self.arm_blob(now, blob);
    }

    fn choose_successor(&mut self, now: Time, blob: BlobIx, except: Option<Slot>) -> Option<Slot> {
        let entry = &mut self.blobs[blob];
        let want = self.config.lease.successors_sampled;
        let home = entry.gateways.home.or_else(|| entry.live.zones().next())?;
        // As many of the home zone as of all the others.
        let drawn = entry.live.draw(&mut self.rng, Draw { home, want: 2 * want, others: want, except });
        let fits = |slot: &Slot| {
            let member = &entry.members[*slot];
            may_lead(entry, member) && !member.claims() && member.passed_until <= now
        };
        let rank = |slot: &Slot| {
            let member = &entry.members[*slot];
            (Reverse(self.nodes[member.node].leads), member.zone == home, member.chunks())
        };
        drawn.into_iter().filter(fits).max_by_key(rank)
    }

    /// Whether links under an epoch can be this member's, and whether it leads under it.
    pub(crate) fn publishes(&self, blob: BlobIx, node: NodeId, slot: Slot, epoch: u64) -> Option<bool> {
        let leases = &self.blobs[blob].leases;
        match leases.held() {
            Some(lease) if lease.holder == slot && lease.epoch == epoch => Some(true),
            _ => leases.was_held(node, epoch).then_some(false),
        }
    }
}

/// Whether somebody wants the blob and has nobody to get it from.
fn needs_lead(blob: &Blob, quorum: Quorum) -> bool {
    // After a quarantine even those who have the blob don't have its links.
    let sourceless = !blob.has_whole_copy(quorum) || blob.chain.state() == ChainState::Quarantined;
    blob.leeches() > 0 && sourceless
}

/// Whether a member may lead at all. One that has everything leads only if it asks to: then its source is its own store.
fn may_lead(blob: &Blob, member: &Member) -> bool {
    let willing = match member.will {
        Will::Declined => false,
        Will::Willing => !member.claims(),
        Will::Impatient => true,
    };
    member.is_live() && willing && !blob.chain.is_barred(member.id)
}
