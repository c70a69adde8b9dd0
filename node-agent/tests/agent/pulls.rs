//! Pulls: bytes, copies, lists.

use futures_util::future::join_all;
use shoal_agent::content::Fallback;
use shoal_oci::manifest::Platform;
use shoal_oci::testing::{Access, Content};

use crate::world::{World, digest_of, repository, stop};

const PUBLIC: &str = ", access: Public";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_pulls_then_four_at_once_with_right_bytes_and_few_copies() {
    let world = World::new("", "").await;
    let image = world.push(&[3 << 20, 1 << 20, 2_000]);
    let first = world.agent("node-0").await;
    world.pull(&first, &image).await;
    assert!(world.copies(&image).await <= 1.5, "one node: {}", world.copies(&image).await);
    let names = ["node-1", "node-2", "node-3", "node-4"];
    let agents = join_all(names.map(|name| world.agent(name))).await;
    join_all(agents.iter().map(|agent| world.pull(agent, &image))).await;
    let copies = world.copies(&image).await;
    assert!(copies <= 1.5, "five nodes: {copies}");
    let from_peers: u64 = agents.iter().map(|agent| agent.exchange().traffic().from_peers).sum();
    assert!(from_peers >= image.blob_bytes() * 3, "{from_peers} of {}", image.blob_bytes());
    stop(agents.into_iter().chain([first])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_agents_at_once_share_a_copy_of_what_nobody_has() {
    let world = World::new(PUBLIC, "").await;
    let image = world.push(&[4 << 20]);
    let names = ["node-1", "node-2", "node-3", "node-4"];
    let agents = join_all(names.map(|name| world.agent(name))).await;
    join_all(agents.iter().map(|agent| world.pull(agent, &image))).await;
    let copies = world.copies(&image).await;
    assert!(copies <= 1.5, "{copies}");
    let manifests = world.origin.traffic(|path| path.contains("/manifests/")).requests;
    assert!(manifests <= 3, "{manifests} requests for manifests");
    stop(agents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_a_tracker_passes_through() {
    let world = World::without_tracker(Access::Open, "", "").await;
    let image = world.push(&[1 << 20, 70_000]);
    let agent = world.agent("alone").await;
    world.pull(&agent, &image).await;
    assert!(agent.content_metrics().fallbacks(Fallback::NoTracker) >= 3);
    let part = format!("blobs/{}", image.layers[0].digest);
    let (head, body) = world.ask(&agent, "GET", &part, &["Range: bytes=1000000-"]).await;
    assert_eq!((head.status, body.len()), (206, (1 << 20) - 1_000_000));
    assert_eq!(agent.exchange().snapshot().await.unwrap().blobs.len(), 0);
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_starts_nothing_and_its_child_starts_its_blobs() {
    let world = World::new("", "").await;
    let image = world.push(&[200_000]);
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None };
    let index = world.origin.push_index(&repository(), "multi", &[(platform, &image)]);
    let agent = world.agent("node-0").await;
    let (head, body) = world.ask(&agent, "GET", "manifests/multi", &[]).await;
    assert_eq!((head.status, digest_of(&body)), (200, index));
    assert_eq!(agent.exchange().snapshot().await.unwrap().blobs.len(), 1, "the index alone");
    let (head, body) = world.ask(&agent, "GET", &format!("manifests/{}", image.digest), &[]).await;
    assert_eq!((head.status, &body[..]), (200, &image.manifest[..]));
    assert_eq!(agent.exchange().snapshot().await.unwrap().blobs.len(), 4, "both manifests, configuration and layer");
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_without_a_manifest_and_an_empty_one_and_lists() {
    let world = World::new("", "").await;
    let content = Content::random(3, 100_000);
    let (blob, empty) = (
        world.origin.push_blob(&repository(), content.clone()),
        world.origin.push_blob(&repository(), Content::bytes("")),
    );
    world.push(&[1_000]);
    let agent = world.agent("node-0").await;
    let (head, _) = world.ask(&agent, "HEAD", &format!("blobs/{blob}"), &[]).await;
    assert_eq!((head.status, head.length()), (200, 100_000));
    let (head, body) = world.ask(&agent, "GET", &format!("blobs/{blob}"), &["Range: bytes=70000-80000"]).await;
    assert_eq!((head.status, &body[..]), (206, &content.to_bytes()[70_000..=80_000]));
    let (head, body) = world.ask(&agent, "GET", &format!("blobs/{blob}"), &[]).await;
    assert_eq!((head.status, digest_of(&body)), (200, blob));
    let (head, body) = world.ask(&agent, "GET", &format!("blobs/{empty}"), &[]).await;
    assert_eq!((head.status, body.len()), (200, 0));
    let missing = digest_of(b"nobody has this");
    assert_eq!(world.ask(&agent, "GET", &format!("blobs/{missing}"), &[]).await.0.status, 404);
    assert_eq!(world.ask(&agent, "GET", &format!("manifests/{missing}"), &[]).await.0.status, 404);
    assert_eq!(world.ask(&agent, "HEAD", "manifests/no-such-tag", &[]).await.0.status, 404);
    let (head, body) = world.ask(&agent, "GET", "tags/list", &[]).await;
    assert_eq!((head.status, String::from_utf8(body).unwrap().contains("\"v1\"")), (200, true));
    stop([agent]).await;
}
