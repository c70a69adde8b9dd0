//! What people see of Swarms: status, columns, events; who writes it, and when nobody does.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shoal_api::ConditionStatus;
use shoal_api::kube::Swarm;
use shoal_e2e::tools::cluster::Tool;
use tokio::time::{Instant, sleep};

use crate::process::Process;
use crate::world::{World, object};

pub(crate) fn swarm(name: &str, spec: Value) -> Swarm {
    object(json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": name}, "spec": spec}))
}

/// The reason of a condition that holds.
pub(crate) fn holds(swarm: &Swarm, kind: &str) -> Option<String> {
    let conditions = swarm.status.iter().flat_map(|status| &status.conditions);
    let holds = |condition: &&shoal_api::Condition| condition.kind == kind && condition.status == ConditionStatus::True;
    conditions.filter(|condition| condition.kind == kind).find(holds).map(|condition| condition.reason.clone())
}

pub(crate) async fn holder(world: &World) -> Option<String> {
    let leases: Api<Lease> = world.api();
    let lease = leases.get_opt("shoal-operator").await.unwrap()?;
    lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

/// Every Swarm's version, and how many events there are.
pub(crate) async fn versions(world: &World) -> (BTreeMap<String, String>, usize) {
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let swarms = swarms.list(&ListParams::default()).await.unwrap();
    let version = |swarm: Swarm| (swarm.metadata.name.unwrap(), swarm.metadata.resource_version.unwrap());
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    let events = events.list_metadata(&ListParams::default()).await.unwrap();
    (swarms.into_iter().map(version).collect(), events.items.len())
}

/// What kubectl says; none, where there is no kubectl.
async fn kubectl(world: &World, arguments: &[&str]) -> Option<String> {
    let program = tokio::task::spawn_blocking(|| Tool::Kubectl.program()).await.unwrap();
    let program = program.inspect_err(|error| eprintln!("SKIPPED: no kubectl: {error:#}")).ok()?;
    let kubeconfig = world.control_plane.directory().join("kubectl.yaml");
    world.control_plane.admin().unwrap().write_kubeconfig(&kubeconfig).unwrap();
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(program).arg("--kubeconfig").arg(kubeconfig).args(arguments).output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_see_how_swarms_are() {
    let Some(world) = World::start().await else { return };
    world.node("node-a", "zone-1", Ipv4Addr::new(10, 1, 0, 1)).await;
    let mut replica = world.operator(1).await;
    replica.serves().await;
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let create = async |name: &str, spec: Value| {
        swarms.create(&PostParams::default(), &swarm(name, spec)).await.unwrap();
    };
    let nobody = json!({"matchLabels": {"no": "where"}});
    create("nowhere", json!({"registries": [{"host": "n.example"}], "nodeSelector": nobody})).await;
    let closed = world.closed_port();
    let unreachable = json!([{"host": closed, "endpoint": format!("http://{closed}")}]);
    let artifact = json!({"name": "a", "reference": format!("{closed}/a:1")});
    create("unreachable", json!({"registries": unreachable, "artifacts": [artifact]})).await;
    create("everywhere", json!({"registries": [{"host": "e.example"}]})).await;

    if kubectl(&world, &["wait", "--for=condition=Ready", "swarm/nowhere", "--timeout=120s"]).await.is_some() {
        let columns = kubectl(&world, &["get", "sw", "nowhere", "-o", "wide"]).await.unwrap();
        let mut lines = columns.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let names = lines.next().unwrap();
        let expected = ["NAME", "READY", "NODES", "ARTIFACTS", "SAVED", "MODE", "AGE", "REASON", "ORIGIN", "PEERS"];
        assert_eq!(names, expected);
        // SAVED is empty: nothing has moved.
        let values = lines.next().unwrap();
        assert_eq!((&values[..5], values[6]), (&["nowhere", "True", "0/0", "0/0", "Auto"][..], "NoNodes"));
        let described = kubectl(&world, &["describe", "swarm", "unreachable"]).await.unwrap();
        assert!(described.contains("OriginUnreachable") || described.contains("Resolving"), "{described}");
    }
    let is = async |name: &str, kind: &str, reason: &str| {
        let found = swarms.get(name).await.unwrap();
        holds(&found, kind).as_deref() == Some(reason)
    };
    world.until("who can't succeed says so", async || is("unreachable", "Stalled", "OriginUnreachable").await).await;
    world.until("and of whom", async || is("unreachable", "OriginDegraded", "OriginUnreachable").await).await;
    world
        .until("agents are missed", async || {
            is("everywhere", "Reconciling", "AgentsMissing").await || {
                // A Node that no kubelet has called ready is down.
                set_ready(&world, "node-a").await;
                false
            }
        })
        .await;
    world
        .until("all are observed", async || {
            let all = swarms.list(&ListParams::default()).await.unwrap();
            all.items
                .iter()
                .all(|swarm| swarm.status.as_ref().is_some_and(|status| status.observed_generation == Some(1)))
        })
        .await;
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    world
        .until("an event says so, too", async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            events.items.iter().any(|event| event.reason.as_deref() == Some("OriginUnreachable"))
        })
        .await;

    replica.operator.stop().await;
    assert_eq!(holder(&world).await, None, "who stops gives the Lease up");
    world.end().await;
}

/// As a kubelet says.
pub(crate) async fn set_ready(world: &World, node: &str) {
    let nodes: Api<Node> = Api::all(world.admin.clone());
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(&status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_succeeded_within_20_seconds_and_one_that_stops_at_once() {
    let Some(world) = World::start().await else { return };
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    let first = Process::start(&world, 1).await;
    world.until("the first leads", async || holder(&world).await.as_deref() == Some("shoal-operator-1")).await;
    let second = Process::start(&world, 2).await;
    world.until_serves(2).await;
    assert_eq!(holder(&world).await.as_deref(), Some("shoal-operator-1"));
    let spec = json!({"registries": [{"host": "r.example"}]});
    swarms.create(&PostParams::default(), &swarm("a", spec.clone())).await.unwrap();
    let is_ready = async |name: &str| holds(&swarms.get(name).await.unwrap(), "Ready").is_some();
    world.until("it reconciles", async || is_ready("a").await).await;

    first.kill().await;
    let killed = Instant::now();
    swarms.create(&PostParams::default(), &swarm("b", spec.clone())).await.unwrap();
    world.until("the second reconciles", async || is_ready("b").await).await;
    let took = killed.elapsed();
    println!("takeover after kill -9: {:.1} s", took.as_secs_f64());
    assert_eq!(holder(&world).await.as_deref(), Some("shoal-operator-2"));
    assert!(took <= Duration::from_secs(20), "{took:?}");

    let third = Process::start(&world, 3).await;
    world.until_serves(3).await;
    let status = second.terminate().await;
    assert!(status.success(), "{status}");
    let told = Instant::now();
    swarms.create(&PostParams::default(), &swarm("c", spec)).await.unwrap();
    world.until("the third reconciles", async || is_ready("c").await).await;
    println!("takeover after SIGTERM's end: {:.1} s", told.elapsed().as_secs_f64());
    assert!(third.terminate().await.success());
    swarms.delete("a", &DeleteParams::default()).await.unwrap();
    world.end().await;
}

/// `SHOAL_TEST_SCALE=1 cargo test --release -p shoal-e2e --test operator reconcile::a_thousand -- --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swarms_and_five_thousand_nodes_take_less_than_512_mib_and_come_to_rest() {
    if std::env::var_os("SHOAL_TEST_SCALE").is_none() {
        return eprintln!("SKIPPED: it makes 6,000 objects: set SHOAL_TEST_SCALE=1");
    }
    let Some(world) = World::start().await else { return };
    let swarms: Api<Swarm> = Api::all(world.admin.clone());
    for tens in 0..500 {
        let make = (0..10).map(|one| {
            let (world, node) = (&world, tens * 10 + one);
            async move {
                let [.., high, low] = u32::to_be_bytes(node);
                let name = format!("node-{node:04}");
                world.node(&name, &format!("zone-{}", node % 3), Ipv4Addr::new(10, 1, high, low)).await;
                set_ready(world, &name).await;
            }
        });
        futures_util::future::join_all(make).await;
    }
    let operator = Process::start(&world, 1).await;
    let began = Instant::now();
    for ix in 0..1_000 {
        // Registries that refuse connections, at once.
        let host = format!("127.1.{}.{}:1", ix / 250, 1 + ix % 250);
        let registry = json!({"host": host, "endpoint": format!("http://{host}")});
        let selector = json!({"matchLabels": {"topology.kubernetes.io/zone": format!("zone-{}", ix % 3)}});
        let digest = format!("sha256:{ix:064x}");
        let artifact = json!({"name": "a", "reference": format!("{host}/a@{digest}")});
        let spec = json!({"registries": [registry], "nodeSelector": selector, "artifacts": [artifact], "resolveSeconds": 3600});
        swarms.create(&PostParams::default(), &swarm(&format!("swarm-{ix:04}"), spec)).await.unwrap();
    }
    world
        .until("all are reconciled", async || {
            let all = swarms.list(&ListParams::default()).await.unwrap();
            all.items
                .iter()
                .all(|swarm| swarm.status.as_ref().is_some_and(|status| status.observed_generation == Some(1)))
        })
        .await;
    println!("1,000 Swarms, 5,000 Nodes: made and reconciled in {:.0} s", began.elapsed().as_secs_f64());
    // Lookups fail, which is told of, and told no more.
    let mut before = versions(&world).await;
    world
        .until("it comes to rest", async || {
            sleep(Duration::from_secs(20)).await;
            let now = versions(&world).await;
            std::mem::replace(&mut before, now.clone()) == now
        })
        .await;
    let peak = operator.peak_memory();
    println!("1,000 Swarms, 5,000 Nodes: {peak} MiB at the most; no write in 20 s");
    assert!(peak < 512, "{peak} MiB");
    assert!(operator.terminate().await.success());
    world.end().await;
}
