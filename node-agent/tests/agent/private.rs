//! Private images: who gets them, and where credentials go.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use shoal_agent::agent::Agent;
use shoal_oci::testing::{Access, Fault, Image, Trouble};

use crate::world::{World, digest_of, stop};

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "sehr-geheim";

/// A registry that wants the password itself, and one with a token service.
pub(crate) fn accesses() -> [Access; 2] {
    let user = Some((USER.to_owned(), PASSWORD.to_owned()));
    [
        Access::Basic { user: USER.to_owned(), password: PASSWORD.to_owned() },
        Access::Token { user, holds: Duration::from_secs(300) },
    ]
}

async fn blobs(world: &World, agent: &Agent, image: &Image) {
    let blobs = std::iter::once(&image.config).chain(&image.layers).map(|blob| async move {
        let (head, body) = world.ask(agent, "GET", &format!("blobs/{}", blob.digest), &[]).await;
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(digest_of(&body), blob.digest);
    });
    join_all(blobs).await;
}

/// Nothing below the directory has the secret in it.
fn assert_without_secret(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_without_secret(&path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shared_everyone_gets_and_the_origin_sends_it_once() {
    for access in accesses() {
        let shared = ", access: Shared, secretRef: {name: s}";
        let world = World::with_credentials(access, shared, "", Some((None, USER, PASSWORD))).await;
        let image = world.push(&[300_000, 70_000]);
        let agents = [world.agent("node-0").await, world.agent("node-1").await, world.agent("node-2").await];
        join_all(agents.iter().map(|agent| world.pull(agent, &image))).await;
        let copies = world.copies(&image).await;
        assert!(copies <= 1.01, "{copies} copies");
        stop(agents).await;
        for node in ["node-0", "node-1", "node-2"] {
            assert_without_secret(&world.dir.path().join(node));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_verified_at_the_origin_is_shown_to_nobody_and_its_blobs_come_from_the_swarm() {
    for access in accesses() {
        let world = World::with_credentials(access, "", "", Some((None, USER, PASSWORD))).await;
        let image = world.push(&[300_000, 70_000]);
        let agents = [world.agent("node-0").await, world.agent("node-1").await];
        // A digest that no manifest of this repository has named here isn't given, credentials or not.
        let before = world.ask(&agents[0], "GET", &format!("blobs/{}", image.config.digest), &[]).await.0;
        assert_eq!(before.status, 403);
        for agent in &agents {
            for reference in ["v1".to_owned(), image.digest.to_string()] {
                for method in ["HEAD", "GET"] {
                    let head = world.ask(agent, method, &format!("manifests/{reference}"), &[]).await.0;
                    assert_eq!((head.status, head.header("www-authenticate")), (403, ""));
                }
            }
            // Nor is it given as a blob.
            let as_blob = world.ask(agent, "GET", &format!("blobs/{}", image.digest), &[]).await.0;
            assert_eq!(as_blob.status, 403);
        }
        assert_eq!(world.origin.blob_traffic().body_bytes, 0, "nothing begins for one who may not read the manifest");
        // The runtime has the manifest from the origin now.
        join_all(agents.iter().map(|agent| blobs(&world, agent, &image))).await;
        let copies = world.copies(&image).await;
        assert!(copies <= 1.01, "{copies} copies");
        stop(agents).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_another_host_are_used_for_no_other() {
    let port_of_another = Some((Some("127.0.0.1:1"), USER, PASSWORD));
    for (access, extra) in accesses().into_iter().zip(["", ", access: Shared, secretRef: {name: s}"]) {
        let world = World::with_credentials(access, extra, "", port_of_another).await;
        let image = world.push(&[10_000]);
        let agent = world.agent("node-0").await;
        for path in ["manifests/v1".to_owned(), format!("blobs/{}", image.config.digest)] {
            assert_eq!(world.ask(&agent, "GET", &path, &[]).await.0.status, 403);
        }
        assert_eq!(world.origin.traffic(|_| true).authorized, 0);
        stop([agent]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_registry_is_never_asked_with_credentials() {
    for access in accesses() {
        let world = World::with_credentials(access, ", access: Public", "", Some((None, USER, PASSWORD))).await;
        world.push(&[10_000]);
        let agent = world.agent("node-0").await;
        assert_eq!(world.ask(&agent, "GET", "manifests/v1", &[]).await.0.status, 403);
        assert_eq!(world.origin.traffic(|_| true).authorized, 0);
        stop([agent]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_is_replaced_at_once() {
    let [_, access] = accesses();
    let world = World::with_credentials(access, "", "", Some((None, USER, PASSWORD))).await;
    let image = world.push(&[300_000, 70_000]);
    let agent = world.agent("node-0").await;
    assert_eq!(world.ask(&agent, "GET", &format!("manifests/{}", image.digest), &[]).await.0.status, 403);
    let get = async |digest| {
        let (head, body) = world.ask(&agent, "GET", &format!("blobs/{digest}"), &[]).await;
        assert_eq!((head.status, digest_of(&body)), (200, digest));
    };
    get(image.layers[0].digest).await;
    // Nothing is resolved in between that would tell the tracker.
    world.origin.revoke_tokens();
    get(image.layers[1].digest).await;
    get(image.config.digest).await;
    stop([agent]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_registry_refuses_in_spite_of_the_secret_is_soon_the_runtimes() {
    for access in accesses() {
        let world = World::with_credentials(access, "", "", Some((None, USER, PASSWORD))).await;
        let image = world.push(&[300_000]);
        let agents = [world.agent("node-0").await, world.agent("node-1").await];
        for agent in &agents {
            assert_eq!(world.ask(agent, "GET", &format!("manifests/{}", image.digest), &[]).await.0.status, 403);
        }
        let refusal = Trouble::Status { status: 401, headers: Vec::new(), body: String::new() };
        world.origin.inject(Fault::always("/blobs/", refusal).on(Method::GET));
        let before = world.origin.blob_traffic().requests;
        let path = format!("blobs/{}", image.layers[0].digest);
        let answers = join_all(agents.iter().map(|agent| world.ask(agent, "GET", &path, &[]))).await;
        assert!(answers.iter().all(|(head, _)| head.status == 403), "the runtime asks with the pod's secret");
        // Each lead asks, and once more with another secret; two leads' refusals are the registry's word.
        let requests = world.origin.blob_traffic().requests - before;
        assert!((2..=8).contains(&requests), "{requests}");
        stop(agents).await;
    }
}
