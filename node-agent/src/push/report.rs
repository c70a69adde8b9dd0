//! What this node tells the trackers: how far its artifacts are, and how many bytes it has moved.
//!
//! State: what each tracker has heard.
//! Invariants: bytes that are here are those that are verified; a reason is one line. Absent on purpose: judging the figures.

use std::time::Duration;

use shoal_api::ResolvedArtifact;
use shoal_tracker_server::client::{Reporter, TrackerClient};
use shoal_tracker_server::{
    ArtifactReport, ArtifactState, MAX_BANNED, MAX_PROBLEM_BYTES, MAX_REASON_BYTES, Report, TrafficReport,
};
use tokio::sync::watch;

use super::Parts;
use super::carry::{Standing, State};
use crate::exchange::Exchange;

/// How often it is looked whether there is something new to tell: 5,000 busy nodes tell 2,500 times a second.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Tells every tracker, whenever there is a report.
pub(super) async fn tell(tracker: TrackerClient, mut reports: watch::Receiver<Report>) {
    let mut reporter = Reporter::default();
    while reports.changed().await.is_ok() {
        let report = reports.borrow_and_update().clone();
        tracker.report(&mut reporter, &report).await;
    }
}

/// How things are.
pub(super) fn of<'a>(parts: &Parts, artifacts: impl Iterator<Item = (&'a ResolvedArtifact, &'a Standing)>) -> Report {
    let exchanged = parts.exchange.traffic();
    let traffic = TrafficReport {
        from_peers: exchanged.from_peers,
        to_peers: exchanged.to_peers,
        from_origin: exchanged.from_origin + parts.metrics.passed_through(),
    };
    let artifacts = artifacts.map(|(artifact, standing)| of_artifact(&parts.exchange, artifact, standing.read()));
    let bypass = parts.bypass.borrow().as_ref().map(|why| one_line(why, MAX_PROBLEM_BYTES));
    let mut banned = parts.exchange.banned();
    banned.truncate(MAX_BANNED);
    Report { traffic, artifacts: artifacts.collect(), bypass, banned }
}

fn of_artifact(exchange: &Exchange, artifact: &ResolvedArtifact, standing: State) -> ArtifactReport {
    let State { state, blobs } = standing;
    let total_bytes = blobs.iter().map(|(_, size)| size).sum();
    let (mut done_bytes, mut from_peers, mut from_origin) = (0, 0, 0);
    for (digest, size) in blobs {
        let Some(transfer) = exchange.transfer(&digest) else { continue };
        done_bytes += transfer.progress().0.min(size);
        let came = transfer.came_from();
        from_peers += came.peers;
        from_origin += came.origin;
    }
    // What isn't pinned may have gone again since; and a runtime keeps what it likes.
    let done_bytes = if state == ArtifactState::Complete { total_bytes } else { done_bytes };
    ArtifactReport {
        swarm: artifact.swarm.to_string(),
        name: artifact.name.clone(),
        digest: artifact.digest,
        state: match state {
            ArtifactState::Failed(why) => ArtifactState::Failed(one_line(&why, MAX_REASON_BYTES)),
            state => state,
        },
        done_bytes,
        total_bytes,
        from_peers,
        from_origin,
    }
}

/// Other people's words, fit to be shown in a line.
fn one_line(text: &str, most: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(most));
    if line.is_empty() { "it doesn't say why".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_line_that_a_report_takes() {
        assert_eq!(one_line("two\nlines", MAX_REASON_BYTES), "two lines");
        assert_eq!(one_line(&"é".repeat(MAX_REASON_BYTES), MAX_REASON_BYTES).len(), MAX_REASON_BYTES);
        assert!(!one_line("", MAX_REASON_BYTES).is_empty());
    }
}
