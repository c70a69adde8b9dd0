//! Shoal as people install it: the chart, pods that pull through the mirror without knowing, an origin that is gone, and a node that is left as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kube::Api;
use shoal_api::kube::Swarm;
use shoal_api::{Condition, ConditionStatus};
use shoal_e2e::cluster::Options;
use shoal_e2e::containerd::Version;

use crate::world::World;

const MIB: u64 = 1 << 20;
const NODES: u8 = 3;

#[tokio::test]
async fn pods_pull_through_the_mirror_and_a_node_is_left_as_it_was() {
    let options = Options { nodes: NODES, containerd: Version::V1_6, rate: Some("200mbit".parse().unwrap()) };
    let Some(mut world) = World::start(options).await else { return };
    let before: Vec<_> = (1..=NODES).map(|node| tree(&world.cluster.certs(node).unwrap())).collect();
    world.cluster.install_shoal().await.unwrap();
    let swarms: Api<Swarm> = Api::all(world.client.clone());
    world
        .until("the chart's Swarm is ready on all nodes", async || {
            let status = swarms.get("default").await.unwrap().status.unwrap_or_default();
            let is_ready = |said: &Condition| said.kind == "Ready" && said.status == ConditionStatus::True;
            status.conditions.iter().any(is_ready) && status.nodes.ready == u32::from(NODES)
        })
        .await;

    world.cluster.store("tests/everywhere", "1", &[24 * MIB, 8 * MIB], 1).unwrap();
    let sent = world.cluster.origin_bytes().unwrap();
    let image = world.cluster.image("tests/everywhere:1");
    world.run_everywhere("everywhere", &image).await;
    let sent = world.cluster.origin_bytes().unwrap() - sent;
    // A copy, what the wire adds, and a second lead of some chunks: far from a copy for each node.
    assert!(sent < 2 * 32 * MIB, "{sent} bytes came from the registry");

    world.cluster.store("tests/surviving", "1", &[4 * MIB], 2).unwrap();
    let image = world.cluster.image("tests/surviving:1");
    world.run_on("first", &image, Some("node1")).await;
    world.cluster.stop_registry().await.unwrap();
    world.run_everywhere("surviving", &image).await;

    world.cluster.uninstall_shoal().await.unwrap();
    let after: Vec<_> = (1..=NODES).map(|node| tree(&world.cluster.certs(node).unwrap())).collect();
    assert_eq!(after, before);
    world.end().await;
}

/// All files below a directory, with what is in them.
fn tree(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    found
}
