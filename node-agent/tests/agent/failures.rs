//! What a runtime sees when something fails.

use shoal_agent::content::Fallback;
use shoal_oci::testing::{Access, Fault, Trouble};

use crate::client::Client;
use crate::world::{World, stop};

fn status(status: u16) -> Trouble {
    Trouble::Status { status, headers: Vec::new(), body: String::new() }
}

/// The origin flips a bit, so that the digest fails at the end: the body is cut before its last piece, and the reopened range is refused.
async fn a_wrong_blob_is_cut_and_its_reopening_refused(world: World) {
    let image = world.push(&[2 << 20]);
    let layer = image.layers[0].digest.to_string();
    world.origin.inject(Fault::always(&layer, Trouble::FlipBit { at: 100 }));
    // Slow enough for the reader to have its first bytes before the digest is known to be wrong.
    world.origin.limit(Some(4 << 20));
    let agent = world.agent("node-0").await;
    let (head, _) = world.ask(&agent, "GET", &format!("manifests/{}", image.digest), &[]).await;
    assert_eq!(head.status, 200);
    let mut client = Client::connect(agent.mirror_addr()).await;
    client.ask("GET", &world.target(&format!("blobs/{layer}")), &[]).await;
    let head = client.head().await;
    assert_eq!((head.status, head.length()), (200, 2 << 20));
    let body = client.rest().await.expect("it ends without a reset");
    assert!(!body.is_empty() && body.len() < 2 << 20, "{} bytes", body.len());
    let range = format!("Range: bytes={}-", body.len());
    let (head, _) = world.ask(&agent, "GET", &format!("blobs/{layer}"), &[&range]).await;
    assert_eq!(head.status, 503);
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_blob_is_cut_in_the_exchange() {
    a_wrong_blob_is_cut_and_its_reopening_refused(World::new("", "").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_blob_is_cut_on_its_way_from_the_origin() {
    a_wrong_blob_is_cut_and_its_reopening_refused(World::without_tracker(Access::Open, "", "").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_last_is_served_without_tracker_and_origin() {
    let mut world = World::new("", "").await;
    let image = world.push(&[500_000]);
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    stop([agent]).await;
    world.stop_tracker().await;
    world.origin.inject(Fault::always("/v2/", status(500)));
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_without_a_tracker_it_passes_through_at_once() {
    let mut world = World::new("", "").await;
    // For its certificate.
    stop([world.agent("node-0").await]).await;
    world.stop_tracker().await;
    let image = world.push(&[1 << 20, 1_000]);
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    assert!(agent.content_metrics().fallbacks(Fallback::NoTracker) >= 3);
    assert!(world.copies(&image).await <= 1.1, "{}", world.copies(&image).await);
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_denies_serves_digests_alone_during_an_outage() {
    let mut world = World::new(", outagePolicy: Deny", "").await;
    let image = world.push(&[1_000]);
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    stop([agent]).await;
    world.stop_tracker().await;
    world.origin.inject(Fault::always("/v2/", status(500)));
    let agent = world.agent("node-0").await;
    // An answer to HEAD has no body: people read in its status line what to do.
    let (head, _) = world.ask(&agent, "HEAD", "manifests/v1", &[]).await;
    assert_eq!(head.status, 503);
    assert!(head.phrase.contains("outagePolicy is Deny"), "{}", head.phrase);
    assert_eq!(world.ask(&agent, "HEAD", &format!("manifests/{}", image.digest), &[]).await.0.status, 200);
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_origin_is_a_503_with_its_patience() {
    let world = World::without_tracker(Access::Open, "", "").await;
    world.push(&[1_000]);
    let busy = Trouble::Status { status: 429, headers: vec![("retry-after", "30".to_owned())], body: String::new() };
    world.origin.inject(Fault::always("/v2/", busy));
    let agent = world.agent("node-0").await;
    let (head, _) = world.ask(&agent, "HEAD", "manifests/v1", &[]).await;
    assert_eq!(head.status, 503);
    assert!((1..=30).contains(&head.header("retry-after").parse::<u64>().unwrap()));
    stop([agent]).await;
}
