//! Shoal in a cluster: the chart of this checkout, with the programs that are built beside this one.
//!
//! State: what helm keeps in the cluster.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{Cluster, PATIENCE};

const CHART: &str = "../charts/shoal";
const RELEASE: &str = "shoal";
const NAMESPACE: &str = "shoal-system";
const TAG: &str = "built-here";

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
    pub async fn install_shoal_with(&mut self, further: &Value) -> Result<()> {
        let registry = self.registry_host();
        let endpoint = format!("http://{registry}");
        let values = json!({
            "image": {"registry": self.store_shoal(TAG)?, "tag": TAG},
            "runtime": {"hosts": {"registries": [format!("{registry}={endpoint}")]}},
            // Nodes share the machine's memory as their disk.
            "agent": {"keepFree": 1},
            "defaultSwarm": {"spec": {"registries": [{"host": registry, "endpoint": endpoint, "access": "Public"}]}},
        });
        let written = |name: &str, values: &Value| {
            let file = self.directory().join(name);
            fs::write(&file, values.to_string()).context("the chart's values can't be written")?;
            anyhow::Ok(file.display().to_string())
        };
        let [values, further] = [written("values.yaml", &values)?, written("further-values.yaml", further)?];
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).display().to_string();
        let install = ["install", RELEASE, &chart, "--namespace", NAMESPACE, "--create-namespace"];
        self.helm(&[&install[..], &["--values", &values, "--values", &further]].concat())?;
        let client = self.client().await?;
        let agents: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
        let operators: Api<Deployment> = Api::namespaced(client, NAMESPACE);
        let nodes = i32::try_from(self.nodes.len())?;
        let are_ready = async || {
            let (Ok(agents), Ok(operators)) = (agents.get("shoal-agent").await, operators.get("shoal-operator").await)
            else {
                return false;
            };
            let ready = operators.status.unwrap_or_default().ready_replicas.unwrap_or_default();
            agents.status.unwrap_or_default().number_ready == nodes
                && Some(ready) == operators.spec.and_then(|spec| spec.replicas)
        };
        self.fleet.until("Shoal", PATIENCE, are_ready).await
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
}
