//! What a node tells of itself: how far the artifacts are that it is to have, and how many bytes it has moved.
//!
//! ```text
//! agent ── POST report, to every replica ──> Reports ──> Handle::reports ──> whoever embeds the server
//! ```
//!
//! State: the last report of each node.
//! Invariants: a report is its sender's, by the certificate; one that can't be read, is too long or names another node changes nothing. All of them
//! together take [`ServerLimits::report_bytes`](crate::ServerLimits) at most.
//! Absent on purpose: what the figures mean for a Swarm, and whether they are true: a node's word moves nothing but what people are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_types::{Digest, NodeId};
use shoal_wire::NodeName;
use tokio::sync::watch;
use tokio::time::Instant;

/// The longest report: [`MAX_ARTIFACTS`] with names of usual length, every one of them failed.
pub const MAX_REPORT_BYTES: usize = 256 << 10;
/// Artifacts in one report.
pub const MAX_ARTIFACTS: usize = 512;
/// The longest reason, in bytes: a line.
pub const MAX_REASON_BYTES: usize = 300;
/// The longest problem, in bytes: a line that says what to do.
pub const MAX_PROBLEM_BYTES: usize = 600;
/// Nodes in one report that are refused: a cluster with more liars has other troubles.
pub const MAX_BANNED: usize = 16;
/// A node reports once a minute at least. One that has missed two of these is gone.
const LIVE_FOR: Duration = Duration::from_secs(150);

/// What a node reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes since the agent's start.
    pub traffic: TrafficReport,
    /// The artifacts that it is to have.
    pub artifacts: Vec<ArtifactReport>,
    /// Why its runtime pulls past the mirror, and what to do about it, in a line.
    pub bypass: Option<String>,
    /// Nodes that it refuses for good, because of what they send: [`MAX_BANNED`] at most.
    pub banned: Vec<NodeId>,
}

/// Bytes since an agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficReport {
    /// That came from other nodes.
    pub from_peers: u64,
    /// That went to other nodes.
    pub to_peers: u64,
    /// That came from registries.
    pub from_origin: u64,
}

/// How far an artifact is on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactReport {
    /// Its Swarm.
    pub swarm: String,
    /// Its name in the Swarm.
    pub name: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// How far it is.
    pub state: ArtifactState,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// All bytes; none before the manifest is here.
    pub total_bytes: u64,
    /// Bytes of it that other nodes gave since the agent's start.
    pub from_peers: u64,
    /// Bytes of it that the registry gave since the agent's start.
    pub from_origin: u64,
}

/// How far an artifact is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactState {
    /// It has to wait for others.
    Waiting,
    /// It is coming.
    Fetching,
    /// All of it is here.
    Complete,
    /// It didn't come, for this reason; it is tried again.
    Failed(String),
}

/// A node's last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Whose, by its certificate.
    pub node: NodeName,
    /// What it says.
    pub report: Arc<Report>,
}

/// Why a report isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    /// It isn't one.
    #[error("{0}")]
    Malformed(String),
    /// It names another node than its sender's certificate.
    #[error("{0} isn't the node of this certificate")]
    Foreign(String),
}

