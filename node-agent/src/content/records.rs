//! What names meant last, kept across restarts: served while neither a tracker nor the origin can say.
//!
//! State: a bounded table; `records.json` in the data directory, which is the agent's own and so is believed.
//! Invariants: the file is replaced as a whole; one that can't be read counts as none.
//! Absent on purpose: whether a record may be served; that is the policy's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_oci::{ImageName, Reference};
use shoal_types::Digest;
use tokio_util::sync::CancellationToken;

use super::bounded::Bounded;
use crate::saved;

/// A record takes some 300 bytes: 1.2 MiB for all, eight times the names of a node's 250 pods, each by tag and by digest.
const MAX_RECORDS: usize = 1 << 12;
/// A file that is larger isn't ours.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// What a crash may cost.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) size_bytes: u64,
    /// Whether anonymous clients may read it.
    pub(super) readable: bool,
}

/// The records. [`Self::keep`] saves them.
#[derive(Debug)]
pub(super) struct Records {
    table: Mutex<Bounded<ImageName, Meaning>>,
    file: PathBuf,
    changed: AtomicBool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    registry: String,
    repository: String,
    reference: String,
    digest: String,
    media_type: String,
    size: u64,
    readable: bool,
}

impl Records {
    /// Those that were kept in this directory.
    pub(super) fn load(dir: &Path) -> Self {
        let file = dir.join("records.json");
        let mut table = Bounded::new(MAX_RECORDS);
        match saved::read_json::<Vec<Entry>>(&file, MAX_FILE_BYTES) {
            Ok(entries) => entries.into_iter().filter_map(Entry::parse).for_each(|(name, is)| table.insert(name, is)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, file = %file.display(), "the names that were known are lost"),
        }
        Self { table: Mutex::new(table), file, changed: AtomicBool::new(false) }
    }

    pub(super) fn get(&self, name: &ImageName) -> Option<Meaning> {
        self.lock().get(name).cloned()
    }

    /// Takes what a name means. Its digest means the same, and is asked for in its own right by who was told of it.
    pub(super) fn learn(&self, name: ImageName, meaning: Meaning) {
        let by_digest = ImageName { reference: Reference::Digest(meaning.digest), ..name.clone() };
        let mut table = self.lock();
        for name in [name, by_digest] {
            if table.get(&name).is_none_or(|old| *old != meaning) {
                table.insert(name, meaning.clone());
                self.changed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The origin has said no.
    pub(super) fn forget(&self, name: &ImageName) {
        self.lock().remove(name);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Saves what changes, until `stop`, and then once more.
    pub(super) async fn keep(&self, stop: CancellationToken) {
        loop {
            let stopped = stop.run_until_cancelled(tokio::time::sleep(SAVE_EVERY)).await.is_none();
            if self.changed.swap(false, Ordering::Relaxed) {
                let entries: Vec<Entry> = self.lock().iter().map(Entry::of).collect();
                let file = self.file.clone();
                let saved = tokio::task::spawn_blocking(move || saved::write_json(&file, &entries)).await;
                if let Ok(Err(error)) = saved {
                    tracing::warn!(%error, file = %self.file.display(), "what names mean can't be saved");
                }
            }
            if stopped {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<ImageName, Meaning>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn of((name, meaning): (&ImageName, &Meaning)) -> Self {
        Self {
            registry: name.registry.to_string(),
            repository: name.repository.to_string(),
            reference: name.reference.to_string(),
            digest: meaning.digest.to_string(),
            media_type: meaning.media_type.clone(),
            size: meaning.size_bytes,
            readable: meaning.readable,
        }
    }

    fn parse(self) -> Option<(ImageName, Meaning)> {
        let name = ImageName {
            registry: self.registry.parse().ok()?,
            repository: self.repository.parse().ok()?,
            reference: self.reference.parse().ok()?,
        };
        let Self { media_type, size: size_bytes, readable, .. } = self;
        Some((name, Meaning { digest: self.digest.parse().ok()?, media_type, size_bytes, readable }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn records_survive_a_restart_and_a_broken_file_counts_as_none() {
        let dir = std::env::temp_dir().join(format!("shoal-records-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let name = ImageName {
            registry: "registry.example:5000".parse().unwrap(),
            repository: "a/b".parse().unwrap(),
            reference: "v1".parse().unwrap(),
        };
        let media_type = "application/json".to_owned();
        let meaning = Meaning { digest: Digest::Sha256([7; 32]), media_type, size_bytes: 3, readable: true };
        let (records, stop) = (Records::load(&dir), CancellationToken::new());
        records.learn(name.clone(), meaning.clone());
        stop.cancel();
        records.keep(stop).await;
        assert_eq!(Records::load(&dir).get(&name), Some(meaning));
        fs::write(dir.join("records.json"), "[{").unwrap();
        assert_eq!(Records::load(&dir).get(&name), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
