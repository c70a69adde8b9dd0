//! An image that only the mirror has, and the content that has it besides everything else.
//!
//! State: the name under which it is looked for now, and whether it was asked for.
//! Invariants: a name is new each time, so an answer that somebody keeps is no answer; what isn't the bait passes by.
//! Absent on purpose: files. Its one layer is empty.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shoal_oci::{Reference, Repository};
use shoal_types::Digest;

use crate::mirror::{
    Blob, BlobName, BlobRequest, BlobStat, Content, Failure, Listing, ListingRequest, Manifest, ManifestRequest, Reason,
};
use crate::pull::Platform;

const REPOSITORIES: &str = "shoal-mirror-check/";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A tar ends with two empty blocks.
const EMPTY_TAR: &[u8] = &[0; 1_024];

/// Whether a repository is the bait's, of whichever name.
pub(crate) fn is_bait(repository: &Repository) -> bool {
    repository.as_str().starts_with(REPOSITORIES)
}

/// The image.
#[derive(Debug)]
pub struct Bait {
    manifest: (Digest, Bytes),
    blobs: [(Digest, Bytes); 2],
    laid: Mutex<Laid>,
}

#[derive(Debug, Default)]
struct Laid {
    repository: String,
    taken: bool,
}

impl Bait {
    /// For this machine's platform.
    #[must_use]
    pub fn new() -> Self {
        let layer = with_digest(Bytes::from_static(EMPTY_TAR));
        let platform = Platform::of_this_machine();
        let config = json!({
            "architecture": platform.architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.0.to_string()]},
        });
        let config = with_digest(config.to_string().into());
        let descriptor = |media_type, (digest, bytes): &(Digest, Bytes)| json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": [descriptor(LAYER, &layer)],
        });
        Self { manifest: with_digest(manifest.to_string().into()), blobs: [config, layer], laid: Mutex::default() }
    }

    /// Waits for the image of this number from now on, and gives the name by which a runtime finds it.
    pub(super) fn lay(&self, host: &str, number: u64) -> String {
        let repository = format!("{REPOSITORIES}{number:016x}");
        let image = format!("{host}/{repository}:1");
        *self.laid() = Laid { repository, taken: false };
        image
    }

    /// Whether it was asked for since.
    pub(super) fn was_taken(&self) -> bool {
        self.laid().taken
    }

    /// Whether this is it: then it counts as asked for.
    fn is(&self, repository: &Repository) -> bool {
        let mut laid = self.laid();
        let is_it = laid.repository == repository.as_str();
        laid.taken |= is_it;
        is_it
    }

    fn blob(&self, wanted: &Digest) -> Result<Bytes, Failure> {
        let found = self.blobs.iter().find(|(digest, _)| digest == wanted);
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| Failure::new(Reason::NotFound))
    }

    /// Nothing panics with it in hand.
    fn laid(&self) -> MutexGuard<'_, Laid> {
        self.laid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Bait {
    fn default() -> Self {
        Self::new()
    }
}

/// Content with the bait in front of it.
pub struct Baited<C> {
    /// The bait, if any is laid.
    pub bait: Option<std::sync::Arc<Bait>>,
    /// Everything else.
    pub content: C,
}

impl<C> Baited<C> {
    fn bait(&self, repository: &Repository) -> Option<&Bait> {
        self.bait.as_deref().filter(|bait| bait.is(repository))
    }
}

impl<C: Content> Content for Baited<C> {
    async fn manifest(&self, wanted: ManifestRequest) -> Result<Manifest, Failure> {
        let Some(bait) = self.bait(&wanted.repository) else { return self.content.manifest(wanted).await };
        let (digest, bytes) = bait.manifest.clone();
        match wanted.reference {
            Reference::Digest(asked) if asked != digest => Err(Failure::new(Reason::NotFound)),
            Reference::Digest(_) | Reference::Tag(_) => {
                Manifest::new(digest, HeaderValue::from_static(MANIFEST), bytes)
            }
        }
    }

    async fn stat(&self, wanted: BlobName) -> Result<BlobStat, Failure> {
        let Some(bait) = self.bait(&wanted.repository) else { return self.content.stat(wanted).await };
        Ok(BlobStat { size_bytes: bait.blob(&wanted.digest)?.len() as u64, media_type: None })
    }

    async fn blob(&self, wanted: BlobRequest) -> Result<Blob, Failure> {
        let Some(bait) = self.bait(&wanted.name.repository) else { return self.content.blob(wanted).await };
        let bytes = bait.blob(&wanted.name.digest)?;
        let stat = BlobStat { size_bytes: bytes.len() as u64, media_type: None };
        let range = wanted.range.unwrap_or(0..stat.size_bytes);
        let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let part = part.filter(|(_, end)| *end <= bytes.len()).ok_or_else(|| Failure::new(Reason::NotFound))?;
        let part = bytes.slice(part.0..part.1);
        Ok(Blob { stat, stream: Box::pin(stream::iter([Ok(part)])) })
    }

    async fn listing(&self, wanted: ListingRequest) -> Result<Listing, Failure> {
        self.content.listing(wanted).await
    }
}

fn with_digest(bytes: Bytes) -> (Digest, Bytes) {
    (Digest::Sha256(Sha256::digest(&bytes).into()), bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mirror::MemoryContent;

    #[tokio::test]
    async fn the_bait_is_given_under_its_last_name_alone() {
        let bait = Arc::new(Bait::new());
        let baited = Baited { bait: Some(Arc::clone(&bait)), content: MemoryContent::default() };
        let ask = async |image: &str| {
            let (registry, rest) = image.split_once('/').unwrap();
            let (repository, tag) = rest.rsplit_once(':').unwrap();
            let (registry, repository) = (registry.parse().unwrap(), repository.parse().unwrap());
            let reference = Reference::Tag(tag.parse().unwrap());
            baited.manifest(ManifestRequest { registry, repository, reference, head: true }).await
        };
        let (first, second) = (bait.lay("r.example:5000", 1), bait.lay("r.example:5000", 2));
        assert!(ask(&first).await.is_err() && !bait.was_taken(), "an old name is everybody's");
        let manifest = ask(&second).await.unwrap();
        assert!(bait.was_taken());
        let read = shoal_oci::manifest::Manifest::parse(manifest.bytes()).unwrap();
        let repository: Repository = format!("{REPOSITORIES}{:016x}", 2).parse().unwrap();
        assert!(is_bait(&repository));
        let mut sizes = Vec::new();
        for blob in read.blobs() {
            let name = BlobName {
                registry: "r.example".parse().unwrap(),
                repository: repository.clone(),
                digest: blob.digest,
            };
            assert_eq!(baited.stat(name).await.unwrap().size_bytes, blob.size_bytes);
            sizes.push(blob.size_bytes);
        }
        assert_eq!(sizes.last(), Some(&1_024));
    }
}
