//! Shoal as people install it: the chart, pods that pull through the mirror without knowing, a registry that is gone, and nodes that are left as they were.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_e2e::certs;
use shoal_e2e::cluster::Options;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{MOST_COPIES, World, pod};

const MIB: u64 = 1 << 20;
const NODES: u8 = 3;
/// The chart's.
const MIRROR: u16 = 9395;

#[tokio::test]
async fn pods_pull_through_the_mirror_and_nodes_are_left_as_they_were() {
    let options = Options { nodes: NODES, rate: Some("200mbit".parse().unwrap()), ..Options::default() };
    let Some(mut world) = World::start(options).await else { return };
    for node in 1..=NODES {
        certs::make_up(&world.cluster.certs(node).unwrap(), node.into()).unwrap();
    }
    let before = trees(&world);
    // All registries, so that everything in the trees is met.
    let all = json!({"runtime": {"hosts": {"registries": []}}, "defaultSwarm": {"spec": swarm(&world, "Deny")}});
    world.install_shoal(&all).await;
    assert_ne!(trees(&world), before, "the mirror is in front");

    // Known to one node: what its tag means can be asked, and what it is can be had from there.
    let tagged = world.cluster.image("tests/tagged:1");
    world.cluster.store("tests/tagged", "1", &[4 * MIB], 1).unwrap();
    world.run_on("tagged", &tagged, Some("node1")).await;
    let stored = world.cluster.store("tests/pinned", "1", &[4 * MIB], 2).unwrap();
    let pinned = world.cluster.image("tests/pinned");
    world.run_on("pinned", &format!("{pinned}:1"), Some("node1")).await;
    // Through containerd 1.6; others are in `turmoil.rs`.
    let copies = world.origin_copies("everywhere", &[96 * MIB, 32 * MIB], 3).await;
    eprintln!("containerd 1.6: {copies:.2} copies of an image came from the registry for {NODES} nodes");
    assert!(copies <= MOST_COPIES, "{copies} copies");

    world.cluster.stop_registry().await.unwrap();
    world.run_everywhere("by-digest", &format!("{pinned}@{}", stored.digest)).await;
    tags_without_registry(&mut world, &tagged).await;
    world.cluster.start_registry().unwrap();

    world.cluster.uninstall_shoal().await.unwrap();
    assert_eq!(trees(&world), before);
    let copies = world.origin_copies("afterwards", &[2 * MIB], 4).await;
    assert!(copies >= f64::from(NODES), "{copies} copies, but each node asks the registry again");
    world.end().await;
}

/// The registry is gone, so a tag means nothing where its Swarm says `Deny`, and what it meant last otherwise.
async fn tags_without_registry(world: &mut World, image: &str) {
    let mirror = world.cluster.loopback_door(2, MIRROR).unwrap();
    let asked = format!("/v2/tests/tagged/manifests/1?ns={}", world.cluster.registry_host());
    // What the tag meant holds for a minute after the registry was asked.
    world
        .until("a tag means nothing any more", async || {
            let mut stream = TcpStream::connect(mirror).await.unwrap();
            let request = format!("HEAD {asked} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.starts_with("HTTP/1.1 503")
        })
        .await;
    world.make_pod("by-tag", pod(image, Some("node2"))).await;
    world
        .until_seen("the kubelet says why there is no pod", async |world| {
            world
                .failed_pulls()
                .await
                .iter()
                .any(|said| said.starts_with("by-tag: ") && said.contains("outagePolicy is Deny"))
        })
        .await;
    assert_eq!(phase(&world.api().get("by-tag").await.unwrap()), "Pending");

    // By the last meaning of the tag; the pod that waits starts as well.
    let swarms: Api<Swarm> = Api::all(world.client.clone());
    let spec = json!({"spec": swarm(world, "LastResolved")});
    swarms.patch("default", &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();
    world.run_everywhere("by-last-tag", image).await;
    world
        .until_seen("the pod that waited runs", async |world| {
            phase(&world.api().get("by-tag").await.unwrap()) == "Running"
        })
        .await;
}

fn swarm(world: &World, outage_policy: &str) -> Value {
    let host = world.cluster.registry_host();
    let endpoint = format!("http://{host}");
    json!({"registries": [{"host": host, "endpoint": endpoint, "access": "Public", "outagePolicy": outage_policy}]})
}

fn trees(world: &World) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    (1..=NODES).map(|node| certs::entries(&world.cluster.certs(node).unwrap()).unwrap()).collect()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
