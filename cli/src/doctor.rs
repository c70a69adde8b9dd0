//! `kubectl swarm doctor`: what keeps Shoal from serving pulls, and what to do about it.
//!
//! ```text
//!   operator's pods, agents' pods, nodes, Swarms ──> findings, a line each: what was looked at, and what is wrong with it
//! ```
//!
//! State: none. Invariants: everything is looked at, whatever is found first; nothing is changed. What runtimes are configured for is their agents' word,
//! which the Swarms' conditions have.
//! Absent on purpose: looking at nodes themselves, which takes rights that a user of the cluster doesn't have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use shoal_api::kube::Swarm;

use crate::access::list;
use crate::args::{DoctorArgs, Document};
use crate::failure::{Failure, one_line};
use crate::nodes::{AGENTS, is_ready_pod, participants, trouble};
use crate::outlook::is_bad_news;
use crate::output;

const OPERATORS: &str = "app.kubernetes.io/name=shoal,app.kubernetes.io/component=operator";
/// Nodes that are named of each trouble.
const NAMED: usize = 5;

/// What was looked at, and what is wrong with it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    about: String,
    /// None, if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
}

impl Finding {
    fn good(about: impl Into<String>) -> Self {
        Self { about: about.into(), wrong: None }
    }

    fn bad(about: impl Into<String>, wrong: impl Into<String>) -> Self {
        Self { about: about.into(), wrong: Some(one_line(&wrong.into())) }
    }
}

pub(crate) async fn run(args: &DoctorArgs, client: Client) -> Result<(), Failure> {
    let pods: Api<Pod> = match &args.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let swarms = list("Swarms", &Api::<Swarm>::all(client.clone()), ListParams::default()).await?;
    let nodes = list("nodes", &Api::<Node>::all(client), ListParams::default()).await?;
    let operators =
        list("the operator's pods (see --namespace)", &pods, ListParams::default().labels(OPERATORS)).await?;
    let agents = list("the agents' pods (see --namespace)", &pods, ListParams::default().labels(AGENTS)).await?;
    let findings: Vec<Finding> = std::iter::once(of_operator(&operators))
        .chain(of_swarms(&swarms))
        .chain(of_agents(&swarms, &nodes, &agents))
        .collect();
    let wrong = findings.iter().filter(|finding| finding.wrong.is_some()).count();
    let document = || json!({"healthy": wrong == 0, "findings": findings});
    match args.output {
        Some(Document::Json) => output::print(&output::json(&document())?)?,
        Some(Document::Yaml) => output::print(&output::yaml(&document())?)?,
        None => output::print(&page(&findings))?,
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is wrong: see above".to_owned())),
        many => Err(Failure::Failed(format!("{many} things are wrong: see above"))),
    }
}

fn page(findings: &[Finding]) -> String {
    let mut page = String::new();
    for Finding { about, wrong } in findings {
        let _ = match wrong {
            None => writeln!(page, "ok     {about}"),
            Some(wrong) => writeln!(page, "WRONG  {about}: {wrong}"),
        };
    }
    page
}

fn of_operator(pods: &[Pod]) -> Finding {
    let ready = pods.iter().filter(|pod| is_ready_pod(pod)).count();
    match pods.iter().find(|pod| !is_ready_pod(pod)) {
        None if pods.is_empty() => Finding::bad(
            "operator",
            "it has no pod: install Shoal's chart, or scale its Deployment up; agents work on without it, nothing new is pushed",
        ),
        None => Finding::good(format!("operator: {ready} of {} pods are ready", pods.len())),
        Some(pod) => {
            let (why, namespace, name) = (trouble(pod), pod.namespace().unwrap_or_default(), pod.name_any());
            let see =
                format!("{ready} of {} pods are ready ({why}): kubectl -n {namespace} describe pod {name}", pods.len());
            Finding::bad("operator", see)
        }
    }
}

