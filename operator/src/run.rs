//! A replica of the operator: its parts, started, wired and ended.
//!
//! ```text
//!  start: probes ──> the CA, Nodes, Swarms, replicas are known ──> tracker serves ──> ready; may lead
//!  stop:  not ready ──> another one may lead ──> agents are told that the others remain ──> they have left, or 5 s ──> tracker drains ──> end
//! ```
//!
//! State: the parts' tasks.
//! Invariants: readiness says "no" until every part is there, and from the moment on at which the replica is told to stop.
//! Absent on purpose: what the parts do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use shoal_api::kube::Swarm;
use shoal_oci::ProxyConfig;
use shoal_origins::{Clients, SwarmResolver, source};
use shoal_telemetry::{Admin, Condition, Readiness};
use shoal_tracker::ReplicaName;
use shoal_tracker_server::{Handle, Metrics, Replica, Server, ServerConfig, ServerLimits, TrackerAddress};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Keeper;
use crate::cluster::Watched;
use crate::error::StartError;
use crate::identity::{self, ClusterIdentity, Expected};
use crate::reconcile::{self, Election, Reconciler};
use crate::replicas;
use crate::secrets::Secrets;
use crate::swarms::{self, Known, Swarms};

/// Agents that are told to leave do so at once; one that doesn't loses its connection.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often it is looked whether they have left.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What an operator is to be.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// The namespace that Shoal is installed in.
    pub namespace: String,
    /// This replica's pod.
    pub pod_name: ReplicaName,
    /// The pod's addresses, at the first of which agents reach it.
    pub pod_ips: Vec<IpAddr>,
    /// The headless Service of the operator's pods.
    pub service: String,
    /// Further names and addresses under which agents reach the tracker.
    pub tracker_names: Vec<String>,
    /// The Secret with the CA.
    pub ca_secret: String,
    /// The ConfigMap with the CA's certificates.
    pub ca_config_map: String,
    /// Namespaces besides our own whose Secrets Swarms may name.
    pub secret_namespaces: Vec<String>,
    /// Proxies on the way to registries.
    pub proxy: ProxyConfig,
    /// The Lease of who leads.
    pub lease: String,
    /// The agents' ServiceAccount.
    pub agent_service_account: String,
    /// For whom agents' tokens are made out.
    pub audience: String,
    /// Where the tracker listens.
    pub tracker_listen: SocketAddr,
    /// Where metrics and probes are.
    pub admin_listen: SocketAddr,
}

impl OperatorConfig {
    /// What agents may call this replica: its addresses, and the Service's names as a pod's resolver completes them.
    fn names(&self) -> Vec<String> {
        let Self { service, namespace, .. } = self;
        let ips = self.pod_ips.iter().map(ToString::to_string);
        let of_service = [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            service.clone(),
        ];
        ips.chain(of_service).chain(self.tracker_names.iter().cloned()).collect()
    }
}

/// A replica that runs.
pub struct Operator {
    admin_addr: SocketAddr,
    readiness: Readiness,
    pod_name: ReplicaName,
    serving: Condition,
    server: JoinHandle<Result<(), StartError>>,
    tracker: watch::Receiver<Option<(SocketAddr, Handle)>>,
    leave: CancellationToken,
    shutdown: CancellationToken,
    leading: (TaskTracker, CancellationToken),
    rest: (TaskTracker, CancellationToken),
}

