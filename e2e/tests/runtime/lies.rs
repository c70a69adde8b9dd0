//! A lead whose links fit its wrong bytes. Until the last chunk nobody can tell; then nothing of it may be left anywhere.
//!
//! What makes it lie is its origin, which flips a bit for the first one who asks. So the lead is an agent as it is shipped.

use std::path::Path;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use shoal_agent::pull::{Client, Progress};
use shoal_e2e::containerd::{Containerd, Programs};
use shoal_e2e::nodes::{self, Node};
use shoal_oci::ImageName;
use shoal_oci::testing::{Fault, Image, Trouble};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::world::{LONG, World, assert_whole, runtimes, until};

const LAYER: u64 = 4 << 20;
/// Early enough for the lie to reach everybody.
const WRONG_AT: u64 = 100_000;
/// The kubelet would try for ever.
const TRIES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_lying_lead_nothing_is_kept_and_the_retry_succeeds() {
    for programs in runtimes() {
        let mut scene = Scene::new(&programs, "").await;
        let (failures, _) = scene.pull().await;
        eprintln!("containerd {}: {failures} pulls failed before the one that succeeded", programs.version());
        scene.nothing_wrong_is_left().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_mirror_gives_none_of_it() {
    for programs in runtimes() {
        let mut scene = Scene::new(&programs, "  transfer: {verification: Strict}\n").await;
        let (failures, wrong) = scene.pull().await;
        assert_eq!(wrong, 0, "bytes that containerd was given and that aren't the blob's");
        assert_eq!(failures, 0, "containerd had nothing wrong, and yet its pull failed");
        scene.nothing_wrong_is_left().await;
    }
}

/// A lead that is lied to, a witness, and a containerd beside the third agent.
struct Scene {
    world: World,
    image: Image,
    name: ImageName,
    layer: Bytes,
    nodes: [Node; 3],
    containerd: Containerd,
}

impl Scene {
    async fn new(programs: &Programs, swarm: &str) -> Self {
        let test = format!("lies-{}-{}", programs.version(), swarm.len());
        let mut world = World::new(&test, 8 << 20, swarm).await;
        let (image, name) = world.push("v1", &[LAYER], 1);
        let layer = Image::generate(&[LAYER], 1).1[0].1.to_bytes();
        let digest = image.layers[0].digest.to_string();
        world.origin.inject(Fault::once(&digest, Trouble::FlipBit { at: WRONG_AT }).on(Method::GET));
        let nodes = ["lead", "witness", "victim"].map(|name| world.node(name));
        let containerd = world.containerd(&nodes[2], programs).await;
        for (node, beside) in nodes.iter().zip([None, None, Some(&containerd)]) {
            world.agent(node, beside).await;
        }
        Self { world, image, name, layer, nodes, containerd }
    }

    /// The lead begins, the others follow. How many of containerd's pulls failed, and the most wrong bytes that it had at a time.
    async fn pull(&mut self) -> (usize, usize) {
        let lead = self.client(&self.nodes[0]);
        let origin = &self.world.origin;
        until("the lead has lied", async || origin.blob_traffic().body_bytes > 2 * WRONG_AT).await;
        let witness = self.client(&self.nodes[1]);
        let mut most = 0;
        for failures in 0..TRIES {
            let (containerd, name) = (self.containerd.clone(), self.name.clone());
            let pulled = tokio::spawn(async move { containerd.pull(&name).await });
            until("a pull ends", async || {
                most = most.max(self.wrong_bytes());
                pulled.is_finished()
            })
            .await;
            match pulled.await.unwrap() {
                Ok(()) => {
                    for client in [lead, witness] {
                        timeout(LONG, client).await.expect("a client ends").unwrap();
                    }
                    return (failures, most);
                }
                Err(error) => eprintln!("{error:#}"),
            }
        }
        panic!("{TRIES} pulls failed: the lie has stayed");
    }

    /// A client that pulls through a node's mirror, and again as long as it has nothing.
    fn client(&self, node: &Node) -> JoinHandle<()> {
        let mirror = format!("http://{}", node.mirror).parse().unwrap();
        let (client, name) = (Client::new(mirror, None), self.name.clone());
        tokio::spawn(async move {
            for _ in 0..TRIES {
                match nodes::pull(&client, &name, &Progress::default()).await {
                    Ok(()) => return,
                    Err(error) => eprintln!("{error:#}"),
                }
            }
            panic!("{TRIES} pulls failed");
        })
    }

    /// Bytes of the layer that containerd has in a download and that are wrong.
    fn wrong_bytes(&self) -> usize {
        let ingests = self.containerd.kept().ingests().unwrap();
        ingests.iter().map(|ingest| differences(ingest, &self.layer)).sum()
    }

    async fn nothing_wrong_is_left(mut self) {
        assert_whole(&self.containerd.kept().audit().unwrap(), &self.image);
        let [lead, honest @ ..] = &self.nodes;
        for node in honest {
            let banned_one = async || {
                let seen = seen(node).await;
                (&seen["bans"], &seen["peers"]) == (&1.into(), &1.into())
            };
            until("a node bans the lead and keeps the other", banned_one).await;
        }
        until("nobody talks to the lead", async || seen(lead).await["peers"] == 0).await;
        self.world.fleet.check().unwrap();
        self.world.end().await;
    }
}

/// What a node's exchange has seen.
async fn seen(node: &Node) -> Value {
    node.exchange().await.unwrap()
}

/// A download of another blob is short: it has nothing in common with the layer, and nothing to do with it.
fn differences(ingest: &Path, right: &[u8]) -> usize {
    let found = std::fs::read(ingest).unwrap_or_default();
    if found.len() < usize::try_from(WRONG_AT).unwrap() {
        return 0;
    }
    found.iter().zip(right).filter(|(found, right)| found != right).count()
}
