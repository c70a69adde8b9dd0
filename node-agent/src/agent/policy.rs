//! The Swarms' way to the node: read from a file at the start, then as the tracker has them, and kept for the next start.
//!
//! State: the policy that holds now, in a `watch`; `swarm.yaml` in the data directory, the last document that could be read.
//! Invariants: a document that can't be read changes nothing. A node follows the Swarms whose selector matches its labels.
//! Absent on purpose: labels of the cluster. A plain host has its name, its zone and what it runs on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_api::{Policy, Transfer, read_swarms};
use shoal_tracker_server::client::TrackerClient;
use shoal_types::Zone;
use shoal_wire::NodeName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::StartError;

/// While there is no word of the tracker, it is looked for one so often: nothing can be pulled through the mirror before.
const FIRST: Duration = Duration::from_millis(200);
/// Afterwards so often. The exchange takes the tracker's events, so a change is found by asking: two thousand nodes ask two hundred times a
/// second for a few KiB.
const AGAIN: Duration = Duration::from_secs(10);

/// Reads the Swarms, and goes on doing so.
pub(super) struct PolicyKeeper {
    labels: BTreeMap<String, String>,
    file: PathBuf,
    policy: watch::Sender<Arc<Policy>>,
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
            transfer: Transfer::default(),
            loaded: false,
        };
        // What the user names counts more than what was kept, and must be right.
        if let Some(path) = start_with {
            let text = fs::read_to_string(path).map_err(StartError::file(path, "reading the Swarm"))?;
            keeper.adopt(&path.display().to_string(), &text)?;
            return Ok(keeper);
        }
        match fs::read_to_string(&keeper.file) {
            Ok(text) => {
                let name = keeper.file.display().to_string();
                if let Err(error) = keeper.adopt(&name, &text) {
                    tracing::warn!(%error, "the Swarm that was kept can't be used");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StartError::file(&keeper.file, "reading the Swarm that was kept")(error)),
        }
        Ok(keeper)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
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
        let mut version = None;
        loop {
            let wait = if version.is_none() { FIRST } else { AGAIN };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            if !tracker.has_tracker() {
                continue;
            }
            let document = match stop.run_until_cancelled(tracker.swarm()).await {
                None => return,
                Some(Ok(document)) if version.as_ref() != Some(&document.version) => document,
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    tracing::debug!(%error, "the tracker doesn't give its Swarm");
                    continue;
                }
            };
            version = Some(document.version.clone());
            let text = String::from_utf8_lossy(&document.bytes);
            match self.adopt("the tracker's Swarm", &text) {
                Ok(()) => {
                    tracing::info!(version = document.version, "the Swarm is the tracker's");
                    loaded();
                    let file = self.file.clone();
                    let saved = tokio::task::spawn_blocking(move || save(&file, &document.bytes)).await;
                    if let Ok(Err(error)) = saved {
                        tracing::warn!(%error, file = %self.file.display(), "the Swarm can't be kept");
                    }
                }
                Err(error) => tracing::warn!(%error, "the tracker's Swarm can't be used: the old one holds"),
            }
        }
    }

    fn adopt(&mut self, file: &str, text: &str) -> Result<(), StartError> {
        let swarms = read_swarms(file, text)?;
        let swarms = swarms.into_iter().filter(|swarm| swarm.node_selector.matches(&self.labels)).map(Arc::new);
        let swarms: Vec<_> = swarms.collect();
        let transfer = swarms.first().map_or_else(Transfer::default, |swarm| swarm.transfer);
        if self.loaded && transfer != self.transfer {
            tracing::info!(
                "the Swarm's transfer settings have changed: the exchange takes them at the agent's next start"
            );
        }
        self.transfer = transfer;
        self.policy.send_replace(Arc::new(Policy::compile(swarms)));
        self.loaded = true;
        Ok(())
    }
}

fn save(file: &Path, text: &[u8]) -> io::Result<()> {
    let new = file.with_extension("yaml.new");
    fs::write(&new, text)?;
    fs::rename(&new, file)
}

/// In Kubernetes' words, which are Go's.
const fn architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}
