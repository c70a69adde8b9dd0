//! `kubectl swarm status`.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::world::{Ended, PATIENCE, World, ageless, condition, ended};

fn spec() -> Value {
    json!({
        "registries": [{"host": "r.io"}],
        "artifacts": [{"name": "torch", "reference": "r.io/ml/torch:2.9"}, {"name": "next", "reference": "r.io/next:1"}],
    })
}

fn halfway(complete: u32) -> Value {
    json!({
        "nodes": {"desired": 4, "ready": 3},
        "artifacts": [{
            "name": "torch",
            "digest": format!("sha256:{}", "0".repeat(64)),
            "size": "8Gi",
            "desired": 4,
            "complete": complete,
            "fromPeers": "15Gi",
            "fromOrigin": "8Gi",
            "startedAt": "2026-11-21T00:00:00Z",
            "completedAt": (complete == 4).then_some("2026-11-21T00:03:12Z"),
        }],
        "traffic": {"fromPeers": "15Gi", "fromOrigin": "8Gi", "savedPercent": 65},
        "conditions": if complete == 4 {
            vec![condition("Ready", "True", "Distributed", "every node has every artifact", 30)]
        } else {
            vec![
                condition("Ready", "False", "Distributing", "torch is on 1 of 4 nodes", 30),
                condition("Reconciling", "True", "Distributing", "1 of 2 artifacts", 30),
            ]
        },
    })
}

#[tokio::test]
async fn swarms_are_listed_and_told_about() {
    let Some(world) = World::with_swarms().await else { return };
    let none = world.run("status").await;
    let says = "There are no Swarms yet: make one, see `kubectl explain swarm.spec`.\n";
    assert_eq!(none, Ended { code: Some(0), out: String::new(), error: says.to_owned() });

    world.apply("default", spec()).await;
    world.apply("other", json!({"registries": [{"host": "*"}], "mode": "OriginOnly"})).await;
    world.status("default", halfway(1)).await;
    let table = "NAME READY NODES ARTIFACTS SAVED MODE AGE\n\
                 default False 3/4 0/1 65% Auto AGE\n\
                 other - - - - OriginOnly AGE\n";
    assert_eq!(ageless(&world.run("status").await.out), table);
    let wide = "NAME READY NODES ARTIFACTS SAVED MODE AGE REASON ORIGIN PEERS\n\
                default False 3/4 0/1 65% Auto AGE Distributing 8Gi 15Gi\n\
                other - - - - OriginOnly AGE - - -\n";
    assert_eq!(ageless(&world.run("status -o wide").await.out), wide);
    assert_eq!(world.run("status -o name").await.out, "swarm.shoal.dev/default\nswarm.shoal.dev/other\n");
    one_in_detail(&world).await;
    as_documents(&world).await;
    world.stop().await;
}

async fn one_in_detail(world: &World) {
    world.status("default", halfway(4)).await;
    let page = world.run("status default").await;
    let expected = "\
Name: default
Mode: Auto
Age: AGE
Nodes: 3 of 4 ready
Traffic: 15Gi from peers, 8Gi from registries: 65 % saved

CONDITION STATUS SINCE REASON MESSAGE
Ready True AGE Distributed every node has every artifact

ARTIFACT NODES DONE SIZE PEERS ORIGIN TOOK REFERENCE
torch 4/4 100% 8Gi 15Gi 8Gi AGE r.io/ml/torch:2.9
next - - - - - - r.io/next:1
";
    assert_eq!(ageless(&page.out), expected, "{}", page.error);
    assert!(page.out.contains("3m12s"), "how long it took: {}", page.out);
    assert!(!page.out.contains('\u{1b}'), "no colours where nobody looks");
    let missing = world.run("status nonsense").await;
    let says = "error: Swarm nonsense: not found: see `kubectl swarm status`\n";
    assert_eq!(missing, Ended { code: Some(1), out: String::new(), error: says.to_owned() });
    world.apply("default", json!({"registries": [{"host": "*"}]})).await;
    let changed = world.run("status default").await.out;
    assert!(changed.contains("Note:      the Swarm has changed since this status was written\n"), "{changed}");
}

async fn as_documents(world: &World) {
    let list: Value = serde_json::from_str(&world.run("status -o json").await.out).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("List"), Some(2)));
    assert_eq!(list["items"][0]["metadata"]["managedFields"], Value::Null);
    let one: Value = serde_json::from_str(&world.run("status other -o json").await.out).unwrap();
    assert_eq!((&one["kind"], &one["spec"]["mode"]), (&json!("Swarm"), &json!("OriginOnly")));
    let yaml = world.run("status other -o yaml").await.out;
    let same: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(same, one);
}

#[tokio::test]
async fn watching_ends_when_all_is_ready_stalled_or_late() {
    let Some(world) = World::with_swarms().await else { return };
    world.apply("default", spec()).await;
    world.status("default", halfway(1)).await;

    let mut watching = world.command("status default -w").spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap();
    let first = "default/torch: 71%, 1/4 nodes, 15Gi from peers, 8Gi from the registry";
    assert_eq!(next().await.as_deref(), Some(first));
    assert_eq!(next().await.as_deref(), Some("default: not ready, Distributing: torch is on 1 of 4 nodes"));
    world.status("default", halfway(4)).await;
    let last = "default/torch: 100%, 4/4 nodes, 15Gi from peers, 8Gi from the registry";
    assert_eq!(next().await.as_deref(), Some(last));
    assert_eq!(next().await.as_deref(), Some("default: ready, Distributed: every node has every artifact"));
    assert_eq!(next().await, None);
    assert_eq!(ended(watching).await, Ended { code: Some(0), out: String::new(), error: String::new() });

    world.apply("late", spec()).await;
    let late = world.run("status late -w --timeout 1s").await;
    let says = "error: not there yet after 1s: see `kubectl swarm status`, or give --timeout more\n";
    assert_eq!(late, Ended { code: Some(3), out: String::new(), error: says.to_owned() });

    let mut status = halfway(1);
    status["conditions"] = json!([
        condition("Ready", "False", "UnknownTag", "r.io has no next:1", 3),
        condition("Stalled", "True", "UnknownTag", "r.io has no next:1:\n\u{1b}[2Jmanifest unknown", 3),
    ]);
    world.status("late", status).await;
    let stalled = world.run("status -w").await;
    let says = "error: Swarm late is stalled: UnknownTag: r.io has no next:1: [2Jmanifest unknown\n";
    assert_eq!((stalled.code, stalled.error.as_str()), (Some(1), says));

    let missing = world.run("status nonsense -w").await;
    assert_eq!(
        (missing.code, missing.error.as_str()),
        (Some(1), "error: Swarm nonsense: not found: see `kubectl swarm status`\n")
    );
    world.stop().await;
}

#[tokio::test]
async fn ctrl_c_ends_it() {
    let Some(world) = World::with_swarms().await else { return };
    world.apply("default", spec()).await;
    world.status("default", halfway(1)).await;
    let mut watching = world.command("status -w").spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap();
    let pid = watching.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(
        ended(watching).await,
        Ended { code: Some(130), out: String::new(), error: "error: interrupted\n".to_owned() }
    );
    world.stop().await;
}
