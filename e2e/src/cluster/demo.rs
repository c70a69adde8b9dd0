//! `cargo xtask demo --cluster`: an image on all nodes of a cluster, from the registry alone and through Shoal, by the kubelets' own clocks.
//!
//! ```text
//!   cluster ──> a DaemonSet, direct ──> helm install ──> the same with another image ──> helm uninstall ──> the table
//! ```
//!
//! State: a cluster of its own, which ends with the command. Invariant: both images are new to every node, and of the same size.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Cluster, Options, Programs};
use crate::ending::or_interrupted;
use crate::units::Size;

/// What a pull may take at the most: the registry's link is the narrowest place.
const WITHIN: Duration = Duration::from_secs(1_800);
const LOOK: Duration = Duration::from_millis(100);
const LAYERS: u32 = 4;

/// What is shown.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// The cluster. Without a rate the demo shapes links to 200mbit: one machine's loopback has no bottleneck to share.
    #[command(flatten)]
    cluster: Options,
    /// The image's size.
    #[arg(long, default_value = "256MiB")]
    size: Size,
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// How a distribution went.
#[derive(Debug, Serialize)]
struct Distribution {
    /// From when the first kubelet began to pull until the last one had pulled.
    all_pulled_seconds: f64,
    /// The longest pull, by its kubelet's clock.
    longest_pull_seconds: f64,
    /// Until the last one had pulled, against the bound of one copy over the registry's link.
    ratio_to_one_copy: f64,
    /// What the registry's link carried, in copies of the image.
    origin_copies: f64,
}

/// Runs it.
///
/// # Errors
/// If something of it fails.
pub async fn demo(options: &DemoOptions) -> Result<()> {
    let mut cluster = options.cluster.clone();
    let rate = *cluster.rate.get_or_insert("200mbit".parse().map_err(anyhow::Error::msg)?);
    let programs = Programs::get(cluster.containerd)?;
    or_interrupted(Box::pin(async {
        eprintln!("a cluster with {} nodes, links of {rate} …", cluster.nodes);
        let mut cluster = Cluster::start(&cluster, &programs).await?;
        eprintln!("a DaemonSet's image of {} from the registry alone …", options.size);
        let direct = distribute(&mut cluster, "direct", options.size, rate.bytes_per_second(), 1).await?;
        eprintln!("helm install …");
        cluster.install_shoal().await?;
        eprintln!("the same through Shoal …");
        let shoal = distribute(&mut cluster, "shoal", options.size, rate.bytes_per_second(), 2).await?;
        eprintln!("helm uninstall …");
        cluster.uninstall_shoal().await?;
        cluster.stop().await;
        if options.json {
            println!("{}", json!({"direct": direct, "shoal": shoal}));
        } else {
            println!("{:<10}{:>16}{:>18}{:>18}{:>16}", "", "all pulled, s", "longest pull, s", "x one copy", "origin copies");
            for (name, distribution) in [("direct", &direct), ("Shoal", &shoal)] {
                let Distribution { all_pulled_seconds, longest_pull_seconds, ratio_to_one_copy, origin_copies } =
                    distribution;
                println!("{name:<10}{all_pulled_seconds:>16.1}{longest_pull_seconds:>18.1}{ratio_to_one_copy:>18.2}{origin_copies:>16.2}");
            }
            println!("through Shoal / direct: {:.2}", shoal.all_pulled_seconds / direct.all_pulled_seconds);
        }
        Ok(())
    }))
    .await
}

async fn distribute(cluster: &mut Cluster, name: &str, size: Size, rate: u64, seed: u64) -> Result<Distribution> {
    cluster.store(&format!("demo/{name}"), "1", &size.split(LAYERS), seed)?;
    let image = cluster.image(&format!("demo/{name}:1"));
    let (client, nodes, before) = (cluster.client().await?, cluster.nodes.len(), cluster.origin_bytes()?);
    let (all, longest) = cluster.during(pull_everywhere(client, name, &image, nodes)).await?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (copies, copy) =
        ((cluster.origin_bytes()? - before) as f64 / size.bytes() as f64, size.bytes() as f64 / rate as f64);
    Ok(Distribution {
        all_pulled_seconds: all,
        longest_pull_seconds: longest,
        ratio_to_one_copy: all / copy,
        origin_copies: copies,
    })
}

/// Has all nodes run the image; how long it took them from the first one's beginning to the last one's end, and the slowest of them.
async fn pull_everywhere(client: Client, name: &str, image: &str, nodes: usize) -> Result<(f64, f64)> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), "default");
    let labels = json!({"app": name});
    let pod = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": image}]});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    });
    sets.patch(name, &PatchParams::apply("shoal-demo"), &Patch::Apply(set)).await.context("no DaemonSet")?;
    let events: Api<Event> = Api::namespaced(client, "default");
    let began = Instant::now();
    // By event: when it was seen, and how long the kubelet says that it pulled. Kubelets don't begin at the same moment.
    let mut pulls: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    loop {
        let pulled = events.list(&ListParams::default().fields("reason=Pulled")).await.context("no events")?;
        let seen = began.elapsed().as_secs_f64();
        for event in pulled {
            let message = event.message.as_deref().filter(|text| text.contains(image));
            if let (Some(uid), Some(took)) = (event.metadata.uid, message.and_then(pull_seconds)) {
                pulls.entry(uid).or_insert((seen, took));
            }
        }
        if pulls.len() >= nodes {
            break;
        }
        ensure!(began.elapsed() < WITHIN, "{} of {nodes} nodes have {image} after {WITHIN:?}", pulls.len());
        sleep(LOOK).await;
    }
    sets.delete(name, &DeleteParams::default()).await.context("the DaemonSet stays")?;
    let first = pulls.values().map(|(seen, took)| seen - took).fold(f64::INFINITY, f64::min);
    let last = pulls.values().map(|(seen, _)| *seen).fold(0.0, f64::max);
    Ok((last - first, pulls.values().map(|(_, took)| *took).fold(0.0, f64::max)))
}

/// "Successfully pulled image "…" in 1m2.5s (1m2.5s including waiting). Image size: …": Go's way to write a duration.
fn pull_seconds(message: &str) -> Option<f64> {
    let (_, rest) = message.rsplit_once("\" in ")?;
    let (duration, _) = rest.split_once(' ')?;
    if let Some(milliseconds) = duration.strip_suffix("ms") {
        return Some(milliseconds.parse::<f64>().ok()? / 1e3);
    }
    let (minutes, seconds) = duration.strip_suffix('s')?.split_once('m').unwrap_or(("0", duration.strip_suffix('s')?));
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_times_are_read() {
        for (written, seconds) in [("30.453s", 30.453), ("1m2.5s", 62.5), ("812ms", 0.812), ("2m0s", 120.0)] {
            let message = format!(
                "Successfully pulled image \"10.77.0.2:5000/a:1\" in {written} ({written} including waiting). Image size: 5 bytes."
            );
            assert_eq!(pull_seconds(&message), Some(seconds), "{written}");
        }
        assert_eq!(pull_seconds("Container image \"a\" already present on machine"), None);
    }
}
