//! A node that sends what is false is shown to people.
//!
//! What makes it lie is its origin, which flips a bit for the first one who asks. So the liar is an agent as it is shipped.

use std::net::Ipv4Addr;

use http::Method;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use shoal_api::kube::Swarm;
use shoal_e2e::processes::Fleet;
use shoal_oci::testing::{Fault, Options, Registry, Trouble};

use crate::agents::{AgentProcess, Place};
use crate::process::Process;
use crate::reconcile::{holds, swarm};
use crate::world::World;

const LAYER: u64 = 4 << 20;
/// Slow enough for the others to have something of it before the end proves it false.
const BYTES_PER_SECOND: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_others_refuse_is_named_in_a_condition_and_an_event() {
    let Some(world) = World::start().await else { return };
    let options = Options { bytes_per_second: Some(BYTES_PER_SECOND), ..Options::default() };
    let origin = Registry::start(options).await.unwrap();
    let image = origin.push_image(&"ml/model".parse().unwrap(), "1", &[LAYER], 1);
    let layer = image.layers[0].digest.to_string();
    origin.inject(Fault::once(&layer, Trouble::FlipBit { at: 100_000 }).on(Method::GET));
    let operator = Process::start(&world, 1).await;
    let mut fleet = Fleet::new(world.control_plane.directory()).sharing_signals();
    for number in 1..=4 {
        let (name, ip) = (format!("node-{number}"), Ipv4Addr::new(127, 0, 9, number));
        AgentProcess::start(&world, &mut fleet, &Place { name: &name, ip, rate: None, replicas: &[1] }, &[]).await;
    }

    let host = origin.name().as_str();
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let spec = json!({
        "registries": [{"host": host, "endpoint": format!("http://{host}"), "access": "Public"}],
        "artifacts": [{"name": "model", "reference": format!("{host}/ml/model:1"), "placement": "Cache"}],
    });
    swarms.create(&PostParams::default(), &swarm("all", spec)).await.unwrap();
    let banned = async || holds(&swarms.get("all").await.unwrap(), "PeerBanned").as_deref() == Some("FalseChunks");
    world.until("a node is refused", banned).await;
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    let note = async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("PeerBanned")).and_then(|event| event.note)
    };
    world.until("an event says so", async || note().await.is_some()).await;
    let note = note().await.unwrap();
    assert!(note.starts_with("node-") && note.contains("proven false"), "{note}");
    let others_have_it = async || {
        let status = swarms.get("all").await.unwrap().status.unwrap_or_default();
        status.artifacts.first().is_some_and(|artifact| artifact.complete >= 3)
    };
    world.until("the others have the artifact all the same", others_have_it).await;

    assert!(operator.terminate().await.success());
    fleet.end().await;
    world.end().await;
}
