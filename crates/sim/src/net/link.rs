//! A link and the level to which it fills its flows.
//!
//! State: the capacity, the flows that cross the link, their rates' sum, the level.
//! Invariants: see `fabric`, which moves flows in and out and sets the level.
//! Absent on purpose: latency and queues. A link is a rate, and who drives the network adds round trips.

use super::flow::FlowTable;

/// Names a link of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u32);

/// A capacity that flows share.
#[derive(Debug)]
pub(super) struct Link {
    /// Bytes per second.
    pub(super) capacity: f64,
    /// The sum of its flows' rates.
    pub(super) load: f64,
    /// No flow gets more here; infinite while the link limits nobody.
    pub(super) level: f64,
    /// Whether the link is in the queue of crowded links, and in that of roomy ones.
    pub(super) is_in_crowded: bool,
    pub(super) is_in_roomy: bool,
    flows: Vec<u32>,
    /// Bytes that flows which have ended carried over the link.
    pub(super) past_bytes: u64,
}

impl Link {
    pub(super) const fn new(capacity: f64) -> Self {
        Self {
            capacity,
            load: 0.0,
            level: f64::INFINITY,
            is_in_crowded: false,
            is_in_roomy: false,
            flows: Vec::new(),
            past_bytes: 0,
        }
    }

    pub(super) fn flows(&self) -> &[u32] {
        &self.flows
    }

    /// Appends a flow and says at which place.
    pub(super) fn push(&mut self, slot: u32) -> u32 {
        self.flows.push(slot);
        u32::try_from(self.flows.len() - 1).expect("fewer than 2^32 flows at a time")
    }

    /// Takes out the flow at `place`; the last flow of the list moves there.
    pub(super) fn remove(&mut self, this: u32, place: u32, flows: &mut FlowTable) {
        self.flows.swap_remove(place as usize);
        if let Some(&moved) = self.flows.get(place as usize) {
            *flows.get_mut(moved).place_mut(this) = place;
        }
    }
}

/// The level at which flows that can use `limits` elsewhere fill `capacity`; infinite if they can't.
pub(super) fn water_level(capacity: f64, limits: &[f64]) -> f64 {
    let wanted: f64 = limits.iter().sum();
    if wanted <= capacity {
        return f64::INFINITY;
    }
    // The level only rises from one round to the next, because the flows below it leave more to the others than an equal part;
    // so does the number of flows below it, and that ends the loop.
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
        if below == below_before || below == limits.len() {
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
        #[test]
        fn a_finite_level_uses_the_whole_capacity(
            capacity in 0.1_f64..100.0,
            limits in prop::collection::vec(prop_oneof![0.0_f64..50.0, Just(f64::INFINITY)], 0..30),
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
