//! A lab's run, from the empty network to the report.
//!
//! State: what [`super`] says. Invariants: calibration, Shoal and what it is compared with share one network, one after the other, and each
//! round begins with cold stores.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_agent::pull::MirrorUrl;
use shoal_sim::plot::{self, COLOURS, Line};

use super::client::Pull;
use super::cluster::{Cluster, MIRROR, Places, Plan, exchanges};
use super::faults::{Fault, struck};
use super::goodput::{self, Goodput};
use super::libtorrent;
use super::origin::{Contents, Kind, Origin};
use super::pulls::{Outcome, Pulls};
use super::report::{Direct, Faulty, Figures, Libtorrent, Report, Round, Scale};
use super::runtimes::{Runtimes, Through};
use super::usage::Meter;
use super::workers::{Job, Worker};
use super::{Against, Options, Puller, Start};
use crate::bound;
use crate::containerd::Programs;
use crate::ending;
use crate::figures::{float, rounded};
use crate::network::Network;
use crate::nodes;
use crate::scratch::Scratch;

/// Runs the lab and prints its result.
pub(super) async fn run(options: &Options) -> Result<()> {
    options.check()?;
    let Some(file) = &options.plot else { return once(options).await.map(drop) };
    let (mut shoal, mut direct) = (Vec::new(), Vec::new());
    for nodes in std::iter::successors(Some(1), |nodes| Some(nodes * 2)).take_while(|nodes| *nodes <= options.nodes) {
        let options = Options { nodes, against: Some(Against::Direct), ..options.clone() };
        let Report { shoal: Figures { t_last, bound, .. }, direct: beside, .. } = once(&options).await?;
        shoal.push((nodes as usize, t_last, bound));
        direct.extend(beside.map(|beside| (nodes as usize, beside.direct_t_last, bound)));
    }
    let lines = [("Shoal", COLOURS[0], shoal), ("registry alone", COLOURS[3], direct)];
    let lines = lines.map(|(name, colour, points)| Line { name, colour, points });
    std::fs::write(file, plot::svg(&options.size.to_string(), &lines))
        .with_context(|| format!("{} can't be written", file.display()))
}

/// One network, one result.
async fn once(options: &Options) -> Result<Report> {
    let program = nodes::agent_program()?;
    let mut network = Network::new("lab")?;
    let scratch = Scratch::in_memory("shoal-lab", options.keep)?;
    let report = ending::or_interrupted(measure(options, &mut network, scratch.path(), &program)).await?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.lines()?);
    }
    Ok(report)
}

async fn measure(options: &Options, network: &mut Network, directory: &Path, program: &Path) -> Result<Report> {
    // Building a containerd takes minutes, once: before anything runs.
    let containerd = match options.client {
        Puller::Builtin => None,
        Puller::Containerd => {
            let version = options.containerd;
            Some(tokio::task::spawn_blocking(move || version.programs()).await??)
        }
    };
    let places = Places::build(network, options.nodes, Some(options.rate))?;
    eprintln!("{} nodes with {} both ways; measuring what a flow carries", options.nodes, options.rate);
    let from_origin = goodput::measure(&places.origin, &places.nodes[0], options.rate).await?;
    let between = match &places.nodes[..] {
        [first, second, ..] => goodput::measure(first, second, options.rate).await?,
        _ => from_origin,
    };
    let blobs = options.fault.is_some().then(|| directory.join("blobs"));
    let contents = Contents { size: options.size, layers: options.layers, small: 0, blobs: blobs.clone() };
    let origin = match options.origin {
        Kind::Registry => Origin::start_registry(&places.origin, contents, directory).await?,
        Kind::Embedded => Origin::start(&places.origin, contents).await?,
    };
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
    let mut lab =
        Lab { options, network, places, directory, program, containerd, origin, client, scale, spread, rounds: 0 };
    lab.report(&from_origin, &between).await
}

