//! `kubectl swarm preheat`.

use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::world::{PATIENCE, World, condition, ended};

const REFERENCE: &str = "r.io/ml/torch:2.9";

/// What a Swarm pushes: names and references.
async fn pushes(world: &World, name: &str) -> Vec<(String, String)> {
    let swarm = world.swarms().get(name).await.unwrap();
    swarm.spec.artifacts.into_iter().map(|artifact| (artifact.name, artifact.reference)).collect()
}

#[tokio::test]
async fn an_artifact_is_added_beside_the_users_own_and_taken_back_alone() {
    let Some(world) = World::with_swarms().await else { return };
    let nobody = world.run(&format!("preheat {REFERENCE}")).await;
    let says = "error: no Swarm answers for r.io: add it to one's spec.registries, or give --nodes\n";
    assert_eq!((nobody.code, nobody.error.as_str()), (Some(1), says));

    let own = json!({"name": "own", "reference": "r.io/own:1"});
    let spec = json!({"registries": [{"host": "r.io"}], "artifacts": [own]});
    world.apply("rest", json!({"registries": [{"host": "*"}]})).await;
    world.apply("default", spec.clone()).await;
    let added = world.run(&format!("preheat {REFERENCE}")).await;
    let pushed = pushes(&world, "default").await;
    let name = pushed[1].0.clone();
    assert!(name.starts_with("preheat-torch-2-9-"), "{name}");
    assert_eq!(pushed, [("own".to_owned(), "r.io/own:1".to_owned()), (name.clone(), REFERENCE.to_owned())]);
    let says = format!(
        "swarm.shoal.dev/default pushes {REFERENCE} as {name}; to undo it: kubectl swarm preheat {REFERENCE} --remove\n"
    );
    assert_eq!((added.code, added.out, added.error.as_str()), (Some(0), says, ""));

    // Another one takes nothing back, the user neither; and what the user has isn't added again.
    assert_eq!(world.run("preheat r.io/other:1 --cache").await.code, Some(0));
    world.apply("default", spec).await;
    assert_eq!(pushes(&world, "default").await.len(), 3);
    let known = world.run("preheat r.io/own:1").await;
    assert_eq!(known.out, "swarm.shoal.dev/default pushes r.io/own:1 already, as own\n", "{}", known.error);

    let removed = world.run(&format!("preheat {REFERENCE} --remove")).await;
    assert_eq!(removed.out, format!("swarm.shoal.dev/default no longer pushes {REFERENCE}\n"), "{}", removed.error);
    let left: Vec<String> = pushes(&world, "default").await.into_iter().map(|(_, reference)| reference).collect();
    assert_eq!(left, ["r.io/own:1", "r.io/other:1"]);
    let again = world.run(&format!("preheat {REFERENCE} --remove")).await;
    assert!(again.code == Some(1) && again.error.contains("no Swarm pushes r.io/ml/torch:2.9 by preheat"), "{again:?}");
    let refused = world.run(&format!("preheat {REFERENCE} --swarm nonsense")).await;
    assert_eq!(refused.error, "error: Swarm nonsense: not found: see `kubectl swarm status`\n");
    world.stop().await;
}

#[tokio::test]
async fn for_some_nodes_it_is_a_swarm_of_its_own() {
    let Some(world) = World::with_swarms().await else { return };
    let registry = json!({"host": "r.io", "endpoint": "http://10.0.0.1:5000", "access": "Public"});
    world.apply("default", json!({"registries": [registry]})).await;
    let line = format!("preheat {REFERENCE} --nodes gpu=a100,!spot");
    let made = world.run(&line).await;
    assert_eq!(made.code, Some(0), "{}", made.error);
    let swarms = world.swarms().list(&Default::default()).await.unwrap().items;
    let own = swarms.iter().find(|swarm| swarm.name_any() != "default").unwrap();
    let name = own.name_any();
    assert_eq!(
        made.out,
        format!("swarm.shoal.dev/{name} pushes {REFERENCE}; to undo it: kubectl delete swarm {name}\n")
    );
    let spec: Value = serde_json::to_value(&own.spec).unwrap();
    let selector =
        json!({"matchLabels": {"gpu": "a100"}, "matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]});
    assert_eq!(spec["nodeSelector"], selector);
    assert_eq!(spec["registries"][0]["endpoint"], "http://10.0.0.1:5000", "as the cluster reaches it");
    assert_eq!(pushes(&world, "default").await, []);

    let kept = world.run(&format!("preheat {REFERENCE} --nodes gpu=h100 --remove")).await;
    assert!(kept.code == Some(1) && kept.error.contains("there is no Swarm preheat-torch-2-9-"), "{kept:?}");
    let removed = world.run(&format!("{line} --remove")).await;
    assert_eq!(removed.out, format!("swarm.shoal.dev/{name} deleted\n"), "{}", removed.error);
    assert_eq!(world.swarms().list(&Default::default()).await.unwrap().items.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn waiting_ends_when_every_node_has_it_or_none_will() {
    let Some(world) = World::with_swarms().await else { return };
    world.apply("default", json!({"registries": [{"host": "r.io"}]})).await;
    let late = world.run(&format!("preheat {REFERENCE} --wait --timeout 1s")).await;
    let says = "error: not there yet after 1s: see `kubectl swarm status`, or give --timeout more\n";
    assert_eq!((late.code, late.error.as_str()), (Some(3), says));
    let name = pushes(&world, "default").await[0].0.clone();

    let progress = |complete: u32, ready: Value| {
        json!({
            "nodes": {"desired": 2, "ready": 2},
            "artifacts": [{
                "name": name,
                "digest": format!("sha256:{}", "0".repeat(64)),
                "size": "1Gi",
                "desired": 2,
                "complete": complete,
                "fromPeers": if complete == 2 { "1Gi" } else { "0" },
                "fromOrigin": "1Gi",
            }],
            "conditions": [ready],
        })
    };
    let stalled = condition("Stalled", "True", "UnknownTag", "of another artifact", 1);
    world.status("default", progress(1, stalled)).await;
    let mut waiting = world.command(&format!("preheat {REFERENCE} --wait")).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let mut next = async || timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap();
    assert!(next().await.is_some_and(|line| line.starts_with("swarm.shoal.dev/default pushes")));
    let halfway = format!("default/{name}: 50%, 1/2 nodes, 0 from peers, 1Gi from the registry");
    assert_eq!(next().await, Some(halfway), "what another artifact can't doesn't end it");
    world.status("default", progress(2, condition("Ready", "True", "Distributed", "all", 1))).await;
    let whole = format!("default/{name}: 100%, 2/2 nodes, 1Gi from peers, 1Gi from the registry");
    assert_eq!(next().await, Some(whole));
    assert_eq!(next().await.as_deref(), Some("default: ready, Distributed: all"));
    let ended_well = ended(waiting).await;
    assert_eq!((ended_well.code, ended_well.error.as_str()), (Some(0), ""));

    let refused = json!({
        "nodes": {"desired": 2, "ready": 2},
        "conditions": [condition("Stalled", "True", "OriginRefused", "r.io: manifest unknown", 1)],
    });
    world.status("default", refused).await;
    let never = world.run(&format!("preheat {REFERENCE} --wait")).await;
    let says = "error: it is stalled: OriginRefused: r.io: manifest unknown\n";
    assert_eq!((never.code, never.error.as_str()), (Some(1), says));
    world.stop().await;
}
