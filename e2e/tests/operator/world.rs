//! A control plane with what an installation of Shoal puts there: the resource's definition, service accounts, permissions, nodes and pods.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, CustomResourceExt as _, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_e2e::control_plane::{ControlPlane, Programs};
use shoal_oci::testing::free_ports;
use shoal_operator::{Operator, OperatorConfig};
use shoal_tracker_server::client::{ClientConfig, EventStream, NodeIdentity, TrackerClient};
use shoal_tracker_server::{Handle, Trust};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) const NAMESPACE: &str = "shoal";
pub(crate) const AGENT: &str = "shoal-agent";
pub(crate) const AUDIENCE: &str = "shoal";
/// A namespace besides ours whose Secrets Swarms may name.
pub(crate) const TEAM: &str = "team";
const OPERATOR: &str = "shoal-operator";

/// An API server takes half a GiB and a core: one at a time.
static ONE: Mutex<()> = Mutex::const_new(());

/// What a control plane is made of. None where it can't be had: that is said.
pub(crate) async fn programs() -> Option<Programs> {
    let got = tokio::task::spawn_blocking(Programs::get).await.unwrap();
    got.inspect_err(|error| eprintln!("SKIPPED: there is no control plane on this machine: {error:#}")).ok()
}

/// Waits until no other test has an API server.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    ONE.lock().await
}

/// A replica's address where a test has a network namespace.
pub(crate) const fn in_namespace(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// Its address elsewhere.
const fn on_loopback(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 1 + number)
}

pub(crate) struct World {
    pub(crate) admin: Client,
    pub(crate) control_plane: ControlPlane,
    address_of: fn(u8) -> Ipv4Addr,
    port: u16,
    admin_port: u16,
    _one: MutexGuard<'static, ()>,
}

