//! How links are shared: each link fills its flows to a level, and tells its neighbours only what matters.
//!
//! State: links, flows, two queues of links whose level is to be computed anew, the flows whose rate changed since the last
//! `share`.
//!
//! A flow's rate is the least of its cap and the levels of its links, always. A link is *crowded* if its load is above its capacity,
//! and *roomy* if it has a level and yet its load is below `1 − SLACK` of its capacity. `share` computes the level of crowded links
//! first and of roomy ones then, each from what its flows can use elsewhere, until there are none. A change of rate moves the load of the
//! flow's other links, and these are queued only if that makes them crowded or roomy.
//!
//! Invariants after `share`: no link is crowded, and none is roomy unless the bound on work was hit. So each flow below its cap
//! has a link that is filled to at least `1 − SLACK` and on which no flow is faster: the rates are exactly the max-min fair ones of
//! a network whose capacities lie between `1 − SLACK` and 1 times the real ones.
//! Computing a crowded link's level only lowers rates, so it never crowds another link: the crowded queue always empties.
//! Absent on purpose: time's passing and the order of ends.

use std::collections::VecDeque;

use shoal_types::Time;

use super::Counters;
use super::flow::{FlowId, FlowTable};
use super::link::{Link, water_level};

/// The part of a capacity that a link may leave unused although flows wait for it: what it takes for a change to be passed on.
pub(super) const SLACK: f64 = 0.01;

/// The part of a capacity by which rounding may overfill a link: far above the error of a sum of 10,000 rates.
pub(super) const ROUNDING: f64 = 1e-9;

/// From this many flows on, a link is filled to the middle of its slack instead of to its capacity, so that it takes `SLACK / 2` of
/// its flows to come or go before all their rates change. Below, one flow is more than that anyway.
const CROWD: usize = 64;

/// Roomy links that one `share` handles, for each that was queued before and at the least. The rest waits for the next one, with
/// capacity unused but none overfilled.
const WORK_PER_LINK: usize = 64;
const WORK_AT_LEAST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Fabric {
    pub(super) links: Vec<Link>,
    pub(super) flows: FlowTable,
    pub(super) counters: Counters,
    crowded: VecDeque<u32>,
    roomy: VecDeque<u32>,
    touched: Vec<u32>,
    /// Scratch: what the flows of the link at hand can use elsewhere.
    limits: Vec<f64>,
}

impl Fabric {
    pub(super) fn set_capacity(&mut self, link: u32, capacity: f64) {
        self.links[link as usize].capacity = capacity;
        self.note(link);
    }

    /// Adds a flow at what its links' levels leave it.
    pub(super) fn add(&mut self, now: Time, path: &[u32], bytes: u64, cap: f64, tag: u64) -> FlowId {
        let id = self.flows.insert(now, path, bytes, cap, tag);
        let slot = self.flows.slot(id).expect("just inserted");
        let rate = path.iter().fold(cap, |rate, &link| {
            let link = &self.links[link as usize];
            rate.min(link.level).min(link.capacity)
        });
        for &link in path {
            *self.flows.get_mut(slot).place_mut(link) = self.links[link as usize].push(slot);
            let record = &mut self.links[link as usize];
            record.load += rate;
            if rate >= record.capacity {
                // The capacity is what limits this flow, so from now on it is a level: a rate is the least level, always.
                record.level = record.level.min(record.capacity);
            }
            self.note(link);
        }
        self.flows.get_mut(slot).rate = rate;
        self.touch(slot);
        id
    }

    /// Takes a flow out that carried so many bytes.
    pub(super) fn remove(&mut self, slot: u32, carried: u64) {
        let flow = self.flows.get(slot).clone();
        for (&link, &place) in flow.path().iter().zip(flow.places()) {
            let record = &mut self.links[link as usize];
            record.remove(link, place, &mut self.flows);
            record.load -= flow.rate;
            record.past_bytes += carried;
            self.note(link);
        }
        self.flows.get_mut(slot).is_touched = false;
        self.flows.remove(slot);
    }

