//! An artifact's life: pushed, moved, joined, edited, deleted; by agents that are processes, out of a docker-registry, while the operator is killed in
//! between.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use shoal_api::ArtifactStatus;
use shoal_api::kube::Swarm;
use shoal_e2e::processes::Fleet;
use shoal_e2e::registry::DockerRegistry;
use shoal_oci::testing::free_ports;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::agents::{AgentProcess, Place};
use crate::process::Process;
use crate::reconcile::{holds, swarm};
use crate::world::{LONG, World};

const LAYERS: [u64; 2] = [3 << 20, 1 << 20];
/// How often the tag is looked up: as often as a Swarm may want it.
const RESOLVE_SECONDS: u64 = 10;

struct Scene {
    world: World,
    fleet: Fleet,
    swarms: Api<Swarm>,
}

impl Scene {
    /// Starts an agent on a node of its own, as a DaemonSet does.
    async fn agent(&mut self, number: u8) {
        let (name, ip) = (format!("node-{number}"), Ipv4Addr::new(127, 0, 7, number));
        let place = Place { name: &name, ip, rate: None, replicas: &[1] };
        AgentProcess::start(&self.world, &mut self.fleet, &place, &[]).await;
    }

    async fn artifact(&self) -> ArtifactStatus {
        let status = self.swarms.get("all").await.unwrap().status.unwrap_or_default();
        status.artifacts.into_iter().next().unwrap_or_default()
    }

    /// Waits until so many nodes have this digest, and says how long it took.
    async fn until_on(&self, what: &str, nodes: u32, digest: &str) {
        let began = Instant::now();
        let there = async || {
            let artifact = self.artifact().await;
            artifact.digest == digest && artifact.complete == nodes && artifact.desired == nodes
        };
        self.world.until(what, there).await;
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    }

    async fn until_ready(&self) {
        let is_ready =
            async || holds(&self.swarms.get("all").await.unwrap(), "Ready").as_deref() == Some("Distributed");
        self.world.until("the Swarm is ready", is_ready).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_comes_moves_and_goes_while_the_operator_is_killed_in_between() {
    let Some(world) = World::start().await else { return };
    let directory = world.control_plane.directory().join("lifecycle");
    std::fs::create_dir_all(&directory).unwrap();
    let listen = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST), 1).unwrap()[0];
    let registry = match DockerRegistry::new(&directory, listen) {
        Ok(registry) => registry,
        Err(error) => return eprintln!("SKIPPED: {error:#}"),
    };
    let first = registry.store("ml/model", "1", &LAYERS, 1).unwrap().digest.to_string();
    let mut fleet = Fleet::new(&directory).sharing_signals();
    fleet.start("registry", &registry.command()).unwrap();
    fleet.until("registry", LONG, async || TcpStream::connect(listen).await.is_ok()).await.unwrap();
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let operator = Process::start(&world, 1).await;
    let mut scene = Scene { world, fleet, swarms };
    scene.agent(1).await;
    scene.agent(2).await;

    let artifact = |tag: &str| json!([{"name": "model", "reference": format!("{listen}/ml/model:{tag}"), "placement": "Cache", "pin": true}]);
    let registries = json!([{"host": listen, "endpoint": format!("http://{listen}"), "access": "Public"}]);
    let spec = json!({"registries": registries, "artifacts": artifact("1"), "resolveSeconds": RESOLVE_SECONDS});
    scene.swarms.create(&PostParams::default(), &swarm("all", spec)).await.unwrap();
    scene.until_on("pushed", 2, &first).await;
    scene.until_ready().await;
    let artifact_status = scene.artifact().await;
    assert!(artifact_status.size.bytes() > LAYERS.iter().sum() && artifact_status.completed_at.is_some());
    assert!(artifact_status.from_origin.bytes() > 0, "{artifact_status:?}");

    // The tag moves while nobody reconciles.
    operator.kill().await;
    let second = registry.store("ml/model", "1", &LAYERS, 2).unwrap().digest.to_string();
    let operator = Process::start(&scene.world, 1).await;
    scene.until_on("moved while the operator was dead, from its restart on", 2, &second).await;

    scene.agent(3).await;
    scene.until_on("a node that joins late, from when it is ready on", 3, &second).await;
    scene.until_ready().await;

    // Without the registry a restart takes nothing from anybody.
    let mut gone = scene.fleet.part(&["registry".to_owned()]).unwrap();
    gone.kill().await;
    operator.kill().await;
    let operator = Process::start(&scene.world, 1).await;
    let degraded = async || holds(&scene.swarms.get("all").await.unwrap(), "OriginDegraded").is_some();
    scene.world.until("the registry is missed", degraded).await;
    let found = scene.swarms.get("all").await.unwrap();
    assert_eq!(holds(&found, "Ready").as_deref(), Some("Distributed"), "{:?}", found.status);
    assert_eq!((scene.artifact().await.digest, scene.artifact().await.complete), (second, 3));
    scene.fleet.start("registry", &registry.command()).unwrap();
    let back = async || holds(&scene.swarms.get("all").await.unwrap(), "OriginDegraded").is_none();
    scene.world.until("it is back", back).await;

    let third = registry.store("ml/model", "2", &LAYERS, 3).unwrap().digest.to_string();
    let edit = Patch::Merge(json!({"spec": {"artifacts": artifact("2")}}));
    scene.swarms.patch("all", &PatchParams::default(), &edit).await.unwrap();
    scene.until_on("edited", 3, &third).await;

    // Deleted, and killed at that moment: the next one lets it go.
    scene.swarms.delete("all", &DeleteParams::default()).await.unwrap();
    operator.kill().await;
    let (operator, began) = (Process::start(&scene.world, 1).await, Instant::now());
    let gone = async || scene.swarms.get_opt("all").await.unwrap().is_none();
    scene.world.until("the Swarm is gone", gone).await;
    println!("deleted while the operator was dead, from its restart on: {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < Duration::from_secs(60), "the agents let go of it");
    for number in 1..=3 {
        let pins = scene.world.control_plane.directory().join(format!("node-{number}/agent/pins.json"));
        let let_go = async || std::fs::read_to_string(&pins).is_ok_and(|pins| !pins.contains("model"));
        scene.world.until("its pins are gone", let_go).await;
    }

    let status = operator.terminate().await;
    assert!(status.success(), "SIGTERM ends it in order: {status}");
    scene.fleet.end().await;
    scene.world.end().await;
}
