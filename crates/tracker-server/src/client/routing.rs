//! Which tracker a digest belongs to, among those that can be reached now.
//!
//! State: the reachable replicas with their connections, and for each digest that was announced the replica that heard of it.
//! Invariants: a digest's tracker is the first reachable one in the order of rendezvous hashing. Whenever that changes, or a tracker
//! has forgotten what it knew, the digest is named in an event.
//! Absent on purpose: what was announced: whoever announces has it.

use std::collections::BTreeMap;

use shoal_tracker::{ReplicaName, rendezvous};
use shoal_types::Digest;

use super::Event;
use super::link::Link;

/// Digests remembered: as many as a node may be a member of swarms (4,096), at each of four trackers.
const MAX_DIGESTS: usize = 1 << 14;

#[derive(Debug)]
pub(super) struct Routing<L = Link> {
    names: Vec<ReplicaName>,
    /// With the number of who follows the replica: after a change of address a late word of the old follower's doesn't count.
    links: BTreeMap<ReplicaName, (u64, L)>,
    announced: BTreeMap<Digest, ReplicaName>,
}

impl<L> Default for Routing<L> {
    fn default() -> Self {
        Self { names: Vec::new(), links: BTreeMap::new(), announced: BTreeMap::new() }
    }
}

impl<L: Clone> Routing<L> {
    /// The reachable trackers in the order in which they own the digest.
    pub(super) fn of(&self, digest: &Digest) -> Vec<(ReplicaName, L)> {
        rendezvous(digest, &self.names).into_iter().map(|at| self.at(at)).collect()
    }

    /// All that can be reached.
    pub(super) fn all(&self) -> Vec<(ReplicaName, L)> {
        self.links.iter().map(|(name, (_, link))| (name.clone(), link.clone())).collect()
    }

    /// The one that owns the digest now.
    pub(super) fn owner(&self, digest: &Digest) -> Option<(ReplicaName, L)> {
        rendezvous(digest, &self.names).first().map(|at| self.at(*at))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The digest is being announced to this tracker, or taken back from it.
    pub(super) fn note(&mut self, digest: Digest, tracker: &ReplicaName, stopped: bool) {
        if stopped {
            self.announced.remove(&digest);
        } else if self.announced.len() < MAX_DIGESTS || self.announced.contains_key(&digest) {
            self.announced.insert(digest, tracker.clone());
        }
    }

    /// A tracker can be reached, by this connection from now on. `remembers`: it knows what it was told before.
    pub(super) fn reached(&mut self, follower: u64, tracker: &ReplicaName, link: L, remembers: bool) -> Vec<Event> {
        let first = self.is_empty();
        self.links.insert(tracker.clone(), (follower, link));
        self.names = self.links.keys().cloned().collect();
        let mut events: Vec<Event> = first.then_some(Event::TrackersFound).into_iter().collect();
        events.extend(self.moved(|teller| teller == tracker && !remembers));
        events
    }

    /// A tracker can't be reached any more.
    pub(super) fn lost(&mut self, follower: u64, tracker: &ReplicaName) -> Vec<Event> {
        if self.links.get(tracker).is_none_or(|(by, _)| *by != follower) {
            return Vec::new();
        }
        self.links.remove(tracker);
        self.names = self.links.keys().cloned().collect();
        if self.is_empty() { vec![Event::TrackersLost] } else { self.moved(|_| false).into_iter().collect() }
    }

    /// Those whose tracker is another one than heard of them, or has forgotten them.
    fn moved(&self, forgot: impl Fn(&ReplicaName) -> bool) -> Option<Event> {
        let is_owner = |digest: &Digest, teller: &ReplicaName| {
            rendezvous(digest, &self.names).first().is_some_and(|at| self.names[*at] == *teller)
        };
        let moved = |(digest, teller): (&Digest, &ReplicaName)| {
            (forgot(teller) || !is_owner(digest, teller)).then_some(*digest)
        };
        let digests: Vec<Digest> = self.announced.iter().filter_map(moved).collect();
        (!digests.is_empty()).then_some(Event::TrackerChanged { digests })
    }

    fn at(&self, at: usize) -> (ReplicaName, L) {
        let name = &self.names[at];
        (name.clone(), self.links[name].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: usize) -> ReplicaName {
        ReplicaName::new(&format!("t{at}")).unwrap()
    }

    #[test]
    fn what_a_lost_tracker_knew_is_announced_to_the_next_one_and_back_again() {
        let mut routing = Routing::default();
        let digests: Vec<Digest> = (0..32).map(|byte| Digest::Sha256([byte; 32])).collect();
        assert_eq!(routing.reached(1, &name(0), (), true), [Event::TrackersFound]);
        for at in 1..3 {
            assert_eq!(routing.reached(1, &name(at), (), true), []);
        }
        let announce = |routing: &mut Routing<()>, digests: &[Digest]| {
            for digest in digests {
                let (owner, ()) = routing.owner(digest).unwrap();
                routing.note(*digest, &owner, false);
            }
        };
        announce(&mut routing, &digests);
        let of_0 = |routing: &Routing<()>| {
            let owned = |digest: &&Digest| routing.owner(digest).unwrap().0 == name(0);
            digests.iter().filter(owned).copied().collect::<Vec<_>>()
        };
        let owned = of_0(&routing);
        assert!(!owned.is_empty() && owned.len() < digests.len());

        assert_eq!(routing.lost(1, &name(0)), [Event::TrackerChanged { digests: owned.clone() }]);
        announce(&mut routing, &owned);
        assert_eq!(routing.reached(1, &name(0), (), false), [Event::TrackerChanged { digests: owned.clone() }]);
        announce(&mut routing, &owned);
        assert_eq!(routing.reached(1, &name(0), (), true), [], "it goes on where it was");
        assert_eq!(routing.reached(1, &name(0), (), false), [Event::TrackerChanged { digests: owned.clone() }]);
        owned.iter().for_each(|digest| routing.note(*digest, &name(0), true));
        assert_eq!(routing.reached(1, &name(0), (), false), [], "nothing is left there");

        assert_eq!(routing.lost(2, &name(1)), [], "another one follows it");
        assert_eq!(routing.lost(1, &name(1)).len(), 1);
        assert_eq!(routing.lost(1, &name(1)), []);
        routing.lost(1, &name(2));
        assert_eq!(routing.lost(1, &name(0)), [Event::TrackersLost]);
    }
}
