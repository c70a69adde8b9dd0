//! Modes and access.

use std::time::Duration;

use shoal_agent::content::Fallback;
use shoal_oci::testing::Access;

use crate::world::{World, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origin_only_serves_and_stores_nothing() {
    let world = World::new("", "  mode: OriginOnly\n").await;
    let image = world.push(&[300_000]);
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    world.pull(&agent, &image).await;
    assert!(agent.content_metrics().fallbacks(Fallback::OriginOnly) >= 8);
    assert_eq!(agent.exchange().snapshot().await.unwrap().blobs.len(), 0);
    assert!(world.copies(&image).await >= 2.0);
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_swarm_and_a_registry_that_nobody_names_are_the_origins() {
    let world = World::new(", access: Public", "  mode: Suspended\n").await;
    let image = world.push(&[1_000]);
    let agent = world.agent("node-0").await;
    assert_eq!(world.ask(&agent, "HEAD", "manifests/v1", &[]).await.0.status, 404);
    assert_eq!(world.ask(&agent, "GET", &format!("blobs/{}", image.config.digest), &[]).await.0.status, 404);
    let mut client = crate::client::Client::connect(agent.mirror_addr()).await;
    assert_eq!(client.get("/v2/team/app/manifests/v1?ns=other.example").await.0.status, 404);
    assert_eq!(world.origin.connections(), 0, "nobody is asked");
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anonymous_clients_may_not_read_is_denied() {
    let user = Some(("user".to_owned(), "password".to_owned()));
    for access in [
        Access::Basic { user: "user".to_owned(), password: "password".to_owned() },
        Access::Token { user, holds: Duration::from_secs(300) },
    ] {
        let world = World::with_access(access, "", "").await;
        let image = world.push(&[1_000]);
        let agent = world.agent("node-0").await;
        for path in
            ["manifests/v1".to_owned(), format!("manifests/{}", image.digest), format!("blobs/{}", image.config.digest)]
        {
            let (head, body) = world.ask(&agent, "GET", &path, &[]).await;
            assert_eq!(head.status, 403, "{path}: {}", String::from_utf8_lossy(&body));
            assert_eq!(head.header("www-authenticate"), "");
        }
        stop([agent]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_access_is_left_to_the_runtime_and_tokens_for_everybody_are_fetched() {
    let world = World::new(", access: Shared, secretRef: {name: s}", "").await;
    world.push(&[1_000]);
    let agent = world.agent("node-0").await;
    assert_eq!(world.ask(&agent, "HEAD", "manifests/v1", &[]).await.0.status, 403);
    stop([agent]).await;
    let access = Access::Token { user: None, holds: Duration::from_secs(300) };
    let world = World::with_access(access, ", outagePolicy: Deny", "  transfer: {verification: Strict}\n").await;
    let image = world.push(&[200_000]);
    let agent = world.agent("node-0").await;
    world.pull(&agent, &image).await;
    stop([agent]).await;
}
