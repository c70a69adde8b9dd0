//! What the simulated network costs: microseconds of CPU per flow, with every node always sending two chunks to random receivers.
//!
//! `cargo run --release -p shoal-sim --example network -- [nodes [flows]]`

use std::time::Duration;

use shoal_sim::net::{LinkId, Network};
use shoal_types::{Rng, Time};

const CHUNK_BYTES: u64 = 1 << 20;
/// 10 Gbit/s.
const LINK_RATE: f64 = 1.25e9;
const FLOWS_PER_NODE: usize = 2;

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
enum Topology {
    /// One switch.
    Flat,
    /// Two zones; what crosses shares a link of a quarter of one zone's uplinks in each direction.
    Zones,
    /// One switch; links of any rate between a quarter and the whole, and a fifth of the flows has a cap.
    Uneven,
    /// One node sends to all others.
    Server,
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let nodes = args.next();
    let flows = args.next();
    println!(
        "{:>8} {:>6} {:>9} {:>12} {:>12} {:>12} {:>10}",
        "topology", "nodes", "flows", "µs CPU/flow", "fills/flow", "rates/flow", "use"
    );
    for nodes in nodes.map_or(vec![1_000, 10_000], |nodes| vec![nodes]) {
        for topology in [Topology::Flat, Topology::Uneven, Topology::Zones, Topology::Server] {
            run(topology, nodes, flows.unwrap_or(1_000_000));
        }
    }
}

fn run(topology: Topology, nodes: usize, flows: usize) {
    let mut swarm = Swarm::new(topology, nodes);
    // Not measured: the start of everything at once, and the first flows' ends in step.
    let warm_up = nodes * FLOWS_PER_NODE * 4;
    swarm.drive(warm_up);
    let (counters, at, cpu) = (swarm.net.counters(), swarm.now, cpu_time());
    swarm.drive(flows);
    let cpu = cpu_time() - cpu;
    let per_flow = |before: u64, after: u64| (after - before) as f64 / flows as f64;
    let after = swarm.net.counters();
    let carried = flows as f64 * CHUNK_BYTES as f64 / (swarm.now - at).as_secs_f64();
    println!(
        "{:>8} {nodes:>6} {flows:>9} {:>12.3} {:>12.2} {:>12.2} {:>10.4}",
        format!("{topology:?}").to_lowercase(),
        cpu.as_secs_f64() * 1e6 / flows as f64,
        per_flow(counters.fills, after.fills),
        per_flow(counters.rate_changes, after.rate_changes),
        carried / (nodes as f64 * LINK_RATE),
    );
    assert_eq!(after.postponed, 0, "no work was left over");
}

/// Nodes that replace each flow that ends.
struct Swarm {
    topology: Topology,
    net: Network,
    now: Time,
    rng: Rng,
    ups: Vec<LinkId>,
    downs: Vec<LinkId>,
    zones: Option<[LinkId; 2]>,
    /// The part of the flows that have a cap.
    capped: f64,
}

impl Swarm {
    fn new(topology: Topology, nodes: usize) -> Self {
        let mut net = Network::new();
        let mut rng = Rng::new(1);
        let is_uneven = matches!(topology, Topology::Uneven);
        let mut rate = || if is_uneven { LINK_RATE * (0.25 + 0.75 * rng.unit()) } else { LINK_RATE };
        let mut links = || (0..nodes).map(|_| net.add_link(rate())).collect();
        let (ups, downs) = (links(), links());
        let zones = match topology {
            Topology::Flat | Topology::Uneven | Topology::Server => None,
            Topology::Zones => Some([0, 1].map(|_| net.add_link(nodes as f64 * LINK_RATE / 8.0))),
        };
        let capped = if is_uneven { 0.2 } else { 0.0 };
        let mut swarm = Self { topology, net, now: Time::ZERO, rng, ups, downs, zones, capped };
        for sender in 0..nodes {
            for _ in 0..FLOWS_PER_NODE {
                // Not all at once, or they end in step for a long time.
                let bytes = 1 + swarm.rng.next_u64() % CHUNK_BYTES;
                swarm.start(sender, bytes);
            }
        }
        swarm
    }

    fn start(&mut self, sender: usize, bytes: u64) {
        let receiver = self.rng.below(self.downs.len());
        let (up, down) = match self.topology {
            Topology::Server => (self.ups[0], self.downs[sender]),
            _ => (self.ups[sender], self.downs[receiver]),
        };
        let cap = (self.rng.unit() < self.capped).then(|| LINK_RATE * (0.02 + 0.48 * self.rng.unit()));
        let tag = sender as u64;
        match self.zones {
            Some(zones) if sender % 2 != receiver % 2 => {
                self.net.start(self.now, &[up, zones[sender % 2], down], bytes, cap, tag);
            }
            _ => {
                self.net.start(self.now, &[up, down], bytes, cap, tag);
            }
        }
    }

    fn drive(&mut self, mut flows: usize) {
        while flows > 0 {
            self.now = self.net.next_event().expect("flows are always under way");
            while let Some(end) = self.net.poll_finished(self.now) {
                let sender = usize::try_from(end.tag).expect("tags are senders");
                self.start(sender, CHUNK_BYTES);
                flows = flows.saturating_sub(1);
            }
        }
    }
}

/// The time that this thread has been on a CPU, where the system tells (Linux); else the time since the first call.
fn cpu_time() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .map_or_else(|| start.elapsed(), Duration::from_nanos)
}
