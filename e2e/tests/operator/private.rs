//! A private repository of a real registry, pulled by real containerds: who gets an image, and how often the registry sends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use shoal_e2e::containerd::{Programs, Version};
use shoal_e2e::processes::Fleet;
use shoal_e2e::registry::{Auth, DockerRegistry};
use shoal_oci::ImageName;
use shoal_oci::testing::Image;
use shoal_tracker_server::{Anonymous, ImageName as AskedName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::namespace;
use crate::nodes::Node;
use crate::secrets::{apply_swarm, secret};
use crate::world::{LONG, World, in_namespace};

const USER: &str = "ann";
const PASSWORD: &str = "sehr-geheim";
/// As `htpasswd -nbB -C 4` writes it.
const HTPASSWD: &str = "ann:$2b$04$hDKKbC2tOoFj/B9GHZ/1qOVpKE7EnKy4oFBGXwZ9L89bCnbSHIYRu\n";

const NODES: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];
const LAYERS: [u64; 3] = [8 << 20, 5 << 20, 70_000];

/// A docker-registry with images in it, for one user.
struct Origin {
    registry: DockerRegistry,
    host: String,
    log: PathBuf,
}

impl Origin {
    async fn start(world: &World, fleet: &mut Fleet) -> (Self, [Image; 3]) {
        let directory = world.control_plane.directory().join("registry");
        std::fs::create_dir_all(&directory).unwrap();
        let listen = SocketAddr::from((in_namespace(3), 5000));
        let auth = Auth::Htpasswd(HTPASSWD.to_owned());
        let registry = DockerRegistry::with_auth(&directory, listen, &auth).unwrap();
        let store = |repository, seed| registry.store(repository, "1", &LAYERS, seed).unwrap();
        let images = [store("team/own", 1), store("team/refused", 2), store("team/swarm", 3)];
        fleet.start("registry", &registry.command()).unwrap();
        let listens = async || TcpStream::connect(listen).await.is_ok();
        fleet.until("registry", LONG, listens).await.unwrap();
        let log = world.control_plane.directory().join("registry.log");
        (Self { registry, host: listen.to_string(), log }, images)
    }

    /// How many copies of an image it has sent since it had sent so many bytes.
    fn copies(&self, since: u64, image: &Image) -> f64 {
        (self.sent() - since) as f64 / image.blob_bytes() as f64
    }

    fn sent(&self) -> u64 {
        DockerRegistry::blob_bytes(&std::fs::read_to_string(&self.log).unwrap())
    }

    fn name(&self, repository: &str) -> ImageName {
        format!("{}/{repository}:1", self.host).parse().unwrap()
    }
}

/// The registry sends 200 Mbit/s from now on; nodes exchange as fast as loopback is.
fn limit_registry() {
    for line in [
        "qdisc add dev lo root handle 1: htb default 1",
        "class add dev lo parent 1: classid 1:1 htb rate 20gbit",
        "class add dev lo parent 1: classid 1:2 htb rate 200mbit burst 128k",
        "filter add dev lo parent 1: protocol ip u32 match ip sport 5000 0xffff flowid 1:2",
    ] {
        assert!(Command::new("tc").args(line.split(' ')).status().unwrap().success(), "tc {line}");
    }
}

async fn pull_everywhere(nodes: &[Node], image: &ImageName) {
    let pulls = nodes.iter().map(|node| node.containerd.pull_as(image, USER, PASSWORD));
    let pulled = timeout(LONG, join_all(pulls)).await.expect("pulls end");
    for (node, pulled) in nodes.iter().zip(pulled) {
        pulled.unwrap();
        let audit = node.containerd.kept().audit().unwrap();
        assert_eq!((audit.wrong_blobs, audit.ingests), (0, 0), "{audit:?}");
    }
}

async fn rows(programs: Programs) {
    let Some(world) = World::start_in_namespace().await else { return };
    let mut fleet = Fleet::new(world.control_plane.directory()).sharing_signals();
    let (origin, [own, refused, swarm]) = Origin::start(&world, &mut fleet).await;
    let mut operator = world.operator(1).await;
    let tracker = operator.serves().await;
    apply_swarm(&world, &origin.host, None).await;
    let mut nodes = Vec::new();
    for name in NODES {
        nodes.push(Node::start(&world, &mut fleet, (name, operator.address), &programs, &origin.host).await);
    }

    // With the pods' secret only: the runtimes ask the registry, and one of them downloads for all.
    pull_everywhere(&nodes, &origin.name("team/own")).await;
    let copies = origin.copies(0, &own);
    println!("with the pods' secret only: {copies:.3} copies for {} nodes", nodes.len());
    assert!(copies <= 1.1, "{copies}");

    // With the Swarm's secret: without a pod's nobody gets even the manifest.
    let secrets: Api<Secret> = world.api();
    secrets.create(&PostParams::default(), &secret("regcred", &[&origin.host], USER, PASSWORD)).await.unwrap();
    apply_swarm(&world, &origin.host, Some(json!({"name": "regcred"}))).await;
    let asked = AskedName::new(&origin.host, "team/swarm", "1").unwrap();
    let is_private = async || tracker.resolve(&asked).await.is_ok_and(|found| found.anonymous == Anonymous::Denied);
    world.until("the operator reads what is private", is_private).await;
    let before = origin.sent();
    for node in &nodes {
        let error = node.containerd.pull(&origin.name("team/refused")).await.unwrap_err();
        let error = format!("{error:#}").to_lowercase();
        assert!(error.contains("authoriz") || error.contains("401") || error.contains("denied"), "{error}");
    }
    assert_eq!(origin.sent(), before, "nothing of it is sent to those who may not read the manifest");
    assert!(refused.blob_bytes() > 0 && origin.registry.blob(&refused.digest).exists());

    // With both: the swarm, and one copy. Of what a registry sends faster than nodes pass it on, a lead leaves the rest to others: that is
    // another figure.
    limit_registry();
    let before = origin.sent();
    pull_everywhere(&nodes, &origin.name("team/swarm")).await;
    let copies = origin.copies(before, &swarm);
    println!("with the pods' secret and the Swarm's: {copies:.3} copies for {} nodes", nodes.len());
    assert!(copies <= 1.05, "{copies}");

    for node in nodes {
        timeout(LONG, node.agent.stop()).await.expect("an agent stops");
    }
    operator.operator.stop().await;
    fleet.end().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_image_is_for_who_may_read_it_and_the_registry_sends_it_once() {
    if !namespace::is_inside("private::a_private_image_is_for_who_may_read_it_and_the_registry_sends_it_once").await {
        return;
    }
    match Version::V1_6.programs() {
        Ok(programs) => rows(programs).await,
        Err(error) => eprintln!("SKIPPED: there is no containerd on this machine: {error:#}"),
    }
}
