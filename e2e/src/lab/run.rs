//! A lab's run, from the empty network to the report.
//!
//! State: what [`super`] says. Invariants: calibration, Shoal and what it is compared with share one network, one after the other.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use shoal_agent::pull::MirrorUrl;
use shoal_oci::ImageName;
use tokio::time::{Instant, timeout};

use super::goodput::{self, Goodput};
use super::network::{Network, Place};
use super::report::{Direct, Report};
use super::workers::{Job, Worker};
use super::{Against, Options, Puller, usage};
use crate::bound;
use crate::ending;
use crate::figures::{Times, float, rounded};
use crate::nodes::{self, Node, Tracker};
use crate::processes::Fleet;
use crate::scratch::Scratch;

/// As in the demo; two hundred agents on two cores take their time.
const READY: Duration = Duration::from_secs(120);

const MIRROR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9395);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9397);

/// The places of a run.
struct Places {
    origin: Place,
    tracker: Place,
    nodes: Vec<Place>,
}

/// What the origin serves.
struct Served {
    image: ImageName,
    url: MirrorUrl,
    bytes: u64,
}

/// Runs the lab and prints its result.
pub(super) async fn run(options: &Options) -> Result<()> {
    let program = nodes::agent_program()?;
    let mut network = Network::new()?;
    let scratch = Scratch::in_memory("shoal-lab", options.keep)?;
    let mut fleet = Fleet::new(scratch.path());
    let report = ending::or_interrupted(measure(options, &mut network, scratch.path(), &program, &mut fleet)).await;
    fleet.end().await;
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.lines()?);
    }
    Ok(())
}

async fn measure(
    options: &Options,
    network: &mut Network,
    directory: &Path,
    program: &Path,
    fleet: &mut Fleet,
) -> Result<Report> {
    let Puller::Builtin = options.client;
    let places = build(options, network)?;
    eprintln!("{} nodes with {} both ways; measuring what a flow carries", options.nodes, options.rate);
    let from_origin = goodput::measure(&places.origin, &places.nodes[0], options.rate).await?;
    let between = match &places.nodes[..] {
        [first, second, ..] => goodput::measure(first, second, options.rate).await?,
        _ => from_origin,
    };
    let served = start_origin(options, &places, directory, fleet).await?;
    let agents = start_agents(&places, directory, program, fleet).await?;
    eprintln!("all pull {} at once", served.image);
    let mirror: MirrorUrl = format!("http://{MIRROR}").parse().map_err(anyhow::Error::msg)?;
    let (busy, cpu, sent) = (usage::machine_ticks(), cpu_seconds(&agents), places.origin.sent_bytes()?);
    let times = fleet.during(pull_all(&places, &mirror, &served.image)).await?;
    let (busy_after, cpu, sent) =
        (usage::machine_ticks(), cpu_seconds(&agents) - cpu, places.origin.sent_bytes()? - sent);
    let rss_max_mib = agents.iter().map(|pid| usage::peak_rss_mib(*pid)).max().unwrap_or(0);
    let direct = match options.against {
        None => None,
        Some(Against::Direct) => {
            eprintln!("all pull from the origin");
            let direct = fleet.during(pull_all(&places, &served.url, &served.image)).await?;
            let ratio = times.last() / direct.last();
            Some(Direct { direct_t_last: rounded(direct.last()), t_last_over_direct: rounded(ratio) })
        }
    };
    let bytes = float(served.bytes);
    let bound = model(options, &from_origin, &between).bound(bytes);
    Ok(Report {
        t_last: rounded(times.last()),
        p50: rounded(times.p50()),
        bound: rounded(bound),
        t_last_over_bound: rounded(times.last() / bound),
        origin_copies: rounded(float(sent) / from_origin.wire_per_payload / bytes),
        max_over_p50: rounded(times.last() / times.p50()),
        cpu_seconds_per_gb: rounded(cpu / (f64::from(options.nodes) * bytes / 1e9)),
        rss_max_mib,
        box_cpu_percent: rounded(100.0 * float(busy_after.0 - busy.0) / float((busy_after.1 - busy.1).max(1))),
        goodput_origin_mbit: rounded(from_origin.bytes_per_second / 125_000.0),
        goodput_nodes_mbit: rounded(between.bytes_per_second / 125_000.0),
        direct,
    })
}

