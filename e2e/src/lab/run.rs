//! A lab's run, from the empty network to the report.
//!
//! State: what [`super`] says. Invariants: calibration, Shoal and what it is compared with share one network, one after the other, and each
//! round begins with cold stores.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_agent::pull::MirrorUrl;

use super::client::Pull;
use super::cluster::{Cluster, MIRROR, Places, Plan, exchanges};
use super::faults::{Fault, struck};
use super::goodput::{self, Goodput};
use super::libtorrent;
use super::network::Network;
use super::origin::{Contents, Origin};
use super::pulls::{Outcome, Pulls};
use super::report::{Direct, Faulty, Figures, Libtorrent, Report, Round, Scale};
use super::usage::Meter;
use super::workers::Worker;
use super::{Against, Options, Puller, Start};
use crate::bound;
use crate::ending;
use crate::figures::{float, rounded};
use crate::nodes;
use crate::scratch::Scratch;

/// Runs the lab and prints its result.
pub(super) async fn run(options: &Options) -> Result<()> {
    options.check()?;
    let program = nodes::agent_program()?;
    let mut network = Network::new()?;
    let scratch = Scratch::in_memory("shoal-lab", options.keep)?;
    let report = ending::or_interrupted(measure(options, &mut network, scratch.path(), &program)).await?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.lines()?);
    }
    Ok(())
}

async fn measure(options: &Options, network: &mut Network, directory: &Path, program: &Path) -> Result<Report> {
    let Puller::Builtin = options.client;
    let places = Places::build(network, options.nodes, Some(options.rate))?;
    eprintln!("{} nodes with {} both ways; measuring what a flow carries", options.nodes, options.rate);
    let from_origin = goodput::measure(&places.origin, &places.nodes[0], options.rate).await?;
    let between = match &places.nodes[..] {
        [first, second, ..] => goodput::measure(first, second, options.rate).await?,
        _ => from_origin,
    };
    let blobs = options.fault.is_some().then(|| directory.join("blobs"));
    let contents = Contents { size: options.size, layers: options.layers, small: 0, blobs: blobs.clone() };
    let origin = Origin::start(&places.origin, contents).await?;
    let mirror: MirrorUrl = format!("http://{MIRROR}").parse().map_err(anyhow::Error::msg)?;
    let model = bound::Network {
        nodes: options.nodes,
        origin_up: from_origin.bytes_per_second,
        node_up: between.bytes_per_second,
        node_down: from_origin.bytes_per_second,
    };
    let at_once = model.bound(float(origin.bytes));
    let (spread, bound) = match options.start {
        Start::AtOnce => (0.0, at_once),
        // Who starts last has the whole image still to come.
        Start::Staggered => (at_once, at_once + float(origin.bytes) / model.node_down),
    };
    let scale =
        Scale { nodes: options.nodes, bytes: origin.bytes, bound, wire_per_payload: from_origin.wire_per_payload };
    let client = Worker::Client(Pull { mirror, image: origin.image.clone(), blobs });
    let spread = Duration::from_secs_f64(spread);
    let mut lab = Lab { options, network, places, directory, program, origin, client, scale, spread, rounds: 0 };
    lab.report(&from_origin, &between).await
}

/// A network that is ready for rounds.
struct Lab<'a> {
    options: &'a Options,
    network: &'a Network,
    places: Places,
    directory: &'a Path,
    program: &'a Path,
    origin: Origin,
    client: Worker,
    scale: Scale,
    spread: Duration,
    rounds: u32,
}

