//! When the tracker has to look at something again.
//!
//! State: one point in time per subject at most. A subject keeps its own armed time, so that arming is one comparison where nothing
//! changes: an announce, which only makes things later, touches no timer.
//! Invariants: a subject's armed time is in the set, or is [`Time::MAX`] and isn't. A timer may be early (the subject looks, finds
//! nothing due and arms again), never late.
//! Absent on purpose: what is due. That is read from the subject's state when its timer fires.

use std::collections::BTreeSet;

use shoal_types::Time;

use crate::slab::{BlobIx, NodeIx};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A node's memberships expire.
    Node(NodeIx),
    /// A blob's lease, gateways, or itself.
    Blob(BlobIx),
    /// Bans are to be told.
    Bans,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Time, Subject)>,
}

impl Timers {
    /// Makes sure that the subject is looked at no later than `at`.
    pub(crate) fn arm(&mut self, subject: Subject, armed: &mut Time, at: Time) {
        if at < *armed {
            self.disarm(subject, armed);
            self.due.insert((at, subject));
            *armed = at;
        }
    }

    pub(crate) fn disarm(&mut self, subject: Subject, armed: &mut Time) {
        if *armed != Time::MAX {
            self.due.remove(&(*armed, subject));
            *armed = Time::MAX;
        }
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next subject that is due. Its armed time is the caller's to reset.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Subject> {
        let (at, subject) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(subject)
    }

    pub(crate) fn contains(&self, subject: Subject, at: Time) -> bool {
        self.due.contains(&(at, subject))
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}