#[derive(Serialize, Deserialize)]
struct ReportText {
    node: String,
    traffic: TrafficReport,
    artifacts: Vec<ArtifactText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bypass: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    banned: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ArtifactText {
    swarm: String,
    name: String,
    digest: String,
    state: StateText,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    done: u64,
    total: u64,
    from_peers: u64,
    from_origin: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum StateText {
    Waiting,
    Fetching,
    Complete,
    Failed,
}

impl Report {
    /// As it is sent.
    pub(crate) fn to_json(&self, node: &NodeName) -> Vec<u8> {
        let text = ReportText {
            node: node.to_string(),
            traffic: self.traffic,
            artifacts: self.artifacts.iter().map(ArtifactText::from).collect(),
            bypass: self.bypass.clone(),
            banned: self.banned.iter().map(NodeId::to_string).collect(),
        };
        serde_json::to_vec(&text).expect("it has texts, numbers and lists")
    }

    /// Reads what this node has sent.
    pub(crate) fn parse(json: &[u8], sender: &NodeName) -> Result<Self, ReportError> {
        let malformed = |why: String| ReportError::Malformed(why);
        let text: ReportText = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if text.node != sender.as_str() {
            return Err(ReportError::Foreign(text.node.chars().take(64).collect()));
        }
        if text.artifacts.len() > MAX_ARTIFACTS {
            return Err(malformed(format!("{} artifacts (at most {MAX_ARTIFACTS})", text.artifacts.len())));
        }
        if text.bypass.as_ref().is_some_and(|words| !is_line(words, MAX_PROBLEM_BYTES)) {
            return Err(malformed("what it says of its runtime isn't a line".to_owned()));
        }
        if text.banned.len() > MAX_BANNED {
            return Err(malformed(format!("{} nodes refused (at most {MAX_BANNED})", text.banned.len())));
        }
        let banned = text.banned.iter().map(|id| node_id(id));
        let banned =
            banned.collect::<Option<_>>().ok_or_else(|| malformed("whom it refuses isn't a node".to_owned()))?;
        let mut seen = BTreeSet::new();
        let mut artifacts = Vec::with_capacity(text.artifacts.len());
        for (at, artifact) in text.artifacts.into_iter().enumerate() {
            let artifact = artifact.parse().map_err(|why| malformed(format!("artifact {at}: {why}")))?;
            if !seen.insert((artifact.swarm.clone(), artifact.name.clone())) {
                return Err(malformed(format!("artifact {at} is there twice")));
            }
            artifacts.push(artifact);
        }
        Ok(Self { traffic: text.traffic, artifacts, bypass: text.bypass, banned })
    }
}

impl From<&ArtifactReport> for ArtifactText {
    fn from(artifact: &ArtifactReport) -> Self {
        let (state, reason) = match &artifact.state {
            ArtifactState::Waiting => (StateText::Waiting, ""),
            ArtifactState::Fetching => (StateText::Fetching, ""),
            ArtifactState::Complete => (StateText::Complete, ""),
            ArtifactState::Failed(reason) => (StateText::Failed, reason.as_str()),
        };
        Self {
            swarm: artifact.swarm.clone(),
            name: artifact.name.clone(),
            digest: artifact.digest.to_string(),
            state,
            reason: reason.to_owned(),
            done: artifact.done_bytes,
            total: artifact.total_bytes,
            from_peers: artifact.from_peers,
            from_origin: artifact.from_origin,
        }
    }
}

impl ArtifactText {
    fn parse(self) -> Result<ArtifactReport, &'static str> {
        // The names' grammar is the Swarm's; here they only must be short enough to keep.
        if !is_line(&self.swarm, 253) || !is_line(&self.name, 63) {
            return Err("its name can't be one");
        }
        if self.done > self.total || (self.state == StateText::Complete && self.done < self.total) {
            return Err("its bytes contradict each other");
        }
        let state = match self.state {
            StateText::Failed if is_line(&self.reason, MAX_REASON_BYTES) => ArtifactState::Failed(self.reason),
            StateText::Failed => return Err("its reason isn't a line"),
            _ if !self.reason.is_empty() => return Err("it has a reason and hasn't failed"),
            StateText::Waiting => ArtifactState::Waiting,
            StateText::Fetching => ArtifactState::Fetching,
            StateText::Complete => ArtifactState::Complete,
        };
        Ok(ArtifactReport {
            swarm: self.swarm,
            name: self.name,
            digest: self.digest.parse().map_err(|_| "its digest isn't one")?,
            state,
            done_bytes: self.done,
            total_bytes: self.total,
            from_peers: self.from_peers,
            from_origin: self.from_origin,
        })
    }
}

/// As nodes' identities are written.
fn node_id(text: &str) -> Option<NodeId> {
    let is_one = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| is_one).map(NodeId::new)
}

fn is_line(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.chars().all(|c| !c.is_control())
}

/// The last reports.
#[derive(Debug)]
pub(crate) struct Reports {
    kept: Mutex<Kept>,
    max_bytes: usize,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    by_node: BTreeMap<NodeId, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    report: NodeReport,
    bytes: usize,
    at: Instant,
}

