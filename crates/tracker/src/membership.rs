//! Coming and going: connections, expiry, and what a member leaves behind.
//!
//! ```text
//!             announce                     connection closed, or a lead fell silent
//!  stranger ───────────> member, live ────────────────────────────────> member, not live
//!      ^                  │        ^                                          │   │
//!      │ stopped, banned, │        └──────── connected again, announced ──────┘   │
//!      └── silent ────────┴──────────────── grace over ───────────────────────────┘
//! ```
//!
//! State: none of its own; it moves the tracker's.
//! Invariants: whoever stops being live gives up its leases and its gateway's part in the same step. A timer that fires looks at
//! everything that is due for its subject and arms the next one later than now, so that handling timeouts ends.
//! Absent on purpose: reading announces (`announce.rs`).

use std::time::Duration;

use shoal_types::{NodeId, Time, Zone};
use shoal_wire::Directive;

use crate::blob::Blob;
use crate::lease::End;
use crate::slab::{BlobIx, NodeIx, Slot};
use crate::timers::Subject;
use crate::tracker::Tracker;

/// No subject is looked at more often: what is due meanwhile waits for the next tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Names in one directive or reply that bans: what is left follows.
pub(crate) const BANS_AT_ONCE: usize = 256;

impl Tracker {
    /// An agent's connection to the tracker is up. Who it is, and where, is the certificate's word.
    pub fn handle_connected(&mut self, now: Time, node: NodeId, zone: Zone) {
        let Some(ix) = self.nodes.enter(node) else {
            self.counters.nodes_refused += 1;
            return;
        };
        if self.nodes[ix].connected {
            if *self.nodes.zone_name(self.nodes[ix].zone) == zone {
                return;
            }
            self.disconnect(now, ix);
        }
        if self.ledger.is_banned(node) && !self.nodes[ix].banned {
            self.nodes.ban(ix);
        }
        self.nodes.connect(ix, &zone);
        let zone = self.nodes[ix].zone;
        for at in self.nodes[ix].memberships.clone() {
            let member = &mut self.blobs[at.blob].members[at.slot];
            member.zone = zone;
            member.seen_at = now;
            self.set_live(at.blob, at.slot, true);
            self.reconsider(now, at.blob);
        }
        self.arm_node(now, ix);
        self.after_step();
    }

    /// An agent's connection to the tracker has closed. Its leases move at once; the rest of its memberships waits for it a while.
    pub fn handle_disconnected(&mut self, now: Time, node: NodeId) {
        if let Some(ix) = self.nodes.find(node).filter(|ix| self.nodes[*ix].connected) {
            self.disconnect(now, ix);
            self.after_step();
        }
    }

