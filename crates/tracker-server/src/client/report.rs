//! Telling every tracker how this node is doing.
//!
//! State: which tracker has heard what, over which connection.
//! Invariants: a tracker that was restarted, or reached again, is told anew. Nobody is told the same twice within [`REPEAT_AFTER`].
//! Absent on purpose: when to look for changes: that is whose report it is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use shoal_tracker::ReplicaName;
use tokio::time::Instant;

use super::TrackerClient;
use super::link::Ask;
use crate::protocol::{MAX_JSON_BYTES, REPORT};
use crate::report::Report;

/// Trackers take a node for gone that says nothing for two and a half minutes.
const REPEAT_AFTER: Duration = Duration::from_secs(55);

/// What each tracker has heard.
#[derive(Debug, Default)]
pub struct Reporter {
    heard: BTreeMap<ReplicaName, Heard>,
}

#[derive(Debug)]
struct Heard {
    connection: u64,
    report: Bytes,
    at: Instant,
}

impl TrackerClient {
    /// Tells the report to every tracker that can be reached and hasn't heard it lately. What fails is told again at the next call.
    pub async fn report(&self, reporter: &mut Reporter, report: &Report) {
        let report = Bytes::from(report.to_json(&self.shared.config.name));
        let links = self.shared.routing().all();
        reporter.heard.retain(|name, _| links.iter().any(|(known, _)| known == name));
        let now = Instant::now();
        let is_news = |heard: &Heard, connection| {
            heard.connection != connection || heard.report != report || now.duration_since(heard.at) >= REPEAT_AFTER
        };
        let to_tell = links
            .into_iter()
            .filter(|(name, link)| reporter.heard.get(name).is_none_or(|heard| is_news(heard, link.number())));
        let telling = to_tell.map(|(name, link)| {
            let ask = Ask::post(REPORT, report.clone());
            async move {
                let told = link.ask(ask, MAX_JSON_BYTES).await;
                (name, link.number(), told)
            }
        });
        for (name, connection, told) in futures_util::future::join_all(telling).await {
            match told {
                Ok(_) => {
                    reporter.heard.insert(name, Heard { connection, report: report.clone(), at: now });
                }
                Err(error) => tracing::debug!(tracker = %name, %error, "a tracker doesn't take this node's report"),
            }
        }
    }
}
