//! Random swarms, and one way to run them under the network and under exact sharing.
//!
//! State of a run: which flow starts when, and the sharing that says when it ends.
//! Absent on purpose: judging the difference, which `accuracy` does.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_types::{Rng, Time};

use super::super::{FlowId, LinkId, Network};
use super::exact::{Wish, max_min};

/// 10 Gbit/s.
const RATE: f64 = 1.25e9;

/// What disturbs the equality of links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) nodes: usize,
    /// Flows that each lane sends, one after another. A node has one or two lanes.
    pub(super) rounds: usize,
    /// A tenth of the nodes sends and receives at a quarter of the rate.
    pub(super) has_stragglers: bool,
    /// A fifth of the flows has a cap between 2 % and 50 % of a link.
    pub(super) has_caps: bool,
    /// Two zones; each direction between them is a link of a quarter of one zone's uplinks.
    pub(super) has_zones: bool,
}

/// One of a swarm's flows.
#[derive(Clone, Debug)]
pub(super) struct Job {
    wish: Wish,
    bytes: u64,
}

/// Links and flows. Flow k of a lane stands at `lane · rounds + k`.
pub(super) struct World {
    pub(super) capacities: Vec<f64>,
    jobs: Vec<Job>,
    rounds: usize,
}

impl World {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = shape.nodes;
        let (up, down) = (|node| node, |node| nodes + node);
        let mut capacities = vec![RATE; 2 * nodes];
        if shape.has_stragglers {
            for node in (0..nodes).step_by(10) {
                capacities[up(node)] /= 4.0;
                capacities[down(node)] /= 4.0;
            }
        }
        if shape.has_zones {
            capacities.extend([RATE * nodes as f64 / 8.0; 2]);
        }
        let mut jobs = Vec::new();
        for sender in 0..nodes {
            for _ in 0..shape.rounds * (1 + rng.below(2)) {
                let receiver = (sender + 1 + rng.below(nodes - 1)) % nodes;
                let mut path = vec![up(sender), down(receiver)];
                if shape.has_zones && sender % 2 != receiver % 2 {
                    path.insert(1, 2 * nodes + sender % 2);
                }
                let is_capped = shape.has_caps && rng.below(5) == 0;
                let cap = if is_capped { RATE * (0.02 + 0.48 * rng.unit()) } else { f64::INFINITY };
                // From half a chunk of 1 MiB to one and a half.
                jobs.push(Job { wish: Wish { path, cap }, bytes: (1 << 19) + (rng.next_u64() >> 44) });
            }
        }
        Self { capacities, jobs, rounds: shape.rounds }
    }

    pub(super) fn wish(&self, job: usize) -> &Wish {
        &self.jobs[job].wish
    }

    /// Runs all flows, calling `look` whenever something has started or ended.
    pub(super) fn run<S: Sharing>(
        &self,
        starts: Starts<'_>,
        sharing: &mut S,
        mut look: impl FnMut(&mut S),
    ) -> Vec<Span> {
        let nowhere = Span { start: Time::MAX, end: Time::MAX };
        let mut spans = vec![nowhere; self.jobs.len()];
        let mut pending: BTreeSet<(Time, usize)> = match starts {
            Starts::Chained => (0..self.jobs.len()).step_by(self.rounds).map(|job| (Time::ZERO, job)).collect(),
            Starts::At(times) => times.iter().copied().zip(0..).collect(),
        };
        loop {
            let next_start = pending.first().map(|&(at, _)| at);
            let Some(now) = sharing.next_event().into_iter().chain(next_start).min() else { return spans };
            while let Some(job) = sharing.poll_finished(now) {
                spans[job].end = now;
                if matches!(starts, Starts::Chained) && (job + 1) % self.rounds != 0 {
                    pending.insert((now, job + 1));
                }
            }
            while pending.first().is_some_and(|&(at, _)| at == now) {
                let (_, job) = pending.pop_first().expect("there is a first one");
                spans[job].start = now;
                sharing.start(now, job, &self.jobs[job]);
            }
            look(sharing);
        }
    }
}

