//! Which replicas agents hear of, and how a Swarm reaches them; what happens when a replica is told to stop.

use std::net::Ipv4Addr;

use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use shoal_api::kube::Swarm;
use shoal_tracker_server::Handle;
use shoal_tracker_server::client::Event;
use tokio::time::timeout;

use crate::agents::get;
use crate::namespace;
use crate::world::{AGENT, AUDIENCE, Agent, LONG, World, object};

async fn event(agent: &mut Agent, wanted: impl Fn(&Event) -> bool) {
    let next = async {
        while let Some(event) = agent.events.next().await {
            if wanted(&event) {
                return;
            }
        }
        panic!("the client has ended");
    };
    timeout(LONG, next).await.expect("the event comes");
}

fn names(tracker: &Handle) -> Vec<String> {
    tracker.replicas().iter().map(|replica| replica.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_reaches_agents_and_a_replica_that_stops_hands_them_over() {
    let test = "replicas::a_swarm_reaches_agents_and_a_replica_that_stops_hands_them_over";
    if !namespace::is_inside(test).await {
        return;
    }
    let Some(world) = World::start_in_namespace().await else { return };
    world.node("node-a", "zone-1", Ipv4Addr::new(10, 1, 0, 1)).await;
    let pod = world.pod("agent-a", AGENT, Some("node-a")).await;
    let mut leaving = world.operator(1).await;
    let mut staying = world.operator(2).await;
    let (first, second) = (leaving.serves().await, staying.serves().await);
    assert_eq!(names(&first), ["shoal-operator-1"], "as long as nobody is ready, each is alone");
    world.ready(&[1, 2]).await;
    for tracker in [&first, &second] {
        let both = ["shoal-operator-1", "shoal-operator-2"];
        world.until("both know of both", async || names(tracker) == both).await;
    }
    let admin = leaving.operator.admin_addr();
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(get(admin, "/metrics").await.contains("shoal_tracker_event_streams"));

    let mut agent = world.agent("node-a", leaving.address, &world.token_of(&pod, AUDIENCE).await).await;
    agent.identity().await;
    event(&mut agent, |event| *event == Event::TrackersFound).await;
    world.until("the agent is connected to both", async || first.event_streams() + second.event_streams() == 2).await;

    // What people apply, agents read; what contradicts itself is left out.
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let swarm = |name: &str, spec: serde_json::Value| -> Swarm {
        object(json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": name}, "spec": spec}))
    };
    let documents = async || {
        let document = agent.client.swarm(None).await.unwrap().expect("it has none yet");
        String::from_utf8(document.bytes.to_vec()).unwrap()
    };
    let good = swarm("good", json!({"registries": [{"host": "registry.example"}]}));
    swarms.create(&PostParams::default(), &good).await.unwrap();
    world.until("the Swarm reaches the agent", async || documents().await.contains("registry.example")).await;
    swarms.delete("good", &DeleteParams::default()).await.unwrap();
    world.until("its end does", async || !documents().await.contains("registry.example")).await;

    // The replica that is told to stop isn't ready, says who remains, and its agents are there when it ends.
    let readiness = leaving.operator.readiness().clone();
    let ending = tokio::spawn(leaving.operator.stop());
    world.until("it isn't ready", async || !readiness.missing().is_empty()).await;
    timeout(LONG, ending).await.expect("it ends").unwrap();
    assert_eq!(names(&first), ["shoal-operator-2"], "it told its agents");
    world.ready(&[2]).await;
    world.until("the other one is alone", async || names(&second) == ["shoal-operator-2"]).await;
    assert_eq!(second.event_streams(), 1);
    assert!(agent.client.has_tracker());

    agent.end().await;
    staying.operator.stop().await;
    world.end().await;
}
