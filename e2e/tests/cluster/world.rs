//! A cluster for a test, and what tests do with one.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_e2e::cluster::{Cluster, Options, Programs};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Longer than anything takes on a machine that builds beside it.
const LONG: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(100);

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
        let labels = json!({"app": name});
        let selector = node.map(|node| json!({"kubernetes.io/hostname": node}));
        let pod = json!({
            "nodeSelector": selector,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image}],
        });
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

    pub(crate) async fn end(self) {
        self.cluster.stop().await;
    }
}

/// An object's node, if it is a pod on one.
pub(crate) fn node_of(pod: &k8s_openapi::api::core::v1::Pod) -> String {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    node.unwrap_or_else(|| panic!("{} has no node", pod.name_any()))
}
