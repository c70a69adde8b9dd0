//! `kubectl swarm nodes`: which nodes take part in a Swarm, and what they lack for it.
//!
//! State: none. Invariant: an agent is known by its pod's labels, [`AGENTS`].
//! Absent on purpose: which node has which artifact. A Swarm's status counts nodes, so that it stays small; its `status` tells how many are missing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use shoal_api::LabelSelector;
use shoal_api::kube::Swarm;

use crate::access::{ask, list};
use crate::args::NodesArgs;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::table::{Cell, Table, Tone};

/// The labels of an agent's pod.
pub(crate) const AGENTS: &str = "app.kubernetes.io/name=shoal,app.kubernetes.io/component=agent";
/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A node that takes part.
#[derive(Debug, Serialize)]
pub(crate) struct Participant {
    pub(crate) name: String,
    zone: String,
    ready: bool,
    agent: Agent,
    #[serde(skip_serializing_if = "String::is_empty")]
    pod: String,
    /// One line for each thing that keeps it from having what is pushed.
    pub(crate) missing: Vec<String>,
}

/// What is known of a node's agent: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Agent {
    Ready,
    NotReady,
    Missing,
}

pub(crate) async fn run(args: &NodesArgs, client: Client) -> Result<(), Failure> {
    let name = &args.name;
    let swarm = Api::<Swarm>::all(client.clone());
    let swarm = ask(&format!("Swarm {name}"), swarm.get(name)).await?;
    let nodes = list("nodes", &Api::<Node>::all(client.clone()), ListParams::default()).await?;
    let pods: Api<Pod> = match &args.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let pods = list("the agents' pods (see --namespace)", &pods, ListParams::default().labels(AGENTS)).await?;
    let participants = participants(&swarm.spec.node_selector, &nodes, &pods);
    match args.output {
        Some(Format::Name) => {
            let names: String = participants.iter().map(|node| format!("node/{}\n", node.name)).collect();
            output::print(&names)
        }
        Some(Format::Json) => output::print(&output::json(&json!({"swarm": name, "nodes": participants}))?),
        Some(Format::Yaml) => output::print(&output::yaml(&json!({"swarm": name, "nodes": participants}))?),
        _ if participants.is_empty() => {
            eprintln!("None of {} nodes has the labels of Swarm {name}'s nodeSelector.", nodes.len());
            Ok(())
        }
        format => output::print(&table(&participants, format.is_some()).render(output::is_colourful())),
    }
}

/// The nodes with the labels that the Swarm asks for, by name.
pub(crate) fn participants(selector: &LabelSelector, nodes: &[Node], pods: &[Pod]) -> Vec<Participant> {
    let mut agents: BTreeMap<&str, &Pod> = BTreeMap::new();
    for pod in pods {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
        let known = agents.entry(node).or_insert(pod);
        // While one is replaced there are two.
        if is_ready_pod(pod) {
            *known = pod;
        }
    }
    let meant = nodes.iter().filter(|node| selector.matches(node.labels()));
    let mut participants: Vec<Participant> = meant
        .map(|node| {
            let (name, ready) = (node.name_any(), is_ready_node(node));
            let pod = agents.get(name.as_str()).copied();
            let agent = match pod {
                Some(pod) if is_ready_pod(pod) => Agent::Ready,
                Some(_) => Agent::NotReady,
                None => Agent::Missing,
            };
            let of_agent = match (agent, pod) {
                (Agent::NotReady, Some(pod)) => Some(format!("its agent isn't ready: {}", trouble(pod))),
                (Agent::Missing, _) => Some("no agent's pod".to_owned()),
                _ => None,
            };
            let of_node = (!ready).then(|| "the node isn't ready".to_owned());
            let full_name = |pod: &Pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            Participant {
                zone: node.labels().get(ZONE).cloned().unwrap_or_default(),
                name,
                ready,
                agent,
                pod: pod.map(full_name).unwrap_or_default(),
                missing: of_node.into_iter().chain(of_agent).collect(),
            }
        })
        .collect();
    participants.sort_by(|one, other| one.name.cmp(&other.name));
    participants
}

fn is_ready_node(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn is_ready_pod(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why a pod isn't ready, in a word of the kubelet's: CrashLoopBackOff, ImagePullBackOff, else the pod's phase.
pub(crate) fn trouble(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone()).next();
    waiting.or_else(|| status?.phase.clone()).unwrap_or_else(|| "Pending".to_owned())
}

fn table(participants: &[Participant], wide: bool) -> Table {
    let columns = ["NODE", "ZONE", "READY", "AGENT", "MISSING", "POD"];
    let shown = if wide { columns.len() } else { columns.len() - 1 };
    let mut table = Table::new(&columns[..shown]);
    for node in participants {
        let tone = |good: bool| if good { Tone::Good } else { Tone::Bad };
        let mut cells: Vec<Cell> = vec![
            (&node.name).into(),
            (&node.zone).into(),
            Cell::new(if node.ready { "True" } else { "False" }).toned(tone(node.ready)),
            Cell::new(format!("{:?}", node.agent)).toned(tone(node.agent == Agent::Ready)),
            node.missing.join("; ").into(),
            (&node.pod).into(),
        ];
        cells.truncate(shown);
        table.row(cells);
    }
    table
}