fn of_swarms(swarms: &[Swarm]) -> Vec<Finding> {
    if swarms.is_empty() {
        return vec![Finding::bad(
            "Swarms",
            "there is none, so the mirror serves nothing: apply one (registries: [{host: \"*\"}])",
        )];
    }
    let mut findings = Vec::new();
    for swarm in swarms {
        let about = format!("Swarm {}", swarm.name_any());
        let conditions = swarm.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let before = findings.len();
        if conditions.is_empty() {
            findings.push(Finding::bad(about.as_str(), "it has no status: no operator leads; see the operator's log"));
        }
        let bad = conditions.iter().filter(|condition| is_bad_news(condition));
        findings.extend(bad.map(|condition| {
            Finding::bad(about.as_str(), format!("{} ({}): {}", condition.kind, condition.reason, condition.message))
        }));
        if findings.len() == before {
            findings.push(Finding::good(about));
        }
    }
    findings
}

/// Of all nodes that some Swarm is for, by what they lack.
fn of_agents(swarms: &[Swarm], nodes: &[Node], pods: &[Pod]) -> Vec<Finding> {
    let participants: BTreeMap<String, Vec<String>> = swarms
        .iter()
        .flat_map(|swarm| participants(&swarm.spec.node_selector, nodes, pods))
        .map(|node| (node.name, node.missing))
        .collect();
    let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, missing) in &participants {
        missing.iter().for_each(|what| lacking.entry(what).or_default().push(name));
    }
    let fine = participants.values().filter(|missing| missing.is_empty()).count();
    let have_one = format!("{fine} of {} nodes have one that is ready", participants.len());
    let mut findings = vec![match fine == participants.len() {
        true => Finding::good(format!("agents: {have_one}")),
        false => Finding::bad("agents", have_one),
    }];
    findings.extend(lacking.into_iter().map(|(what, names)| {
        let more = names.len().saturating_sub(NAMED);
        let named = names[..names.len() - more].join(", ");
        let and = if more > 0 { format!(" and {more} more nodes") } else { String::new() };
        Finding::bad(
            format!("{named}{and}"),
            format!("{what}: see `kubectl describe` of the node and of its agent's pod"),
        )
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn pod(component: &str, node: &str, ready: &str) -> Pod {
        read(json!({
            "metadata": {"name": format!("{component}-{node}"), "namespace": "shoal-system"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn swarm(conditions: &serde_json::Value) -> Swarm {
        read(json!({
            "apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "default"},
            "spec": {"registries": [{"host": "*"}]}, "status": {"conditions": conditions},
        }))
    }

    fn condition(kind: &str, status: &str) -> serde_json::Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "look here", "lastTransitionTime": "2026-11-22T00:00:00Z"})
    }

    #[test]
    fn where_nothing_is_wrong_everything_is_ok() {
        let node: Node =
            read(json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let swarms = [swarm(&json!([condition("Ready", "True"), condition("Stalled", "False")]))];
        let mut findings = vec![of_operator(&[pod("operator", "n1", "True")])];
        findings.extend(of_swarms(&swarms));
        findings.extend(of_agents(&swarms, &[node], &[pod("agent", "n1", "True")]));
        assert!(findings.iter().all(|finding| finding.wrong.is_none()), "{findings:?}");
        let page = page(&findings);
        assert_eq!(page.lines().filter(|line| line.starts_with("ok     ")).count(), 3, "{page}");
    }

    #[test]
    fn what_is_wrong_is_said_with_a_remedy() {
        let node = |name: &str| -> Node {
            read(json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        };
        let swarms = [swarm(&json!([condition("MirrorBypassed", "True")]))];
        let nodes: Vec<Node> = (1..=7).map(|number| node(&format!("n{number}"))).collect();
        let mut findings = vec![of_operator(&[]), of_operator(&[pod("operator", "n1", "False")])];
        findings.extend(of_swarms(&[]));
        findings.extend(of_swarms(&swarms));
        findings.extend(of_agents(&swarms, &nodes, &[pod("agent", "n1", "True")]));
        assert!(findings.iter().all(|finding| finding.wrong.is_some()), "{findings:?}");
        let page = page(&findings);
        for line in [
            "WRONG  Swarm default: MirrorBypassed (R): look here",
            "WRONG  agents: 1 of 7 nodes have one that is ready",
            "WRONG  n2, n3, n4, n5, n6 and 1 more nodes: no agent's pod",
            "kubectl -n shoal-system describe pod operator-n1",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }
}
