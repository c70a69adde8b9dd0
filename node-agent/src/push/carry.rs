//! One artifact: its manifests, then its blobs, or a runtime's pull; tried again until it is here.
//!
//! State: how far it is ([`Standing`]), which the task writes and the report reads.
//! Invariants: `Complete` only when every blob that the manifest names is in the store, or the runtime says that it has the image under this
//! digest. Of a moved tag, the old digest's pins go when the new manifest is known: layers that both have stay.
//! Absent on purpose: blobs that a manifest says to lie elsewhere (foreign layers).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_api::{Placement, ResolvedArtifact};
use shoal_oci::manifest::{Descriptor, Manifest};
use shoal_oci::{ImageName, Reference};
use shoal_tracker_server::ArtifactState;
use shoal_types::Digest;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::pins::Pins;
use super::{Backoff, Key, Parts};
use crate::pull::Platform;
use crate::runtime::{Images, PULLED_WITHIN};

/// Blobs of an artifact that are fetched at a time. More would only share the same links.
const BLOBS_AT_ONCE: usize = 4;
/// Blobs of one artifact: 30 times what overlay file systems can stack. Models come in hundreds of files.
const MAX_BLOBS: usize = 4_096;
/// Manifests without a platform that an index may have: an artifact of parts.
const MAX_CHILDREN: usize = 64;
/// An index may name indexes.
const MAX_DEPTH: u32 = 3;
/// Behind everything that a runtime waits for, which is numbered by its place in the image.
const PRIORITY: u32 = 1 << 16;
/// How often it is looked whether what is pinned is still here: as often as a store's eviction is heard of elsewhere …
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// … and whether a runtime still has it, which costs the runtime a call.
const ASK_RUNTIME_EVERY: Duration = Duration::from_secs(60);

/// How far an artifact is.
#[derive(Debug)]
pub(super) struct Standing(Mutex<State>);

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) state: ArtifactState,
    /// What it consists of, as soon as its manifests are here.
    pub(super) blobs: Vec<(Digest, u64)>,
}

impl Default for Standing {
    fn default() -> Self {
        Self(Mutex::new(State { state: ArtifactState::Waiting, blobs: Vec::new() }))
    }
}

impl Standing {
    pub(super) fn read(&self) -> State {
        self.lock().clone()
    }