    /// Computes rates until every link is used and none overfilled.
    pub(super) fn share(&mut self, now: Time) {
        let mut work = self.roomy.len().max(self.crowded.len()) * WORK_PER_LINK + WORK_AT_LEAST;
        loop {
            if let Some(link) = self.crowded.pop_front() {
                self.links[link as usize].is_in_crowded = false;
                if self.is_crowded(link) {
                    self.fill(now, link);
                }
            } else if let Some(&link) = self.roomy.front() {
                if work == 0 {
                    self.counters.postponed += 1;
                    return;
                }
                work -= 1;
                self.roomy.pop_front();
                self.links[link as usize].is_in_roomy = false;
                if self.is_roomy(link) {
                    self.fill(now, link);
                }
            } else {
                return;
            }
        }
    }

    /// Takes one of the flows whose end has to be computed anew.
    pub(super) fn pop_touched(&mut self) -> Option<u32> {
        loop {
            let slot = self.touched.pop()?;
            let flow = self.flows.get_mut(slot);
            // A flow that ended while it was touched left an untouched slot behind, or one whose new flow has an entry of its own.
            if std::mem::take(&mut flow.is_touched) {
                return Some(slot);
            }
        }
    }

    /// Computes a link's level and gives its flows the rates that follow.
    fn fill(&mut self, now: Time, link: u32) {
        self.counters.fills += 1;
        let mut limits = std::mem::take(&mut self.limits);
        limits.clear();
        limits.extend(self.links[link as usize].flows().iter().map(|&slot| self.limit_elsewhere(slot, link)));
        let capacity = self.links[link as usize].capacity;
        let aim = if limits.len() < CROWD { capacity } else { capacity * (1.0 - SLACK / 2.0) };
        let level = water_level(aim, &limits);
        let mut load = 0.0;
        for (place, limit) in limits.iter().enumerate() {
            let slot = self.links[link as usize].flows()[place];
            let rate = limit.min(level);
            load += rate;
            self.set_rate(now, slot, rate, link);
        }
        self.links[link as usize].level = level;
        self.links[link as usize].load = load;
        self.limits = limits;
    }

    /// What a flow can use without regard to one of its links.
    fn limit_elsewhere(&self, slot: u32, link: u32) -> f64 {
        let flow = self.flows.get(slot);
        let others = flow.path().iter().filter(|&&other| other != link);
        others.fold(flow.cap, |limit, &other| limit.min(self.links[other as usize].level))
    }

    /// Gives a flow a rate, on behalf of `link`, which sums up its load itself.
    #[allow(clippy::float_cmp, reason = "unchanged is the same bits")]
    fn set_rate(&mut self, now: Time, slot: u32, rate: f64, link: u32) {
        let flow = self.flows.get_mut(slot);
        let change = rate - flow.rate;
        if change == 0.0 {
            return;
        }
        flow.settle(now);
        flow.rate = rate;
        self.counters.rate_changes += 1;
        for hop in 0..self.flows.get(slot).path().len() {
            let other = self.flows.get(slot).path()[hop];
            if other != link {
                self.links[other as usize].load += change;
                self.note(other);
            }
        }
        self.touch(slot);
    }

    fn touch(&mut self, slot: u32) {
        let flow = self.flows.get_mut(slot);
        if !flow.is_touched {
            flow.is_touched = true;
            self.touched.push(slot);
        }
    }

    /// Queues a link whose load or capacity changed, if that calls for another level.
    fn note(&mut self, link: u32) {
        if self.is_crowded(link) {
            let record = &mut self.links[link as usize];
            if !std::mem::replace(&mut record.is_in_crowded, true) {
                self.crowded.push_back(link);
            }
        } else if self.is_roomy(link) {
            let record = &mut self.links[link as usize];
            if !std::mem::replace(&mut record.is_in_roomy, true) {
                self.roomy.push_back(link);
            }
        }
    }

    fn is_crowded(&self, link: u32) -> bool {
        let link = &self.links[link as usize];
        link.load > link.capacity * (1.0 + ROUNDING)
    }

    fn is_roomy(&self, link: u32) -> bool {
        let link = &self.links[link as usize];
        link.level < f64::INFINITY && link.load < link.capacity * (1.0 - SLACK)
    }
}
