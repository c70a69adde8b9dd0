//! What stays in the store because a Swarm pins it.
//!
//! State: the blobs of each pinned artifact; `pins.json` in the data directory.
//! Invariants: the exchange knows of a change before this does; what was pinned when the agent ended is pinned when it starts, before anything is
//! asked for. A file that can't be read counts as none: then the artifacts are looked at again, and pinned.
//! Absent on purpose: why something is pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shoal_types::Digest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Key;
use crate::exchange::Exchange;
use crate::saved;

/// A file that is larger isn't ours: 512 artifacts of 1,000 blobs have half of this.
const MAX_FILE_BYTES: u64 = 64 << 20;

pub(super) struct Pins {
    pinned: Mutex<BTreeMap<Key, BTreeSet<Digest>>>,
    exchange: Exchange,
    file: PathBuf,
    changed: Notify,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    swarm: String,
    name: String,
    digests: Vec<String>,
}

impl Pins {
    pub(super) fn load(data_dir: &Path, exchange: Exchange) -> Self {
        let file = data_dir.join("pins.json");
        let entries = saved::read_json::<Vec<Entry>>(&file, MAX_FILE_BYTES).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, file = %file.display(), "what is pinned isn't known before it is looked at again");
            }
            Vec::new()
        });
        let pinned = entries.into_iter().map(|Entry { swarm, name, digests }| {
            ((swarm.into(), name), digests.iter().filter_map(|digest| digest.parse().ok()).collect())
        });
        let pins = Self { pinned: Mutex::new(pinned.collect()), exchange, file, changed: Notify::new() };
        pins.tell(&pins.lock());
        pins
    }

    /// An artifact's blobs stay from now on; those that it had before don't, unless they are among these.
    pub(super) fn pin(&self, key: Key, digests: BTreeSet<Digest>) {
        let mut pinned = self.lock();
        if pinned.get(&key) != Some(&digests) {
            pinned.insert(key, digests);
            self.tell(&pinned);
        }
    }

    /// Lets go of the other artifacts' blobs.
    pub(super) fn retain(&self, keep: impl Fn(&Key) -> bool) {
        let mut pinned = self.lock();
        let before = pinned.len();
        pinned.retain(|key, _| keep(key));
        if pinned.len() != before {
            self.tell(&pinned);
        }
    }

    /// Keeps them for the next start, until the stop.
    pub(super) async fn keep(self: std::sync::Arc<Self>, stop: CancellationToken) {
        loop {
            let stopped = stop.run_until_cancelled(self.changed.notified()).await.is_none();
            let entries: Vec<Entry> = self.lock().iter().map(Entry::of).collect();
            let file = self.file.clone();
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || saved::write_json(&file, &entries)).await {
                tracing::warn!(%error, file = %self.file.display(), "what is pinned can't be kept for the next start");
            }
            if stopped {
                return;
            }
        }
    }

    fn tell(&self, pinned: &BTreeMap<Key, BTreeSet<Digest>>) {
        self.exchange.pin(pinned.values().flatten().copied().collect());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeSet<Digest>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn of(((swarm, name), digests): (&Key, &BTreeSet<Digest>)) -> Self {
        let digests = digests.iter().map(Digest::to_string).collect();
        Self { swarm: swarm.to_string(), name: name.clone(), digests }
    }
}