/// There is no room for another report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Reports {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { kept: Mutex::default(), max_bytes, changes: watch::Sender::new(0) }
    }

    /// Takes a node's report of so many bytes in the place of its last one.
    pub(crate) fn take(&self, node: NodeId, report: NodeReport, bytes: usize) -> Result<(), NoRoom> {
        let mut kept = self.kept();
        let before = kept.by_node.get(&node).map_or(0, |entry| entry.bytes);
        if kept.bytes - before + bytes > self.max_bytes {
            kept.forget_the_gone();
        }
        let before = kept.by_node.get(&node).map_or(0, |entry| entry.bytes);
        if kept.bytes - before + bytes > self.max_bytes {
            return Err(NoRoom);
        }
        kept.bytes = kept.bytes - before + bytes;
        let known = kept.by_node.insert(node, Entry { report: report.clone(), bytes, at: Instant::now() });
        drop(kept);
        // A node that has nothing new to tell says that it is there.
        if known.is_none_or(|known| known.report != report) {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Counts changes of what nodes tell.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Those of nodes that are there.
    pub(crate) fn of_the_live(&self) -> Vec<NodeReport> {
        let mut kept = self.kept();
        kept.forget_the_gone();
        kept.by_node.values().map(|entry| entry.report.clone()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget_the_gone(&mut self) {
        let now = Instant::now();
        self.by_node.retain(|_, entry| now.duration_since(entry.at) <= LIVE_FOR);
        self.bytes = self.by_node.values().map(|entry| entry.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, state: ArtifactState) -> ArtifactReport {
        let (swarm, digest) = ("default".to_owned(), Digest::Sha256([7; 32]));
        let (done_bytes, total_bytes) = (10, 10);
        ArtifactReport {
            swarm,
            name: name.to_owned(),
            digest,
            state,
            done_bytes,
            total_bytes,
            from_peers: 3,
            from_origin: 7,
        }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_report_reads_back_as_its_senders() {
        let states = [
            ArtifactState::Waiting,
            ArtifactState::Fetching,
            ArtifactState::Complete,
            ArtifactState::Failed("status 404, not found: manifest unknown".to_owned()),
        ];
        let artifacts = states.into_iter().zip(["a", "b", "c", "d"]).map(|(state, name)| artifact(name, state));
        let report = Report {
            traffic: TrafficReport { from_peers: 1, to_peers: 2, from_origin: u64::MAX },
            artifacts: artifacts.collect(),
            bypass: Some("containerd doesn't ask the mirror".to_owned()),
            banned: vec![NodeId::new(7), NodeId::new(u128::MAX)],
        };
        let json = report.to_json(&node("a"));
        assert_eq!(Report::parse(&json, &node("a")), Ok(report));
        assert_eq!(Report::parse(&json, &node("b")), Err(ReportError::Foreign("a".to_owned())));
    }

    #[test]
    fn what_contradicts_itself_is_no_report() {
        let good = artifact("a", ArtifactState::Fetching);
        let wrong = [
            vec![ArtifactReport { done_bytes: 11, ..good.clone() }],
            vec![ArtifactReport { state: ArtifactState::Complete, done_bytes: 9, ..good.clone() }],
            vec![ArtifactReport { name: String::new(), ..good.clone() }],
            vec![ArtifactReport { swarm: "x".repeat(254), ..good.clone() }],
            vec![artifact("a", ArtifactState::Failed("two\nlines".to_owned()))],
            vec![artifact("a", ArtifactState::Failed("x".repeat(MAX_REASON_BYTES + 1)))],
            vec![good.clone(), good.clone()],
            (0..=MAX_ARTIFACTS).map(|at| artifact(&at.to_string(), ArtifactState::Waiting)).collect(),
        ];
        for artifacts in wrong {
            let json = Report { artifacts, ..Report::default() }.to_json(&node("a"));
            let parsed = Report::parse(&json, &node("a"));
            assert!(matches!(parsed, Err(ReportError::Malformed(_))), "{parsed:?}");
        }
        let long = Report { bypass: Some("x".repeat(MAX_PROBLEM_BYTES + 1)), ..Report::default() };
        assert!(Report::parse(&long.to_json(&node("a")), &node("a")).is_err());
        let many = Report { banned: vec![NodeId::new(7); MAX_BANNED + 1], ..Report::default() };
        assert!(Report::parse(&many.to_json(&node("a")), &node("a")).is_err());
        assert_eq!([&"0".repeat(32), "7", &"+".repeat(32)].map(|id| node_id(id).is_some()), [true, false, false]);
        let most = (0..MAX_ARTIFACTS)
            .map(|at| artifact(&format!("artifact-{at}"), ArtifactState::Failed("x".repeat(MAX_REASON_BYTES))));
        let most = Report { artifacts: most.collect(), ..Report::default() }.to_json(&node("a"));
        assert!(most.len() <= MAX_REPORT_BYTES && Report::parse(&most, &node("a")).is_ok(), "{}", most.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_reports_of_live_nodes_are_kept_within_the_bound() {
        let reports = Reports::new(100);
        let take = |name: &str, bytes| {
            let report = NodeReport { node: node(name), report: Arc::default() };
            reports.take(shoal_wire::node_id(&node(name)), report, bytes)
        };
        assert_eq!((take("a", 60), take("b", 60)), (Ok(()), Err(NoRoom)));
        assert_eq!((take("a", 40), take("b", 60), take("a", 41)), (Ok(()), Ok(()), Err(NoRoom)));
        assert_eq!(reports.of_the_live().len(), 2);
        tokio::time::advance(LIVE_FOR / 2).await;
        take("b", 60).unwrap();
        tokio::time::advance(LIVE_FOR / 2 + Duration::from_secs(1)).await;
        assert_eq!(take("c", 40), Ok(()), "who is gone makes room");
        let live = reports.of_the_live();
        assert_eq!(live.iter().map(|report| report.node.as_str()).collect::<Vec<_>>().len(), 2, "{live:?}");
    }
}
