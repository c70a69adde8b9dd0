//! Shoal in the places of a network: a tracker and an agent on each node, with cold stores.
//!
//! State: the processes and a directory in memory. Invariants: both end with their owner.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::timeout;

use super::workers::{Job, Worker};
use crate::network::{Network, Place};
use crate::nodes::{self, Node, Tracker};
use crate::processes::Fleet;
use crate::units::Rate;

/// As in the demo; two hundred agents on two cores take their time.
const READY: Duration = Duration::from_secs(120);

/// Where clients find the mirror, on each node.
pub(super) const MIRROR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9395);
/// Where its agent's pages are.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9397);

/// The places of a run.
pub(super) struct Places {
    pub(super) origin: Place,
    pub(super) tracker: Place,
    pub(super) nodes: Vec<Place>,
}

impl Places {
    /// All links alike; the tracker's has no limits.
    pub(super) fn build(network: &mut Network, nodes: u32, rate: Option<Rate>) -> Result<Self> {
        let origin = network.add("origin", rate)?;
        let tracker = network.add("tracker", None)?;
        let nodes = (0..nodes).map(|ix| network.add(&format!("node-{ix}"), rate));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        network.use_cubic()?;
        Ok(Self { origin, tracker, nodes })
    }
}

/// What a cluster is to be.
pub(super) struct Plan<'a> {
    /// The agent's program.
    pub(super) program: &'a Path,
    /// Where the agents' stores are.
    pub(super) directory: PathBuf,
    /// So many of the last nodes lie to their peers.
    pub(super) liars: usize,
    /// Flags for each agent besides.
    pub(super) flags: &'a [&'static str],
    /// The sockets of the containerds beside the agents, if there are any.
    pub(super) sockets: Vec<PathBuf>,
}

/// The tracker and the agents.
pub(super) struct Cluster {
    pub(super) fleet: Fleet,
    /// The agents' processes.
    pub(super) agents: Vec<u32>,
    directory: PathBuf,
}

impl Cluster {
    /// Starts them, and waits until all agents serve.
    pub(super) async fn start(places: &Places, plan: Plan<'_>) -> Result<Self> {
        let directory = plan.directory;
        std::fs::create_dir_all(&directory).context("a directory for the cluster can't be made")?;
        let swarm = directory.join("swarm.yaml");
        let registry = format!("{}:5000", places.origin.address);
        std::fs::write(&swarm, nodes::swarm_file(&registry)).context("the Swarm's file can't be written")?;
        let tracker = Tracker {
            listen: (places.tracker.address, 9394).into(),
            swarm,
            token: directory.join("join-token"),
            data: directory.join("tracker"),
        };
        let mut fleet = Fleet::new(&directory);
        fleet.start("tracker", &places.tracker.within(&tracker.command(plan.program)))?;
        let made = async || tokio::fs::metadata(&tracker.token).await.is_ok_and(|token| token.len() > 0);
        fleet.until("tracker", READY, made).await?;
        let mut agents = Vec::new();
        for (ix, place) in places.nodes.iter().enumerate() {
            let name = name(ix);
            let node = Node {
                mirror: MIRROR,
                peers: (place.address, 9396).into(),
                admin: ADMIN,
                data: directory.join(&name),
                // The network has limits of its own.
                rate: None,
                name,
            };
            let command = if ix + plan.liars >= places.nodes.len() {
                Worker::liar(&node, &tracker).command()?
            } else {
                let beside = plan.sockets.get(ix).map(|socket| ["--containerd-socket".into(), socket.into()]);
                let flags = plan.flags.iter().map(Into::into).chain(beside.into_iter().flatten());
                node.command(plan.program, &tracker).into_iter().chain(flags).collect()
            };
            agents.push(fleet.start(&node.name, &place.within(&command))?);
        }
        let ready = Worker::Ready { address: ADMIN, page: "/readyz".to_owned() };
        let jobs = places.nodes.iter().map(|place| Job::start(place, &ready));
        let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
        let all = async { try_join_all(jobs.iter_mut().map(Job::line)).await };
        fleet.during(async { timeout(READY, all).await.context("the agents aren't ready in time")? }).await?;
        Ok(Self { fleet, agents, directory })
    }

    /// Ends them, and forgets what they have stored.
    pub(super) async fn end(mut self, keep: bool) -> Result<()> {
        self.fleet.end().await;
        if keep {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.directory).context("the cluster's directory can't be removed")
    }
}

/// A node's name, by its place in [`Places::nodes`].
pub(super) fn name(ix: usize) -> String {
    format!("node-{ix}")
}

/// What the exchanges of these nodes have seen so far, as their agents' pages tell it.
pub(super) async fn exchanges(nodes: &[Place]) -> Result<Vec<Value>> {
    let jobs = nodes.iter().map(|place| Job::start(place, &Worker::Exchange { admin: ADMIN }));
    let mut jobs = jobs.collect::<Result<Vec<_>>>()?;
    let pages = try_join_all(jobs.iter_mut().map(Job::line)).await?;
    pages.iter().map(|page| serde_json::from_str(page).context("an agent's page can't be read")).collect()
}
