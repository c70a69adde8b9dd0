//! `cargo xtask demo`: a registry, a tracker and a few agents on loopback, all pulling one image at once.
//!
//! ```text
//! this process: the origin registry, rate limited ── the clients, one a node, as containerd pulls
//!                          ▲                              │ HEAD, GET
//!                          │ one copy                     ▼
//!               shoal-agent tracker          shoal-agent run × N, rate limited ◄──► each other
//! ```
//!
//! State: the processes and a directory in `target/`, both gone when it ends, also by Ctrl-C.
//! Invariants: a node is done when its client has proven every digest. Absent on purpose: root, the network, a container runtime: see the lab.

mod report;
mod show;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use futures_util::future::try_join_all;
use shoal_agent::pull::{Client, Progress};
use shoal_oci::testing::{Image, Options as RegistryOptions, Registry, free_ports};
use shoal_oci::{ImageName, Repository};
use tokio::time::Instant;

use self::report::Report;
use self::show::Show;
use crate::bound::Network;
use crate::ending;
use crate::figures::{NodeFigures, Times, float, rounded};
use crate::nodes::{self, Node, Tracker};
use crate::processes::Fleet;
use crate::scratch::Scratch;
use crate::units::{Rate, Size};

/// Keys, certificates and the first announce take a second; a busy machine ten times that.
const READY: Duration = Duration::from_secs(30);

/// Shows what Shoal does: agents on this machine pull one image at once, and the registry sends it once.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
pub struct Options {
    /// How many agents.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: u32,
    /// The image's size.
    #[arg(long, default_value = "256MiB")]
    size: Size,
    /// What the registry sends, and what each agent sends and receives.
    #[arg(long, default_value = "200mbit")]
    rate: Rate,
    /// In how many layers the image comes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    layers: u32,
    /// The result as one JSON object.
    #[arg(long)]
    json: bool,
    /// Keep the directory with the logs and stores.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and prints its result.
///
/// # Errors
/// In one line what failed; with the end of a process's log where one is the reason.
pub async fn run(options: &Options) -> Result<()> {
    let scratch = Scratch::new("demo", options.keep)?;
    let program = nodes::agent_program()?;
    let mut fleet = Fleet::new(scratch.path());
    let report = ending::or_interrupted(cluster(options, scratch.path(), &program, &mut fleet)).await;
    fleet.end().await;
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

async fn cluster(options: &Options, directory: &Path, program: &Path, fleet: &mut Fleet) -> Result<Report> {
    eprintln!("making an image of {} in {} layers", options.size, options.layers);
    let (registry, image, name) = origin(options).await?;
    eprintln!("starting a tracker and {} agents, each with {} both ways", options.nodes, options.rate);
    let (tracker, nodes) = plan(options, directory, &registry)?;
    fleet.start("tracker", &tracker.command(program))?;
    fleet.until("tracker", READY, async || tracker.is_ready().await).await?;
    for node in &nodes {
        fleet.start(&node.name, &node.command(program, &tracker))?;
    }
    for node in &nodes {
        fleet.until(&node.name, READY, async || node.is_ready().await).await?;
    }
    eprintln!("all pull {name} at once");
    let before = registry.blob_traffic().body_bytes;
    let seconds = fleet.during(pull_all(&nodes, &name, image.blob_bytes())).await?;
    // What the agents tell comes after the run, so that asking disturbs nobody.
    let origin_bytes = registry.blob_traffic().body_bytes - before;
    let mut figures = Vec::new();
    for (node, seconds) in nodes.iter().zip(&seconds) {
        let (peer_bytes, origin_bytes) = node.bytes_by_source().await;
        figures.push(NodeFigures { name: node.name.clone(), seconds: rounded(*seconds), peer_bytes, origin_bytes });
    }
    let rate = float(options.rate.bytes_per_second());
    let network = Network { nodes: options.nodes, origin_up: rate, node_up: rate, node_down: rate };
    let times = Times::new(seconds).context("no node")?;
    Ok(Report::new(&network, image.blob_bytes(), &times, origin_bytes, figures))
}

/// The registry with its image. Its rate counts from the first request on.
async fn origin(options: &Options) -> Result<(Arc<Registry>, Image, ImageName)> {
    let bytes_per_second = Some(options.rate.bytes_per_second());
    let registry = Registry::start(RegistryOptions { bytes_per_second, ..RegistryOptions::default() });
    let registry = Arc::new(registry.await.context("the registry can't be started")?);
    let repository: Repository = "demo/image".parse()?;
    let layers = options.size.split(options.layers);
    let name = format!("{}/{repository}:1", registry.name()).parse()?;
    let pushing = Arc::clone(&registry);
    // Hashing the layers takes a core for a second.
    let image = tokio::task::spawn_blocking(move || pushing.push_image(&repository, "1", &layers, 1)).await?;
    Ok((registry, image, name))
}

fn plan(options: &Options, directory: &Path, registry: &Registry) -> Result<(Tracker, Vec<Node>)> {
    let swarm = directory.join("swarm.yaml");
    let text = nodes::swarm_file(registry.name().as_str());
    std::fs::write(&swarm, text).with_context(|| format!("{} can't be written", swarm.display()))?;
    let count = usize::try_from(options.nodes)?;
    let mut ports = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST), 1 + 3 * count)?.into_iter();
    let mut port = || ports.next().context("too few ports");
    let tracker =
        Tracker { listen: port()?, swarm, token: directory.join("join-token"), data: directory.join("tracker") };
    let nodes = (0..options.nodes).map(|ix| {
        let name = format!("node-{ix}");
        let data = directory.join(&name);
        Ok(Node { mirror: port()?, peers: port()?, admin: port()?, data, rate: Some(options.rate), name })
    });
    Ok((tracker, nodes.collect::<Result<_>>()?))
}

/// When each node was done, in seconds.
async fn pull_all(nodes: &[Node], name: &ImageName, bytes: u64) -> Result<Vec<f64>> {
    let progress: Vec<Progress> = nodes.iter().map(|_| Progress::default()).collect();
    let started = Instant::now();
    let pulls = nodes.iter().zip(&progress).map(|(node, progress)| async move {
        let mirror = format!("http://{}", node.mirror).parse().map_err(anyhow::Error::msg)?;
        let client = Client::new(mirror, None);
        nodes::pull(&client, name, progress).await.with_context(|| node.name.clone())?;
        anyhow::Ok(started.elapsed().as_secs_f64())
    });
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    let show = Show::new(&names, bytes);
    tokio::select! {
        seconds = try_join_all(pulls) => seconds,
        never = show.follow(&progress) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Options::command().debug_assert();
        for wrong in ["--nodes 0", "--nodes 65", "--layers 0", "--size 5", "--rate fast"] {
            let line = ["demo"].into_iter().chain(wrong.split(' '));
            assert!(Options::try_parse_from(line).is_err(), "{wrong}");
        }
    }
}
