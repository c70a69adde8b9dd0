//! A cluster for a test, and what tests do with one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_api::{ArtifactStatus, Condition, ConditionStatus};
use shoal_e2e::cluster::{Cluster, Options, Programs};
use shoal_e2e::containerd::Version;
use shoal_types::Digest;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Longer than anything takes on a machine that builds beside it.
const LONG: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(100);

/// One copy, what the wire adds, and what comes twice where a lease moves: 1.1 to 1.3 were seen with 128 MiB, with programs that aren't optimised on a machine that
/// builds beside them.
pub(crate) const MOST_COPIES: f64 = 1.5;

/// One cluster at a time: this machine is small, and a process's namespaces are called by its number.
static TURN: Mutex<()> = Mutex::const_new(());

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// None if there can't be one: that is said.
    pub(crate) async fn start(options: Options) -> Option<Self> {
        let turn = TURN.lock().await;
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: a cluster makes namespaces, mounts and cgroups, which takes root");
            return None;
        }
        let version = options.containerd;
        if version == Version::V2 && !version.is_cached() {
            eprintln!("SKIPPED: containerd 2 isn't built; `cargo xtask cluster up --containerd 2` builds it");
            return None;
        }
        let programs = tokio::task::spawn_blocking(move || Programs::get(version)).await.unwrap();
        let programs = match programs {
            Ok(programs) => programs,
            Err(error) => {
                eprintln!("SKIPPED: {error:#}");
                return None;
            }
        };
        let cluster = Cluster::start(&options, &programs).await.unwrap();
        let client = cluster.client().await.unwrap();
        Some(Self { cluster, client, _turn: turn })
    }

    /// Makes or changes an object of the default namespace.
    pub(crate) async fn apply<K>(&self, name: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let params = PatchParams::apply("shoal-tests").validation_strict();
        self.api().patch(name, &params, &Patch::Apply(object)).await.unwrap()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Has every node run an image, and waits until all of them do.
    pub(crate) async fn run_everywhere(&mut self, name: &str, image: &str) {
        self.run_on(name, image, None).await;
    }

    /// The same for one node.
    pub(crate) async fn run_on(&mut self, name: &str, image: &str, node: Option<&str>) {
        self.run(name, pod(image, node)).await;
    }

    /// Has each node that pods of this specification may be on run one, and waits until all do.
    pub(crate) async fn run(&mut self, name: &str, pod: Value) {
        let labels = json!({"app": name});
        self.apply::<DaemonSet>(
            name,
            json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
            }),
        )
        .await;
        let sets: Api<DaemonSet> = self.api();
        self.until(&format!("{name}'s pods run"), async || {
            let status = sets.get(name).await.unwrap().status.unwrap_or_default();
            status.desired_number_scheduled > 0 && status.number_ready == status.desired_number_scheduled
        })
        .await;
    }

    /// Makes a pod of such a specification.
    pub(crate) async fn make_pod(&self, name: &str, pod: Value) {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod});
        self.apply::<Pod>(name, object).await;
    }

    /// What was told of a pod for this reason.
    pub(crate) async fn told(&self, pod: &str, reason: &str) -> Vec<String> {
        let asked = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
        let events = self.api::<Event>().list(&asked).await.unwrap();
        events.into_iter().filter_map(|event| event.message).collect()
    }

    /// Makes or changes a Swarm.
    pub(crate) async fn apply_swarm(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": name}, "spec": spec,
        });
        let swarms: Api<Swarm> = Api::all(self.client.clone());
        let params = PatchParams::apply("shoal-tests").validation_strict();
        swarms.patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }

    /// Waits until all that a Swarm pushes is on so many nodes, and says under which digests.
    pub(crate) async fn until_pushed(&mut self, name: &str, nodes: u8) -> BTreeMap<String, Digest> {
        let swarms: Api<Swarm> = Api::all(self.client.clone());
        let mut pushed = BTreeMap::new();
        self.until(&format!("all of the Swarm {name} is on {nodes} nodes"), async || {
            let swarm = swarms.get(name).await.unwrap();
            let status = swarm.status.unwrap_or_default();
            let is_whole = |artifact: &ArtifactStatus| {
                let counts = (artifact.complete, artifact.desired);
                counts == (nodes.into(), nodes.into()) && artifact.completed_at.is_some()
            };
            let digest = |artifact: &ArtifactStatus| Some((artifact.name.clone(), artifact.digest.parse().ok()?));
            pushed = status.artifacts.iter().filter_map(digest).collect();
            status.observed_generation == swarm.metadata.generation
                && pushed.len() == swarm.spec.artifacts.len()
                && status.artifacts.iter().all(is_whole)
        })
        .await;
        pushed
    }

    /// What the kubelets' events say of pulls that failed.
    pub(crate) async fn failed_pulls(&self) -> Vec<String> {
        let failed = self.api::<Event>().list(&ListParams::default().fields("reason=Failed")).await.unwrap();
        let said =
            failed.into_iter().filter_map(|event| Some(format!("{}: {}", event.involved_object.name?, event.message?)));
        said.filter(|said| said.contains("pull") || said.contains("Pull")).collect()
    }

    /// Installs Shoal, and waits until its Swarm is ready on all nodes.
    pub(crate) async fn install_shoal(&mut self, values: &Value) {
        self.cluster.install_shoal_with(values).await.unwrap();
        let nodes = self.cluster.node_count();
        let swarms: Api<Swarm> = Api::all(self.client.clone());
        self.until("the chart's Swarm is ready on all nodes", async || {
            let status = swarms.get("default").await.unwrap().status.unwrap_or_default();
            let is_ready = |said: &Condition| said.kind == "Ready" && said.status == ConditionStatus::True;
            status.conditions.iter().any(is_ready) && status.nodes.ready == u32::from(nodes)
        })
        .await;
    }

    /// How many copies of its layers the registry sends while an image that no node has comes to all of them, with what the wire adds.
    pub(crate) async fn origin_copies(&mut self, name: &str, layer_bytes: &[u64], seed: u64) -> f64 {
        self.cluster.store(&format!("tests/{name}"), "1", layer_bytes, seed).unwrap();
        let image = self.cluster.image(&format!("tests/{name}:1"));
        let before = self.cluster.origin_bytes().unwrap();
        self.run_everywhere(name, &image).await;
        copies(self.cluster.origin_bytes().unwrap() - before, layer_bytes)
    }

    /// Waits for it, as long as the cluster lives.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        let waited = timeout(LONG, self.cluster.during(waiting)).await;
        waited.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}")).unwrap();
    }

    /// The same, for what has to be looked at through the world.
    pub(crate) async fn until_seen(&mut self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let waiting = async {
            while !holds(self).await {
                self.cluster.during(async { Ok(()) }).await.unwrap();
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"));
    }

    pub(crate) async fn end(self) {
        self.cluster.stop().await;
    }
}

/// A pod's specification: an image, and the one node where it may be.
pub(crate) fn pod(image: &str, node: Option<&str>) -> Value {
    json!({
        "nodeSelector": node.map(|node| json!({"kubernetes.io/hostname": node})),
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": image}],
    })
}

/// Bytes in copies of these layers.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn copies(bytes: u64, layer_bytes: &[u64]) -> f64 {
    bytes as f64 / layer_bytes.iter().sum::<u64>() as f64
}

/// An object's node, if it is a pod on one.
pub(crate) fn node_of(pod: &Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.unwrap_or_else(|| panic!("{} has no node", pod.name_any()))
}
