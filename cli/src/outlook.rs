//! What a Swarm's status says about what is to come.
//!
//! State: none. Invariant: a status about an older generation than the object's says nothing about what is to come.

use kube::ResourceExt as _;
use shoal_api::kube::Swarm;
use shoal_api::{ArtifactStatus, Condition, ConditionStatus};

use crate::table::{Cell, Tone};

/// A Swarm is exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// All that it pushes is where it shall be.
    Ready,
    /// Nothing goes on before somebody mends something: the operator's word for it.
    Stalled(String),
    /// Neither, yet.
    Underway,
}

pub(crate) fn outlook(swarm: &Swarm) -> Outlook {
    let holds = |kind| condition(swarm, kind).filter(|condition| condition.status == ConditionStatus::True);
    if !is_current(swarm) {
        Outlook::Underway
    } else if holds("Ready").is_some() {
        Outlook::Ready
    } else if let (Some(stalled), None) = (holds("Stalled"), holds("Reconciling")) {
        Outlook::Stalled(format!("{}: {}", stalled.reason, stalled.message))
    } else {
        Outlook::Underway
    }
}

/// Whether the operator has seen the Swarm as it is now.
pub(crate) fn is_current(swarm: &Swarm) -> bool {
    let observed = swarm.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed >= swarm.metadata.generation
}

pub(crate) fn condition<'a>(swarm: &'a Swarm, kind: &str) -> Option<&'a Condition> {
    swarm.status.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
}

/// Whether a condition is bad news as it is: true of what should be false.
pub(crate) fn is_bad_news(condition: &Condition) -> bool {
    let kinds = ["Stalled", "OriginDegraded", "Conflict", "MirrorBypassed", "PeerBanned"];
    condition.status == ConditionStatus::True && kinds.contains(&condition.kind.as_str())
}

/// The Ready condition's status in a table.
pub(crate) fn ready_cell(swarm: &Swarm) -> Cell {
    match condition(swarm, "Ready").map(|ready| ready.status) {
        Some(ConditionStatus::True) => Cell::new("True").toned(Tone::Good),
        Some(ConditionStatus::False) => Cell::new("False").toned(Tone::Bad),
        Some(ConditionStatus::Unknown) => Cell::new("Unknown").toned(Tone::Unclear),
        None => Cell::new(""),
    }
}

pub(crate) fn artifacts(swarm: &Swarm) -> &[ArtifactStatus] {
    swarm.status.as_ref().map_or(&[], |status| &status.artifacts)
}

/// The artifact's part of the status, if there is one yet.
pub(crate) fn artifact<'a>(swarm: &'a Swarm, name: &str) -> Option<&'a ArtifactStatus> {
    artifacts(swarm).iter().find(|artifact| artifact.name == name)
}

pub(crate) const fn is_complete(artifact: &ArtifactStatus) -> bool {
    artifact.complete >= artifact.desired
}

/// How far an artifact is, of a hundred: by the bytes that have moved, and by the nodes that have it where those had some of it before. All of it only when every
/// node has it: bytes that were fetched twice don't make it whole.
pub(crate) fn percent(artifact: &ArtifactStatus) -> u64 {
    if is_complete(artifact) {
        return 100;
    }
    let share = |part: u128, whole: u128| (part * 100).checked_div(whole).unwrap_or(0);
    let moved = u128::from(artifact.from_peers.bytes()) + u128::from(artifact.from_origin.bytes());
    let wanted = u128::from(artifact.size.bytes()) * u128::from(artifact.desired);
    let by_nodes = share(artifact.complete.into(), artifact.desired.into());
    u64::try_from(share(moved, wanted).max(by_nodes).min(99)).unwrap_or(99)
}

/// `default/pytorch`.
pub(crate) fn label(swarm: &Swarm, artifact: &str) -> String {
    format!("{}/{artifact}", swarm.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_api::Quantity;

    use super::*;

    fn swarm(generation: i64, conditions: &[(&str, &str)]) -> Swarm {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| {
                let since = "2026-11-21T00:00:00Z";
                json!({"type": kind, "status": status, "reason": "Why", "message": "so", "lastTransitionTime": since})
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "shoal.dev/v1alpha1",
            "kind": "Swarm",
            "metadata": {"name": "a", "generation": generation},
            "spec": {},
            "status": {"observedGeneration": 2, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_status_about_this_generation_counts() {
        let stalled = Outlook::Stalled("Why: so".to_owned());
        for (generation, conditions, expected) in [
            (2, &[("Ready", "True")][..], Outlook::Ready),
            (3, &[("Ready", "True")], Outlook::Underway),
            (2, &[("Ready", "False"), ("Stalled", "True")], stalled),
            (3, &[("Ready", "False"), ("Stalled", "True")], Outlook::Underway),
            (2, &[("Stalled", "True"), ("Reconciling", "True")], Outlook::Underway),
            (2, &[("Ready", "False"), ("Stalled", "False")], Outlook::Underway),
            (2, &[], Outlook::Underway),
        ] {
            assert_eq!(outlook(&swarm(generation, conditions)), expected, "{generation} {conditions:?}");
        }
    }

    #[test]
    fn only_what_every_node_has_is_at_a_hundred() {
        let artifact = |complete, desired, moved| ArtifactStatus {
            name: "a".to_owned(),
            size: Quantity::from_bytes(100),
            desired,
            complete,
            from_peers: Quantity::from_bytes(moved),
            ..ArtifactStatus::default()
        };
        for (artifact, expected) in [
            (artifact(0, 4, 0), 0),
            (artifact(0, 4, 100), 25),
            (artifact(2, 4, 100), 50),
            (artifact(3, 4, 900), 99),
            (artifact(4, 4, 0), 100),
            (artifact(0, 4, u64::MAX), 99),
        ] {
            assert_eq!(percent(&artifact), expected, "{artifact:?}");
        }
        assert_eq!(percent(&ArtifactStatus { size: Quantity::default(), ..artifact(0, 4, 5) }), 0);
    }
}