/// A network that is ready for rounds.
struct Lab<'a> {
    options: &'a Options,
    network: &'a Network,
    places: Places,
    directory: &'a Path,
    program: &'a Path,
    /// If containerds pull.
    containerd: Option<Programs>,
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
        let runtimes = self.runtimes(Through::Mirror(self.program)).await?;
        let liars = fault.map_or(0, Fault::liars) as usize;
        let plan = Plan {
            program: self.program,
            directory: self.directory.join(format!("round-{}", self.rounds)),
            liars,
            flags: &[],
            sockets: runtimes.as_ref().map(Runtimes::sockets).unwrap_or_default(),
        };
        let mut cluster = Cluster::start(&self.places, plan).await?;
        let lost = fault.map_or(0, Fault::lost_agents) as usize;
        // containerd goes on without its agent.
        let awaited = self.places.nodes.len() - if runtimes.is_some() { liars } else { lost };
        let strike = match fault {
            Some(fault) => fault.prepare(&mut cluster, self.places.nodes.len())?,
            None => None,
        };
        eprintln!("{} nodes pull {}", self.options.nodes, self.origin.image);
        let manifests = self.origin.manifest_requests().await?;
        let pulls = self.pulls(awaited);
        let mut clients = self.clients(runtimes.as_ref(), &self.client).await?;
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
        self.end_runtimes(runtimes, &outcome, awaited).await?;
        let manifest_requests = self.origin.manifest_requests().await? - manifests;
        Ok((Round { outcome, used, manifest_requests }, seen))
    }

    /// A containerd on each node with nothing in it, if this run has them.
    async fn runtimes(&self, through: Through<'_>) -> Result<Option<Runtimes>> {
        let Some(programs) = &self.containerd else { return Ok(None) };
        let directory = self.directory.join(format!("containerds-{}", self.rounds));
        let registry = self.origin.image.registry.to_string();
        Runtimes::start(&self.places.nodes, programs, directory, &registry, through).await.map(Some)
    }

    /// Looks at what the first ones have, if they say that they have it.
    async fn end_runtimes(&self, runtimes: Option<Runtimes>, outcome: &Outcome, awaited: usize) -> Result<()> {
        let Some(runtimes) = runtimes else { return Ok(()) };
        if outcome.unfinished.is_empty() {
            runtimes.check(awaited, &self.options.size.split(self.options.layers)).await?;
        }
        runtimes.end(self.options.keep).await
    }

    /// On each node this client, or that of its containerd, ready to go.
    async fn clients(&self, runtimes: Option<&Runtimes>, client: &Worker) -> Result<Vec<Job>> {
        let nodes = &self.places.nodes;
        let jobs = match runtimes {
            Some(runtimes) => runtimes.clients(nodes, &self.origin.image),
            None => nodes.iter().map(|place| Job::start(place, client)).collect(),
        };
        let mut jobs = jobs?;
        Pulls::ready(&mut jobs).await?;
        Ok(jobs)
    }

    /// On all nodes, of which so many are waited for.
    fn pulls(&self, awaited: usize) -> Pulls<'_> {
        Pulls {
            nodes: &self.places.nodes,
            awaited,
            spread: self.spread,
            // As long as if each node had its copy from the origin, twice.
            patience: Duration::from_secs_f64(60.0 + 2.0 * f64::from(self.options.nodes) * self.scale.bound),
        }
    }

    async fn faulty(&mut self, fault: Fault, undisturbed: &Figures) -> Result<Faulty> {
        let mut rounds = Vec::new();
        for round in 1..=self.options.rounds {
            eprintln!("with {fault}, {round} of {}", self.options.rounds);
            let (round, seen) = self.shoal(Some(fault)).await?;
            for error in &round.outcome.unfinished {
                eprintln!("a node doesn't have it: {error}");
            }
            rounds.push((round, seen));
        }
        Ok(Faulty::of(fault, &rounds, undisturbed, &self.scale))
    }

    async fn direct(&mut self, shoal: &Figures) -> Result<Direct> {
        eprintln!("all pull from the origin");
        self.rounds += 1;
        let runtimes = self.runtimes(Through::Origin).await?;
        let client =
            Worker::Client(Pull { mirror: self.origin.url.clone(), image: self.origin.image.clone(), blobs: None });
        let mut clients = self.clients(runtimes.as_ref(), &client).await?;
        let all = self.places.nodes.len();
        let outcome = self.pulls(all).run(&mut clients).await?;
        self.end_runtimes(runtimes, &outcome, all).await?;
        let last = outcome.times()?.last();
        Ok(Direct { direct_t_last: rounded(last), t_last_over_direct: rounded(shoal.t_last / last) })
    }

    /// Shoal and libtorrent, alternately.
    async fn pairs(&mut self) -> Result<Vec<(Figures, Figures)>> {
        let swarm = libtorrent::Swarm::new(self.directory, self.options.size).await?;
        let mut pairs = Vec::new();
        for pair in 1..=self.options.pairs {
            let shoal = self.shoal(None).await?.0.figures(&self.scale)?;
            eprintln!("the same with libtorrent");
            let peer = swarm.round(&self.places, &self.pulls(self.places.nodes.len())).await?.figures(&self.scale)?;
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
        if let Some(file) = &self.plot {
            ensure!(self.nodes > 1, "a plot takes more than one number of nodes: give more --nodes");
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
            opened.with_context(|| format!("{} can't be written", file.display()))?;
        }
        if let Some(fault) = self.fault {
            ensure!(
                fault.lost_agents() < self.nodes || self.client == Puller::Containerd,
                "--fault {fault} leaves no node: give more --nodes"
            );
        }
        if self.against == Some(Against::Libtorrent) {
            ensure!(self.client == Puller::Builtin, "libtorrent unpacks nothing: compare it with --client builtin");
            libtorrent::check()?;
        }
        Ok(())
    }
}
