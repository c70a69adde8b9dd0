//! The members that an agent knows.
//!
//! State: each member's zone and until when it is avoided.
//! Invariants: never more than the configured number.
//! Absent on purpose: addresses and persistence (the agent's), and probing: a member is avoided because it didn't answer something.

use std::collections::BTreeMap;

use shoal_types::{NodeId, Time, Zone};

use super::LookupConfig;

/// Who there is.
#[derive(Clone, Debug)]
pub struct Members {
    limit: usize,
    known: BTreeMap<NodeId, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    zone: Zone,
    avoided_until: Time,
}

impl Members {
    /// Nobody yet.
    #[must_use]
    pub const fn new(config: &LookupConfig) -> Self {
        Self { limit: config.max_members, known: BTreeMap::new() }
    }

    /// A member, or its new zone. Whether there was a place for it.
    pub fn insert(&mut self, node: NodeId, zone: Zone) -> bool {
        if let Some(entry) = self.known.get_mut(&node) {
            entry.zone = zone;
            return true;
        }
        let fits = self.known.len() < self.limit;
        if fits {
            self.known.insert(node, Entry { zone, avoided_until: Time::ZERO });
        }
        fits
    }

    /// A node that is no member any more. Whether it was.
    pub fn remove(&mut self, node: NodeId) -> bool {
        self.known.remove(&node).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A member's zone.
    #[must_use]
    pub fn zone(&self, node: NodeId) -> Option<&Zone> {
        self.known.get(&node).map(|entry| &entry.zone)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Zone)> {
        self.known.iter().map(|(node, entry)| (*node, &entry.zone))
    }

    /// A member didn't answer: it is passed over until that time.
    pub fn avoid(&mut self, node: NodeId, until: Time) {
        if let Some(entry) = self.known.get_mut(&node) {
            entry.avoided_until = until;
        }
    }

    /// A member has been heard of: it is passed over no longer.
    pub fn found_alive(&mut self, node: NodeId) {
        self.avoid(node, Time::ZERO);
    }

    /// The `k` members closest to a position that aren't avoided, closest first.
    #[must_use]
    pub fn closest(&self, now: Time, position: u128, k: usize) -> Vec<NodeId> {
        let mut closest: Vec<NodeId> = Vec::with_capacity(k + 1);
        let distance = |node: NodeId| node.get() ^ position;
        for (node, _) in self.known.iter().filter(|(_, entry)| entry.avoided_until <= now) {
            let at = closest.partition_point(|other| distance(*other) < distance(*node));
            if at < k {
                closest.insert(at, *node);
                closest.truncate(k);
            }
        }
        closest
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::Rng;

    use super::*;

    #[test]
    fn the_closest_are_those_of_a_full_sort() {
        let mut rng = Rng::new(4);
        let mut members = Members::new(&LookupConfig::default());
        let random = |rng: &mut Rng| u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        for _ in 0..500 {
            members.insert(NodeId::new(random(&mut rng)), Zone::default());
        }
        for _ in 0..100 {
            let position = random(&mut rng);
            let mut all: Vec<NodeId> = members.iter().map(|(node, _)| node).collect();
            all.sort_by_key(|node| node.get() ^ position);
            assert_eq!(members.closest(Time::ZERO, position, 7), all[..7]);
            members.avoid(all[0], Time::from_nanos(5));
            assert_eq!(members.closest(Time::ZERO, position, 1), all[1..2]);
            assert_eq!(members.closest(Time::from_nanos(5), position, 1), all[..1]);
            members.found_alive(all[0]);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut members = Members::new(&LookupConfig { max_members: 2, ..LookupConfig::default() });
        assert_eq!([1, 2, 3].map(|node| members.insert(NodeId::new(node), Zone::default())), [true, true, false]);
        assert!(members.insert(NodeId::new(2), Zone::new("b").unwrap()));
        assert_eq!(members.zone(NodeId::new(2)).unwrap().name(), "b");
        assert!(members.remove(NodeId::new(1)) && !members.remove(NodeId::new(1)));
        assert_eq!(members.len(), 1);
    }
}
