//! The order in which flows end: an indexed 4-ary heap over lower bounds of the end times.
//!
//! State: at most one entry a flow: a time that is not after the flow's end.
//! Invariants: parents are not after their children, ties in the order of the flows' slots; `places` points at each entry.
//! A flow that slows down keeps its entry: the entry is now too early, and is corrected only if it comes to the top. Half of all
//! rate changes are such, and most entries are corrected once or never.
//! Absent on purpose: the flows themselves. The caller knows the true ends.

use shoal_types::Time;

/// Children of an entry: four share a cache line of 64 bytes.
const ARITY: usize = 4;
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Time,
    slot: u32,
}

/// Flows by a lower bound of their end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    heap: Vec<Entry>,
    /// For each flow's slot: where its entry is.
    places: Vec<u32>,
}

impl Ends {
    /// The flow that may end first.
    pub(super) fn first(&self) -> Option<(Time, u32)> {
        self.heap.first().map(|entry| (entry.at, entry.slot))
    }

    /// Makes the flow's entry be at most `at`; a flow without one gets one.
    pub(super) fn bound(&mut self, slot: u32, at: Time) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, ABSENT);
        }
        let place = self.places[slot as usize];
        if place == ABSENT {
            self.heap.push(Entry { at, slot });
            self.rise(self.heap.len() - 1, Entry { at, slot });
        } else if at < self.heap[place as usize].at {
            self.rise(place as usize, Entry { at, slot });
        }
    }

    /// Moves the first entry to a later time.
    pub(super) fn defer_first(&mut self, at: Time) {
        let entry = Entry { at, slot: self.heap[0].slot };
        self.sink(0, entry);
    }

    /// Takes the flow's entry out, if it has one.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else { return };
        let hole = std::mem::replace(place, ABSENT);
        if hole == ABSENT {
            return;
        }
        let hole = hole as usize;
        let last = self.heap.pop().expect("the flow has an entry");
        if hole == self.heap.len() {
            return;
        }
        if hole > 0 && last < self.heap[(hole - 1) / ARITY] {
            self.rise(hole, last);
        } else {
            self.sink(hole, last);
        }
    }

    /// Puts `entry` at `hole` or above it.
    fn rise(&mut self, mut hole: usize, entry: Entry) {
        while hole > 0 {
            let parent = (hole - 1) / ARITY;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(hole, self.heap[parent]);
            hole = parent;
        }
        self.put(hole, entry);
    }

    /// Puts `entry` at `hole` or below it.
    fn sink(&mut self, mut hole: usize, entry: Entry) {
        loop {
            let first_child = hole * ARITY + 1;
            let children = first_child..(first_child + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { break };
            if entry <= self.heap[least] {
                break;
            }
            self.put(hole, self.heap[least]);
            hole = least;
        }
        self.put(hole, entry);
    }

    #[allow(clippy::cast_possible_truncation, reason = "one entry a flow, and slots are u32")]
    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.places[entry.slot as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against an ordered map: any sequence of bounds, deferrals and removals leaves the same first entry.
        #[test]
        fn the_first_entry_is_the_least(steps in prop::collection::vec((0_u8..4, 0_u32..40, 0_u64..1000), 0..400)) {
            let mut ends = Ends::default();
            let mut model = std::collections::BTreeMap::<u32, Time>::new();
            for (step, slot, nanos) in steps {
                let at = Time::from_nanos(nanos);
                match step {
                    0 | 1 => {
                        ends.bound(slot, at);
                        model.entry(slot).and_modify(|old| *old = at.min(*old)).or_insert(at);
                    }
                    2 => {
                        ends.remove(slot);
                        model.remove(&slot);
                    }
                    _ => if let Some((first, slot)) = ends.first() {
                        let later = first + std::time::Duration::from_nanos(nanos);
                        ends.defer_first(later);
                        model.insert(slot, later);
                    }
                }
                prop_assert_eq!(ends.first(), model.iter().map(|(&slot, &at)| (at, slot)).min());
            }
        }
    }
}
