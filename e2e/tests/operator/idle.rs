//! A cluster in which nothing happens: 50 Swarms of all kinds, agents that hold what was pushed to them, and nobody writes anything.
//!
//! `SHOAL_IDLE_SECONDS` says for how long; it is short by default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_e2e::control_plane::Write;
use shoal_e2e::processes::Fleet;
use shoal_e2e::registry::DockerRegistry;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::agents::{AgentProcess, Place};
use crate::listener::Listener;
use crate::namespace;
use crate::nodes::NODES;
use crate::process::Process;
use crate::reconcile::{holds, set_ready, swarm};
use crate::secrets::secret;
use crate::world::{LONG, World, in_namespace};

/// How long nothing happens, in seconds.
const IDLE: &str = "SHOAL_IDLE_SECONDS";
const IDLE_SECONDS: u64 = 15;

/// Bytes alone are written once a minute: who hasn't written for longer has nothing to write.
const AT_REST: Duration = Duration::from_secs(65);
/// And comes to rest within so many times as long.
const RESTS: u32 = 5;

const AGENTS: [&str; 3] = ["node-1", "node-2", "node-3"];
const PORT: u16 = 5000;
/// Swarms of a kind.
const FIVE: u8 = 5;

/// The version of each object of a kind.
async fn versions<K>(world: &World, versions: &mut BTreeMap<String, String>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let all = Api::<K>::all(world.admin.clone()).list_metadata(&ListParams::default()).await.unwrap();
    for object in all {
        let metadata = object.metadata;
        let name = format!("{} {}/{}", K::kind(&()), metadata.namespace.unwrap_or_default(), metadata.name.unwrap());
        versions.insert(name, metadata.resource_version.unwrap());
    }
}

/// Everything that Shoal makes or follows.
async fn everything(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    versions::<Swarm>(world, &mut all).await;
    versions::<Event>(world, &mut all).await;
    versions::<Secret>(world, &mut all).await;
    versions::<ConfigMap>(world, &mut all).await;
    versions::<EndpointSlice>(world, &mut all).await;
    versions::<Node>(world, &mut all).await;
    versions::<Pod>(world, &mut all).await;
    all
}

/// What Shoal has written, but for the Lease, which says that its holder is alive.
fn writes(world: &World) -> Vec<Write> {
    let mut writes = world.control_plane.writes().unwrap();
    writes.retain(|write| write.resource != "leases");
    writes
}

