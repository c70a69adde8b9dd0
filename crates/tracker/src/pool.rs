//! Who can be handed out, by zone: random subsets in time proportional to what is asked for, not to how many there are.
//!
//! State: one list of items per zone that has any, and each item's place in its list.
//! Invariants: an item is in at most one list; `place` says where; no list is empty; the lists are in the zones' order.
//! Absent on purpose: what an item is, and who is excluded for longer than one draw (that one is not in the pool).

use shoal_types::Rng;

use crate::slab::Key;

/// A zone's number in the tracker's table of zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ZoneIx(pub(crate) u16);

const NOWHERE: u32 = u32::MAX;

/// Items by zone.
#[derive(Debug)]
pub(crate) struct ZonePool<K> {
    lists: Vec<(ZoneIx, Vec<K>)>,
    place: Vec<u32>,
    len: usize,
}

/// What a draw is to give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw<K> {
    /// The zone that is preferred.
    pub(crate) home: ZoneIx,
    /// How many items.
    pub(crate) want: usize,
    /// How many of them come from other zones, if those have so many.
    pub(crate) others: usize,
    /// Who asks: never given.
    pub(crate) except: Option<K>,
}

impl<K: Key> ZonePool<K> {
    pub(crate) const fn new() -> Self {
        Self { lists: Vec::new(), place: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn len_in(&self, zone: ZoneIx) -> usize {
        self.items_in(zone).len()
    }

    pub(crate) fn contains(&self, item: K) -> bool {
        self.place.get(item.at()).is_some_and(|place| *place != NOWHERE)
    }

    /// The zones that have items, in order.
    pub(crate) fn zones(&self) -> impl Iterator<Item = ZoneIx> + '_ {
        self.lists.iter().map(|(zone, _)| *zone)
    }

    pub(crate) fn items_in(&self, zone: ZoneIx) -> &[K] {
        self.find(zone).map_or(&[], |list| &self.lists[list].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = K> + '_ {
        self.lists.iter().flat_map(|(_, items)| items.iter().copied())
    }

    pub(crate) fn insert(&mut self, zone: ZoneIx, item: K) {
        debug_assert!(!self.contains(item), "{item:?} is in the pool");
        let list = self.lists.binary_search_by_key(&zone, |(zone, _)| *zone).unwrap_or_else(|list| {
            self.lists.insert(list, (zone, Vec::new()));
            list
        });
        let items = &mut self.lists[list].1;
        if self.place.len() <= item.at() {
            self.place.resize(item.at() + 1, NOWHERE);
        }
        self.place[item.at()] = place(items.len());
        items.push(item);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, zone: ZoneIx, item: K) {
        let list = self.find(zone).expect("an item's zone has a list");
        let at = std::mem::replace(&mut self.place[item.at()], NOWHERE) as usize;
        let items = &mut self.lists[list].1;
        assert_eq!(items.swap_remove(at), item, "an item is where its place says");
        if let Some(moved) = items.get(at) {
            self.place[moved.at()] = place(at);
        }
        if items.is_empty() {
            self.lists.remove(list);
        }
        self.len -= 1;
    }

    /// Draws without replacement, every subset as likely as any other of the same make-up. Those who come first in the result are
    /// of the home zone. Time: the number drawn, times the number of zones for those of other zones.
    pub(crate) fn draw(&mut self, rng: &mut Rng, draw: Draw<K>) -> Vec<K> {
        let asker_zone = draw.except.filter(|item| self.contains(*item)).and_then(|item| self.zone_of(item));
        let asker_at_home = usize::from(asker_zone == Some(draw.home));
        let asker_abroad = usize::from(asker_zone.is_some()) - asker_at_home;
        let at_home = self.len_in(draw.home) - asker_at_home;
        let abroad = self.len - self.len_in(draw.home) - asker_abroad;
        let from_abroad = abroad.min(draw.others.min(draw.want).max(draw.want.saturating_sub(at_home)));
        let from_home = at_home.min(draw.want - from_abroad);

        let mut drawn = Vec::with_capacity(from_home + from_abroad);
        if let Some(list) = self.find(draw.home) {
            let mut taken = 0;
            while drawn.len() < from_home {
                let item = self.take(rng, list, &mut taken);
                drawn.extend((Some(item) != draw.except).then_some(item));
            }
        }
        let lists: Vec<usize> = (0..self.lists.len()).filter(|list| self.lists[*list].0 != draw.home).collect();
        let mut taken = vec![0; lists.len()];
        while drawn.len() < from_home + from_abroad {
            // Every item that is left is as likely as the others: the zone is drawn by how many it has left.
            let left = |at: usize, taken: &[usize]| self.lists[lists[at]].1.len() - taken[at];
            let mut nth = rng.below((0..lists.len()).map(|at| left(at, &taken)).sum());
            let mut at = 0;
            while nth >= left(at, &taken) {
                nth -= left(at, &taken);
                at += 1;
            }
            let item = self.take(rng, lists[at], &mut taken[at]);
            drawn.extend((Some(item) != draw.except).then_some(item));
        }
        drawn
    }

    /// One step of a Fisher–Yates shuffle of a list whose first `taken` items have been drawn.
    fn take(&mut self, rng: &mut Rng, list: usize, taken: &mut usize) -> K {
        let items = &mut self.lists[list].1;
        let at = *taken + rng.below(items.len() - *taken);
        items.swap(*taken, at);
        self.place[items[at].at()] = place(at);
        let item = items[*taken];
        self.place[item.at()] = place(*taken);
        *taken += 1;
        item
    }

    fn find(&self, zone: ZoneIx) -> Option<usize> {
        self.lists.binary_search_by_key(&zone, |(zone, _)| *zone).ok()
    }

    fn zone_of(&self, item: K) -> Option<ZoneIx> {
        let at = self.place[item.at()] as usize;
        self.lists.iter().find(|(_, items)| items.get(at) == Some(&item)).map(|(zone, _)| *zone)
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.len, self.lists.iter().map(|(_, items)| items.len()).sum::<usize>(), "items are counted");
        assert!(self.lists.is_sorted_by_key(|(zone, _)| *zone), "lists are in order");
        for (zone, items) in &self.lists {
            assert!(!items.is_empty(), "{zone:?} has a list and no items");
            for (at, item) in items.iter().enumerate() {
                assert_eq!(self.place[item.at()] as usize, at, "{item:?} is where its place says");
            }
        }
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a pool has fewer items than a table")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use shoal_types::Rng;

    use super::*;
    use crate::slab::Slot;

    fn pool_of(sizes: &[u32]) -> ZonePool<Slot> {
        let mut pool = ZonePool::new();
        let mut next = 0;
        for (zone, size) in (0..).zip(sizes) {
            for _ in 0..*size {
                pool.insert(ZoneIx(zone), Slot::new(next));
                next += 1;
            }
        }
        pool
    }

    proptest! {
        #[test]
        fn a_draw_gives_what_was_asked_for(
            sizes in prop::collection::vec(0_u32..30, 1..5), home in 0_u16..5, want in 0_usize..60, others in 0_usize..20,
            except in 0_u32..150, seed in any::<u64>(),
        ) {
            let mut pool = pool_of(&sizes);
            let home = ZoneIx(home);
            let except = Slot::new(except);
            let zone_of = |pool: &ZonePool<Slot>, slot: Slot| pool.contains(slot).then(|| pool.zone_of(slot)).flatten();
            let asker = zone_of(&pool, except);
            let at_home = pool.len_in(home) - usize::from(asker == Some(home));
            let abroad = pool.len() - pool.len_in(home) - usize::from(asker.is_some_and(|zone| zone != home));
            let drawn = pool.draw(&mut Rng::new(seed), Draw { home, want, others, except: Some(except) });
            pool.check_invariants();
            prop_assert_eq!(drawn.len(), want.min(at_home + abroad));
            prop_assert!(!drawn.contains(&except));
            prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
            let strangers = drawn.iter().filter(|slot| pool.zone_of(**slot) != Some(home)).count();
            prop_assert!(strangers >= others.min(want).min(abroad));
            prop_assert!(strangers == others.min(want).min(abroad) || drawn.len() - strangers == at_home);
        }

        #[test]
        fn it_behaves_as_a_set(ops in prop::collection::vec((any::<bool>(), 0_u16..20), 0..100)) {
            let mut pool = ZonePool::new();
            let mut model = BTreeSet::new();
            for (insert, index) in ops {
                let (zone, slot) = (ZoneIx(index % 3), Slot::new(index.into()));
                if insert && model.insert(slot) {
                    pool.insert(zone, slot);
                } else if !insert && model.remove(&slot) {
                    pool.remove(zone, slot);
                }
                pool.check_invariants();
                prop_assert_eq!(pool.iter().collect::<BTreeSet<_>>(), model.clone());
            }
        }
    }

    #[test]
    fn every_item_is_as_likely_as_the_others_of_its_kind() {
        let mut pool = pool_of(&[10, 10, 20]);
        let mut rng = Rng::new(5);
        let mut counts = [0_u32; 40];
        for _ in 0..10_000 {
            for slot in pool.draw(&mut rng, Draw { home: ZoneIx(0), want: 8, others: 3, except: None }) {
                counts[slot.at()] += 1;
            }
        }
        // 5 of 10 at home, 3 of 30 abroad.
        assert!(counts[..10].iter().all(|count| (4_800..5_200).contains(count)), "{counts:?}");
        assert!(counts[10..].iter().all(|count| (880..1_120).contains(count)), "{counts:?}");
    }
}