/// All links are alike: what one carries in a direction, each does.
fn model(options: &Options, from_origin: &Goodput, between: &Goodput) -> bound::Network {
    bound::Network {
        nodes: options.nodes,
        origin_up: from_origin.bytes_per_second,
        node_up: between.bytes_per_second,
        node_down: from_origin.bytes_per_second,
    }
}

fn build(options: &Options, network: &mut Network) -> Result<Places> {
    let origin = network.add("origin", Some(options.rate))?;
    let tracker = network.add("tracker", None)?;
    let nodes = (0..options.nodes).map(|ix| network.add(&format!("node-{ix}"), Some(options.rate)));
    let nodes = nodes.collect::<Result<Vec<_>>>()?;
    network.use_cubic()?;
    Ok(Places { origin, tracker, nodes })
}

async fn start_origin(options: &Options, places: &Places, directory: &Path, fleet: &mut Fleet) -> Result<Served> {
    let listen = SocketAddr::from((places.origin.address, 5000));
    let ready = directory.join("origin-ready");
    let worker = Worker::Origin { listen, size: options.size, layers: options.layers, ready: ready.clone() };
    fleet.start("origin", &places.origin.within(&worker.command()?))?;
    let bytes = async || tokio::fs::read_to_string(&ready).await.ok()?.parse::<u64>().ok();
    fleet.until("origin", READY, async || bytes().await.is_some()).await?;
    Ok(Served {
        image: format!("{listen}/lab/image:1").parse()?,
        url: format!("http://{listen}").parse().map_err(anyhow::Error::msg)?,
        bytes: bytes().await.context("the origin doesn't tell its image's size")?,
    })
}

/// Starts the tracker and the agents; their process numbers.
async fn start_agents(places: &Places, directory: &Path, program: &Path, fleet: &mut Fleet) -> Result<Vec<u32>> {
    let swarm = directory.join("swarm.yaml");
    let registry = format!("{}:5000", places.origin.address);
    std::fs::write(&swarm, nodes::swarm_file(&registry)).context("the Swarm's file can't be written")?;
    let tracker = Tracker {
        listen: (places.tracker.address, 9394).into(),
        swarm,
        token: directory.join("join-token"),
        data: directory.join("tracker"),
    };
    fleet.start("tracker", &places.tracker.within(&tracker.command(program)))?;
    let made = async || tokio::fs::metadata(&tracker.token).await.is_ok_and(|token| token.len() > 0);
    fleet.until("tracker", READY, made).await?;
    let mut pids = Vec::new();
    for (ix, place) in places.nodes.iter().enumerate() {
        let name = format!("node-{ix}");
        let node = Node {
            mirror: MIRROR,
            peers: (place.address, 9396).into(),
            admin: ADMIN,
            data: directory.join(&name),
            // The network has limits of its own.
            rate: None,
            name,
        };
        pids.push(fleet.start(&node.name, &place.within(&node.command(program, &tracker)))?);
    }
    let jobs = places.nodes.iter().map(|place| Job::start(place, &Worker::Ready { admin: ADMIN }));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    let all = async { try_join_all(jobs.iter_mut().map(Job::line)).await };
    let waited = fleet.during(async { timeout(READY, all).await.context("the agents aren't ready in time")? }).await;
    waited.map(|_| pids)
}

/// When each node was done, after all were let go in one moment.
async fn pull_all(places: &Places, mirror: &MirrorUrl, image: &ImageName) -> Result<Times> {
    let worker = Worker::Client { mirror: mirror.clone(), image: image.clone() };
    let jobs = places.nodes.iter().map(|place| Job::start(place, &worker));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    try_join_all(jobs.iter_mut().map(Job::line)).await?;
    let started = Instant::now();
    try_join_all(jobs.iter_mut().map(Job::go)).await?;
    let done = jobs.iter_mut().map(async |job| {
        job.line().await?;
        anyhow::Ok(started.elapsed().as_secs_f64())
    });
    Times::new(try_join_all(done).await?).context("no node")
}

fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum()
}
