//! The links, the flows that cross each, and the level to which a link fills its flows.
//!
//! State: capacities, loads and levels, and each link's list of flows: the first few inside the link's record, so that a node's link
//! is one cache line, the rest, which a link between two zones has, in a vector.
//! Invariants: those of `fabric`, which moves flows in and out and sets the levels.
//! Absent on purpose: latency and queues. A link is a rate, and who drives the network adds round trips.

use std::ops::{Index, IndexMut};

use super::flow::FlowTable;

/// Names a link of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u32);

/// The part of its capacity that a link of few flows may leave unused although some wait for it. Where levels are far apart anyway
/// a smaller one costs nothing more; this one stops the echoes of what a link of many flows does.
const SLACK_OF_FEW: f64 = 1e-4;

/// The same for a link of many flows: a start or an end moves the fair level of all of them, by so little that it isn't worth telling
/// them. Such a link is filled to the middle of its slack, so that a 400th of its flows can come or go before all their rates change.
const SLACK_OF_MANY: f64 = 5e-3;

/// From here on flows are many. Below, filling the link anew is cheaper than what a wider slack saves.
const MANY: usize = 64;

/// The part of a capacity by which rounding may overfill a link: far above the error of a sum of 10,000 rates.
pub(super) const ROUNDING: f64 = 1e-9;

/// Flows inside a link's record: as many as fill up its cache line.
const INSIDE: usize = 6;

/// A capacity that flows share.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Link {
    /// Bytes per second.
    pub(super) capacity: f64,
    /// The sum of its flows' rates.
    pub(super) load: f64,
    /// No flow gets more here; infinite while the link limits nobody.
    pub(super) level: f64,
    /// Bytes that flows which have ended carried over the link.
    pub(super) past_bytes: u64,
    /// How many flows cross the link.
    flows: u32,
    /// Whether the link is in the queue of overfull links, and in that of roomy ones.
    pub(super) is_in_overfull: bool,
    pub(super) is_in_roomy: bool,
    first: [u32; INSIDE],
}

const _: () = assert!(size_of::<Link>() == 64, "a link is one cache line");

impl Link {
    /// How many flows cross the link.
    pub(super) const fn flows(&self) -> usize {
        self.flows as usize
    }

    /// Whether its flows have more than there is.
    pub(super) fn is_overfull(&self) -> bool {
        self.load > self.capacity * (1.0 + ROUNDING)
    }

    /// Whether its level keeps its flows from using what there is.
    pub(super) fn is_roomy(&self) -> bool {
        self.level < f64::INFINITY && self.load < self.least()
    }

    /// What the flows of a link that limits them use together at the least.
    pub(super) fn least(&self) -> f64 {
        self.capacity * (1.0 - self.slack())
    }

    /// What its flows are to use together.
    pub(super) fn aim(&self) -> f64 {
        if self.flows() < MANY { self.capacity } else { self.capacity * (1.0 - self.slack() / 2.0) }
    }

    const fn slack(&self) -> f64 {
        if self.flows() < MANY { SLACK_OF_FEW } else { SLACK_OF_MANY }
    }
}

/// All links by their number.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
    /// The flows of each link that don't fit into its record.
    rest: Vec<Vec<u32>>,
}

impl Links {
    /// Adds a link without flows.
    pub(super) fn add(&mut self, capacity: f64) -> u32 {
        let number = u32::try_from(self.links.len()).expect("fewer than 2^32 links");
        self.links.push(Link {
            capacity,
            load: 0.0,
            level: f64::INFINITY,
            past_bytes: 0,
            flows: 0,
            is_in_overfull: false,
            is_in_roomy: false,
            first: [0; INSIDE],
        });
        self.rest.push(Vec::new());
        number
    }

    /// How many links there are.
    pub(super) const fn len(&self) -> usize {
        self.links.len()
    }

