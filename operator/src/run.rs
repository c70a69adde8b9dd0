//! A replica of the operator: its parts, started, wired and ended.
//!
//! State: the parts' tasks.
//! Invariants: readiness says "no" until every part is there, and from the moment on at which the replica is told to stop.
//! Absent on purpose: what the parts do.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use shoal_telemetry::{Admin, Condition, Readiness};
use shoal_tracker::ReplicaName;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Watched;
use crate::error::StartError;

/// What an operator is to be.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// The namespace that Shoal is installed in.
    pub namespace: String,
    /// This replica's pod.
    pub pod_name: ReplicaName,
    /// The pod's address.
    pub pod_ip: IpAddr,
    /// The headless Service of the operator's pods.
    pub service: String,
    /// Further names and addresses under which agents reach the tracker.
    pub tracker_names: Vec<String>,
    /// The Secret with the CA.
    pub ca_secret: String,
    /// The ConfigMap with the CA's certificates.
    pub ca_config_map: String,
    /// The agents' ServiceAccount.
    pub agent_service_account: String,
    /// For whom agents' tokens are made out.
    pub audience: String,
    /// Where the tracker listens.
    pub tracker_listen: SocketAddr,
    /// Where metrics and probes are.
    pub admin_listen: SocketAddr,
}

/// A replica that runs.
pub struct Operator {
    admin_addr: SocketAddr,
    readiness: Readiness,
    serving: Condition,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Operator {
    /// Starts.
    ///
    /// # Errors
    /// One line that says what can't be had.
    pub async fn start(config: OperatorConfig, client: Client) -> Result<Self, StartError> {
        let readiness = Readiness::new();
        let [serving, nodes] = ["tracker", "nodes"].map(|name| readiness.condition(name));
        let metrics = Registry::default();
        let admin = Admin::new().metrics(metrics.into()).readiness(readiness.clone());
        let admin = admin.bind(config.admin_listen).await?;
        let admin_addr = admin.local_addr();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(admin.serve(stop.clone()));
        let all = kube::runtime::watcher::Config::default();
        let (_nodes, following) = Watched::<Node>::follow(Api::all(client), all, |_| {}, nodes);
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
        tasks.close();
        tracing::info!(pod = %config.pod_name, admin = %admin_addr, "the operator runs");
        Ok(Self { admin_addr, readiness, serving, tasks, stop })
    }

    /// Where metrics and probes are.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Whether it is ready.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Returns when a part has ended that shouldn't have. Cancel-safe.
    pub async fn failed(&mut self) -> StartError {
        self.tasks.wait().await;
        StartError::Ended("the operator")
    }

    /// Ends.
    pub async fn stop(self) {
        self.serving.fails("the operator is stopping");
        self.stop.cancel();
        self.tasks.wait().await;
        tracing::info!("the operator has stopped");
    }
}