impl Operator {
    /// Starts. What the API server must be asked for comes later: the probes say what is missing.
    ///
    /// # Errors
    /// One line that says what can't be had.
    pub async fn start(config: OperatorConfig, client: Client) -> Result<Self, StartError> {
        if config.pod_ips.is_empty() {
            return Err(StartError::Setting("--pod-ip is missing: give the pod's address".to_owned()));
        }
        let readiness = Readiness::new();
        let serving = readiness.condition("tracker");
        let (mut metrics, counters) = (Registry::default(), Metrics::default());
        counters.register(&mut metrics);
        let reconciling = reconcile::Metrics::default();
        reconciling.register(&mut metrics);
        let admin = Admin::new().metrics(metrics.into()).readiness(readiness.clone());
        let admin = admin.bind(config.admin_listen).await?;
        let admin_addr = admin.local_addr();
        let (rest, stop) = (TaskTracker::new(), CancellationToken::new());
        rest.spawn(admin.serve(stop.clone()));
        let followed = Followed::new(&config, &client, &readiness, &rest, &stop);
        tracing::info!(pod = %config.pod_name, admin = %admin_addr, "the operator runs");
        let (leave, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let leading = (TaskTracker::new(), CancellationToken::new());
        let (tell, tracker) = watch::channel(None);
        let pod_name = config.pod_name.clone();
        let starting = Starting {
            keeper: Keeper::new(
                client.clone(),
                &config.namespace,
                config.ca_secret.clone(),
                config.ca_config_map.clone(),
            ),
            ca: readiness.condition("ca"),
            serving: serving.clone(),
            config,
            client,
            counters,
            followed,
            reconciling,
            leave: leave.clone(),
            leading: leading.clone(),
            rest: (rest.clone(), stop.clone()),
            tell,
        };
        let shut = shutdown.clone();
        let server = tokio::spawn(async move {
            let Some(server) = shut.run_until_cancelled(starting.server()).await else { return Ok(()) };
            Box::pin(server?.run(shut)).await;
            Ok(())
        });
        let rest = (rest, stop);
        Ok(Self { admin_addr, readiness, pod_name, serving, server, tracker, leave, shutdown, leading, rest })
    }

    /// Where metrics and probes are.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Where the tracker listens, and the way to talk to it; once it serves.
    #[must_use]
    pub fn tracker(&self) -> watch::Receiver<Option<(SocketAddr, Handle)>> {
        self.tracker.clone()
    }

    /// Whether it is ready.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns when the tracker has ended, or can't start. Cancel-safe.
    pub async fn failed(&mut self) -> StartError {
        match (&mut self.server).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => StartError::Ended("the tracker"),
        }
    }

