//! The Swarms' way to the node: read from a file at the start, then as the tracker has them, and kept for the next start.
//!
//! State: the policy that holds now and the artifacts that are pushed, each in a `watch`; `swarm.yaml` in the data directory, the last document that
//! could be read.
//! Invariants: a document that can't be read changes nothing. A node follows the Swarms whose selector matches its labels:
//! those that the tracker knows; where it knows none, the node's own. What was pushed stays pushed until a tracker knows better.
//! Absent on purpose: labels of the cluster. A plain host has its name, its zone and what it runs on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_api::{Document, FileError, Policy, ResolvedArtifact, Transfer};
use shoal_tracker_server::client::TrackerClient;
use shoal_types::Zone;
use shoal_wire::NodeName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StartError;
use crate::push::Wanted;
use crate::saved;

/// While there is no word of the tracker, it is looked for one so often: nothing can be pulled through the mirror before.
const FIRST: Duration = Duration::from_millis(200);
/// A tracker that didn't give it is asked again after this time.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Trackers tell of a change at once. A word that was lost, or a node's labels that have changed, are found by asking so often: two thousand nodes
/// ask two hundred times a second, and are answered with nothing.
const AGAIN: Duration = Duration::from_secs(10);

/// Reads the Swarms, and goes on doing so.
pub(super) struct PolicyKeeper {
    labels: BTreeMap<String, String>,
    file: PathBuf,
    policy: watch::Sender<Arc<Policy>>,
    artifacts: watch::Sender<Wanted>,
    transfer: Transfer,
    loaded: bool,
}

impl PolicyKeeper {
    /// With what was kept, else with what `start_with` says, else with no Swarm at all.
    pub(super) fn load(
        data_dir: &Path,
        start_with: Option<&Path>,
        name: &NodeName,
        zone: &Zone,
    ) -> Result<Self, StartError> {
        let labels = [
            ("kubernetes.io/hostname", name.as_str()),
            ("kubernetes.io/os", std::env::consts::OS),
            ("kubernetes.io/arch", architecture()),
            ("topology.kubernetes.io/zone", zone.name()),
        ];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        let mut keeper = Self {
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            file: data_dir.join("swarm.yaml"),
            policy: watch::Sender::new(Arc::default()),
            artifacts: watch::Sender::new(None),
            transfer: Transfer::default(),
            loaded: false,
        };
        let kept = keeper.kept()?;
        let document = match start_with {
            // What the user names counts more than what was kept, and must be right. What its tags mean is remembered.
            Some(path) => {
                let text = fs::read_to_string(path).map_err(StartError::file(path, "reading the Swarm"))?;
                let mut document = Document::read_file(&path.display().to_string(), &text)?;
                document.keep_resolved(kept.as_ref().map_or(&[], Document::artifacts));
                Some(document)
            }
            None => kept,
        };
        if let Some(document) = document {
            let adopted = keeper.adopt(document);
            keeper.push(&adopted);
        }
        Ok(keeper)
    }

    /// The last document that a tracker gave, in an earlier run.
    fn kept(&self) -> Result<Option<Document>, StartError> {
        match fs::read_to_string(&self.file) {
            Ok(text) => {
                let read = Document::read(&self.file.display().to_string(), &text);
                let unusable = |error: &FileError| tracing::warn!(%error, "the Swarm that was kept can't be used");
                Ok(read.inspect_err(unusable).ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::file(&self.file, "reading the Swarm that was kept")(error)),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    /// What Swarms push to this node, as a tracker has said last.
    pub(super) fn artifacts(&self) -> watch::Receiver<Wanted> {
        self.artifacts.subscribe()
    }

    /// How the first Swarm wants content exchanged. The exchange has one set of settings for a node; they hold from the next start on.
    pub(super) const fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Whether there is any word of the Swarms.
    pub(super) const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Follows the tracker's document until the stop. `loaded` is called when there is one.
    pub(super) async fn run(mut self, tracker: TrackerClient, stop: CancellationToken, loaded: impl Fn() + Send) {
        let mut told = tracker.swarm_told();
        let (mut version, mut failed): (Option<String>, _) = (None, false);
        loop {
            let wait = match version {
                _ if failed => AFTER_FAILURE,
                None => FIRST,
                Some(_) => AGAIN,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = told.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if !tracker.has_tracker() {
                continue;
            }
            let Some(asked) = stop.run_until_cancelled(tracker.swarm(version.as_deref())).await else { return };
            failed = asked.is_err();
            let document = match asked {
                Ok(Some(document)) => document,
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, "the tracker doesn't give its Swarm");
                    continue;
                }
            };
            match Document::read("the tracker's Swarm", &String::from_utf8_lossy(&document.bytes)) {
                Ok(read) => {
                    tracing::info!(version = document.version, "the Swarm is the tracker's");
                    let adopted = self.adopt(read);
                    self.push(&adopted);
                    loaded();
                    let (file, text) = (self.file.clone(), adopted.text());
                    let saved = tokio::task::spawn_blocking(move || saved::write(&file, text.as_bytes())).await;
                    if let Ok(Err(error)) = saved {
                        tracing::warn!(%error, file = %self.file.display(), "the Swarm can't be kept");
                    }
                }
                Err(error) => tracing::warn!(%error, "the tracker's Swarm can't be used: the old one holds"),
            }
            version = Some(document.version);
        }
    }

    /// Follows what is for this node in a document, and gives that.
    fn adopt(&mut self, document: Document) -> Document {
        let mut document = document.select(&self.labels);
        // A tracker that has just started hasn't looked up every tag yet.
        if let Some(before) = self.artifacts.borrow().as_deref() {
            document.keep_resolved(before);
        }
        let transfer = document.swarms().next().map_or_else(Transfer::default, |swarm| swarm.transfer);
        if self.loaded && transfer != self.transfer {
            tracing::info!(
                "the Swarm's transfer settings have changed: the exchange takes them at the agent's next start"
            );
        }
        self.transfer = transfer;
        self.policy.send_replace(Arc::new(Policy::compile(document.swarms().cloned())));
        self.loaded = true;
        document
    }

    fn push(&self, document: &Document) {
        let artifacts: Arc<[ResolvedArtifact]> = document.artifacts().into();
        self.artifacts.send_if_modified(|wanted| {
            let is_new = wanted.as_deref() != Some(&*artifacts);
            *wanted = Some(artifacts);
            is_new
        });
    }
}

/// In Kubernetes' words, which are Go's.
const fn architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}
