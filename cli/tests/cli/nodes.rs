//! `kubectl swarm nodes`.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn it_says_who_takes_part_and_what_is_missing() {
    let Some(world) = World::with_swarms().await else { return };
    let selector = json!({"matchLabels": {"pool": "gpu"}});
    world.apply("default", json!({"registries": [{"host": "*"}], "nodeSelector": selector})).await;
    let none = world.run("nodes default").await;
    let says = "None of 0 nodes has the labels of Swarm default's nodeSelector.\n";
    assert_eq!((none.code, none.out.as_str(), none.error.as_str()), (Some(0), "", says));

    for (name, zone, pool, ready) in [
        ("b", "z2", "gpu", "True"),
        ("a", "z1", "gpu", "True"),
        ("c", "z1", "gpu", "False"),
        ("d", "z1", "cpu", "True"),
    ] {
        node(&world, name, &json!({"pool": pool, "topology.kubernetes.io/zone": zone}), ready).await;
    }
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shoal"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "shoal");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    pod(&world, "agent-a", "a", "True", &json!([])).await;
    let state = json!({"waiting": {"reason": "ImagePullBackOff"}});
    let waiting =
        json!([{"name": "agent", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    pod(&world, "agent-b", "b", "False", &waiting).await;

    let table = world.run("nodes default").await;
    let expected = "\
NODE   ZONE   READY   AGENT      MISSING
a      z1     True    Ready      -
b      z2     True    NotReady   its agent isn't ready: ImagePullBackOff
c      z1     False   Missing    the node isn't ready; no agent's pod
";
    assert_eq!(table.out, expected, "{}", table.error);
    let wide = world.run("nodes default -o wide -n shoal").await.out;
    assert!(wide.lines().nth(1).is_some_and(|line| line.ends_with("shoal/agent-a")), "{wide}");
    assert_eq!(world.run("nodes default -o name").await.out, "node/a\nnode/b\nnode/c\n");
    let json: Value = serde_json::from_str(&world.run("nodes default -o json").await.out).unwrap();
    let missing = json!(["the node isn't ready", "no agent's pod"]);
    assert_eq!((&json["swarm"], &json["nodes"][2]["missing"]), (&json!("default"), &missing));
    world.stop().await;
}

async fn node(world: &World, name: &str, labels: &Value, ready: &str) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn pod(world: &World, name: &str, node: &str, ready: &str, containers: &Value) {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "shoal");
    let labels = json!({"app.kubernetes.io/name": "shoal", "app.kubernetes.io/component": "agent"});
    let spec = json!({"nodeName": node, "containers": [{"name": "agent", "image": "a"}]});
    let pod = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let conditions = [json!({"type": "Ready", "status": ready})];
    let status = json!({"status": {"conditions": conditions, "containerStatuses": containers}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}
