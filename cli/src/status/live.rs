//! Swarms as they change: bars on a terminal, else a line for each change.
//!
//! State: the bars, or the lines that were printed last. Invariants: no more bars than [`MOST_BARS`]; what was printed isn't printed again.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kube::{Client, ResourceExt as _};
use shoal_api::ArtifactStatus;
use shoal_api::kube::Swarm;
use tokio::time::timeout;

use crate::failure::{Failure, one_line};
use crate::follow::Follow;
use crate::outlook::{Outlook, artifacts, condition, label, outlook, percent};
use crate::output::{self, is_colourful, is_terminal};
use crate::text;

/// As many as a small terminal has lines, but for those of a prompt. The others are in `status` without --watch.
const MOST_BARS: usize = 20;

pub(super) async fn run(name: Option<&str>, within: Option<Duration>, client: Client) -> Result<(), Failure> {
    let mut follow = Follow::new(client, name);
    let mut show = Show::new(None);
    let watched = async {
        loop {
            let swarms = follow.changed().await?;
            if let (Some(name), true) = (name, swarms.is_empty()) {
                return Err(Failure::Failed(format!("Swarm {name}: not found: see `kubectl swarm status`")));
            }
            show.update(swarms.values())?;
            let outlooks = || swarms.values().map(|swarm| (swarm, outlook(swarm)));
            if outlooks().any(|(_, outlook)| outlook == Outlook::Underway) {
                continue;
            }
            let stalled = outlooks().find_map(|(swarm, outlook)| match outlook {
                Outlook::Stalled(why) => Some(one_line(&format!("Swarm {} is stalled: {why}", swarm.name_any()))),
                _ => None,
            });
            return stalled.map_or(Ok(()), |stalled| Err(Failure::Failed(stalled)));
        }
    };
    let Some(within) = within else { return watched.await };
    timeout(within, watched).await.unwrap_or_else(|_| Err(not_yet(within)))
}

/// What is told when the time that was given is over.
pub(crate) fn not_yet(within: Duration) -> Failure {
    let time = text::seconds(within.as_secs());
    Failure::NotYet(format!("not there yet after {time}: see `kubectl swarm status`, or give --timeout more"))
}

/// What is shown of Swarms that change.
pub(crate) struct Show {
    /// Of all artifacts this one alone.
    only: Option<String>,
    bars: Option<Bars>,
    /// By what they are about.
    lines: BTreeMap<String, String>,
}

struct Bars {
    all: MultiProgress,
    style: ProgressStyle,
    by_label: BTreeMap<String, ProgressBar>,
}

impl Show {
    pub(crate) fn new(only: Option<String>) -> Self {
        let bars = is_terminal().then(|| {
            let colour = if is_colourful() { ".green" } else { "" };
            let template = format!("{{prefix}} [{{bar:30{colour}}}] {{percent:>3}}% {{msg}}");
            let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            Bars {
                all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
                style: style.progress_chars("=> "),
                by_label: BTreeMap::new(),
            }
        });
        Self { only, bars, lines: BTreeMap::new() }
    }

    /// Shows what is different from the last time.
    pub(crate) fn update<'a>(&mut self, swarms: impl Iterator<Item = &'a Swarm>) -> Result<(), Failure> {
        for swarm in swarms {
            let is_meant = |artifact: &&ArtifactStatus| self.only.as_ref().is_none_or(|only| *only == artifact.name);
            let artifacts: Vec<&ArtifactStatus> = artifacts(swarm).iter().filter(is_meant).collect();
            for artifact in artifacts {
                let label = label(swarm, &artifact.name);
                let moved = moved(artifact);
                match &mut self.bars {
                    Some(bars) => bars.set(label, percent(artifact), moved),
                    None => self.line(&label, format!("{}%, {moved}", percent(artifact)))?,
                }
            }
            if let Some(ready) = condition(swarm, "Ready") {
                let state = if outlook(swarm) == Outlook::Ready { "ready" } else { "not ready" };
                self.line(&swarm.name_any(), format!("{state}, {}: {}", ready.reason, ready.message))?;
            }
        }
        Ok(())
    }

    /// Prints a line that hasn't been printed of this.
    fn line(&mut self, about: &str, text: String) -> Result<(), Failure> {
        if self.lines.get(about) == Some(&text) {
            return Ok(());
        }
        let line = one_line(&format!("{about}: {text}"));
        self.lines.insert(about.to_owned(), text);
        match &self.bars {
            // Above the bars, which stay where they are. A terminal that is gone is told by the next write.
            Some(bars) => bars.all.println(line).map_err(|_| Failure::NobodyReads),
            None => output::print(&(line + "\n")),
        }
    }
}

impl Bars {
    fn set(&mut self, label: String, percent: u64, message: String) {
        if self.by_label.len() == MOST_BARS && !self.by_label.contains_key(&label) {
            return;
        }
        let bar = self.by_label.entry(label).or_insert_with_key(|label| {
            let bar = self.all.add(ProgressBar::new(100).with_style(self.style.clone()));
            bar.with_prefix(format!("{label:<24}"))
        });
        bar.set_message(message);
        bar.set_position(percent);
    }
}

impl Drop for Bars {
    /// They stay as they are, with the prompt below.
    fn drop(&mut self) {
        self.by_label.values().for_each(ProgressBar::abandon);
    }
}

fn moved(artifact: &ArtifactStatus) -> String {
    let ArtifactStatus { complete, desired, from_peers, from_origin, .. } = artifact;
    let (peers, origin) = (text::bytes(from_peers.bytes()), text::bytes(from_origin.bytes()));
    format!("{complete}/{desired} nodes, {peers} from peers, {origin} from the registry")
}