impl Lab<'_> {
    async fn report(&mut self, from_origin: &Goodput, between: &Goodput) -> Result<Report> {
        let (pairs, first) = match self.options.against {
            Some(Against::Libtorrent) => {
                let pairs = self.pairs().await?;
                let median = middle(pairs.iter().map(|(shoal, _)| *shoal).collect());
                (pairs, median)
            }
            Some(Against::Direct) | None => (Vec::new(), Some(self.shoal(None).await?.0.figures(&self.scale)?)),
        };
        let shoal = first.context("no round")?;
        let direct = match self.options.against {
            Some(Against::Direct) => Some(self.direct(&shoal).await?),
            Some(Against::Libtorrent) | None => None,
        };
        let fault = match self.options.fault {
            Some(fault) => Some(self.faulty(fault, &shoal).await?),
            None => None,
        };
        Ok(Report {
            shoal,
            goodput_origin_mbit: rounded(from_origin.bytes_per_second / 125_000.0),
            goodput_nodes_mbit: rounded(between.bytes_per_second / 125_000.0),
            direct,
            libtorrent: Libtorrent::of(&pairs),
            fault,
        })
    }

    /// Shoal, and with a fault what the exchanges of the nodes that are left have seen.
    async fn shoal(&mut self, fault: Option<Fault>) -> Result<(Round, Vec<serde_json::Value>)> {
        self.rounds += 1;
        let plan = Plan {
            program: self.program,
            directory: self.directory.join(format!("round-{}", self.rounds)),
            liars: fault.map_or(0, Fault::liars) as usize,
            flags: &[],
        };
        let mut cluster = Cluster::start(&self.places, plan).await?;
        let lost = fault.map_or(0, Fault::lost_nodes) as usize;
        let strike = match fault {
            Some(fault) => fault.prepare(&mut cluster, self.places.nodes.len())?,
            None => None,
        };
        eprintln!("{} nodes pull {}", self.options.nodes, self.origin.image);
        let manifests = self.origin.manifest_requests().await?;
        let pulls = self.pulls(lost);
        let mut clients = pulls.clients(&self.client).await?;
        let meter = Meter::start(&self.places.origin, &cluster.agents)?;
        let outcome = match strike {
            None => cluster.fleet.during(pulls.run(&mut clients)).await?,
            Some(mut strike) => {
                let bytes = self.scale.bytes * u64::from(self.options.nodes);
                let falls = strike.fall(self.network, &self.places, bytes, self.scale.wire_per_payload);
                cluster.fleet.during(struck(pulls.run(&mut clients), falls)).await?
            }
        };
        let used = meter.used()?;
        let seen = match fault {
            None => Vec::new(),
            Some(_) => exchanges(&self.places.nodes[..self.places.nodes.len() - lost]).await?,
        };
        cluster.end(self.options.keep).await?;
        let manifest_requests = self.origin.manifest_requests().await? - manifests;
        Ok((Round { outcome, used, manifest_requests }, seen))
    }

    /// With the client that this run has, on all nodes; so many of the last ones are not waited for.
    fn pulls(&self, lost: usize) -> Pulls<'_> {
        Pulls {
            nodes: &self.places.nodes,
            awaited: self.places.nodes.len() - lost,
            spread: self.spread,
            // As long as if each node had its copy from the origin, twice.
            patience: Duration::from_secs_f64(60.0 + 2.0 * f64::from(self.options.nodes) * self.scale.bound),
        }
    }

    async fn faulty(&mut self, fault: Fault, undisturbed: &Figures) -> Result<Faulty> {
        eprintln!("once more, with {fault}");
        let (round, seen) = self.shoal(Some(fault)).await?;
        let Outcome { seconds, unfinished, failures, wrong_bytes } = &round.outcome;
        for error in unfinished {
            eprintln!("a node doesn't have it: {error}");
        }
        let last = seconds.iter().copied().fold(0.0, f64::max);
        let count = |key: &str| seen.iter().filter_map(|page| page[key].as_u64()).sum::<u64>();
        Ok(Faulty {
            fault: fault.to_string(),
            fault_expected: seconds.len() + unfinished.len(),
            fault_finished: seconds.len(),
            fault_t_last: rounded(last),
            t_last_over_undisturbed: rounded(last / undisturbed.t_last),
            fault_origin_copies: round.origin_copies(&self.scale),
            fault_failures: *failures,
            fault_wrong_bytes: *wrong_bytes,
            fault_chunks_wrong: count("chunks_wrong"),
            fault_bans: rounded(float(count("bans")) / float(seen.len().max(1) as u64)),
        })
    }

    async fn direct(&self, shoal: &Figures) -> Result<Direct> {
        eprintln!("all pull from the origin");
        let client =
            Worker::Client(Pull { mirror: self.origin.url.clone(), image: self.origin.image.clone(), blobs: None });
        let pulls = self.pulls(0);
        let last = pulls.run(&mut pulls.clients(&client).await?).await?.times()?.last();
        Ok(Direct { direct_t_last: rounded(last), t_last_over_direct: rounded(shoal.t_last / last) })
    }

    /// Shoal and libtorrent, alternately.
    async fn pairs(&mut self) -> Result<Vec<(Figures, Figures)>> {
        let swarm = libtorrent::Swarm::new(self.directory, self.options.size).await?;
        let mut pairs = Vec::new();
        for pair in 1..=self.options.pairs {
            let shoal = self.shoal(None).await?.0.figures(&self.scale)?;
            eprintln!("the same with libtorrent");
            let peer = swarm.round(&self.places, &self.pulls(0)).await?.figures(&self.scale)?;
            eprintln!(
                "pair {pair}: t_last {} and {} s, ratio {}; copies {} and {}; box {} and {} %",
                shoal.t_last,
                peer.t_last,
                rounded(shoal.t_last / peer.t_last),
                shoal.origin_copies,
                peer.origin_copies,
                shoal.box_cpu_percent,
                peer.box_cpu_percent,
            );
            pairs.push((shoal, peer));
        }
        Ok(pairs)
    }
}

/// The round with the median time; of an even number the faster one of the two in the middle.
fn middle(mut rounds: Vec<Figures>) -> Option<Figures> {
    rounds.sort_by(|a, b| a.t_last.total_cmp(&b.t_last));
    rounds.get(rounds.len().saturating_sub(1) / 2).copied()
}

impl Options {
    /// What can't be said flag by flag.
    fn check(&self) -> Result<()> {
        if let Some(fault) = self.fault {
            ensure!(fault.lost_nodes() < self.nodes, "--fault {fault} leaves no node: give more --nodes");
        }
        if self.against == Some(Against::Libtorrent) {
            libtorrent::check()?;
        }
        Ok(())
    }
}