    /// Hands over to the other replicas, and ends.
    pub async fn stop(self) {
        self.serving.fails("the operator is stopping");
        // First of all: that its agents leave is nothing to write down.
        let (leading, stop) = self.leading;
        stop.cancel();
        leading.close();
        leading.wait().await;
        self.leave.cancel();
        let tracker = self.tracker.borrow().clone();
        if let Some((_, tracker)) = tracker
            && tracker.replicas().iter().any(|replica| replica.name != self.pod_name)
        {
            let left = async {
                while tracker.event_streams() > 0 {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            if timeout(HAND_OVER, left).await.is_err() {
                tracing::warn!(agents = tracker.event_streams(), "not every agent has gone to another replica");
            }
        }
        self.shutdown.cancel();
        if !self.server.is_finished()
            && let Err(error) = self.server.await
        {
            tracing::error!(%error, "the tracker panicked");
        }
        let (rest, stop) = self.rest;
        stop.cancel();
        rest.close();
        rest.wait().await;
        tracing::info!("the operator has stopped");
    }
}

/// What is followed of the cluster.
struct Followed {
    nodes: Watched<Node>,
    swarms: Watched<Swarm>,
    slices: Watched<EndpointSlice>,
    /// The CA's.
    secret: Watched<Secret>,
    /// Those that Swarms may name.
    secrets: Secrets,
}

impl Followed {
    fn new(
        config: &OperatorConfig,
        client: &Client,
        readiness: &Readiness,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let namespace = &config.namespace;
        let of_service = Config::default().labels(&format!("kubernetes.io/service-name={}", config.service));
        let one_secret = Config::default().fields(&format!("metadata.name={}", config.ca_secret));
        let condition = |name| readiness.condition(name);
        let (nodes, task) =
            Watched::follow(Api::all(client.clone()), Config::default(), identity::strip, condition("nodes"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        let (swarms, task) =
            Watched::follow(Api::all(client.clone()), Config::default(), swarms::strip, condition("swarms"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        let slices = Api::namespaced(client.clone(), namespace);
        let (slices, task) = Watched::follow(slices, of_service, |_| {}, condition("replicas"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        let secret = Api::namespaced(client.clone(), namespace);
        let (secret, task) = Watched::follow(secret, one_secret, |_| {}, condition("secret"));
        tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        let secrets = Secrets::follow(client, namespace, &config.secret_namespaces, condition("secrets"), tasks, stop);
        Self { nodes, swarms, slices, secret, secrets }
    }
}

/// What the server is made of.
struct Starting {
    config: OperatorConfig,
    client: Client,
    keeper: Keeper,
    ca: Condition,
    serving: Condition,
    counters: Metrics,
    reconciling: reconcile::Metrics,
    followed: Followed,
    leave: CancellationToken,
    leading: (TaskTracker, CancellationToken),
    rest: (TaskTracker, CancellationToken),
    tell: watch::Sender<Option<(SocketAddr, Handle)>>,
}

impl Starting {
    /// The server, when everything is known that agents could ask it for.
    async fn server(self) -> Result<Server, StartError> {
        let Self { config, client, keeper, ca, serving, counters, reconciling, followed, leave, .. } = self;
        let ((leading, stop_leading), (rest, stop), tell) = (self.leading, self.rest, self.tell);
        let Followed { mut nodes, swarms, slices, secret, secrets } = followed;
        let held = keeper.open(&ca).await?;
        ca.holds();
        nodes.listed().await;
        // Agents that were told of no Swarm would drop those that they know.
        let mut listed = swarms.clone();
        listed.listed().await;
        // A private name that is asked for without them counts as refused for a while.
        secrets.listed().await;
        let (all, names) = (swarms.all(), config.names());
        let Swarms { document, policy } = Swarms::of(all.iter().map(AsRef::as_ref));
        let (tell_policy, policy) = watch::channel(policy);
        let resolver = SwarmResolver::new(
            policy,
            Arc::new(secrets.clone()),
            Clients::new(config.proxy.clone(), u64::from(std::process::id())),
        );
        let expected = Expected::new(config.audience, &config.namespace, &config.agent_service_account);
        let server = ServerConfig {
            listen: config.tracker_listen,
            replica: config.pod_name.clone(),
            names,
            replicas: Vec::new(),
            swarm: source(&document),
            authority: Arc::new(held.authority()?),
            tracker: shoal_tracker::Config::default(),
            limits: ServerLimits::default(),
            admin_token: None,
            metrics: counters,
        };
        let identity = Arc::new(ClusterIdentity::new(client.clone(), expected, nodes.clone()));
        let server = Server::bind(server, identity, Arc::new(resolver)).await?;
        let (listen, handle) = (server.local_addr(), server.handle());
        let this = SocketAddr::new(config.pod_ips[0], listen.port());
        let pod = config.pod_name.to_string();
        let this = Replica { name: config.pod_name, address: TrackerAddress::from(this) };
        let (tell_known, known) = watch::channel(Known { objects: all.into(), ..Known::default() });
        rest.spawn(stop.clone().run_until_cancelled_owned(keeper.keep(held, secret, handle.clone())));
        let following = swarms::follow(swarms, secrets, tell_policy, handle.clone(), tell_known);
        rest.spawn(stop.clone().run_until_cancelled_owned(following));
        let election = Election::new(client.clone(), &config.namespace, config.lease, pod.clone());
        let reconciler = Reconciler::new(client, pod, known, nodes, handle.clone(), reconciling);
        let reconciler = Arc::new(reconciler);
        let lead = move |leadership| Arc::clone(&reconciler).lead(leadership).boxed();
        leading.spawn(election.run(lead, stop_leading));
        rest.spawn(stop.run_until_cancelled_owned(replicas::follow(slices, this, handle.clone(), leave)));
        tracing::info!(%listen, "the tracker listens");
        tell.send_replace(Some((listen, handle)));
        serving.holds();
        Ok(server)
    }
}
