//! Nodes with an agent and a containerd each, joined to the operator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use prometheus_client::registry::Registry as Counters;
use shoal_agent::agent::{Agent, AgentConfig};
use shoal_agent::runtime::RuntimeConfig;
use shoal_e2e::containerd::{Containerd, Programs};
use shoal_e2e::processes::Fleet;
use shoal_store::{Limits, Percent};
use shoal_types::Zone;
use tokio::time::timeout;

use crate::world::{AGENT, AUDIENCE, LONG, World, in_namespace};

const LAB: &str = env!("CARGO_BIN_EXE_shoal-lab");

/// All nodes have this address of the namespace; their ports tell them apart.
const NODES: u8 = 4;

pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) containerd: Containerd,
}

impl Node {
    /// A node whose containerd asks its agent for this plain-http registry's images first.
    pub(crate) async fn start(
        world: &World,
        fleet: &mut Fleet,
        (name, tracker): (&str, SocketAddr),
        programs: &Programs,
        registry: &str,
    ) -> Self {
        let directory = world.control_plane.directory().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let containerd = Containerd::new(programs, &directory.join("containerd")).unwrap();
        let process = format!("containerd-of-{name}");
        fleet.start(&process, &containerd.command()).unwrap();
        fleet.until(&process, LONG, async || containerd.is_ready().await).await.unwrap();
        let agent = agent(world, &directory, (name, tracker), &containerd).await;
        containerd.ask_mirror(&[LAB.into(), "agent".into()], agent.mirror_addr(), registry).unwrap();
        Self { agent, containerd }
    }
}

async fn agent(world: &World, directory: &Path, (name, tracker): (&str, SocketAddr), beside: &Containerd) -> Agent {
    let address = in_namespace(NODES);
    world.node(name, "zone-1", address).await;
    let pod = world.pod(&format!("agent-{name}"), AGENT, Some(name)).await;
    let file = |name: &str, text: &str| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let free = std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap();
    let config = AgentConfig {
        name: name.parse().unwrap(),
        zone: Zone::default(),
        trackers: vec![tracker.into()],
        join_token_file: file("token", &world.token_of(&pod, AUDIENCE).await),
        ca_file: Some(file("ca.crt", &world.bundle().await)),
        swarm_file: None,
        data_dir: directory.join("agent"),
        mirror_listen: loopback,
        peer_listen: free,
        peer_ip: None,
        admin_listen: loopback,
        metrics_listen: None,
        upload_limit: None,
        download_limit: None,
        limits: Limits { keep_free: Percent::ZERO, ..Limits::new(1 << 30) },
        plain_peers: false,
        default_registry: None,
        token: None,
        runtime: Some(RuntimeConfig { socket: beside.socket(), root: None, namespace: "k8s.io".parse().unwrap() }),
    };
    let agent = Agent::start(config, Counters::default()).await.unwrap();
    let ready = timeout(LONG, agent.readiness().ready()).await;
    assert!(ready.is_ok(), "{:?}", agent.readiness().missing());
    agent
}
