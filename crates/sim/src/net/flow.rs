//! The flows under way: a slab whose slots are used again, so that a steady state allocates nothing.
//!
//! State: each flow's path and rate, and how many of its bytes were left when that rate was last changed.
//! Invariants: a slot's generation changes when its flow ends, so an old `FlowId` never names a newer flow; `left` is what is
//! left at `settled`, and between two rate changes nothing else is written.
//! Absent on purpose: how rates come about (`fabric`) and the order in which flows end (`ends`).

use shoal_types::Time;

use super::link::LinkId;

/// The most links that a flow crosses: its sender's, the one between two zones, its receiver's.
pub(super) const MAX_HOPS: usize = 3;

/// The links that a flow crosses: one to three different ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    links: [u32; MAX_HOPS],
    len: u8,
}

impl Path {
    /// # Panics
    /// If there are too few or too many links, or one of them twice.
    pub(super) fn new(path: &[LinkId]) -> Self {
        assert!((1..=MAX_HOPS).contains(&path.len()), "a path has one to three links");
        let mut links = [0; MAX_HOPS];
        for (hop, link) in path.iter().enumerate() {
            assert!(!path[..hop].contains(link), "a path crosses a link once");
            links[hop] = link.0;
        }
        Self { links, len: u8::try_from(path.len()).expect("at most three") }
    }

    pub(super) fn links(&self) -> &[u32] {
        &self.links[..usize::from(self.len)]
    }

    /// The links but one.
    pub(super) fn others(&self, link: u32) -> impl Iterator<Item = u32> + '_ {
        self.links().iter().copied().filter(move |&other| other != link)
    }
}

/// Names a flow, also after it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    slot: u32,
    generation: u32,
}

/// The part of a flow that sharing and settling touch.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Flow {
    pub(super) path: Path,
    /// Where the flow stands in the list of each link of its path.
    places: [u32; MAX_HOPS],
    /// Whether the flow waits for its end to be computed anew.
    pub(super) is_touched: bool,
    /// Bytes per second; infinite without a cap.
    pub(super) cap: f64,
    /// Bytes per second.
    pub(super) rate: f64,
    /// Bytes still to be carried at `settled`.
    left: f64,
    settled: Time,
}

const _: () = assert!(size_of::<Flow>() == 64, "a flow is one cache line");

impl Flow {
    /// Where the flow stands in the lists of its links, in the order of its path.
    pub(super) fn places(&self) -> &[u32] {
        &self.places[..self.path.links().len()]
    }

    /// Where the flow stands in the list of `link`, which is on its path.
    pub(super) fn place_mut(&mut self, link: u32) -> &mut u32 {
        let hop = self.path.links().iter().position(|&other| other == link).expect("the link is on the path");
        &mut self.places[hop]
    }

    /// Counts what was carried until now at the present rate; to be called before the rate changes.
    pub(super) fn settle(&mut self, now: Time) {
        if now > self.settled {
            self.left = self.left_at(now);
            self.settled = now;
        }
    }

    /// Bytes still to be carried at `now`, which is not before the last settling.
    pub(super) fn left_at(&self, now: Time) -> f64 {
        (self.left - self.rate * (now - self.settled).as_secs_f64()).max(0.0)
    }

    /// When the last byte is through at the present rate: rounded up to a nanosecond, and never if nothing moves.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
    pub(super) fn ends_at(&self) -> Time {
        if self.left <= 0.0 {
            return self.settled;
        }
        // A rate of zero divides to infinity, which saturates to never.
        let nanos = (self.left / self.rate * 1e9).ceil() as u64;
        Time::from_nanos(self.settled.as_nanos().saturating_add(nanos))
    }
}

/// What is read at a flow's start and end only.
#[derive(Clone, Debug)]
struct Label {
    generation: u32,
    is_live: bool,
    bytes: u64,
    tag: u64,
}

/// All flows under way.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    flows: Vec<Flow>,
    labels: Vec<Label>,
    free: Vec<u32>,
}

impl FlowTable {
    /// Makes a flow that doesn't move yet, and says in which slot.
    pub(super) fn insert(&mut self, now: Time, path: Path, bytes: u64, cap: f64, tag: u64) -> u32 {
        let flow =
            Flow { path, places: [0; MAX_HOPS], is_touched: false, cap, rate: 0.0, left: as_f64(bytes), settled: now };
        if let Some(slot) = self.free.pop() {
            self.flows[slot as usize] = flow;
            let label = &mut self.labels[slot as usize];
            *label = Label { generation: label.generation, is_live: true, bytes, tag };
            slot
        } else {
            let slot = u32::try_from(self.flows.len()).expect("fewer than 2^32 flows at a time");
            self.flows.push(flow);
            self.labels.push(Label { generation: 0, is_live: true, bytes, tag });
            slot
        }
    }

    /// Frees a live flow's slot.
    pub(super) fn remove(&mut self, slot: u32) {
        let label = &mut self.labels[slot as usize];
        assert!(label.is_live, "a flow is removed once");
        label.is_live = false;
        label.generation = label.generation.wrapping_add(1);
        self.free.push(slot);
    }

    /// The slot of a flow, if it hasn't ended.
    pub(super) fn slot(&self, id: FlowId) -> Option<u32> {
        let label = self.labels.get(id.slot as usize)?;
        (label.is_live && label.generation == id.generation).then_some(id.slot)
    }

    pub(super) fn id(&self, slot: u32) -> FlowId {
        FlowId { slot, generation: self.labels[slot as usize].generation }
    }

    pub(super) fn get(&self, slot: u32) -> &Flow {
        &self.flows[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Flow {
        &mut self.flows[slot as usize]
    }

    pub(super) fn tag(&self, slot: u32) -> u64 {
        self.labels[slot as usize].tag
    }

    pub(super) fn bytes(&self, slot: u32) -> u64 {
        self.labels[slot as usize].bytes
    }

    /// Whole bytes carried until now.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
    pub(super) fn carried(&self, slot: u32, now: Time) -> u64 {
        self.bytes(slot).saturating_sub(self.get(slot).left_at(now).ceil() as u64)
    }

    /// How many flows are under way.
    pub(super) fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 bytes, which is 8 PiB")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
