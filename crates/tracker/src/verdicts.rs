//! Judging chains and nodes: links that are published, chains that are called false, accusations, bans.
//!
//! State: none of its own; it moves each blob's chain and the ledger.
//! Invariants: one node's word quarantines nothing, closes nothing, bans nobody. The one exception is the lead about its
//! predecessors' chain: the origin is its witness, and what it costs if it lies is one more fetch, by a third node.
//! Absent on purpose: checking links (that takes the bytes) and signatures (that takes the certificates).

use shoal_types::{NodeId, Time};
use shoal_wire::{Announce, Directive};

use crate::bans::{BanReason, threshold};
use crate::chain::{ChainState, Published};
use crate::lease::End;
use crate::membership::TICK;
use crate::slab::{BlobIx, Slot};
use crate::timers::Subject;
use crate::tracker::Tracker;

impl Tracker {
    /// Keeps the links that a lead publishes; drops those of former leads and of impatient ones, who publish to their neighbours.
    pub(crate) fn take_links(&mut self, now: Time, blob: BlobIx, slot: Slot, announce: &Announce) {
        let id = self.blobs[blob].members[slot].id;
        for links in &announce.links {
            if self.publishes(blob, id, slot, links.batch.epoch) != Some(true) {
                self.counters.links_dropped += 1;
                continue;
            }
            let entry = &mut self.blobs[blob];
            let chunks = entry.chunks();
            match entry.chain.publish(links, chunks, self.config.limits.chain_bytes) {
                Published::Kept | Published::Contests => {}
                Published::Known | Published::NoPlace => self.counters.links_dropped += 1,
                Published::ContradictsItself => {
                    entry.chain.bar(id);
                    self.quarantine(now, blob);
                    return;
                }
                Published::ContradictsProof => {
                    entry.chain.bar(id);
                    self.end_lease(now, blob, End::Distrusted);
                    self.settle_lead(now, blob);
                    return;
                }
            }
        }
    }

    /// A member has found the chain of an epoch false.
    pub(crate) fn take_false_chain(&mut self, now: Time, blob: BlobIx, slot: Slot, epoch: u64) {
        let enough = self.enough_against_lead(blob);
        let entry = &mut self.blobs[blob];
        let outdated = entry.chain.withdrawn().is_some_and(|withdrawn| epoch <= withdrawn);
        if outdated || epoch > entry.leases.last_epoch() || entry.chain.state() == ChainState::Closed {
            return;
        }
        entry.set_calls_false(slot);
        let led_later = entry.leases.held().is_some_and(|lease| lease.holder == slot && lease.epoch > epoch);
        let believed = match entry.chain.state() {
            // The contradiction itself is one half of the evidence.
            ChainState::Contested { .. } => entry.calls_false() >= enough.div_ceil(2),
            _ => entry.calls_false() >= enough,
        };
        if believed || led_later {
            self.quarantine(now, blob);
        }
    }

    /// A member has got a chunk from the lead that doesn't fit the lead's own links. Whichever is wrong, it isn't fit to lead; its links may
    /// be right, and who has chunks by them keeps them. A witness goes on: it begins with what nobody has, and so tests the links.
    pub(crate) fn take_corrupt_lead(&mut self, now: Time, blob: BlobIx, slot: Slot, epoch: u64) {
        let enough = self.enough_against_lead(blob);
        let entry = &mut self.blobs[blob];
        let verdict = entry.leases.testify(entry.members[slot].id, epoch);
        let Some((lead, _)) = verdict.filter(|(lead, witnesses)| *witnesses >= enough && !entry.chain.is_barred(*lead))
        else {
            return;
        };
        entry.chain.bar(lead);
        let member = self.nodes.find(lead).and_then(|node| self.nodes[node].slot_in(blob));
        if let Some(member) = member {
            entry.distrust(member);
        }
        if entry.leases.held().is_some() {
            self.end_lease(now, blob, End::Distrusted);
        }
        self.succeed(now, blob, slot);
    }

    /// So many members have to speak against a lead or its chain.
    fn enough_against_lead(&self, blob: BlobIx) -> usize {
        let members = self.blobs[blob].live.len();
        // A publisher is no witness against itself.
        let others = members.saturating_sub(1);
        // Only neighbours of a lying lead can see it lie, and it has about forty: a share of all members may be more than can ever know. So
        // as many as it takes to ban.
        self.config.quorum.of(others).min(threshold(members, &self.config.ban))
    }

    /// A member has completed, or links have come: that may prove the chain, and so show who had lied.
    pub(crate) fn judge_chain(&mut self, now: Time, blob: BlobIx) {
        let quorum = self.config.quorum;
        let entry = &mut self.blobs[blob];
        let open = matches!(entry.chain.state(), ChainState::Provisional | ChainState::Contested { .. });
        if open && entry.chain_is_proven(quorum) && entry.chain.is_complete(entry.chunks()) {
            self.counters.chains_closed += 1;
            for liar in entry.chain.close() {
                self.ledger.ban(liar, BanReason::FalseLink);
                self.enforce_ban(now, liar);
            }
        }
    }

    /// Nodes that a member says have sent it chunks that fail under a closed chain.
    pub(crate) fn take_accusations(&mut self, now: Time, accuser: NodeId, accused: &[NodeId]) {
        let known: Vec<NodeId> = accused.iter().copied().filter(|node| self.nodes.find(*node).is_some()).collect();
        let nodes = self.nodes.connected.len();
        for node in self.ledger.accuse(now, accuser, &known, nodes, &self.config.ban) {
            self.enforce_ban(now, node);
        }
    }

    fn quarantine(&mut self, now: Time, blob: BlobIx) {
        self.counters.chains_quarantined += 1;
        if self.blobs[blob].leases.held().is_some() {
            self.end_lease(now, blob, End::Distrusted);
        }
        let entry = &mut self.blobs[blob];
        entry.quarantine();
        let key = entry.info.key();
        for lease in std::mem::take(&mut entry.leases.impatient) {
            let holder = entry.members[lease.holder].id;
            self.outbox.push(holder, Directive::LeaseRevoked { key, epoch: lease.epoch });
        }
        let epoch = entry.leases.last_epoch();
        for slot in entry.live.iter() {
            self.outbox.push(entry.members[slot].id, Directive::Withdraw { key, epoch });
        }
        self.settle_lead(now, blob);
    }

    /// A node that the ledger has banned loses its memberships; everybody is told soon.
    fn enforce_ban(&mut self, now: Time, id: NodeId) {
        if let Some(node) = self.nodes.find(id).filter(|node| !self.nodes[*node].banned) {
            self.nodes.ban(node);
            self.outbox.forget(id);
            for at in self.nodes[node].memberships.clone() {
                self.expel(now, at.blob, at.slot);
            }
        }
        self.timers.arm(Subject::Bans, &mut self.bans_armed, now + self.config.ban.batch.max(TICK));
    }
}
