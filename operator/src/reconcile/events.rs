//! What people are told once: the differences between two statuses that are worth an event.
//!
//! State: how many events of a Swarm there were lately.
//! Invariants: an event follows from a change of status, so a leader that starts anew repeats none. A Swarm has at most [`BURST`] events at once and one
//! a minute after that, and the same one not twice within [`REPEAT_AFTER`].
//! Absent on purpose: counting repetitions in the API server.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_api::{ArtifactStatus, Condition, ConditionStatus, SwarmStatus};
use shoal_types::Time;

use super::reasons;

/// As many as an edit of a Swarm with some artifacts comes to.
const BURST: usize = 20;
/// One more after this time.
const REFILL: Duration = Duration::from_secs(60);
/// The same again tells nobody anything new before.
const REPEAT_AFTER: Duration = Duration::from_secs(600);

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) is_warning: bool,
    pub(super) reason: String,
    pub(super) note: String,
}

/// What of a status is news.
pub(super) fn news(before: &SwarmStatus, after: &SwarmStatus) -> Vec<Event> {
    let mut news = Vec::new();
    let normal = |reason: &str, note| Event { is_warning: false, reason: reason.to_owned(), note };
    for artifact in &after.artifacts {
        let ArtifactStatus { name, reference, digest, .. } = artifact;
        let same = |known: &&ArtifactStatus| known.name == *name && known.digest == *digest;
        let known = before.artifacts.iter().find(same);
        if known.is_none() && !digest.is_empty() {
            news.push(normal(reasons::RESOLVED, format!("{name}: {reference} is {digest}")));
        }
        if artifact.completed_at.is_some() && known.is_none_or(|known| known.completed_at.is_none()) {
            let ArtifactStatus { size, complete, from_peers, from_origin, .. } = artifact;
            let note = format!(
                "{name} ({digest}, {size}) is on {complete} nodes: {from_origin} came from the registry, {from_peers} from other nodes"
            );
            news.push(normal(reasons::DISTRIBUTED, note));
        }
    }
    let by_kind = [reasons::CONFLICT, reasons::MIRROR_BYPASSED, reasons::PEER_BANNED];
    for kind in [reasons::STALLED, reasons::ORIGIN_DEGRADED].into_iter().chain(by_kind) {
        let holds = |condition: &&Condition| condition.kind == kind && condition.status == ConditionStatus::True;
        let Some(now) = after.conditions.iter().find(holds) else { continue };
        let then = before.conditions.iter().find(holds);
        let is_same = then.is_some_and(|then| then.reason == now.reason && then.message == now.message);
        let is_told = news.iter().any(|told: &Event| told.reason == now.reason && told.note == now.message);
        if !is_same && !is_told {
            let reason = if by_kind.contains(&kind) { kind } else { &now.reason };
            news.push(Event { is_warning: true, reason: reason.to_owned(), note: now.message.clone() });
        }
    }
    news
}

/// A Swarm's share of events.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The last ones: at most [`BURST`].
    told: VecDeque<(Time, Event)>,
}

impl Budget {
    /// Whether it may be told; then it counts as told.
    pub(super) fn allows(&mut self, event: &Event, now: Time) -> bool {
        let again = |(at, told): &(Time, Event)| told == event && now.since(*at) < REPEAT_AFTER;
        if self.told.iter().any(again) {
            return false;
        }
        if self.told.len() >= BURST {
            if self.told.back().is_some_and(|(last, _)| now.since(*last) < REFILL) {
                return false;
            }
            self.told.pop_front();
        }
        self.told.push_back((now, event.clone()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_is_told_seldom_and_much_is_told_slowly() {
        let mut budget = Budget::default();
        let event = |note: usize| Event { is_warning: true, reason: "X".to_owned(), note: note.to_string() };
        assert!(budget.allows(&event(0), at(0)));
        assert!(!budget.allows(&event(0), at(599)));
        assert!(budget.allows(&event(0), at(600)));
        let told = (1..100).filter(|note| budget.allows(&event(*note), at(700))).count();
        assert_eq!(told, BURST - 2);
        assert!(!budget.allows(&event(200), at(759)));
        assert!(budget.allows(&event(201), at(760)));
        assert!(!budget.allows(&event(202), at(761)));
    }
}
