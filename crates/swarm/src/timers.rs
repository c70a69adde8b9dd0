//! When the engine wants to be called next, and what it does then.
//!
//! State: one time for each kind of work.
//! Invariants: a time that has passed is served at the next `handle_timeout`; an idle engine wants to be called for announces only.
//! Absent on purpose: the clock.

use std::time::Duration;

use shoal_types::{ChunkIndex, Time};
use shoal_wire::LeaseGrant;

use crate::engine::Engine;
use crate::peer::BlobSlot;

/// One time for each kind of work; [`Time::MAX`] means not at all.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Announces that are due.
    pub(crate) announce: Time,
    /// New chunks that the neighbours have not been told.
    pub(crate) tell: Time,
    /// A limit on bytes a second lets the next chunk pass.
    pub(crate) limit: Time,
    /// The slots are dealt anew.
    pub(crate) rechoke: Time,
    /// Places that are of no use are given back, and declined ones offered again.
    pub(crate) slots: Time,
    /// Whatever is found by looking from time to time: silence, stalls, holes.
    pub(crate) sweep: Time,
}

impl Timers {
    pub(crate) const fn idle() -> Self {
        Self {
            announce: Time::MAX,
            tell: Time::MAX,
            limit: Time::MAX,
            rechoke: Time::MAX,
            slots: Time::MAX,
            sweep: Time::MAX,
        }
    }

    fn next(&self) -> Time {
        self.announce.min(self.tell).min(self.limit).min(self.rechoke).min(self.slots).min(self.sweep)
    }
}

impl Engine {
    /// How often the engine looks for silence and stalls: a fortieth of the second after which a silent peer loses its requests.
    pub(crate) const SWEEP: Duration = Duration::from_millis(25);

    /// When [`Self::handle_timeout`] is to be called; not at all, if there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        Some(self.timers.next()).filter(|next| *next < Time::MAX)
    }

    /// Time has passed. Calling too early or too often is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.timers.limit <= now {
            self.timers.limit = Time::MAX;
            self.pump(now);
            self.fill(now);
        }
        if self.timers.tell <= now {
            self.tell_all(now);
        }
        if self.timers.rechoke <= now {
            self.rechoke(now);
        }
        if self.timers.slots <= now {
            self.return_idle_slots(now);
        }
        if self.timers.sweep <= now {
            self.sweep(now);
        }
        if self.timers.announce <= now {
            self.announce_due(now);
        }
    }

    fn sweep(&mut self, now: Time) {
        self.snub(now);
        self.give_up_promises(now);
        let unfinished: Vec<BlobSlot> =
            self.slots().into_iter().filter(|slot| !self.transfer(*slot).is_served()).collect();
        self.timers.sweep = if unfinished.is_empty() { Time::MAX } else { now + Self::SWEEP };
        for slot in unfinished {
            self.drive_lead(now, slot);
            self.seek_links(now, slot);
            self.ask_out_of_impatience(now, slot);
        }
        self.fill(now);
    }

    /// A stalled leech doesn't wait for its next announce.
    fn ask_out_of_impatience(&mut self, now: Time, slot: BlobSlot) {
        let impatient_after = self.config.impatient_after;
        let transfer = self.transfer(slot);
        let left_alone = transfer.announce.unanswered && transfer.idle(now) >= impatient_after * 2;
        if left_alone && self.can_lead && !transfer.lead.is_leading() {
            self.help_oneself(now, slot);
        } else {
            self.transfer_mut(slot).helps_itself_at = None;
        }
        let transfer = self.transfer_mut(slot);
        let stalled = transfer.idle(now) >= impatient_after && !transfer.lead.is_leading();
        if stalled && transfer.announce.due > now + impatient_after / 4 {
            transfer.announce.due = now + impatient_after / 4;
            self.timers.announce = self.timers.announce.min(now + impatient_after / 4);
        }
    }

    /// Without a tracker one goes to the origin by oneself, at a moment that differs from node to node: the first one's chunks reach the
    /// others before they go.
    fn help_oneself(&mut self, now: Time, slot: BlobSlot) {
        let Some(at) = self.transfer(slot).helps_itself_at else {
            let longest = usize::try_from((self.config.impatient_after * 2).as_millis()).unwrap_or(usize::MAX);
            let delay = Duration::from_millis(self.rng.below(longest.max(1)) as u64);
            self.transfer_mut(slot).helps_itself_at = Some(now + delay);
            return;
        };
        if at <= now {
            let (_, last) = self.transfer(slot).chain.leases_seen();
            let (epoch, frontier) = (last.saturating_add(1), ChunkIndex::new(0));
            self.take_lease(now, slot, &LeaseGrant { epoch, frontier, holes: Vec::new(), impatient: true });
            // A moment that is too soon after a failure stays: then it goes as soon as it may.
            if self.transfer(slot).lead.is_leading() {
                self.transfer_mut(slot).helps_itself_at = None;
            }
        }
    }
}
