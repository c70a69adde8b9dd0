//! Content that is fetched ahead of any pull, by its digest: through the same exchange, and under the same rules, as what a runtime asks for.
//!
//! State: that of [`Shared`].
//! Invariants: what is fetched ahead lies in the store when it has come, and nothing is passed through. What is private is fetched with the
//! Swarm's credentials and shown to nobody by that: its manifest is still the origin's to give.
//! Absent on purpose: which artifacts there are, and trying again (`push`).

use shoal_oci::manifest::{Descriptor, Manifest as Contents};
use shoal_oci::{ImageName, Reference};
use shoal_types::Digest;
use tokio::time::Instant;

use super::manifests::{place, source};
use super::metrics::Fallback;
use super::policy::Course;
use super::{Shared, SwarmContent, wait};
use crate::exchange::{SourceKind, Transfer, Wanted};
use crate::mirror::{Failure, Manifest, Reason};

/// A manifest that lies in the store.
pub(crate) struct ManifestAhead {
    pub(crate) contents: Contents,
    pub(crate) size_bytes: u64,
    /// The origin shows it to nobody anonymous.
    pub(crate) private: bool,
}

impl SwarmContent {
    /// A manifest that is named by its digest, into the store.
    ///
    /// # Errors
    /// If it may not be had, or doesn't come.
    pub(crate) async fn manifest_ahead(&self, name: &ImageName, priority: u32) -> Result<ManifestAhead, Failure> {
        Box::pin(self.shared.manifest_ahead(name, priority)).await
    }

    /// Takes it from the Swarms that a tag means this digest, whose manifest was fetched ahead: the node can say so during an outage, even if nobody ever
    /// asked it for the tag.
    pub(crate) fn tag_means(&self, tag: ImageName, digest: Digest) {
        let by_digest = ImageName { reference: Reference::Digest(digest), ..tag.clone() };
        if let Some(meaning) = self.shared.records.get(&by_digest) {
            self.shared.records.learn(tag, meaning);
        }
    }

    /// A blob of such a manifest, into the store. When this returns, all of it is there.
    ///
    /// # Errors
    /// If it may not be had, or doesn't come.
    pub(crate) async fn blob_ahead(&self, name: &ImageName, blob: &Descriptor, priority: u32) -> Result<(), Failure> {
        let shared = &self.shared;
        let course = shared.exchanged_course(name)?;
        let private = shared.is_private(&place(name, blob.digest), &course);
        let (digest, size_bytes) = (blob.digest, blob.size_bytes);
        let transfer = match shared.parts.exchange.stored(&digest) {
            Some(transfer) => transfer,
            None => {
                shared
                    .start_ahead(Wanted {
                        digest,
                        size_bytes,
                        source: source(name, SourceKind::Blob, private),
                        priority,
                    })
                    .await?
            }
        };
        if transfer.size_bytes() != size_bytes {
            return Err(Failure::new(Reason::Corrupt).with_detail("the blob's size is contested"));
        }
        Ok(wait::completed(&transfer).await?)
    }
}

impl Shared {
    async fn manifest_ahead(&self, name: &ImageName, priority: u32) -> Result<ManifestAhead, Failure> {
        let course = self.exchanged_course(name)?;
        let stored = match &name.reference {
            Reference::Digest(digest) => self.parts.exchange.stored(digest),
            Reference::Tag(_) => None,
        };
        let (transfer, mut readable_until) = match stored {
            Some(transfer) => (transfer, None),
            None => {
                let (meaning, readable_until) = self.resolve(name, &course).await?;
                if meaning.size_bytes > Manifest::MAX_BYTES as u64 {
                    return Err(Failure::new(Reason::TooLarge));
                }
                let (digest, size_bytes) = (meaning.digest, meaning.size_bytes);
                let private = is_private(&course, readable_until);
                let source = source(name, SourceKind::Manifest, private || course.shared);
                (self.start_ahead(Wanted { digest, size_bytes, source, priority }).await?, Some(readable_until))
            }
        };
        let bytes = wait::whole(&transfer).await?;
        wait::completed(&transfer).await?;
        let contents = Contents::parse(&bytes).map_err(|_| Failure::new(Reason::TooLarge))?;
        let here = |blob: &Descriptor| self.parts.exchange.stored(&blob.digest).is_some();
        if readable_until.is_none() && !contents.blobs().all(here) {
            readable_until = self.resolve(name, &course).await.ok().map(|(_, readable_until)| readable_until);
        }
        // Where nobody can say it, or all of it is here, it isn't fetched with credentials.
        let private = readable_until.is_some_and(|readable_until| is_private(&course, readable_until));
        self.remember(name, readable_until.flatten(), private || course.shared, &contents);
        Ok(ManifestAhead { contents, size_bytes: bytes.len() as u64, private })
    }

    /// What is to be done with content that nodes exchange and keep.
    fn exchanged_course(&self, name: &ImageName) -> Result<Course, Failure> {
        let course = self.course(&name.registry, &name.repository)?;
        if course.origin_only {
            return Err(
                Failure::new(Reason::Withheld).with_detail("OriginOnly by mode or rule: nodes keep nothing of it")
            );
        }
        Ok(course)
    }

    async fn start_ahead(&self, wanted: Wanted) -> Result<Transfer, Failure> {
        let nobody = "there is neither a tracker nor another node to exchange with";
        if !self.parts.exchange.is_ready() {
            return Err(Failure::new(Reason::Unavailable).with_detail(nobody));
        }
        self.start(wanted).await.map_err(|fallback| {
            let why = match fallback {
                Fallback::NoTracker => nobody,
                _ => "there is no room to store it, or too much is being exchanged: raise --quota, or unpin something",
            };
            Failure::new(Reason::Unavailable).with_detail(why)
        })
    }
}

/// Whether the origin shows it to nobody anonymous, though a Swarm has it verified.
const fn is_private(course: &Course, readable_until: Option<Instant>) -> bool {
    course.verify_access && readable_until.is_none()
}
