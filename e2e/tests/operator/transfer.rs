//! A replica of the operator that is killed while agents are exchanging: the tracker of the very blob, and the leader of a push.

use std::net::SocketAddr;
use std::path::PathBuf;

use futures_util::future::join_all;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use shoal_agent::pull::Progress;
use shoal_api::ArtifactStatus;
use shoal_api::kube::Swarm;
use shoal_e2e::processes::Fleet;
use shoal_e2e::registry::DockerRegistry;
use shoal_oci::testing::Image;
use shoal_tracker::{ReplicaName, rendezvous};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::agents::{AgentProcess, Place, counted};
use crate::namespace;
use crate::nodes::NODES;
use crate::process::Process;
use crate::reconcile::{holder, holds, swarm};
use crate::world::{LONG, World, in_namespace};

/// At these rates a transfer takes some five seconds.
const RATE: &str = "100mbit";
const LAYERS: [u64; 1] = [64 << 20];
const SMALL: [u64; 1] = [1 << 10];
const AGENTS: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];
const REGISTRY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(in_namespace(3)), 5000);

const RECEIVED: &str = "shoal_exchange_received_bytes_total";
const FALLBACKS: &str = "shoal_content_fallbacks_total";
const STREAMS: &str = "shoal_tracker_event_streams";
const LED: &str = "shoal_exchange_origin_bytes_total";

struct Scene {
    world: World,
    fleet: Fleet,
    log: PathBuf,
    agents: Vec<AgentProcess>,
    /// By number.
    operators: [Option<Process>; 2],
}

impl Scene {
    async fn start(world: World, registry: &DockerRegistry, log: PathBuf) -> Self {
        let mut fleet = Fleet::new(world.control_plane.directory()).sharing_signals();
        fleet.start("registry", &registry.command()).unwrap();
        fleet.until("registry", LONG, async || TcpStream::connect(REGISTRY).await.is_ok()).await.unwrap();
        let mut scene = Self { world, fleet, log, agents: Vec::new(), operators: [None, None] };
        scene.start_operator(1).await;
        scene.start_operator(2).await;
        scene.world.ready(&[1, 2]).await;
        for name in AGENTS {
            let rate = Some(RATE.parse().unwrap());
            let place = Place { name, ip: in_namespace(NODES), rate, replicas: &[1, 2] };
            scene.agents.push(AgentProcess::start(&scene.world, &mut scene.fleet, &place, &[]).await);
        }
        scene
    }

    async fn start_operator(&mut self, number: u8) {
        self.operators[usize::from(number) - 1] = Some(Process::start(&self.world, number).await);
        self.world.until_serves(number).await;
    }

    async fn kill_operator(&mut self, number: u8) {
        self.operators[usize::from(number) - 1].take().unwrap().kill().await;
    }

    fn sent(&self) -> u64 {
        DockerRegistry::blob_bytes(&std::fs::read_to_string(&self.log).unwrap())
    }

    /// Bytes that the agents have, as they told a second ago at most.
    async fn arrived(&self) -> u64 {
        let counts = self.agents.iter().map(|agent| async { agent.counted(RECEIVED).await + agent.counted(LED).await });
        join_all(counts).await.into_iter().sum()
    }

    /// What of all that the agents are to get has come, in percent: enough and not too much for a kill in the middle.
    fn middle(done: u64, all: u64) -> bool {
        (20..=70).contains(&(done * 100 / all))
    }

    /// Requests that agents have left to the registry so far.
    async fn fallbacks(&self) -> u64 {
        join_all(self.agents.iter().map(|agent| agent.counted(FALLBACKS))).await.into_iter().sum()
    }

    /// That all agents have been told of a Swarm for the registry: until then they leave requests to it.
    async fn swarm_is_known(&self) {
        let small = format!("{REGISTRY}/team/small:1").parse().unwrap();
        for agent in &self.agents {
            let known = async || agent.try_pull(&small, &Progress::default()).await.is_ok();
            self.world.until("an agent knows the Swarm", known).await;
        }
    }

