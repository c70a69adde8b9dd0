//! Content in memory with faults on demand: for tests, and for demos of what the mirror does when its source fails.
//!
//! State: manifests and blobs by repository, the faults of each blob, how many streams are open.
//! Invariants: without faults it keeps [`Content`]'s promises; with them it breaks only the promise that the fault names.
//! Absent on purpose: any limit on what it holds. Nobody but the program that fills it can make it grow.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};
use shoal_oci::{Registry, Repository};
use shoal_types::Digest;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use super::content::{
    Blob, BlobName, BlobRequest, BlobStat, Content, Listing, ListingKind, ListingRequest, Manifest, ManifestRequest,
};
use super::failure::{Failure, Reason};

/// Manifests and blobs in memory.
#[derive(Debug, Default)]
pub struct MemoryContent {
    state: Mutex<State>,
    streams: watch::Sender<usize>,
}

/// What goes wrong with a blob.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Nothing is ever said about it.
    pub mute: bool,
    /// It can't be had.
    pub refused: Option<Failure>,
    /// A range that doesn't start at its first byte can't be had, as when a runtime reopens a body that was cut.
    pub reopening_refused: Option<Failure>,
    /// Each of its streams ends early: after so many bytes, in this way.
    pub ending: Option<(u64, Ending)>,
    /// Its streams come in pieces of so many bytes with a pause after each.
    pub slow: Option<(usize, Duration)>,
    /// Its streams go on after the last byte wanted.
    pub overrun: bool,
}

/// How a stream ends early.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With a failure.
    Failing(Failure),
    /// As if it were complete.
    Silent,
    /// Not at all: nothing comes any more.
    Hanging,
}

#[derive(Debug, Default)]
struct State {
    manifests: BTreeMap<(String, String), Manifest>,
    blobs: BTreeMap<(String, Digest), (Bytes, Faults)>,
}

impl MemoryContent {
    /// Keeps a manifest under its digest and its tags.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] above the limit.
    pub fn add_manifest(
        &self,
        registry: &Registry,
        repository: &Repository,
        tags: &[&str],
        media_type: HeaderValue,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, Failure> {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let manifest = Manifest::new(digest, media_type, bytes)?;
        let place = place(registry, repository);
        let mut state = self.state();
        state.manifests.insert((place.clone(), digest.to_string()), manifest.clone());
        for tag in tags {
            state.manifests.insert((place.clone(), (*tag).to_owned()), manifest.clone());
        }
        Ok(digest)
    }

    /// Keeps a blob.
    pub fn add_blob(&self, registry: &Registry, repository: &Repository, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.state().blobs.insert((place(registry, repository), digest), (bytes, Faults::default()));
        digest
    }

    /// Sets what goes wrong with a blob, in every repository that has it, from the next request on.
    pub fn set_faults(&self, digest: Digest, faults: &Faults) {
        for ((_, held), (_, of_blob)) in &mut self.state().blobs {
            if *held == digest {
                *of_blob = faults.clone();
            }
        }
    }

    /// How many streams of blobs are open, for waiting on.
    pub fn open_streams(&self) -> watch::Receiver<usize> {
        self.streams.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn held(&self, name: &BlobName) -> Result<(Bytes, Faults), Failure> {
        let key = (place(&name.registry, &name.repository), name.digest);
        let (bytes, faults) = self.state().blobs.get(&key).cloned().ok_or(Failure::new(Reason::NotFound))?;
        if faults.mute {
            return pending().await;
        }
        faults.refused.clone().map_or(Ok((bytes, faults)), Err)
    }
}

impl Content for MemoryContent {
    async fn manifest(&self, wanted: ManifestRequest) -> Result<Manifest, Failure> {
        let key = (place(&wanted.registry, &wanted.repository), wanted.reference.to_string());
        self.state().manifests.get(&key).cloned().ok_or(Failure::new(Reason::NotFound))
    }

    async fn stat(&self, wanted: BlobName) -> Result<BlobStat, Failure> {
        self.held(&wanted).await.map(|(bytes, _)| stat(&bytes))
    }

    async fn blob(&self, wanted: BlobRequest) -> Result<Blob, Failure> {
        let (bytes, faults) = self.held(&wanted.name).await?;
        let stat = stat(&bytes);
        let Range { start, end } = wanted.range.unwrap_or(0..stat.size_bytes);
        if let (1.., Some(failure)) = (start, &faults.reopening_refused) {
            return Err(failure.clone());
        }
        let mut rest = bytes.slice(offset(start)..offset(end));
        if faults.overrun {
            rest = [&rest[..], b"overrun"].concat().into();
        }
        self.streams.send_modify(|open| *open += 1);
        let stream = MemoryStream {
            rest,
            given: 0,
            pause: Box::pin(sleep(Duration::ZERO)),
            faults,
            _open: Open(self.streams.clone()),
        };
        Ok(Blob { stat, stream: Box::pin(stream) })
    }

    async fn listing(&self, wanted: ListingRequest) -> Result<Listing, Failure> {
        let place = place(&wanted.registry, &wanted.repository);
        let state = self.state();
        let names: Vec<_> = state.manifests.keys().filter(|(held, _)| *held == place).map(|(_, name)| name).collect();
        if names.is_empty() {
            return Err(Failure::new(Reason::NotFound));
        }
        let (media_type, body) = match wanted.kind {
            ListingKind::Tags(_) => {
                let tags: Vec<_> = names.into_iter().filter(|name| !name.contains(':')).collect();
                ("application/json", serde_json::json!({ "name": wanted.repository.to_string(), "tags": tags }))
            }
            ListingKind::Referrers { .. } => {
                let media_type = "application/vnd.oci.image.index.v1+json";
                let index = serde_json::json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [] });
                (media_type, index)
            }
        };
        Ok(Listing {
            media_type: HeaderValue::from_static(media_type),
            bytes: body.to_string().into(),
            link: None,
            filters_applied: None,
        })
    }
}

struct MemoryStream {
    rest: Bytes,
    given: u64,
    pause: Pin<Box<Sleep>>,
    faults: Faults,
    _open: Open,
}

/// Counts a stream as open until it is dropped.
struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Stream for MemoryStream {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut most = this.rest.len();
        if let Some((after, ending)) = &this.faults.ending {
            most = most.min(offset(after - this.given));
            if most == 0 {
                return match ending {
                    Ending::Failing(failure) => Poll::Ready(Some(Err(failure.clone()))),
                    Ending::Silent => Poll::Ready(None),
                    Ending::Hanging => Poll::Pending,
                };
            }
        }
        if most == 0 {
            return Poll::Ready(None);
        }
        if let Some((piece_bytes, pause)) = this.faults.slow {
            if this.pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.pause.as_mut().reset(Instant::now() + pause);
            most = most.min(piece_bytes);
        }
        let piece = this.rest.split_to(most);
        this.given += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

fn place(registry: &Registry, repository: &Repository) -> String {
    format!("{registry}/{repository}")
}

fn stat(bytes: &Bytes) -> BlobStat {
    BlobStat { size_bytes: bytes.len() as u64, media_type: None }
}

/// An offset into bytes that are in memory.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}