    fn is(&self, state: ArtifactState) {
        self.lock().state = state;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an artifact consists of on this node.
struct Contents {
    name: ImageName,
    blobs: Vec<Descriptor>,
    /// The origin shows it to nobody anonymous.
    private: bool,
}

/// Why an artifact isn't here.
enum Trouble {
    /// It may come later.
    Later(String),
    /// Nothing but another setting helps.
    Never(String),
}

impl Trouble {
    fn later(error: impl std::fmt::Display) -> Self {
        Self::Later(error.to_string())
    }
}

pub(super) struct Carrier {
    pub(super) parts: Parts,
    pub(super) key: Key,
    pub(super) artifact: ResolvedArtifact,
    pub(super) standing: Arc<Standing>,
    pub(super) pins: Arc<Pins>,
    pub(super) turns: Arc<Semaphore>,
}

impl Carrier {
    pub(super) async fn run(self) {
        let ResolvedArtifact { swarm, name, digest, .. } = &self.artifact;
        let mut backoff = Backoff::new(self.parts.seed);
        loop {
            let fetched = {
                let Ok(_turn) = self.turns.acquire().await else { return };
                self.standing.is(ArtifactState::Fetching);
                self.fetch().await
            };
            match fetched {
                Ok(()) => {
                    tracing::info!(%swarm, name, %digest, "an artifact is here");
                    self.standing.is(ArtifactState::Complete);
                    backoff.reset();
                    self.gone().await;
                    tracing::info!(%swarm, name, %digest, "parts of a pinned artifact are gone: it is fetched again");
                }
                Err(Trouble::Later(why)) => {
                    tracing::warn!(%swarm, name, %digest, why, "an artifact doesn't come: it is tried again");
                    self.standing.is(ArtifactState::Failed(why));
                    sleep(backoff.next()).await;
                }
                Err(Trouble::Never(why)) => {
                    tracing::warn!(%swarm, name, %digest, why, "an artifact can't be had here");
                    self.standing.is(ArtifactState::Failed(why));
                    return std::future::pending().await;
                }
            }
        }
    }

    async fn fetch(&self) -> Result<(), Trouble> {
        match self.artifact.placement {
            Placement::Cache => self.fetch_into_cache().await,
            Placement::Runtime => self.pull_into_runtime().await,
        }
    }

    async fn fetch_into_cache(&self) -> Result<(), Trouble> {
        let Contents { name, blobs, .. } = self.contents().await?;
        let fetching = stream::iter(blobs.into_iter().zip(PRIORITY..)).map(|(blob, priority)| {
            let (content, name) = (self.parts.content.clone(), name.clone());
            async move { content.blob_ahead(&name, &blob, priority).await.map_err(Trouble::later) }
        });
        fetching.buffer_unordered(BLOBS_AT_ONCE).try_collect::<()>().await
    }

    /// Pulls the digest, so that it is the right content, and then the tag, under which pods will ask for it.
    async fn pull_into_runtime(&self) -> Result<(), Trouble> {
        let Some(runtime) = &self.parts.runtime else {
            let why =
                "this agent wasn't told of a container runtime: give it --containerd-socket, or write placement: Cache";
            return Err(Trouble::Never(why.to_owned()));
        };
        // For the figures and the pins. A runtime may be able to pull what this agent can't read.
        let private = match self.contents().await {
            Ok(contents) => contents.private,
            Err(Trouble::Later(why) | Trouble::Never(why)) => {
                tracing::debug!(why, "what the runtime will pull can't be looked at");
                false
            }
        };
        self.pull(&runtime.socket).await.map_err(|error| match error {
            // A runtime may have credentials of its own. We give it none: every pod of the node could run the image then.
            Trouble::Later(why) if private => Trouble::Later(format!(
                "it is private: write placement: Cache, or access: Shared if every pod may have it ({why})"
            )),
            other => other,
        })
    }

    async fn pull(&self, socket: &Path) -> Result<(), Trouble> {
        let images = Images::connect(socket).await.map_err(Trouble::later)?;
        let (by_digest, by_tag) = self.names();
        images.pull(&by_digest, PULLED_WITHIN).await.map_err(Trouble::later)?;
        if let Some(by_tag) = by_tag {
            images.pull(&by_tag, PULLED_WITHIN).await.map_err(Trouble::later)?;
            let found = images.digests(&by_tag).await.map_err(Trouble::later)?;
            if !found.contains(&self.artifact.digest) {
                return Err(Trouble::Later(format!("the runtime still got another digest for {by_tag}")));
            }
        }
        Ok(())
    }

    /// As runtimes name it: by its digest, and by its tag unless a digest was written.
    fn names(&self) -> (String, Option<String>) {
        let reference = &self.artifact.reference;
        let repository = format!("{}/{}", reference.host(), reference.repository());
        let tag = reference.tag().filter(|_| reference.digest().is_none());
        (format!("{repository}@{}", self.artifact.digest), tag.map(|tag| format!("{repository}:{tag}")))
    }

    /// What the artifact consists of on this node. Its manifests are in the store then, and all of it is pinned if the Swarm wants that.
    async fn contents(&self) -> Result<Contents, Trouble> {
        let reference = &self.artifact.reference;
        let name = ImageName {
            registry: reference.host().as_str().parse().map_err(Trouble::later)?,
            repository: reference.repository().parse().map_err(Trouble::later)?,
            reference: Reference::Digest(self.artifact.digest),
        };
        let (mut manifests, mut blobs, mut private) = (Vec::new(), Vec::new(), false);
        let mut left = vec![(self.artifact.digest, 0)];
        while let Some((digest, depth)) = left.pop() {
            let name = ImageName { reference: Reference::Digest(digest), ..name.clone() };
            let manifest = self.parts.content.manifest_ahead(&name, PRIORITY).await.map_err(Trouble::later)?;
            manifests.push((digest, manifest.size_bytes));
            private |= manifest.private;
            match &manifest.contents {
                Manifest::Index { .. } if depth == MAX_DEPTH => {
                    return Err(Trouble::Later("its indexes are nested too deeply".to_owned()));
                }
                Manifest::Index { children } => left.extend(of_this_node(children)?.map(|child| (child, depth + 1))),
                Manifest::Image { .. } | Manifest::Opaque => {
                    let here = manifest.contents.blobs().filter(|blob| !blob.elsewhere && blob.size_bytes > 0);
                    blobs.extend(here.take(MAX_BLOBS + 1).cloned());
                }
            }
            if blobs.len() > MAX_BLOBS {
                return Err(Trouble::Later(format!("it has more than {MAX_BLOBS} blobs")));
            }
        }
        if let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) {
            let reference = tag.parse().map(Reference::Tag).map_err(Trouble::later)?;
            self.parts.content.tag_means(ImageName { reference, ..name.clone() }, self.artifact.digest);
        }
        let mut seen = BTreeSet::new();
        blobs.retain(|blob| seen.insert(blob.digest));
        let sizes = blobs.iter().map(|blob| (blob.digest, blob.size_bytes));
        let parts: Vec<(Digest, u64)> = manifests.into_iter().chain(sizes).collect();
        if self.artifact.pin {
            self.pins.pin(self.key.clone(), parts.iter().map(|(digest, _)| *digest).collect());
        }
        self.standing.lock().blobs = parts;
        Ok(Contents { name, blobs, private })
    }

    /// Returns when a pinned artifact isn't here any more; never otherwise.
    async fn gone(&self) {
        if !self.artifact.pin {
            return std::future::pending().await;
        }
        match self.artifact.placement {
            Placement::Cache => {
                let parts = self.standing.read().blobs;
                let is_here = |(digest, _): &(Digest, u64)| self.parts.exchange.stored(digest).is_some();
                while parts.iter().all(is_here) {
                    sleep(LOOK_EVERY).await;
                }
            }
            Placement::Runtime => loop {
                sleep(ASK_RUNTIME_EVERY).await;
                let Some(runtime) = &self.parts.runtime else { continue };
                let (by_digest, _) = self.names();
                let Ok(images) = Images::connect(&runtime.socket).await else { continue };
                // A runtime that doesn't answer hasn't lost anything.
                if images.digests(&by_digest).await.is_ok_and(|found| !found.contains(&self.artifact.digest)) {
                    return;
                }
            },
        }
    }
}

/// The manifests of an index that are for this node: that of its platform, or those without one.
fn of_this_node(children: &[shoal_oci::manifest::Child]) -> Result<impl Iterator<Item = Digest> + use<'_>, Trouble> {
    let platform = Platform::of_this_machine();
    let chosen: Vec<_> = match platform.choose(children) {
        Some(child) => vec![child],
        None => children.iter().filter(|child| child.platform.is_none()).collect(),
    };
    match chosen.len() {
        0 => Err(Trouble::Later(format!("it has nothing for {platform}"))),
        1..=MAX_CHILDREN => Ok(chosen.into_iter().map(|child| child.descriptor.digest)),
        more => Err(Trouble::Later(format!("its index has {more} manifests, {MAX_CHILDREN} at most are fetched"))),
    }
}

