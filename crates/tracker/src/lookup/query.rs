//! One lookup: whom to ask, what they answered, who stands in as the blob's tracker.
//!
//! Each candidate is in exactly one state:
//!
//! ```text
//!   Untried ──poll_ask──> Asked ──answer──> Alive
//!                           └──refused, or too late──> Dead
//! ```
//!
//! State: the candidates, closest first, and the providers named so far.
//! Invariants: as many candidates are Asked or Alive as keep records, while there are untried ones; providers are bounded.
//! Absent on purpose: connections, and announcing oneself as a provider: the driver does that to the [`Lookup::keepers`].

use std::collections::BTreeSet;

use shoal_types::{Digest, NodeId, Time};

use super::{LookupConfig, Members};

/// Looks for a digest's providers and its stand-in tracker.
#[derive(Clone, Debug)]
pub struct Lookup {
    digest: Digest,
    config: LookupConfig,
    candidates: Vec<(NodeId, State)>,
    providers: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untried,
    Asked { until: Time },
    Alive,
    Dead,
}

impl Lookup {
    /// A lookup among these members. The asker is one of them: if it is among the closest, [`Self::poll_ask`] names it too, and it
    /// answers itself.
    #[must_use]
    pub fn start(now: Time, digest: Digest, members: &Members, config: &LookupConfig) -> Self {
        let closest = members.closest(now, digest.position(), config.max_asked);
        let candidates = closest.into_iter().map(|node| (node, State::Untried)).collect();
        Self { digest, config: config.clone(), candidates, providers: BTreeSet::new() }
    }

    /// What is looked for.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The next member to ask who provides the digest; none while enough answers are there or under way.
    pub fn poll_ask(&mut self, now: Time) -> Option<NodeId> {
        let busy = |state: &State| matches!(state, State::Asked { .. } | State::Alive);
        if self.candidates.iter().filter(|(_, state)| busy(state)).count() >= self.config.closest {
            return None;
        }
        let (node, state) = self.candidates.iter_mut().find(|(_, state)| *state == State::Untried)?;
        *state = State::Asked { until: now + self.config.answer_within };
        Some(*node)
    }

    /// A member has answered. An answer of one that wasn't asked, or was given up, is dropped.
    pub fn handle_reply(&mut self, from: NodeId, providers: &[NodeId]) {
        if self.settle(from, State::Alive) {
            let most = self.config.max_providers * self.config.closest;
            let room = most.saturating_sub(self.providers.len());
            self.providers.extend(providers.iter().take(room.min(self.config.max_providers)));
        }
    }

    /// A member can't be reached. It is avoided for a while.
    pub fn handle_unreachable(&mut self, now: Time, node: NodeId, members: &mut Members) {
        if self.settle(node, State::Dead) {
            members.avoid(node, now + self.config.avoid_for);
        }
    }

    /// Gives up on members that are too late with their answers.
    pub fn handle_timeout(&mut self, now: Time, members: &mut Members) {
        let late = |state: State| matches!(state, State::Asked { until } if until <= now);
        let late: Vec<NodeId> =
            self.candidates.iter().filter(|(_, state)| late(*state)).map(|(node, _)| *node).collect();
        late.into_iter().for_each(|node| self.handle_unreachable(now, node, members));
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let until = |state: &State| if let State::Asked { until } = state { Some(*until) } else { None };
        self.candidates.iter().filter_map(|(_, state)| until(state)).min()
    }

    /// Who stands in as the blob's tracker: the closest one that answered, once no closer one may still answer.
    #[must_use]
    pub fn stand_in(&self) -> Option<NodeId> {
        let (node, state) = self.candidates.iter().find(|(_, state)| *state != State::Dead)?;
        (*state == State::Alive).then_some(*node)
    }

    /// Who keeps the digest's records: the closest ones that answered. A provider announces itself to them.
    #[must_use]
    pub fn keepers(&self) -> Vec<NodeId> {
        let alive = self.candidates.iter().filter(|(_, state)| *state == State::Alive);
        alive.map(|(node, _)| *node).take(self.config.closest).collect()
    }

    /// The providers named so far.
    pub fn providers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.providers.iter().copied()
    }

    /// Whether nothing more will come: enough have answered, or nobody is left to ask.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let asked = self.candidates.iter().any(|(_, state)| matches!(state, State::Asked { .. }));
        let untried = self.candidates.iter().any(|(_, state)| *state == State::Untried);
        !asked && (!untried || self.keepers().len() >= self.config.closest)
    }

    fn settle(&mut self, node: NodeId, to: State) -> bool {
        let asked =
            |(candidate, state): &&mut (NodeId, State)| *candidate == node && matches!(state, State::Asked { .. });
        let found = self.candidates.iter_mut().find(asked);
        found.map(|(_, state)| *state = to).is_some()
    }
}
