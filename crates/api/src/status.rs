//! What the operator tells of a Swarm.
//!
//! State: none. Bounded whatever the number of nodes: sums and one entry for each artifact.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Quantity;

/// How far a Swarm is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SwarmStatus {
    /// The generation of the specification that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The nodes that take part.
    pub nodes: NodesStatus,
    /// The pushed artifacts.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub artifacts: Vec<ArtifactStatus>,
    /// Where bytes came from.
    pub traffic: TrafficStatus,
    /// The same in a line, as `kubectl get` shows it.
    pub summary: SummaryStatus,
    /// Ready, Reconciling, Stalled, OriginDegraded, Conflict, MirrorBypassed, PeerBanned.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What `kubectl get` shows of a Swarm, whose columns are single values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct SummaryStatus {
    /// Ready nodes of those that the selector names: 39/40.
    pub nodes: String,
    /// Artifacts that every node has of all that are pushed: 1/2.
    pub artifacts: String,
    /// The share of bytes that didn't come from a registry: 97%; nothing before there are any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub saved: String,
}

impl SwarmStatus {
    /// With the summary of what it says.
    #[must_use]
    pub fn summarized(mut self) -> Self {
        let is_whole =
            |artifact: &&ArtifactStatus| !artifact.digest.is_empty() && artifact.complete >= artifact.desired;
        let complete = self.artifacts.iter().filter(is_whole).count();
        let TrafficStatus { from_peers, from_origin, saved_percent } = self.traffic;
        let moved = from_peers.bytes() > 0 || from_origin.bytes() > 0;
        self.summary = SummaryStatus {
            nodes: format!("{}/{}", self.nodes.ready, self.nodes.desired),
            artifacts: format!("{complete}/{}", self.artifacts.len()),
            saved: if moved { format!("{saved_percent}%") } else { String::new() },
        };
        self
    }
}

/// Nodes by their number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodesStatus {
    /// Nodes that the selector names.
    pub desired: u32,
    /// Nodes among them whose agent is ready.
    pub ready: u32,
}

/// How far an artifact is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// Its name in the specification.
    pub name: String,
    /// What was looked up: its reference then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// What that meant when it was looked up last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// The size of all its blobs.
    #[serde(default)]
    pub size: Quantity,
    /// Nodes that shall have it.
    #[serde(default)]
    pub desired: u32,
    /// Nodes that have it.
    #[serde(default)]
    pub complete: u32,
    /// Bytes that nodes gave each other.
    #[serde(default)]
    pub from_peers: Quantity,
    /// Bytes that the registry gave.
    #[serde(default)]
    pub from_origin: Quantity,
    /// When this digest's distribution began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub started_at: Option<String>,
    /// When all nodes had it for the first time; those that join later get it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub completed_at: Option<String>,
}

/// Where bytes came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficStatus {
    /// Bytes that nodes gave each other.
    pub from_peers: Quantity,
    /// Bytes that registries gave.
    pub from_origin: Quantity,
    /// Of a hundred bytes so many didn't come from a registry.
    pub saved_percent: u8,
}

/// One aspect of the Swarm's state, in Kubernetes' own form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the specification that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status changed last.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, as one constant word.
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It doesn't.
    False,
    /// Nobody knows yet.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_nodes_and_whole_artifacts() {
        let artifact = |complete| ArtifactStatus {
            name: "a".to_owned(),
            digest: "sha256:00".to_owned(),
            desired: 40,
            complete,
            ..ArtifactStatus::default()
        };
        let status = SwarmStatus {
            nodes: NodesStatus { desired: 40, ready: 39 },
            artifacts: vec![artifact(40), artifact(39)],
            ..SwarmStatus::default()
        };
        let shown = |status: SwarmStatus| {
            let SummaryStatus { nodes, artifacts, saved } = status.summarized().summary;
            [nodes, artifacts, saved]
        };
        assert_eq!(shown(status.clone()), ["39/40", "1/2", ""]);
        let from_peers = Quantity::from_bytes(97);
        let traffic = TrafficStatus { from_peers, saved_percent: 97, ..TrafficStatus::default() };
        assert_eq!(shown(SwarmStatus { traffic, ..status })[2], "97%");
    }
}
