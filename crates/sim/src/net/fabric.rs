//! How links are shared: each link fills its flows to a level, and its neighbours hear of it only if it matters to them.
//!
//! A flow's rate is the least of its cap and the levels of its links, always. A link is *overfull* if its load is above its
//! capacity, and *roomy* if it has a level and yet its load is below its capacity by more than a small slack (see `link`). `share` fills
//! the overfull links first and the roomy ones then, until there are none: a link's new level follows from what its flows can
//! use elsewhere. Each change of a rate moves the load of the flow's other links, and these are queued only if that makes them overfull
//! or roomy.
//!
//! State: links, flows, the two queues, the flows whose end is to be computed anew.
//! Invariants after `share`: no link is overfull, and none is roomy unless the bound on work was met. So each flow below its cap has a
//! link that is filled up to its slack and on which no flow is faster: the rates are exactly the max-min fair ones of a network
//! whose capacities are at most that slack below the real ones.
//! Filling an overfull link only lowers rates, so it never makes another one overfull, and that queue always empties.
//! Absent on purpose: the order in which flows end.

use std::collections::VecDeque;

use shoal_types::Time;

use super::Counters;
use super::flow::{FlowTable, Path};
use super::link::{Links, water_level};

/// How often one `share` may fill a roomy link, for each link of the network: three times what it took in the largest case seen,
/// 20,000 flows between 10,000 nodes that start at once. The rest waits for the next instant, with capacity unused but none overfilled.
const FILLS_PER_LINK: usize = 4;

/// Links and flows.
#[derive(Debug, Default)]
pub(super) struct Fabric {
    pub(super) links: Links,
    pub(super) flows: FlowTable,
    pub(super) counters: Counters,
    overfull: VecDeque<u32>,
    roomy: VecDeque<u32>,
    touched: Vec<u32>,
    /// Scratch: the flows of the link at hand and what they can use elsewhere.
    slots: Vec<u32>,
    limits: Vec<f64>,
}

impl Fabric {
    pub(super) fn set_capacity(&mut self, link: u32, capacity: f64) {
        self.links[link].capacity = capacity;
        self.note(link);
    }

    /// Adds a flow at what its links' levels leave it, and says in which slot.
    pub(super) fn add(&mut self, now: Time, path: Path, bytes: u64, cap: f64, tag: u64) -> u32 {
        let slot = self.flows.insert(now, path, bytes, cap, tag);
        let rate = path.links().iter().fold(cap, |rate, &link| {
            let link = &self.links[link];
            rate.min(link.level).min(link.capacity)
        });
        self.flows.get_mut(slot).rate = rate;
        for &link in path.links() {
            *self.flows.get_mut(slot).place_mut(link) = self.links.push(link, slot);
            let record = &mut self.links[link];
            record.load += rate;
            if rate >= record.capacity {
                // It is the capacity that limits this flow, and a rate is limited by nothing but levels and caps.
                record.level = record.level.min(record.capacity);
            }
            self.note(link);
        }
        self.touch(slot);
        slot
    }

    /// Takes a flow out that has carried so many bytes.
    pub(super) fn remove(&mut self, slot: u32, carried: u64) {
        let flow = self.flows.get(slot).clone();
        for (&link, &place) in flow.path.links().iter().zip(flow.places()) {
            self.links.remove(link, place, &mut self.flows);
            let record = &mut self.links[link];
            // Without flows there is no load: what rounding left over must not add up.
            record.load = if record.flows() == 0 { 0.0 } else { record.load - flow.rate };
            record.past_bytes += carried;
            self.note(link);
        }
        self.flows.get_mut(slot).is_touched = false;
        self.flows.remove(slot);
    }

    /// Fills links until none is overfull or roomy.
    pub(super) fn share(&mut self, now: Time) {
        let mut work = self.links.len() * FILLS_PER_LINK;
        loop {
            if let Some(link) = self.overfull.pop_front() {
                self.links[link].is_in_overfull = false;
                if self.links[link].is_overfull() {
                    self.fill(now, link);
                }
            } else if self.roomy.is_empty() {
                return;
            } else if work == 0 {
                self.counters.postponed += 1;
                return;
            } else if let Some(link) = self.roomy.pop_front() {
                work -= 1;
                self.links[link].is_in_roomy = false;
                if self.links[link].is_roomy() {
                    self.fill(now, link);
                }
            }
        }
    }

    /// Takes one of the flows whose end has to be computed anew.
    pub(super) fn pop_touched(&mut self) -> Option<u32> {
        loop {
            let slot = self.touched.pop()?;
            // A flow that ended while it was touched left an untouched slot behind, or one whose new flow has an entry of its own.
            if std::mem::take(&mut self.flows.get_mut(slot).is_touched) {
                return Some(slot);
            }
        }
    }

    /// Computes a link's level and gives its flows the rates that follow.
    fn fill(&mut self, now: Time, link: u32) {
        self.counters.fills += 1;
        let mut slots = std::mem::take(&mut self.slots);
        let mut limits = std::mem::take(&mut self.limits);
        slots.clear();
        limits.clear();
        for slot in self.links.flows(link) {
            slots.push(slot);
            limits.push(self.limit_elsewhere(slot, link));
        }
        let level = water_level(self.links[link].aim(), &limits);
        let mut load = 0.0;
        for (&slot, limit) in slots.iter().zip(&limits) {
            let rate = limit.min(level);
            load += rate;
            self.set_rate(now, slot, rate, link);
        }
        self.links[link].level = level;
        self.links[link].load = load;
        self.slots = slots;
        self.limits = limits;
    }

    /// What a flow can use without regard to one of its links.
    fn limit_elsewhere(&self, slot: u32, link: u32) -> f64 {
        let flow = self.flows.get(slot);
        flow.path.others(link).fold(flow.cap, |limit, other| limit.min(self.links[other].level))
    }

    /// Gives a flow a rate on behalf of `link`, which sums up its load itself.
    fn set_rate(&mut self, now: Time, slot: u32, rate: f64, link: u32) {
        let flow = self.flows.get_mut(slot);
        let change = rate - flow.rate;
        if change == 0.0 {
            return;
        }
        self.counters.rate_changes += 1;
        flow.settle(now);
        flow.rate = rate;
        let path = flow.path;
        for other in path.others(link) {
            self.links[other].load += change;
            self.note(other);
        }
        self.touch(slot);
    }

    fn touch(&mut self, slot: u32) {
        let flow = self.flows.get_mut(slot);
        if !std::mem::replace(&mut flow.is_touched, true) {
            self.touched.push(slot);
        }
    }

    /// Queues a link whose load or capacity changed, if that calls for another level.
    fn note(&mut self, link: u32) {
        let record = &mut self.links[link];
        if record.is_overfull() {
            if !std::mem::replace(&mut record.is_in_overfull, true) {
                self.overfull.push_back(link);
            }
        } else if record.is_roomy() && !std::mem::replace(&mut record.is_in_roomy, true) {
            self.roomy.push_back(link);
        }
    }
}