    /// The flows that cross a link.
    pub(super) fn flows(&self, link: u32) -> impl Iterator<Item = u32> + '_ {
        let record = &self[link];
        let rest: &[u32] = if record.flows() > INSIDE { &self.rest[link as usize] } else { &[] };
        record.first[..record.flows().min(INSIDE)].iter().chain(rest).copied()
    }

    /// Appends a flow to a link's list and says at which place.
    pub(super) fn push(&mut self, link: u32, slot: u32) -> u32 {
        let record = &mut self.links[link as usize];
        let place = record.flows;
        match record.first.get_mut(place as usize) {
            Some(entry) => *entry = slot,
            None => self.rest[link as usize].push(slot),
        }
        record.flows = place.checked_add(1).expect("fewer than 2^32 flows at a time");
        place
    }

    /// Takes out the flow at `place`; the last flow of the list moves there.
    pub(super) fn remove(&mut self, link: u32, place: u32, flows: &mut FlowTable) {
        let record = &mut self.links[link as usize];
        record.flows -= 1;
        let last = if record.flows() < INSIDE {
            record.first[record.flows()]
        } else {
            self.rest[link as usize].pop().expect("the list is as long as the record says")
        };
        if place < record.flows {
            match record.first.get_mut(place as usize) {
                Some(entry) => *entry = last,
                None => self.rest[link as usize][place as usize - INSIDE] = last,
            }
            *flows.get_mut(last).place_mut(link) = place;
        }
    }
}

impl Index<u32> for Links {
    type Output = Link;

    fn index(&self, link: u32) -> &Link {
        &self.links[link as usize]
    }
}

impl IndexMut<u32> for Links {
    fn index_mut(&mut self, link: u32) -> &mut Link {
        &mut self.links[link as usize]
    }
}

/// The level at which flows that can use `limits` elsewhere fill `capacity`; infinite if they can't.
pub(super) fn water_level(capacity: f64, limits: &[f64]) -> f64 {
    let wanted: f64 = limits.iter().sum();
    if wanted <= capacity {
        return f64::INFINITY;
    }
    // The level only rises from one round to the next, because the flows below it leave more to the others than an equal part;
    // so does the number of flows below it. The first round that finds no more of them is the last, so that rounding can't make
    // the loop endless.
    let mut below_before = 0;
    let mut level = capacity / as_f64(limits.len());
    loop {
        let mut below = 0;
        let mut rest = capacity;
        for &limit in limits {
            if limit < level {
                below += 1;
                rest -= limit;
            }
        }
        if below <= below_before || below == limits.len() {
            return level;
        }
        below_before = below;
        level = rest / as_f64(limits.len() - below);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a number of flows")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_fills_the_link() {
        let inf = f64::INFINITY;
        for (capacity, limits, level) in [
            (12.0, vec![], inf),
            (12.0, vec![12.0], inf),
            (12.0, vec![inf], 12.0),
            (12.0, vec![inf, inf, inf], 4.0),
            (12.0, vec![1.0, inf, inf], 5.5),
            (12.0, vec![1.0, 5.0, inf], 6.0),
            (12.0, vec![1.0, 2.0, 3.0, inf, 9.0], 3.0),
            (0.0, vec![1.0, inf], 0.0),
        ] {
            assert!(water_level(capacity, &limits) == level, "{capacity} over {limits:?}");
        }
    }

    proptest! {
        /// Also if limits and levels differ by rounding alone.
        #[test]
        fn a_finite_level_uses_the_whole_capacity(
            capacity in prop_oneof![0.1_f64..100.0, Just(10.0)],
            limits in prop::collection::vec(
                prop_oneof![
                    0.0_f64..50.0,
                    Just(f64::INFINITY),
                    (0_u8..4).prop_map(|ulps| 10.0 / 3.0 + f64::from(ulps) * 4.5e-16),
                ],
                0..30,
            ),
        ) {
            let level = water_level(capacity, &limits);
            let used: f64 = limits.iter().map(|limit| limit.min(level)).sum();
            if level.is_finite() {
                prop_assert!((used - capacity).abs() < 1e-9 * capacity);
            } else {
                prop_assert!(used <= capacity);
            }
        }
    }
}
