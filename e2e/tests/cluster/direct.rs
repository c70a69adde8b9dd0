//! The cluster itself, without Shoal.

use std::fs;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use shoal_e2e::cluster::Options;

use crate::world::{World, node_of};

#[tokio::test]
async fn every_node_runs_pods_and_nothing_stays() {
    let options = Options { nodes: 2, ..Options::default() };
    let Some(mut world) = World::start(options).await else { return };
    world.cluster.store("tests/image", "1", &[3_000_000], 1).unwrap();
    let image = world.cluster.image("tests/image:1");
    world.run_everywhere("sleepers", &image).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
    let mut nodes: Vec<String> = pods.iter().map(node_of).collect();
    nodes.sort();
    assert_eq!(nodes, ["node1", "node2"]);
    assert!(!left().is_empty(), "it leaves traces while it runs");
    world.end().await;
    assert_eq!(left(), Vec::<String>::new());
}

/// What is there of a cluster of this process.
fn left() -> Vec<String> {
    let (own, with) =
        (format!("shoal-cluster-{}", std::process::id()), format!("shoal-cluster-{}-", std::process::id()));
    let mut places = vec!["/run/netns".into(), "/dev/shm".into(), std::path::PathBuf::from("/sys/fs/cgroup")];
    places.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    let entries = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name == own || name.starts_with(&with)).collect()
}