/// The Swarms, by what becomes of them.
fn swarms(closed: SocketAddr, refusing: SocketAddr) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut five = |kind: &str, spec: &dyn Fn(u8) -> Value| {
        all.extend((1..=FIVE).map(|number| (format!("{kind}-{number}"), spec(number))));
    };
    // The registry has several names, so that each Swarm has one of its own.
    let host = |network: u8, number: u8| format!("127.0.{network}.{number}:{PORT}");
    let registry = |host: &str| json!({"host": host, "endpoint": format!("http://{host}"), "access": "Public"});
    let artifact = |host: &str, tag: &str| json!([{"name": "a", "reference": format!("{host}/ml/model:{tag}"), "placement": "Cache", "pin": true}]);
    let pushed = |host: &str, tag: &str| json!({"registries": [registry(host)], "artifacts": artifact(host, tag), "resolveSeconds": 10});
    five("pushed", &|number| pushed(&host(0, number), &number.to_string()));
    five("rival", &|_| json!({"registries": [registry(&host(0, 1))]}));
    five("refused", &|number| pushed(&format!("127.0.5.{number}:{}", refusing.port()), "1"));
    five("unknown-tag", &|number| pushed(&host(1, number), "none"));
    five("unreachable", &|number| {
        let host = format!("127.0.2.{number}:{}", closed.port());
        pushed(&host, "1")
    });
    five("nobody", &|number| {
        let mut spec = pushed(&host(3, number), "1");
        spec["nodeSelector"] = json!({"matchLabels": {"no": "where"}});
        spec
    });
    five("suspended", &|number| {
        let mut spec = pushed(&host(4, number), "1");
        spec["mode"] = "Suspended".into();
        spec
    });
    five(
        "private",
        &|number| json!({"registries": [{"host": format!("p{number}.example"), "secretRef": {"name": "regcred"}}]}),
    );
    five(
        "no-secret",
        &|number| json!({"registries": [{"host": format!("n{number}.example"), "secretRef": {"name": "none"}}]}),
    );
    five(
        "plain",
        &|number| json!({"registries": [{"host": format!("o{number}.example")}], "rules": [{"repository": format!("o{number}.example/secret/**"), "mode": "OriginOnly"}]}),
    );
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_anything_when_nothing_happens() {
    if let Err(error) = DockerRegistry::program() {
        return eprintln!("SKIPPED: {error:#}");
    }
    if !namespace::is_inside("idle::nobody_writes_anything_when_nothing_happens").await {
        return;
    }
    let idle = std::env::var(IDLE).map_or(IDLE_SECONDS, |seconds| seconds.parse().expect(IDLE));
    let Some(world) = World::start_in_namespace().await else { return };
    let directory = world.control_plane.directory().join("registry");
    let registry = DockerRegistry::new(&directory, SocketAddr::from(([0, 0, 0, 0], PORT))).unwrap();
    for number in 1..=FIVE {
        registry.store("ml/model", &number.to_string(), &[1 << 20], number.into()).unwrap();
    }
    let mut fleet = Fleet::new(world.control_plane.directory()).sharing_signals();
    fleet.start("registry", &registry.command()).unwrap();
    let listens = async || TcpStream::connect(("127.0.0.1", PORT)).await.is_ok();
    fleet.until("registry", LONG, listens).await.unwrap();

    let operators = [Process::start(&world, 1).await, Process::start(&world, 2).await];
    world.until_serves(1).await;
    world.until_serves(2).await;
    world.ready(&[1, 2]).await;
    let hosts: Vec<String> = (1..=FIVE).map(|number| format!("p{number}.example")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    world.create::<Secret>(&secret("regcred", &hosts, "ann", "geheim")).await;
    let mut agents = Vec::new();
    for name in AGENTS {
        let place = Place { name, ip: in_namespace(NODES), rate: None, replicas: &[1, 2] };
        agents.push(AgentProcess::start(&world, &mut fleet, &place, &[]).await);
        set_ready(&world, name).await;
    }
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    let refusing = Listener::start(nobody, |_| {
        ("401 Unauthorized", "www-authenticate: Basic realm=\"r\"\r\n".to_owned(), String::new())
    })
    .await;
    let all = swarms(world.closed_port(), refusing.address);
    assert_eq!(all.len(), 50);
    for (name, spec) in all {
        world.create_global::<Swarm>(&swarm(&name, spec)).await;
    }
    let found: Api<Swarm> = Api::all(world.admin.clone());
    let is_true = async |kind: &str, condition: &str| {
        let all = found.list(&ListParams::default()).await.unwrap();
        let of_kind = |found: &&Swarm| found.metadata.name.as_ref().unwrap().trim_end_matches(char::is_numeric) == kind;
        let of_kind: Vec<&Swarm> = all.iter().filter(of_kind).collect();
        of_kind.len() == usize::from(FIVE) && of_kind.iter().all(|swarm| holds(swarm, condition).is_some())
    };
    for (kind, condition) in [
        ("pushed-", "Ready"),
        ("unknown-tag-", "Stalled"),
        ("unreachable-", "Stalled"),
        ("unreachable-", "OriginDegraded"),
        ("refused-", "Stalled"),
        ("rival-", "Conflict"),
        ("no-secret-", "Stalled"),
        ("nobody-", "Ready"),
        ("private-", "Ready"),
        ("plain-", "Ready"),
    ] {
        world.until(kind, async || is_true(kind, condition).await).await;
    }

    let events: Api<Event> = Api::all(world.admin.clone());
    let is_told = async |reason: &str| {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| event.reason.as_deref() == Some(reason))
    };
    for reason in [
        "Resolved",
        "Distributed",
        "Conflict",
        "OriginRefused",
        "OriginUnreachable",
        "ArtifactNotFound",
        "SecretUnusable",
    ] {
        world.until(reason, async || is_told(reason).await).await;
    }

    let (mut last, mut since, began) = (writes(&world).len(), Instant::now(), Instant::now());
    while since.elapsed() < AT_REST {
        assert!(began.elapsed() < AT_REST * RESTS, "it doesn't come to rest: {:?}", writes(&world).split_off(last));
        sleep(Duration::from_secs(1)).await;
        let now = writes(&world).len();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    let asked = || DockerRegistry::manifest_requests(&std::fs::read_to_string(fleet_log(&world)).unwrap());
    let (before, written, lookups) = (everything(&world).await, writes(&world).len(), asked());
    sleep(Duration::from_secs(idle)).await;
    let news: Vec<String> = writes(&world).split_off(written).iter().map(ToString::to_string).collect();
    assert_eq!(news, Vec::<String>::new());
    assert_eq!(everything(&world).await, before);
    println!(
        "50 Swarms, {} agents, 2 replicas: {written} writes until all was as it should be; then idle for {idle} s: 0 writes, {} lookups",
        AGENTS.len(),
        asked() - lookups
    );
    fleet.check().unwrap();
    fleet.end().await;
    for operator in operators {
        assert!(operator.terminate().await.success());
    }
    world.end().await;
}

fn fleet_log(world: &World) -> std::path::PathBuf {
    world.control_plane.directory().join("registry.log")
}