    /// Does what time alone makes due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(subject) = self.timers.pop(now) {
            match subject {
                Subject::Node(node) => self.node_is_due(now, node),
                Subject::Blob(blob) => self.blob_is_due(now, blob),
                Subject::Bans => self.tell_bans(now),
            }
        }
        self.after_step();
    }

    /// A member is no longer there: what it did for the blob goes to others.
    pub(crate) fn retire(&mut self, now: Time, blob: BlobIx, slot: Slot, end: End) {
        if !self.blobs[blob].members[slot].is_live() {
            return;
        }
        self.set_live(blob, slot, false);
        let entry = &mut self.blobs[blob];
        entry.leases.impatient.retain(|lease| lease.holder != slot);
        let zone = entry.members[slot].zone;
        if entry.gateways.of(zone) == Some(slot) {
            entry.gateways.remove(zone);
        }
        if entry.leases.held_by(slot).is_some() {
            self.end_lease(now, blob, end);
        }
        self.reconsider(now, blob);
    }

    /// A member is gone for good.
    pub(crate) fn expel(&mut self, now: Time, blob: BlobIx, slot: Slot) {
        self.retire(now, blob, slot, End::Left);
        let entry = &mut self.blobs[blob];
        let member = entry.dismiss(slot);
        if entry.members.is_empty() {
            entry.empty_since = now;
        }
        self.nodes[member.node].leave(blob);
        self.arm_blob(now, blob);
    }

    /// Something about a blob has changed: whether it needs a lead, who its gateways are, when to look again.
    pub(crate) fn reconsider(&mut self, now: Time, blob: BlobIx) {
        self.settle_lead(now, blob);
        self.settle_gateways(now, blob, None);
        self.arm_blob(now, blob);
    }

    pub(crate) fn arm_blob(&mut self, now: Time, blob: BlobIx) {
        let at = self.deadline(&self.blobs[blob]);
        if at != Time::MAX {
            self.timers.arm(Subject::Blob(blob), &mut self.blobs[blob].armed, at.max(now + TICK));
        }
    }

    pub(crate) fn arm_node(&mut self, now: Time, node: NodeIx) {
        let entry = &self.nodes[node];
        let expiry = entry.memberships.iter().map(|at| self.blobs[at.blob].members[at.slot].expires_at()).min();
        let forgotten = (!entry.connected).then_some(entry.gone_at + self.config.membership.disconnect_grace);
        if let Some(at) = expiry.into_iter().chain(forgotten).min() {
            self.timers.arm(Subject::Node(node), &mut self.nodes[node].armed, at.max(now + TICK));
        }
    }

    /// When something about a blob is due next.
    pub(crate) fn deadline(&self, blob: &Blob) -> Time {
        if blob.members.is_empty() {
            return blob.empty_since + self.config.membership.blob_linger;
        }
        let lease = blob.leases.deadline(blob.chunks());
        lease.min(blob.gateways.deadline(self.config.membership.gateway_silence))
    }

    fn disconnect(&mut self, now: Time, node: NodeIx) {
        self.nodes.disconnect(now, node);
        self.outbox.forget(self.nodes[node].id);
        for at in self.nodes[node].memberships.clone() {
            self.retire(now, at.blob, at.slot, End::Left);
        }
        self.arm_node(now, node);
    }

    fn node_is_due(&mut self, now: Time, node: NodeIx) {
        let entry = &mut self.nodes[node];
        entry.armed = Time::MAX;
        let forgotten = !entry.connected && entry.gone_at + self.config.membership.disconnect_grace <= now;
        for at in entry.memberships.clone() {
            if forgotten || self.blobs[at.blob].members[at.slot].expires_at() <= now {
                self.counters.expired += 1;
                self.expel(now, at.blob, at.slot);
            }
        }
        if forgotten {
            self.ledger.forget(self.nodes[node].id);
            self.nodes.forget(node);
        } else {
            self.arm_node(now, node);
        }
    }

    fn blob_is_due(&mut self, now: Time, blob: BlobIx) {
        let entry = &mut self.blobs[blob];
        entry.armed = Time::MAX;
        if entry.members.is_empty() {
            if self.deadline(&self.blobs[blob]) <= now {
                self.forget_blob(blob);
            } else {
                self.arm_blob(now, blob);
            }
            return;
        }
        let chunks = entry.chunks();
        let ended = entry.leases.held().and_then(|lease| {
            let silent = lease.is_silent(now).then_some(End::Silent);
            silent.or(lease.is_stalled(now, chunks).then_some(End::Stalled))
        });
        match (ended, entry.leases.held().map(|lease| lease.holder)) {
            (Some(End::Silent), Some(holder)) => self.retire(now, blob, holder, End::Silent),
            (Some(end), _) => self.end_lease(now, blob, end),
            (None, _) => {}
        }
        self.end_idle_impatience(now, blob);
        self.replace_stalled_gateways(now, blob);
        self.reconsider(now, blob);
    }

    fn forget_blob(&mut self, blob: BlobIx) {
        let entry = self.blobs.remove(blob);
        self.epoch_floor = self.epoch_floor.max(entry.leases.last_epoch());
        self.by_content.remove(&(entry.info.digest, entry.info.geometry.size_bytes()));
    }

    /// Tells everybody who hasn't heard of the last bans.
    fn tell_bans(&mut self, now: Time) {
        self.bans_armed = Time::MAX;
        let log = self.ledger.log();
        let mut more = false;
        for node in self.nodes.connected.iter().collect::<Vec<_>>() {
            let entry = &mut self.nodes[node];
            let end = log.len().min(entry.bans_told + BANS_AT_ONCE);
            let nodes = &log[entry.bans_told..end];
            if !nodes.is_empty() && self.outbox.push(entry.id, Directive::Ban { nodes: nodes.to_vec() }) {
                entry.bans_told = end;
            }
            more |= end < log.len();
        }
        if more {
            self.timers.arm(Subject::Bans, &mut self.bans_armed, now + self.config.ban.batch.max(TICK));
        }
    }
}
