//! Pods that start while Shoal is upgraded, while agents die and while there is no operator. Through containerd 2, with each way in which it fetches.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use shoal_e2e::cluster::Options;
use shoal_e2e::containerd::Version;

use crate::world::{MOST_COPIES, World, copies, pod};

const MIB: u64 = 1 << 20;
const NODES: u8 = 3;
/// Takes the registry's link half a second.
const SMALL: [u64; 2] = [8 * MIB, 4 * MIB];
/// And more than a second: time for something to happen in between.
const LARGE: [u64; 2] = [24 * MIB, 8 * MIB];
/// Agents that die.
const DEATHS: u8 = 6;

fn options(parallel_fetch: bool) -> Options {
    let rate = Some("200mbit".parse().unwrap());
    Options { nodes: NODES, containerd: Version::V2, rate, parallel_fetch }
}

#[tokio::test]
async fn no_pull_fails_while_shoal_is_upgraded_dies_or_has_no_operator() {
    let Some(mut world) = World::start(options(false)).await else { return };
    world.install_shoal(&json!({})).await;
    let copies = world.origin_copies("everywhere", &[96 * MIB, 32 * MIB], 1).await;
    eprintln!("containerd 2: {copies:.2} copies of an image came from the registry for {NODES} nodes");
    assert!(copies <= MOST_COPIES, "{copies} copies");

    let upgrade = world.cluster.upgrade_shoal(&json!({"log": {"level": "debug"}})).await.unwrap();
    let upgrade = tokio::spawn(upgrade);
    let mut rounds = 0;
    while !upgrade.is_finished() {
        rounds += 1;
        Round::begin(&mut world, &format!("upgrade-{rounds}"), &SMALL).await.end(&mut world).await;
    }
    upgrade.await.unwrap().unwrap();
    eprintln!("{rounds} images came to {NODES} nodes while Shoal was upgraded");
    assert!(rounds > 1, "the upgrade was over before anything was pulled");

    for death in 0..DEATHS {
        // Each time another node's, at another moment.
        let (node, at) = (death % NODES + 1, f64::from(death) / f64::from(DEATHS));
        let round = Round::begin(&mut world, &format!("death-{death}"), &LARGE).await;
        round.until_sent(&mut world, at).await;
        if death % 2 == 0 {
            world.until_seen("there is an agent to die", async |world| world.cluster.crash_agent(node).unwrap()).await;
        } else {
            delete_shoal(&world, "agent", Some(node)).await;
        }
        let sent = round.end(&mut world).await;
        eprintln!("node{node}'s agent died when {at:.2} copies had come from the registry: {sent:.2} came");
    }
    assert_eq!(world.failed_pulls().await, Vec::<String>::new());
    without_operator(&mut world).await;
    assert_eq!(world.failed_pulls().await, Vec::<String>::new());
    world.end().await;
}

async fn without_operator(world: &mut World) {
    world.cluster.upgrade_shoal(&json!({})).await.unwrap().await.unwrap();
    let round = Round::begin(world, "operator-goes", &LARGE).await;
    round.until_sent(world, 0.3).await;
    world.cluster.scale_operator(0).await.unwrap();
    delete_shoal(world, "operator", None).await;
    let during = round.end(world).await;
    let after = Round::begin(world, "operator-gone", &LARGE).await.end(world).await;
    eprintln!("without an operator: {during:.2} copies where it went meanwhile, {after:.2} where it was gone before");
    assert!(during < 2.0 && after < 2.0, "{during} and {after} copies");
}

/// Pods go at once, as when their nodes are cut off.
async fn delete_shoal(world: &World, component: &str, node: Option<u8>) {
    let pods = world.cluster.shoal_pods().await.unwrap();
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    let of_node = match node {
        Some(node) => labels.fields(&format!("spec.nodeName=node{node}")),
        None => labels,
    };
    pods.delete_collection(&DeleteParams::default().grace_period(0), &of_node).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_fetches_parts_at_once_costs_the_registry_no_more() {
    let Some(mut world) = World::start(options(true)).await else { return };
    world.install_shoal(&json!({})).await;
    let copies = world.origin_copies("everywhere", &[96 * MIB, 32 * MIB], 1).await;
    eprintln!("containerd 2, parallel: {copies:.2} copies of an image came from the registry for {NODES} nodes");
    assert!(copies <= MOST_COPIES, "{copies} copies");
    world.end().await;
}

/// A pod on each node, of an image that nobody has.
struct Round {
    name: String,
    layers: Vec<u64>,
    sent_before: u64,
}

impl Round {
    async fn begin(world: &mut World, name: &str, layers: &[u64]) -> Self {
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        world.cluster.store(&format!("tests/{name}"), "1", layers, seed).unwrap();
        let image = world.cluster.image(&format!("tests/{name}:1"));
        let sent_before = world.cluster.origin_bytes().unwrap();
        for node in 1..=NODES {
            world.make_pod(&format!("{name}-{node}"), pod(&image, Some(&format!("node{node}")))).await;
        }
        Self { name: name.to_owned(), layers: layers.to_owned(), sent_before }
    }

    /// In copies of the image.
    fn sent(&self, world: &World) -> f64 {
        copies(world.cluster.origin_bytes().unwrap() - self.sent_before, &self.layers)
    }

    /// Waits until so many copies have come from the registry.
    async fn until_sent(&self, world: &mut World, copies: f64) {
        world.until_seen("the registry sends", async |world| self.sent(world) >= copies).await;
    }

    /// Waits until all pods run, and takes them away. What the registry has sent for them, in copies.
    async fn end(self, world: &mut World) -> f64 {
        let names: Vec<String> = (1..=NODES).map(|node| format!("{}-{node}", self.name)).collect();
        world
            .until_seen(&format!("{}'s pods run", self.name), async |world| {
                let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
                let runs = |name: &String| {
                    let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
                    pod.is_some_and(|pod| {
                        pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
                    })
                };
                names.iter().all(runs)
            })
            .await;
        for name in &names {
            world.api::<Pod>().delete(name, &DeleteParams::default()).await.unwrap();
        }
        self.sent(world)
    }
}