#[cfg(test)]
mod tests {
    use shoal_oci::manifest::{Child, Platform as Of};

    use super::*;

    fn child(byte: u8, platform: Option<(&str, &str)>) -> Child {
        let platform =
            platform.map(|(os, architecture)| Of { os: os.into(), architecture: architecture.into(), variant: None });
        let digest = Digest::Sha256([byte; 32]);
        Child {
            descriptor: Descriptor { media_type: String::new(), digest, size_bytes: 1, elsewhere: false },
            platform,
        }
    }

    #[test]
    fn of_an_index_the_nodes_platform_is_taken_or_what_has_none() {
        let own = Platform::of_this_machine().to_string();
        let (os, architecture) = own.split_once('/').unwrap();
        let chosen = |children: &[Child]| {
            let chosen = of_this_node(children).ok()?;
            Some(chosen.map(|digest| digest.to_string()[7..9].to_owned()).collect::<Vec<_>>())
        };
        let images = [child(1, Some(("plan10", "z81"))), child(2, Some((os, architecture))), child(3, None)];
        assert_eq!(chosen(&images), Some(vec!["02".to_owned()]));
        assert_eq!(chosen(&[child(4, None), child(5, None)]), Some(vec!["04".to_owned(), "05".to_owned()]));
        assert_eq!(chosen(&images[..1]), None);
        let many: Vec<_> = (0..=64).map(|byte| child(byte, None)).collect();
        assert_eq!(chosen(&many), None);
    }
}
