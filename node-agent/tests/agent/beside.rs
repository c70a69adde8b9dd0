//! Agents beside a real containerd: what it has goes to other nodes, and what it no longer has doesn't.

use std::time::Duration;

use shoal_agent::agent::Agent;
use shoal_agent::runtime::RuntimeConfig;
use shoal_oci::testing::Image;
use shoal_tracker_server::ArtifactState;
use shoal_types::Digest;
use tokio::time::Instant;

use crate::containerd::Containerd;
use crate::world::{LONG, World, repository, stop};

const PUBLIC: &str = ", access: Public";

fn runtime(containerd: &Containerd) -> RuntimeConfig {
    RuntimeConfig { socket: containerd.socket(), root: None, namespace: "k8s.io".parse().unwrap() }
}

/// Lets containerd fetch the image from the origin, without any mirror.
async fn fetch(world: &World, containerd: &Containerd) -> String {
    let name = format!("{}/{}:v1", world.origin.name(), repository());
    let mut fetching = containerd.command(&["content", "fetch", "--plain-http", "--all-platforms", &name]);
    let fetched = tokio::task::spawn_blocking(move || fetching.output().unwrap()).await.unwrap();
    assert!(fetched.status.success(), "{}{}", String::from_utf8_lossy(&fetched.stderr), containerd.log());
    name
}

/// The image's manifest and blobs.
fn blobs(image: &Image) -> Vec<Digest> {
    let parts = std::iter::once(&image.config).chain(&image.layers).map(|blob| blob.digest);
    parts.chain([image.digest]).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many of these blobs an agent has in its containerd, and how many of them are proven.
async fn held(agent: &Agent, blobs: &[Digest]) -> (usize, usize) {
    let seen = agent.exchange().snapshot().await.unwrap().blobs;
    let named = |name: &str| blobs.iter().any(|digest| digest.to_string() == name);
    let of = seen.iter().filter(|blob| blob.lent && named(&blob.digest));
    let (mut there, mut complete) = (0, 0);
    for blob in of {
        there += 1;
        complete += usize::from(blob.complete);
    }
    (there, complete)
}

async fn connected(agent: &Agent) {
    until("there is a neighbour", async || agent.exchange().snapshot().await.unwrap().peers > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containerd_had_before_goes_to_others_without_the_origin() {
    let Some(containerd) = Containerd::start() else { return };
    let world = World::new(PUBLIC, "").await;
    let image = world.push(&[3 << 20, 1 << 20, 200_000]);
    fetch(&world, &containerd).await;
    let before = world.origin.blob_traffic().body_bytes;
    assert!(before >= image.blob_bytes());
    let blobs = blobs(&image);
    let (beside, other) = (world.agent_beside("node-0", runtime(&containerd)).await, world.agent("node-1").await);
    until("all of it is offered", async || held(&beside, &blobs).await.0 == blobs.len()).await;
    connected(&other).await;
    world.pull(&other, &image).await;
    world.origin.idle().await;
    assert_eq!(world.origin.blob_traffic().body_bytes - before, 0, "bytes of blobs from the origin");
    assert_eq!(other.exchange().traffic().from_origin, 0);
    until("all of it is proven", async || held(&beside, &blobs).await.1 == blobs.len()).await;
    // It is read where it lies: nothing of it is in the agent's own store.
    let own = std::fs::read_dir(world.dir.path().join("node-0/store/blobs")).unwrap().count();
    assert_eq!(own, 0, "files in the agent's own store");
    stop([beside, other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containerd_gets_is_offered_and_what_it_deletes_is_not_any_more() {
    let Some(mut containerd) = Containerd::start() else { return };
    let world = World::new(PUBLIC, "").await;
    let image = world.push(&[300_000]);
    let blobs = blobs(&image);
    let agent = world.agent_beside("node-0", runtime(&containerd)).await;
    let name = fetch(&world, &containerd).await;
    until("all of it is offered, and linked", async || held(&agent, &blobs).await == (3, 3)).await;
    containerd.kill();
    containerd.restart();
    assert_eq!(held(&agent, &blobs).await, (3, 3), "a restart takes nothing");
    containerd.ctr(&["images", "rm", "--sync", &name]);
    until("nothing of it is claimed", async || held(&agent, &blobs).await.0 == 0).await;
    fetch(&world, &containerd).await;
    until("it is back", async || held(&agent, &blobs).await == (3, 3)).await;
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_isnt_there_keeps_nobody_from_pulling() {
    let world = World::new(PUBLIC, "").await;
    let image = world.push(&[1 << 20, 2_000]);
    let socket = world.dir.path().join("no.sock");
    let config = RuntimeConfig { socket, root: None, namespace: "k8s.io".parse().unwrap() };
    let agents = [world.agent_beside("node-0", config).await, world.agent("node-1").await];
    for agent in &agents {
        world.pull(agent, &image).await;
    }
    stop(agents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_swarm_pushes_into_the_runtime_is_pulled_through_the_mirror() {
    let Some(containerd) = Containerd::with_cri() else { return };
    let world = World::new("", "").await;
    let image = world.push(&[300_000, 5_000]);
    let agents = [world.agent_beside("node-0", runtime(&containerd)).await, world.agent("node-1").await];
    let (origin, mirror) = (world.origin.address(), agents[0].mirror_addr());
    containerd.ask_first(origin, mirror);
    let name = format!("{}/{}", world.origin.name(), repository());
    world.say("", &format!("  artifacts:\n  - {{name: app, reference: \"{name}:v1\", pin: true}}\n"));
    let of = |node: &str| world.report(node).and_then(|report| report.artifacts.first().cloned());
    let pulled =
        async || of("node-0").is_some_and(|is| is.state == ArtifactState::Complete && is.digest == image.digest);
    until(&format!("the runtime has it: {}", containerd.log()), pulled).await;
    let images = containerd.ctr(&["images", "ls", "-q"]);
    for expected in [format!("{name}:v1"), format!("{name}@{}", image.digest)] {
        assert!(images.lines().any(|line| line == expected), "{expected} in {images}");
    }
    let all = image.blob_bytes() + image.manifest.len() as u64;
    let is = of("node-0").unwrap();
    assert_eq!((is.done_bytes, is.total_bytes, is.from_origin), (all, all, all), "it came through the mirror");
    assert!(world.copies(&image).await <= 1.1, "{}", world.copies(&image).await);
    let says_why = async || of("node-1").is_some_and(|is| matches!(is.state, ArtifactState::Failed(_)));
    until("the node without a runtime says so", says_why).await;
    stop(agents).await;
}
