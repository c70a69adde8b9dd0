//! One Swarm for people: what it is about, its conditions, its artifacts.
//!
//! State: none.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use shoal_api::kube::Swarm;
use shoal_api::{ArtifactStatus, Condition, ConditionStatus, SwarmStatus};

use crate::outlook::{artifact, is_bad_news, is_complete, is_current, percent};
use crate::table::{Cell, Table, Tone};
use crate::text;

pub(super) fn render(swarm: &Swarm, now: Timestamp, colourful: bool) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(page, "{:<10} {value}", format!("{name}:"));
    };
    line("Name", &swarm.name_any());
    line("Mode", &format!("{:?}", swarm.spec.mode));
    line("Age", &super::age(swarm, now));
    let Some(status) = &swarm.status else {
        line("Status", "none yet: is the operator running?");
        return page;
    };
    let SwarmStatus { nodes, traffic, .. } = status;
    line("Nodes", &format!("{} of {} ready", nodes.ready, nodes.desired));
    let (peers, origin) = (traffic.from_peers.bytes(), traffic.from_origin.bytes());
    if peers + origin > 0 {
        let (peers, origin) = (text::bytes(peers), text::bytes(origin));
        line("Traffic", &format!("{peers} from peers, {origin} from registries: {} % saved", traffic.saved_percent));
    }
    if !is_current(swarm) {
        line("Note", "the Swarm has changed since this status was written");
    }
    if !status.conditions.is_empty() {
        let _ = write!(page, "\n{}", conditions(&status.conditions, now).render(colourful));
    }
    if !swarm.spec.artifacts.is_empty() {
        let _ = write!(page, "\n{}", artifacts(swarm, now).render(colourful));
    }
    page
}

fn conditions(conditions: &[Condition], now: Timestamp) -> Table {
    let mut table = Table::new(&["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for condition in conditions {
        let status = Cell::new(format!("{:?}", condition.status)).toned(tone(condition));
        let since = text::between(text::time(&condition.last_transition_time), Some(now));
        table.row(vec![
            (&condition.kind).into(),
            status,
            since.into(),
            (&condition.reason).into(),
            (&condition.message).into(),
        ]);
    }
    table
}

/// Ready is good when it holds; what else there is, when it doesn't.
fn tone(condition: &Condition) -> Tone {
    match (condition.kind.as_str(), condition.status) {
        (_, ConditionStatus::Unknown) => Tone::Unclear,
        ("Ready", ConditionStatus::True) => Tone::Good,
        ("Ready", ConditionStatus::False) => Tone::Bad,
        _ if is_bad_news(condition) => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Those of the specification: one that the status doesn't have yet is there too.
fn artifacts(swarm: &Swarm, now: Timestamp) -> Table {
    let columns = ["ARTIFACT", "NODES", "DONE", "SIZE", "PEERS", "ORIGIN", "TOOK", "REFERENCE"];
    let mut table = Table::new(&columns);
    for pushed in &swarm.spec.artifacts {
        let known = artifact(swarm, &pushed.name);
        let shown = |of: fn(&ArtifactStatus) -> String| Cell::new(known.map(of).unwrap_or_default());
        let done = shown(|artifact| format!("{}%", percent(artifact)));
        table.row(vec![
            (&pushed.name).into(),
            shown(|artifact| format!("{}/{}", artifact.complete, artifact.desired)),
            if known.is_some_and(is_complete) { done.toned(Tone::Good) } else { done },
            shown(|artifact| text::bytes(artifact.size.bytes())),
            shown(|artifact| text::bytes(artifact.from_peers.bytes())),
            shown(|artifact| text::bytes(artifact.from_origin.bytes())),
            Cell::new(known.map(|artifact| took(artifact, now)).unwrap_or_default()),
            (&pushed.reference).into(),
        ]);
    }
    table
}

/// How long it took, or has taken so far.
fn took(artifact: &ArtifactStatus, now: Timestamp) -> String {
    let at = |time: &Option<String>| time.as_deref().and_then(text::time);
    match at(&artifact.completed_at) {
        Some(completed) => text::between(at(&artifact.started_at), Some(completed)),
        None if artifact.started_at.is_some() => format!("{}…", text::between(at(&artifact.started_at), Some(now))),
        None => String::new(),
    }
}
