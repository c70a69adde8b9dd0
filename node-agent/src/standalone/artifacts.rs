//! What the artifacts of the Swarm file mean: looked up at the origin when the file says something new, and again every `resolveSeconds`.
//!
//! State: the document as nodes get it; for each artifact with a tag, when it is due.
//! Invariants: a lookup that fails changes nothing but the log: nodes keep what they have. At most [`AT_ONCE`] lookups are under way.
//! Absent on purpose: what was resolved before a restart: nodes remember it, and keep it until somebody knows better.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use shoal_api::{Document, Reference, ResolvedArtifact};
use shoal_origins::source;
use shoal_tracker_server::{Handle, ImageName};
use shoal_types::Digest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Lookups at a time.
const AT_ONCE: usize = 8;
/// After a failure it is tried again so soon, twice as late each time, up to what the Swarm says.
const AGAIN: Duration = Duration::from_secs(5);

/// An artifact by its Swarm and its name.
type Key = (Arc<str>, String);

struct Lookup {
    reference: Reference,
    every: Duration,
    due: Instant,
    failures: u32,
}

pub(super) struct Resolving {
    handle: Handle,
    document: Document,
    lookups: BTreeMap<Key, Lookup>,
}

impl Resolving {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, document: Document::default(), lookups: BTreeMap::new() }
    }

    /// Follows the file's Swarms until the stop, and gives the nodes what they come to.
    pub(super) async fn run(mut self, mut file: watch::Receiver<Document>, stop: CancellationToken) {
        file.mark_changed();
        loop {
            let due = self.lookups.values().map(|lookup| lookup.due).min();
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = file.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let document = file.borrow_and_update().clone();
                    self.take(document);
                }
                () = sleep_until(due) => {
                    if stop.run_until_cancelled(self.look_up()).await.is_none() {
                        return;
                    }
                }
            }
            if self.handle.set_swarm(source(&self.document)).await.is_err() {
                return;
            }
        }
    }

    /// The file says something else.
    fn take(&mut self, mut document: Document) {
        document.keep_resolved(self.document.artifacts());
        let mut written = Vec::new();
        let mut before = std::mem::take(&mut self.lookups);
        for (swarm, artifact) in document.listed() {
            let key = (Arc::clone(&swarm.name), artifact.name.clone());
            if let Some(digest) = artifact.reference.digest() {
                written.push(ResolvedArtifact::new(swarm, artifact, *digest));
                continue;
            }
            let (reference, every) = (artifact.reference.clone(), swarm.resolve_interval);
            let known = before.remove(&key).filter(|known| known.reference == reference);
            let lookup = known.unwrap_or(Lookup { reference, every, due: Instant::now(), failures: 0 });
            self.lookups.insert(key, Lookup { every, due: lookup.due.min(Instant::now() + every), ..lookup });
        }
        let resolved: Vec<ResolvedArtifact> = document.artifacts().to_vec();
        document.resolve(resolved.into_iter().chain(written));
        self.document = document;
    }

    async fn look_up(&mut self) {
        let now = Instant::now();
        let due = self.lookups.iter().filter(|(_, lookup)| lookup.due <= now);
        let due: Vec<(Key, Reference)> = due.map(|(key, lookup)| (key.clone(), lookup.reference.clone())).collect();
        let handle = self.handle.clone();
        let asking = stream::iter(due).map(|(key, reference)| {
            let handle = handle.clone();
            async move { (key, ask(&handle, &reference).await) }
        });
        let answers: Vec<(Key, Result<Digest, String>)> = asking.buffer_unordered(AT_ONCE).collect().await;
        let mut found: BTreeMap<Key, Digest> = BTreeMap::new();
        for (key, answer) in answers {
            let Some(lookup) = self.lookups.get_mut(&key) else { continue };
            let (swarm, name) = &key;
            match answer {
                Ok(digest) => {
                    (lookup.due, lookup.failures) = (Instant::now() + lookup.every, 0);
                    found.insert(key, digest);
                }
                Err(why) => {
                    if lookup.failures == 0 {
                        tracing::warn!(%swarm, name, why, "an artifact's tag can't be looked up: nodes keep what they have");
                    }
                    lookup.due = Instant::now() + AGAIN.saturating_mul(1 << lookup.failures.min(16)).min(lookup.every);
                    lookup.failures = lookup.failures.saturating_add(1);
                }
            }
        }
        let resolved = self.document.listed().filter_map(|(swarm, artifact)| {
            let digest = found.get(&(Arc::clone(&swarm.name), artifact.name.clone()))?;
            Some(ResolvedArtifact::new(swarm, artifact, *digest))
        });
        let resolved: Vec<ResolvedArtifact> = resolved.collect();
        for artifact in resolved.iter().filter(|artifact| !self.document.artifacts().contains(artifact)) {
            let ResolvedArtifact { swarm, name, reference, digest, .. } = artifact;
            tracing::info!(%swarm, name, %reference, %digest, "an artifact is pushed");
        }
        let before = self.document.artifacts().to_vec();
        self.document.resolve(before.into_iter().chain(resolved));
    }
}

/// What a tag means now; the registry's own words, if it doesn't say.
async fn ask(handle: &Handle, reference: &Reference) -> Result<Digest, String> {
    let tag = reference.tag().ok_or_else(|| format!("{reference} has no tag"))?;
    let name = ImageName::new(reference.host().as_str(), reference.repository(), tag);
    let name = name.map_err(|error| format!("{reference}: {error}"))?;
    handle.resolve(&name).await.map(|resolved| resolved.digest).map_err(|error| error.to_string())
}
