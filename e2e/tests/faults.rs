//! Sixteen agents as processes on loopback: what their clients get when some of them die, lie, or lose the tracker.
//!
//! The origin is slow until the fault has come, so that nobody can have everything before. How long it all takes is the lab's question.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::{join, join_all, try_join_all};
use shoal_agent::pull::{Client, Progress};
use shoal_e2e::nodes::{self, Node, Tracker};
use shoal_e2e::processes::Fleet;
use shoal_oci::ImageName;
use shoal_oci::testing::{Options, Registry, free_ports};
use tokio::time::{sleep, timeout};

/// Far longer than anything takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(120);
const LAB: &str = env!("CARGO_BIN_EXE_shoal-lab");
const NODES: usize = 16;
const LAYER: u64 = 8 << 20;
/// Half of it takes four seconds.
const SLOW: u64 = 1 << 20;
/// As a runtime, a client tries again.
const TRIES: usize = 5;

struct World {
    fleet: Fleet,
    origin: Registry,
    image: ImageName,
    nodes: Vec<Node>,
    directory: PathBuf,
}

impl World {
    /// The last nodes lie.
    async fn new(test: &str, liars: usize) -> Self {
        let directory = std::env::temp_dir().join(format!("shoal-e2e-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let origin = Registry::start(Options { bytes_per_second: Some(SLOW), ..Options::default() }).await.unwrap();
        origin.push_image(&"team/app".parse().unwrap(), "1", &[LAYER], 1);
        let image = format!("{}/team/app:1", origin.name()).parse().unwrap();
        let swarm = directory.join("swarm.yaml");
        std::fs::write(&swarm, nodes::swarm_file(origin.name().as_str())).unwrap();
        let mut ports = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST), 1 + 3 * NODES).unwrap().into_iter();
        let mut port = || ports.next().unwrap();
        let (token, data) = (directory.join("join-token"), directory.join("tracker"));
        let tracker = Tracker { listen: port(), swarm, token, data };
        let mut fleet = Fleet::new(&directory);
        fleet.start("tracker", &agent(tracker.command(Path::new(LAB)))).unwrap();
        fleet.until("tracker", LONG, async || tracker.is_ready().await).await.unwrap();
        let mut started = Vec::new();
        for ix in 0..NODES {
            let name = format!("node-{ix}");
            let data = directory.join(&name);
            let node = Node { mirror: port(), peers: port(), admin: port(), data, rate: None, name };
            let command =
                if ix + liars < NODES { agent(node.command(Path::new(LAB), &tracker)) } else { liar(&node, &tracker) };
            fleet.start(&node.name, &command).unwrap();
            started.push(node);
        }
        for node in &started {
            fleet.until(&node.name, LONG, async || node.is_ready().await).await.unwrap();
        }
        Self { fleet, origin, image, nodes: started, directory }
    }

    /// All nodes pull. The processes of these names are killed when half of all bytes has come, and nobody waits for the pulls of the last
    /// `lost` nodes.
    async fn pull(&mut self, doomed: &[String], lost: usize) {
        let is_kill = !doomed.is_empty();
        let mut doomed = self.fleet.part(doomed).unwrap();
        let (origin, image, nodes) = (&self.origin, &self.image, &self.nodes);
        let (awaited, lost) = nodes.split_at(NODES - lost);
        let strike = async {
            until_half_has_come(nodes).await;
            if is_kill {
                assert!(origin.blob_traffic().body_bytes < LAYER, "nobody has everything yet");
            }
            doomed.kill().await;
            origin.limit(None);
        };
        let others = join(join_all(lost.iter().map(|node| pull(node, image))), strike);
        let all = async { join(try_join_all(awaited.iter().map(|node| pull(node, image))), others).await.0 };
        timeout(LONG, self.fleet.during(all)).await.expect("pulls end").unwrap();
    }

    fn copies(&self) -> f64 {
        self.origin.blob_traffic().body_bytes as f64 / LAYER as f64
    }

    async fn end(mut self) {
        self.fleet.end().await;
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

async fn until_half_has_come(nodes: &[Node]) {
    let come = async || {
        let bytes = join_all(nodes.iter().map(Node::bytes_by_source)).await;
        bytes.into_iter().map(|(peers, origin)| peers.unwrap_or(0) + origin.unwrap_or(0)).sum::<u64>()
    };
    while come().await < LAYER * NODES as u64 / 2 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// An image through a node's mirror, verified.
async fn pull(node: &Node, image: &ImageName) -> Result<()> {
    let mirror = format!("http://{}", node.mirror).parse().map_err(anyhow::Error::msg)?;
    let client = Client::new(mirror, None);
    let mut tries = 1;
    loop {
        match nodes::pull(&client, image, &Progress::default()).await {
            Err(_) if tries < TRIES => tries += 1,
            done => return done.with_context(|| node.name.clone()),
        }
    }
}

/// The agent is one of the lab's hidden commands: tests find only their own package's programs.
fn agent(mut command: Vec<OsString>) -> Vec<OsString> {
    command.insert(1, "agent".into());
    command
}

fn liar(node: &Node, tracker: &Tracker) -> Vec<OsString> {
    let tracker_url = format!("https://{}", tracker.listen);
    let [mirror, peers, admin] = [node.mirror, node.peers, node.admin].map(|address| address.to_string().into());
    let names = [LAB, "liar", &node.name, &tracker_url].map(OsString::from);
    let files = [tracker.token.clone().into(), node.data.clone().into()];
    names.into_iter().chain(files).chain([mirror, peers, admin]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eleven_of_eleven_finish_when_five_of_sixteen_are_killed_halfway() {
    let mut world = World::new("killed", 0).await;
    let doomed: Vec<String> = world.nodes[11..].iter().map(|node| node.name.clone()).collect();
    world.pull(&doomed, 5).await;
    assert!(world.copies() <= 2.0, "{} copies", world.copies());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_of_sixteen_finish_when_the_tracker_is_killed_halfway() {
    let mut world = World::new("trackerless", 0).await;
    world.pull(&["tracker".to_owned()], 0).await;
    assert!(world.copies() <= 2.0, "{} copies", world.copies());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fourteen_of_fourteen_finish_beside_two_that_lie() {
    let mut world = World::new("liars", 2).await;
    world.pull(&[], 2).await;
    let refuted = async |node: &Node| node.exchange().await.is_ok_and(|seen| seen["chunks_wrong"].as_u64() > Some(0));
    // The page is renewed each second.
    let someone = async {
        while !join_all(world.nodes[..14].iter().map(refuted)).await.contains(&true) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, someone).await.expect("somebody was lied to");
    world.end().await;
}