/// When flows start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Starts<'a> {
    /// A lane's next flow as one ends.
    Chained,
    /// Each flow at its time.
    At(&'a [Time]),
}

/// When a flow was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: Time,
    pub(super) end: Time,
}

impl Span {
    pub(super) fn seconds(self) -> f64 {
        (self.end - self.start).as_secs_f64()
    }
}

/// What decides how fast flows are.
pub(super) trait Sharing {
    fn start(&mut self, now: Time, job: usize, what: &Job);
    fn next_event(&mut self) -> Option<Time>;
    fn poll_finished(&mut self, now: Time) -> Option<usize>;
}

/// The network.
pub(super) struct Measured {
    pub(super) net: Network,
    links: Vec<LinkId>,
    /// The flows under way by their jobs.
    flows: Vec<(usize, FlowId)>,
}

impl Measured {
    pub(super) fn new(world: &World) -> Self {
        let mut net = Network::new();
        let links = world.capacities.iter().map(|&rate| net.add_link(rate)).collect();
        Self { net, links, flows: Vec::new() }
    }

    /// The rates of the flows under way.
    pub(super) fn rates(&mut self) -> Vec<(usize, f64)> {
        self.flows.iter().map(|&(job, flow)| (job, self.net.rate(flow).expect("it is under way"))).collect()
    }
}

impl Sharing for Measured {
    fn start(&mut self, now: Time, job: usize, what: &Job) {
        let path: Vec<_> = what.wish.path.iter().map(|&link| self.links[link]).collect();
        let flow = self.net.start(now, &path, what.bytes, Some(what.wish.cap), job as u64);
        self.flows.push((job, flow));
    }

    fn next_event(&mut self) -> Option<Time> {
        self.net.next_event()
    }

    fn poll_finished(&mut self, now: Time) -> Option<usize> {
        let end = self.net.poll_finished(now)?;
        self.flows.retain(|&(_, flow)| flow != end.flow);
        usize::try_from(end.tag).ok()
    }
}

/// Exact sharing, computed from nothing after each start and end.
pub(super) struct Exact<'a> {
    world: &'a World,
    clock: Time,
    /// The flows under way: job, bytes left, rate.
    flows: Vec<(usize, f64, f64)>,
    is_stale: bool,
}

impl<'a> Exact<'a> {
    pub(super) const fn new(world: &'a World) -> Self {
        Self { world, clock: Time::ZERO, flows: Vec::new(), is_stale: false }
    }

    fn advance(&mut self, now: Time) {
        let seconds = (now - self.clock).as_secs_f64();
        for (_, left, rate) in &mut self.flows {
            *left -= *rate * seconds;
        }
        self.clock = now;
    }
}

impl Sharing for Exact<'_> {
    fn start(&mut self, now: Time, job: usize, what: &Job) {
        self.advance(now);
        self.flows.push((job, what.bytes as f64, 0.0));
        self.is_stale = true;
    }

    #[allow(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    fn next_event(&mut self) -> Option<Time> {
        if std::mem::take(&mut self.is_stale) {
            let wishes: Vec<_> = self.flows.iter().map(|&(job, ..)| self.world.wish(job).clone()).collect();
            for (flow, rate) in self.flows.iter_mut().zip(max_min(&self.world.capacities, &wishes)) {
                flow.2 = rate;
            }
        }
        let wait = self.flows.iter().map(|(_, left, rate)| left / rate).min_by(f64::total_cmp)?;
        Some(self.clock + Duration::from_nanos((wait.max(0.0) * 1e9).ceil() as u64))
    }

    fn poll_finished(&mut self, now: Time) -> Option<usize> {
        self.advance(now);
        // An end is rounded up to a nanosecond, so less than nothing is left but for the last digits.
        let ended = self.flows.iter().position(|&(_, left, _)| left < 1e-3)?;
        self.is_stale = true;
        Some(self.flows.remove(ended).0)
    }
}
