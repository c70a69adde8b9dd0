//! Where the credentials of a Swarm's Secret go, and where they don't.

use std::net::SocketAddr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_tracker_server::{ImageName, ResolveError};

use crate::listener::Listener;
use crate::world::{NAMESPACE, TEAM, World, object};

const USER: &str = "ann";
const PASSWORD: &str = "sehr-geheim";

/// A Secret with the user's credentials for these hosts.
pub(crate) fn secret(name: &str, hosts: &[&str], user: &str, password: &str) -> Secret {
    let entry = json!({"username": user, "password": password});
    let auths: serde_json::Map<String, Value> = hosts.iter().map(|host| ((*host).to_owned(), entry.clone())).collect();
    object(json!({
        "metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json!({"auths": auths}).to_string()},
    }))
}

/// A Swarm for a plain-http registry, which names this Secret, if one is given.
pub(crate) async fn apply_swarm(world: &World, host: &str, secret: Option<Value>) {
    let mut registry = json!({"host": host, "endpoint": format!("http://{host}")});
    if let Some(secret) = secret {
        registry["secretRef"] = secret;
    }
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let swarm: Swarm = object(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "private"},
        "spec": {"registries": [registry]},
    }));
    match swarms.get_opt("private").await.unwrap() {
        None => drop(swarms.create(&PostParams::default(), &swarm).await.unwrap()),
        Some(_) => {
            let patch = Patch::Merge(json!({"spec": {"registries": [registry]}}));
            swarms.patch("private", &PatchParams::default(), &patch).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_to_the_host_that_the_secret_names_and_to_no_other() {
    let Some(world) = World::start().await else { return };
    let registry = Listener::start(SocketAddr::from(([127, 0, 0, 1], 0)), |_| {
        ("401 Unauthorized", "www-authenticate: Basic realm=\"registry\"\r\n".to_owned(), String::new())
    })
    .await;
    let host = registry.address.to_string();
    let other_port = format!("127.0.0.1:{}", registry.address.port() ^ 1);
    let mut operator = world.operator(1).await;
    let tracker = operator.serves().await;
    let secrets: Api<Secret> = world.api();
    secrets
        .create(&PostParams::default(), &secret("elsewhere", &[&other_port, "127.0.0.1"], USER, PASSWORD))
        .await
        .unwrap();
    let foreign: Api<Secret> = Api::namespaced(world.admin.clone(), "default");
    foreign.create(&PostParams::default(), &secret("right", &[&host], USER, PASSWORD)).await.unwrap();
    let opaque =
        json!({"metadata": {"name": "opaque"}, "stringData": secret("x", &[&host], USER, PASSWORD).string_data});
    world.create::<Secret>(&object(opaque)).await;
    let asked = async |tag: &str| tracker.resolve(&ImageName::new(&host, "team/app", tag).unwrap()).await;
    let is_refused = |answer: &Result<_, ResolveError>| matches!(answer, Err(ResolveError::Denied(_)));

    // Another host's, another namespace's, one of another type, one that isn't there.
    for (tag, wrong) in [
        ("elsewhere", json!({"name": "elsewhere"})),
        ("foreign", json!({"name": "right", "namespace": "default"})),
        ("opaque", json!({"name": "opaque"})),
        ("none", json!({"name": "none"})),
    ] {
        apply_swarm(&world, &host, Some(wrong)).await;
        world.until("the registry is asked", async || is_refused(&asked(tag).await)).await;
        assert!(registry.heads().iter().all(|head| head.authorization().is_none()), "{tag}: {:?}", registry.heads());
    }

    // The right one, in either namespace; and a changed one from the next question on.
    let basic = |password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{password}")));
    let arrives = async |tag: &str, password: &str| {
        let shown = basic(password);
        world
            .until("the credentials arrive", async || {
                assert!(asked(tag).await.is_err(), "the registry says no to everyone");
                registry.heads().iter().any(|head| head.authorization() == Some(&shown))
            })
            .await;
    };
    secrets.create(&PostParams::default(), &secret("right", &[&host], USER, PASSWORD)).await.unwrap();
    apply_swarm(&world, &host, Some(json!({"name": "right"}))).await;
    arrives("right", PASSWORD).await;
    let changed = secret("right", &[&host], USER, "another");
    secrets.patch("right", &PatchParams::default(), &Patch::Merge(&changed)).await.unwrap();
    arrives("changed", "another").await;
    world.create_in::<Secret>(TEAM, &secret("team", &[&host], USER, "the-teams")).await;
    apply_swarm(&world, &host, Some(json!({"name": "team", "namespace": TEAM}))).await;
    arrives("team", "the-teams").await;

    // One that is deleted is of no more use.
    apply_swarm(&world, &host, Some(json!({"name": "right", "namespace": NAMESPACE}))).await;
    secrets.delete("right", &DeleteParams::default()).await.unwrap();
    world
        .until("nothing is shown any more", async || {
            let before = registry.heads().len();
            assert!(asked("deleted").await.is_err());
            registry.heads()[before..].iter().all(|head| head.authorization().is_none())
        })
        .await;
    for head in registry.heads() {
        assert!(head.request().contains("/v2/"), "{head:?}");
    }
    operator.operator.stop().await;
    world.end().await;
}