impl World {
    /// None where there is no control plane to be had: that is said.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_at(on_loopback).await
    }

    /// The same, with replicas at addresses that may be endpoints.
    pub(crate) async fn start_in_namespace() -> Option<Self> {
        Self::start_at(in_namespace).await
    }

    async fn start_at(address_of: fn(u8) -> Ipv4Addr) -> Option<Self> {
        let one = turn().await;
        let programs = programs().await?;
        let control_plane = ControlPlane::start(&programs).await.unwrap();
        let admin = control_plane.admin().unwrap().client().await.unwrap();
        // Each operator has an address of its own and the same port, as pods do.
        let ports = free_ports(address_of(1).into(), 2).unwrap();
        let (port, admin_port) = (ports[0].port(), ports[1].port());
        let world = Self { admin, control_plane, address_of, port, admin_port, _one: one };
        world.install().await;
        Some(world)
    }

    async fn install(&self) {
        let definition = shoal_api::kube::Swarm::crd();
        self.create_global(&definition).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(self.admin.clone());
        self.until("the definition is established", async || {
            let conditions = definitions.get(definition.metadata.name.as_deref().unwrap()).await.unwrap().status;
            let conditions = conditions.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
        })
        .await;
        for namespace in [NAMESPACE, TEAM] {
            self.create_global::<Namespace>(&object(json!({"metadata": {"name": namespace}}))).await;
        }
        for account in [AGENT, OPERATOR, "other"] {
            self.create::<ServiceAccount>(&object(json!({"metadata": {"name": account}}))).await;
        }
        let rule = |group: &str, resources: &[&str], names: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "resourceNames": names, "verbs": verbs});
        self.create_global::<ClusterRole>(&object(json!({
            "metadata": {"name": OPERATOR},
            "rules": [
                rule("authentication.k8s.io", &["tokenreviews"], &[], &["create"]),
                rule("", &["nodes"], &[], &["list", "watch"]),
                rule("shoal.dev", &["swarms"], &[], &["list", "watch", "patch"]),
                rule("shoal.dev", &["swarms/status"], &[], &["patch"]),
            ],
        })))
        .await;
        self.create::<Role>(&object(json!({
            "metadata": {"name": OPERATOR},
            "rules": [
                rule("", &["secrets", "configmaps"], &[], &["create"]),
                rule("", &["secrets"], &["shoal-ca"], &["get", "update"]),
                rule("", &["secrets"], &[], &["list", "watch"]),
                rule("", &["configmaps"], &["shoal-ca"], &["get", "patch"]),
                rule("discovery.k8s.io", &["endpointslices"], &[], &["list", "watch"]),
                rule("coordination.k8s.io", &["leases"], &[], &["create"]),
                rule("coordination.k8s.io", &["leases"], &["shoal-operator"], &["get", "update"]),
            ],
        })))
        .await;
        // Events about what has no namespace are in this one.
        let of_events = json!({"name": OPERATOR, "namespace": "default"});
        let rules = [rule("events.k8s.io", &["events"], &[], &["create"])];
        self.create_in("default", &object::<Role>(json!({"metadata": of_events, "rules": rules}))).await;
        let reader = json!({"metadata": {"name": OPERATOR, "namespace": TEAM}, "rules": [rule("", &["secrets"], &[], &["list", "watch"])]});
        self.create_in::<Role>(TEAM, &object(reader)).await;
        let subjects = json!([{"kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE}]);
        let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": OPERATOR});
        self.create_global::<ClusterRoleBinding>(&object(
            json!({"metadata": {"name": OPERATOR}, "roleRef": role("ClusterRole"), "subjects": subjects}),
        ))
        .await;
        for namespace in [NAMESPACE, TEAM, "default"] {
            let binding = json!({"metadata": {"name": OPERATOR}, "roleRef": role("Role"), "subjects": subjects});
            self.create_in::<RoleBinding>(namespace, &object(binding)).await;
        }
    }

    pub(crate) async fn create_global<K>(&self, object: &K) -> K
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        Api::all(self.admin.clone()).create(&PostParams::default(), object).await.unwrap()
    }

    pub(crate) async fn create<K>(&self, object: &K) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        self.create_in(NAMESPACE, object).await
    }

    pub(crate) async fn create_in<K>(&self, namespace: &str, object: &K) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + Debug,
    {
        Api::namespaced(self.admin.clone(), namespace).create(&PostParams::default(), object).await.unwrap()
    }

    /// What there is of a kind in our namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), NAMESPACE)
    }

    /// A node with a zone and an address.
    pub(crate) async fn node(&self, name: &str, zone: &str, ip: Ipv4Addr) -> Node {
        self.create_global(&object(json!({
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, "pool": "blue"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip.to_string()},
            ]},
        })))
        .await
    }

    /// A pod of a service account, on a node or waiting for one.
    pub(crate) async fn pod(&self, name: &str, account: &str, node: Option<&str>) -> Pod {
        self.create(&object(json!({
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": account, "nodeName": node, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "registry.example/none"}],
            },
        })))
        .await
    }

    /// A token as the kubelet gets it for a projected volume: bound to an object, if one is given.
    pub(crate) async fn token(&self, account: &str, audience: &str, bound: Option<(&str, &str, &str)>) -> String {
        let bound = bound.map(|(kind, name, uid)| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}));
        let request: TokenRequest =
            object(json!({"spec": {"audiences": [audience], "boundObjectRef": bound, "expirationSeconds": 3600}}));
        let accounts: Api<ServiceAccount> = self.api();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token
    }

    /// The token of a pod.
    pub(crate) async fn token_of(&self, pod: &Pod, audience: &str) -> String {
        let (name, uid) = (pod.metadata.name.clone().unwrap(), pod.metadata.uid.clone().unwrap());
        let account = pod.spec.as_ref().unwrap().service_account_name.clone().unwrap();
        self.token(&account, audience, Some(("Pod", &name, &uid))).await
    }

    /// A replica of the operator that is starting, with an address of its own.
    pub(crate) async fn operator(&self, number: u8) -> Replica {
        let access = self.control_plane.service_account(NAMESPACE, OPERATOR).await.unwrap();
        let (name, ip) = self.replica(number);
        let config = OperatorConfig {
            namespace: NAMESPACE.to_owned(),
            pod_name: shoal_tracker::ReplicaName::new(&name).unwrap(),
            pod_ips: vec![ip],
            service: "shoal-tracker".to_owned(),
            tracker_names: Vec::new(),
            ca_secret: "shoal-ca".to_owned(),
            ca_config_map: "shoal-ca".to_owned(),
            secret_namespaces: vec![TEAM.to_owned()],
            proxy: shoal_oci::ProxyConfig::default(),
            lease: "shoal-operator".to_owned(),
            agent_service_account: AGENT.to_owned(),
            audience: AUDIENCE.to_owned(),
            tracker_listen: SocketAddr::new(ip, self.port),
            admin_listen: SocketAddr::new(ip, 0),
        };
        let operator = Operator::start(config, access.client().await.unwrap()).await.unwrap();
        Replica { operator, address: SocketAddr::new(ip, self.port) }
    }

    /// The command line of the same replica, for a process; a flag a line.
    pub(crate) async fn operator_arguments(&self, number: u8) -> String {
        let access = self.control_plane.service_account(NAMESPACE, OPERATOR).await.unwrap();
        let kubeconfig = self.control_plane.directory().join(format!("operator-{number}.yaml"));
        access.write_kubeconfig(&kubeconfig).unwrap();
        let (name, ip) = self.replica(number);
        let (tracker, admin) = (SocketAddr::new(ip, self.port), self.admin_of(number));
        format!(
            "shoal-operator\nrun\n--log-format=text\n--namespace={NAMESPACE}\n--pod-name={name}\n--pod-ip={ip}\n\
             --secret-namespaces={TEAM}\n--tracker-listen={tracker}\n--admin-listen={admin}\n--kubeconfig={}",
            kubeconfig.display()
        )
    }

    /// Where agents reach the tracker of a replica.
    pub(crate) fn tracker_of(&self, number: u8) -> SocketAddr {
        SocketAddr::new(self.replica(number).1, self.port)
    }

    pub(crate) fn admin_of(&self, number: u8) -> SocketAddr {
        SocketAddr::new(self.replica(number).1, self.admin_port)
    }

    /// Waits until a replica that is a process serves.
    pub(crate) async fn until_serves(&self, number: u8) {
        let tracker = self.tracker_of(number);
        self.until("a replica serves", async || tokio::net::TcpStream::connect(tracker).await.is_ok()).await;
    }

    /// Where nobody listens.
    pub(crate) fn closed_port(&self) -> SocketAddr {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
    }

    fn replica(&self, number: u8) -> (String, IpAddr) {
        (format!("shoal-operator-{number}"), (self.address_of)(number).into())
    }

    /// Says which replicas are ready, as the endpoints' controller does.
    pub(crate) async fn ready(&self, numbers: &[u8]) {
        let endpoint = |number: &u8| {
            let (name, ip) = self.replica(*number);
            json!({"addresses": [ip], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": name}})
        };
        let slice: EndpointSlice = object(json!({
            "metadata": {"name": "shoal-tracker-1", "labels": {"kubernetes.io/service-name": "shoal-tracker"}},
            "addressType": "IPv4",
            "endpoints": numbers.iter().map(endpoint).collect::<Vec<_>>(),
        }));
        let slices: Api<EndpointSlice> = self.api();
        match slices.get_opt("shoal-tracker-1").await.unwrap() {
            None => drop(self.create(&slice).await),
            Some(there) => {
                let slice = EndpointSlice { metadata: there.metadata, ..slice };
                slices.replace("shoal-tracker-1", &PostParams::default(), &slice).await.unwrap();
            }
        }
    }

    /// The CA's Secret.
    pub(crate) async fn ca_secret(&self) -> BTreeMap<String, String> {
        let secrets: Api<Secret> = self.api();
        let data = secrets.get("shoal-ca").await.unwrap().data.unwrap();
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
    }

    /// The CA's certificates, as agents find them; once they are there.
    pub(crate) async fn bundle(&self) -> String {
        let maps: Api<ConfigMap> = self.api();
        self.until("there is a ConfigMap", async || maps.get_opt("shoal-ca").await.unwrap().is_some()).await;
        maps.get("shoal-ca").await.unwrap().data.unwrap()["ca.crt"].clone()
    }

    /// An agent's client of the tracker, on a node.
    pub(crate) async fn agent(&self, node: &str, tracker: SocketAddr, token: &str) -> Agent {
        let directory = self.control_plane.directory().join(format!("agent-{node}"));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = ClientConfig {
            trackers: vec![tracker.into()],
            name: node.parse().unwrap(),
            zone: shoal_types::Zone::default(),
            peer_ip: None,
            local_ip: None,
            peer_port: 9_396,
            token_file: file("token", token),
            ca_file: Some(file("ca.crt", &self.bundle().await)),
            state_dir: directory.join("state"),
        };
        let stop = CancellationToken::new();
        let (client, events) = TrackerClient::start(config, stop.clone()).await.unwrap();
        Agent { client, events, stop }
    }

    /// Waits for it.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waited = timeout(LONG, async {
            while !holds().await {
                tokio::time::sleep(LOOK).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: not within {LONG:?}");
    }

    pub(crate) async fn end(self) {
        self.control_plane.stop().await;
    }
}

/// An operator that runs.
pub(crate) struct Replica {
    pub(crate) operator: Operator,
    pub(crate) address: SocketAddr,
}

impl Replica {
    /// Waits until it is ready, and gives what its tracker can be asked.
    pub(crate) async fn serves(&mut self) -> Handle {
        let readiness = self.operator.readiness().clone();
        tokio::select! {
            ready = timeout(LONG, readiness.ready()) => {
                assert!(ready.is_ok(), "not ready: {:?}", readiness.missing());
            }
            error = self.operator.failed() => panic!("{error}"),
        }
        let tracker = self.operator.tracker().borrow().clone();
        tracker.expect("a ready operator serves").1
    }
}

/// An agent, as far as the tracker knows one.
pub(crate) struct Agent {
    pub(crate) client: TrackerClient,
    pub(crate) events: EventStream,
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// Its certificate, when it has one.
    pub(crate) async fn identity(&self) -> std::sync::Arc<NodeIdentity> {
        let mut identity = self.client.identity();
        let got = timeout(LONG, identity.wait_for(Option::is_some)).await;
        let problem = self.client.problem().borrow().clone();
        got.unwrap_or_else(|_| panic!("no certificate: {problem:?}")).unwrap().clone().unwrap()
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(LONG, self.client.stopped()).await.expect("a client stops");
    }
}

pub(crate) fn trust(bundle: &str) -> Trust {
    Trust::from_pem(bundle).unwrap()
}

/// An object as people write it.
pub(crate) fn object<T: DeserializeOwned>(text: Value) -> T {
    serde_json::from_value(text).unwrap()
}
