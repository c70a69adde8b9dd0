//! Shoal in a cluster: the chart of this checkout, with the programs that are built beside this one.
//!
//! State: what helm keeps in the cluster. Invariant: an upgrade says all values anew, so nothing of the values before it stays.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Cluster, PATIENCE};
use crate::tools;

const CHART: &str = "../charts/shoal";
const RELEASE: &str = "shoal";
const NAMESPACE: &str = "shoal-system";
const TAG: &str = "built-here";
const AGENTS: &str = "shoal-agent";
const OPERATORS: &str = "shoal-operator";
const LOOK: Duration = Duration::from_millis(100);

impl Cluster {
    /// Installs it, with a Swarm for the cluster's registry, and waits until operators and agents are ready.
    ///
    /// # Errors
    /// helm's own words, or that it doesn't become ready.
    pub async fn install_shoal(&mut self) -> Result<()> {
        self.install_shoal_with(&json!({})).await
    }

    /// The same with further values of the chart. They go before those that this gives, as helm's later files do: lists are taken whole.
    ///
    /// # Errors
    /// helm's own words, or that it doesn't become ready.
    pub async fn install_shoal_with(&mut self, values: &Value) -> Result<()> {
        self.store_shoal(TAG)?;
        let installing = self.shoal("install", &["--create-namespace"], values).await?;
        self.fleet.during(installing).await
    }

    /// Changes the installation to these values. The future is its own, so that other things can happen meanwhile; it ends when everything has been
    /// replaced that has to be, and is ready.
    ///
    /// # Errors
    /// If the values can't be written; the future's: helm's own words, or that it doesn't become ready.
    pub async fn upgrade_shoal(&self, values: &Value) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
        self.shoal("upgrade", &[], values).await
    }

    /// Uninstalls it, and waits until its pods have ended: helm doesn't, and what agents put back they put back as they end.
    ///
    /// # Errors
    /// helm's own words, or that pods stay.
    pub async fn uninstall_shoal(&mut self) -> Result<()> {
        self.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"])?;
        let pods: Api<Pod> = Api::namespaced(self.client().await?, NAMESPACE);
        let are_gone = async || pods.list(&ListParams::default()).await.is_ok_and(|pods| pods.items.is_empty());
        self.fleet.until("Shoal's end", PATIENCE, are_gone).await
    }

    /// Has so many replicas of the operator, without waiting for it.
    ///
    /// # Errors
    /// The API server's.
    pub async fn scale_operator(&self, replicas: u32) -> Result<()> {
        let operators: Api<Deployment> = Api::namespaced(self.client().await?, NAMESPACE);
        let scale = json!({"spec": {"replicas": replicas}});
        operators.patch_scale(OPERATORS, &PatchParams::default(), &Patch::Merge(scale)).await?;
        Ok(())
    }

    /// The pods of an installation.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub async fn shoal_pods(&self) -> Result<Api<Pod>> {
        Ok(Api::namespaced(self.client().await?, NAMESPACE))
    }

    /// Ends the process of a node's agent as a crash would. Whether there was one.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn crash_agent(&self, node: u8) -> Result<bool> {
        let processes = self.cgroups.processes(&self.node(node)?.name);
        Ok(processes.into_iter().find(is_agent).is_some_and(super::cgroups::Process::kill))
    }

    /// helm's command on the release, and the wait for what it leads to.
    async fn shoal(
        &self,
        verb: &str,
        flags: &[&str],
        further: &Value,
    ) -> Result<impl Future<Output = Result<()>> + Send + use<>> {
        let written = |name: &str, values: &Value| {
            let file = self.directory().join(name);
            fs::write(&file, values.to_string()).context("the chart's values can't be written")?;
            anyhow::Ok(file.display().to_string())
        };
        let [given, further] = [written("values.yaml", &self.values())?, written("further-values.yaml", further)?];
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).display().to_string();
        let arguments = [verb, RELEASE, &chart, "--namespace", NAMESPACE, "--values", &given, "--values", &further];
        let mut helm = self.helm_command(&[&arguments, flags].concat())?;
        let (client, nodes) = (self.client().await?, i32::try_from(self.nodes.len())?);
        Ok(async move {
            tokio::task::spawn_blocking(move || tools::run(&mut helm, "read what helm says")).await??;
            ready(client, nodes).await
        })
    }

    fn values(&self) -> Value {
        let registry = self.registry_host();
        let endpoint = format!("http://{registry}");
        json!({
            "image": {"registry": self.image(super::SHOAL), "tag": TAG},
            "runtime": {"hosts": {"registries": [format!("{registry}={endpoint}")]}},
            // Nodes share the machine's memory as their disk.
            "agent": {"keepFree": 1},
            "defaultSwarm": {"spec": {"registries": [{"host": registry, "endpoint": endpoint, "access": "Public"}]}},
        })
    }
}

/// Waits until all of it is of the newest kind, and ready.
async fn ready(client: Client, nodes: i32) -> Result<()> {
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let operators: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    let deadline = Instant::now() + PATIENCE;
    while !(are_agents_ready(&agents, nodes).await && are_operators_ready(&operators).await) {
        ensure!(Instant::now() < deadline, "Shoal isn't ready after {} s", PATIENCE.as_secs());
        sleep(LOOK).await;
    }
    Ok(())
}

async fn are_agents_ready(agents: &Api<DaemonSet>, nodes: i32) -> bool {
    let Ok(DaemonSet { metadata, status: Some(status), .. }) = agents.get(AGENTS).await else { return false };
    let ready = status.observed_generation == metadata.generation && status.updated_number_scheduled == Some(nodes);
    ready && status.number_ready == nodes
}

async fn are_operators_ready(operators: &Api<Deployment>) -> bool {
    let Ok(Deployment { metadata, spec: Some(spec), status: Some(status) }) = operators.get(OPERATORS).await else {
        return false;
    };
    let all =
        [status.replicas, status.updated_replicas, status.ready_replicas].iter().all(|have| *have == spec.replicas);
    all && status.observed_generation == metadata.generation
}

/// Not the container beside it, which is the same program.
fn is_agent(process: &super::cgroups::Process) -> bool {
    matches!(process.command(), [program, verb, ..] if program.ends_with("/shoal-agent") && verb == "run")
}