    /// All nodes pull, and the blob's tracker is killed.
    async fn tracker_is_killed(&mut self, image: &Image) {
        let names = [1, 2].map(|number| ReplicaName::new(&format!("shoal-operator-{number}")).unwrap());
        let owner = u8::try_from(rendezvous(&image.layers[0].digest, &names)[0] + 1).unwrap();
        let name = format!("{REGISTRY}/team/pulled:1").parse().unwrap();
        let progress: Vec<Progress> = self.agents.iter().map(|_| Progress::default()).collect();
        let done = || progress.iter().map(Progress::received_bytes).sum::<u64>();
        let all = image.blob_bytes() * AGENTS.len() as u64;
        let (before, fallbacks, began) = (self.sent(), self.fallbacks().await, Instant::now());
        let operator = self.operators[usize::from(owner) - 1].take().unwrap();
        let pulls = join_all(self.agents.iter().zip(&progress).map(|(agent, progress)| agent.pull(&name, progress)));
        let kill = async {
            self.world.until("a third has come", async || done() * 3 >= all).await;
            let at_kill = done();
            operator.kill().await;
            (at_kill, began.elapsed())
        };
        let (pulled, (at_kill, when)) = tokio::join!(timeout(LONG, pulls), kill);
        pulled.expect("all pulls complete");
        assert!(Self::middle(at_kill, all), "killed in the middle: {at_kill} of {all} bytes");
        assert_eq!(done(), all);
        let copies = (self.sent() - before) as f64 / image.blob_bytes() as f64;
        println!(
            "the blob's tracker, replica {owner}, was killed with {} % of the bytes there after {:.1} s: all pulls complete after {:.1} s, {copies:.3} copies",
            at_kill * 100 / all,
            when.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        assert!(copies <= 1.1, "{copies}");
        assert_eq!(self.fallbacks().await, fallbacks);
        self.start_operator(owner).await;
        // As long as some agents can reach a tracker that others can't, they may name a lead each.
        let world = &self.world;
        let all = async || counted(world.admin_of(owner), STREAMS).await == AGENTS.len() as u64;
        world.until("all agents are connected again", all).await;
    }

    async fn artifact(&self, swarms: &Api<Swarm>) -> ArtifactStatus {
        let status = swarms.get("pushed").await.unwrap().status.unwrap_or_default();
        status.artifacts.into_iter().next().unwrap_or_default()
    }

    /// A Swarm pushes, and the leader is killed: the other one says that all is done.
    async fn leader_is_killed(&mut self, image: &Image) {
        let lead = async || holder(&self.world).await;
        self.world.until("somebody leads", async || lead().await.is_some()).await;
        let leader = lead().await.unwrap();
        let number: u8 = leader.rsplit('-').next().unwrap().parse().unwrap();
        let all = image.blob_bytes() * AGENTS.len() as u64;
        let (before, arrived, began) = (self.sent(), self.arrived().await, Instant::now());
        let fallbacks = self.fallbacks().await;
        let swarms: Api<Swarm> = Api::all(self.world.admin.clone());
        let spec = json!({
            "registries": [{"host": REGISTRY, "endpoint": format!("http://{REGISTRY}"), "access": "Public"}],
            "artifacts": [{"name": "model", "reference": format!("{REGISTRY}/team/pushed:1"), "placement": "Cache"}],
        });
        swarms.create(&PostParams::default(), &swarm("pushed", spec)).await.unwrap();
        let some = async || (self.arrived().await - arrived) * 4 >= all;
        self.world.until("a quarter has come", some).await;
        let at_kill = self.arrived().await - arrived;
        self.kill_operator(number).await;
        let when = began.elapsed();
        assert!(Self::middle(at_kill, all), "killed in the middle: {at_kill} of {all} bytes");
        let nodes = u32::try_from(AGENTS.len()).unwrap();
        assert!(self.artifact(&swarms).await.complete < nodes, "nobody knew that it was done");
        let distributed = async || {
            let found = swarms.get("pushed").await.unwrap();
            holds(&found, "Ready").as_deref() == Some("Distributed")
        };
        self.world.until("the other replica sees it through", distributed).await;
        let artifact = self.artifact(&swarms).await;
        assert_eq!((artifact.complete, artifact.desired), (nodes, nodes));
        let next = holder(&self.world).await.unwrap();
        assert_ne!(next, leader);
        let copies = (self.sent() - before) as f64 / image.blob_bytes() as f64;
        println!(
            "{leader} was killed with {} % of a push there after {:.1} s: {next} says Distributed after {:.1} s, {copies:.3} copies",
            at_kill * 100 / all,
            when.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        assert!(copies <= 1.1, "{copies}");
        assert_eq!(self.fallbacks().await, fallbacks);
    }

    async fn end(mut self) {
        self.fleet.check().unwrap();
        self.fleet.end().await;
        for operator in self.operators.into_iter().flatten() {
            assert!(operator.terminate().await.success());
        }
        self.world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_disturbs_no_transfer() {
    if let Err(error) = DockerRegistry::program() {
        return eprintln!("SKIPPED: {error:#}");
    }
    if !namespace::is_inside("transfer::a_replica_that_is_killed_disturbs_no_transfer").await {
        return;
    }
    let Some(world) = World::start_in_namespace().await else { return };
    // A registry that is faster than the nodes sends more than one copy, whoever is killed.
    if !namespace::limit(REGISTRY.port(), RATE) {
        return world.end().await;
    }
    let log = world.control_plane.directory().join("registry.log");
    let registry = DockerRegistry::new(&world.control_plane.directory().join("registry"), REGISTRY).unwrap();
    let [pulled, pushed] =
        [("team/pulled", 1), ("team/pushed", 2)].map(|(name, seed)| registry.store(name, "1", &LAYERS, seed).unwrap());
    registry.store("team/small", "1", &SMALL, 3).unwrap();
    let mut scene = Scene::start(world, &registry, log).await;
    let swarms: Api<Swarm> = Api::all(scene.world.admin.clone());
    let registries = json!([{"host": REGISTRY, "endpoint": format!("http://{REGISTRY}"), "access": "Public"}]);
    swarms.create(&PostParams::default(), &swarm("pulled", json!({"registries": registries}))).await.unwrap();
    scene.swarm_is_known().await;
    scene.tracker_is_killed(&pulled).await;
    swarms.delete("pulled", &DeleteParams::default()).await.unwrap();
    // Of two for one registry the older one counts.
    scene.world.until("it is gone", async || swarms.get_opt("pulled").await.unwrap().is_none()).await;
    scene.leader_is_killed(&pushed).await;
    scene.end().await;
}
