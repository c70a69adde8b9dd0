//! Manifests: from a name to a digest that may be served, to its bytes, to the start of its blobs.
//!
//! State: that of [`Shared`].
//! Invariants: whoever gets a manifest was found to be allowed to, and so were the blobs that it names, in the same repository.
//! Absent on purpose: what a manifest must look like. What can't be understood is served all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use shoal_oci::manifest::{Descriptor, Manifest as Contents};
use shoal_oci::origin::{Cause, OriginError};
use shoal_oci::{ImageName, Reference};
use shoal_store::containerd::ContentStore;
use shoal_tracker_server::client::ClientError;
use shoal_tracker_server::{Anonymous, ImageName as AskedName, ResolveError};
use shoal_types::Digest;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::known::{self, Fact, Place};
use super::metrics::{Fallback, From};
use super::pass::digest_of;
use super::policy::Course;
use super::records::Meaning;
use super::wait;
use crate::exchange::{Source, SourceKind, Wanted};
use crate::mirror::{Failure, Manifest, ManifestRequest, OriginAnswer, Reason};

/// Blobs of one manifest that are fetched ahead: twice what overlay file systems can stack. More layers come when they are asked for.
const AHEAD: usize = 256;
/// Descriptors of one manifest that are remembered: an eighth of the table, so that no single one empties it.
const REMEMBERED: usize = 2_048;

/// A private manifest is fetched for its blobs' sizes, while the runtime waits for a 404. Beyond that the next request finds it.
const LEARN_WITHIN: Duration = Duration::from_secs(3);

impl Shared {
    pub(super) async fn manifest(&self, wanted: ManifestRequest, course: Course) -> Result<Manifest, Failure> {
        let ManifestRequest { registry, repository, reference, head } = wanted;
        let name = ImageName { registry, repository, reference };
        if course.origin_only {
            self.parts.metrics.fell_back(Fallback::OriginOnly);
            return self.manifest_of_origin(&name, &course).await;
        }
        let (meaning, readable_until) =
            self.resolve(&name, &course).await.inspect_err(|failure| self.note_refusal(&name, &course, failure))?;
        if course.verify_access && readable_until.is_none() {
            self.learn_private(&name, &meaning).await;
            let why = "the origin shows it to nobody anonymous: the runtime asks with the pod's secret";
            return Err(Failure::new(Reason::Denied).with_detail(why));
        }
        let manifest = self.body(&name, &meaning, &course).await?;
        let contents = Contents::parse(manifest.bytes()).map_err(|_| Failure::new(Reason::TooLarge))?;
        self.remember(&name, readable_until, course.shared, &contents);
        // A runtime that only resolves a tag may have it all already; one that hasn't asks for the digest next.
        if !head && self.parts.exchange.is_ready() {
            self.start_blobs(&name, course.shared, &contents).await;
        }
        Ok(manifest)
    }

    /// Learns from a manifest that isn't for everyone how long its blobs are: they are asked for by digest, by those who got it from the
    /// origin. Nobody else is given anything of it, so nothing of it begins.
    async fn learn_private(&self, name: &ImageName, meaning: &Meaning) {
        let whole = timeout(LEARN_WITHIN, self.exchanged_body(name, meaning, true)).await;
        match whole.map(|body| body.map(|bytes| Contents::parse(&bytes))) {
            Ok(Ok(Ok(contents))) => self.remember(name, None, true, &contents),
            Ok(Ok(Err(_))) => tracing::debug!(%name, "a private manifest that can't be understood"),
            Ok(Err(fallback)) => tracing::debug!(%name, ?fallback, "a private manifest can't be had"),
            Err(_) => tracing::debug!(%name, "a private manifest doesn't come in time"),
        }
    }

    /// The runtime gets from the origin what isn't for everyone: then it lies in its content store.
    fn note_refusal(&self, name: &ImageName, course: &Course, failure: &Failure) {
        let refused = matches!(failure.reason(), Reason::Denied | Reason::NotFound);
        if let Reference::Digest(digest) = name.reference
            && course.verify_access
            && refused
        {
            self.parts.origins.handover().refused(place(name, digest));
        }
    }

    /// Learns how long a blob is from the manifests of its repository that the runtime has got from the origin.
    pub(super) async fn learn_from_runtime(&self, blob: &Place) {
        let handover = self.parts.origins.handover();
        let Some(content) = self.parts.runtime.content() else { return };
        for digest in handover.refused_beside(blob) {
            let content = content.clone();
            let read = tokio::task::spawn_blocking(move || manifest_in(&content, &digest)).await;
            let Ok(Some(contents)) = read else { continue };
            let (registry, repository) = (blob.registry.clone(), blob.repository.clone());
            let name = ImageName { registry, repository, reference: Reference::Digest(digest) };
            self.remember(&name, None, true, &contents);
            handover.understood(&place(&name, digest));
        }
    }

    /// What a name means and who may have it: what is known, the tracker's word, the origin's, what was known last.
    pub(super) async fn resolve(
        &self,
        name: &ImageName,
        course: &Course,
    ) -> Result<(Meaning, Option<Instant>), Failure> {
        if let Some(known) = self.known_meaning(name, course) {
            return Ok(known);
        }
        let answered = match self.ask_tracker(name).await {
            Ok(meaning) => Ok(meaning),
            Err(Untold::NoTracker) => self.ask_origin(name, course).await,
            Err(Untold::Failed(failure)) => Err(failure),
        };
        match answered {
            Ok(meaning) => {
                self.records.learn(name.clone(), meaning.clone());
                Ok(self.learn(name, meaning, known::readable_until()))
            }
            Err(failure) => match failure.reason() {
                Reason::NotFound | Reason::Denied => {
                    self.records.forget(name);
                    if let Reference::Digest(digest) = name.reference {
                        self.known.forget(&place(name, digest));
                    }
                    Err(failure)
                }
                Reason::Unavailable | Reason::Stalled | Reason::OriginBusy { .. } => {
                    // A digest never means anything else.
                    if !course.last_will_do && matches!(name.reference, Reference::Tag(_)) {
                        let why = "its Swarm's outagePolicy is Deny, so a tag means nothing now: name the image by its digest";
                        return Err(failure.with_detail(why));
                    }
                    let last = self.records.get(name).ok_or(failure)?;
                    tracing::info!(%name, "the origin can't be asked: a name means what it meant last");
                    Ok(self.learn(name, last, known::readable_as_before_until()))
                }
                _ => Err(failure),
            },
        }
    }

    /// Remembers what a name means; until when everyone may read it.
    fn learn(&self, name: &ImageName, meaning: Meaning, until: Instant) -> (Meaning, Option<Instant>) {
        let readable_until = meaning.readable.then_some(until);
        let (size_bytes, media_type) = (meaning.size_bytes, Some(meaning.media_type.as_str().into()));
        let fact = Fact { size_bytes, media_type, readable_until, private: false };
        self.known.learn(place(name, meaning.digest), fact);
        (meaning, readable_until)
    }

    /// What a digest means needs no question where its size is known and it may be read: after the question for its tag, mostly.
    fn known_meaning(&self, name: &ImageName, course: &Course) -> Option<(Meaning, Option<Instant>)> {
        let Reference::Digest(digest) = name.reference else { return None };
        let fact = self.known.get(&place(name, digest))?;
        let readable = fact.is_readable();
        let media_type = fact.media_type.as_deref()?.to_owned();
        let meaning = Meaning { digest, media_type, size_bytes: fact.size_bytes, readable };
        (readable || !course.verify_access).then_some((meaning, fact.readable_until))
    }

    async fn ask_tracker(&self, name: &ImageName) -> Result<Meaning, Untold> {
        let (registry, repository) = (name.registry.as_str(), name.repository.as_str());
        // The tracker's grammar of names is a wider one; a name that isn't of it is the origin's to judge.
        let asked = AskedName::new(registry, repository, &name.reference.to_string()).map_err(|_| Untold::NoTracker)?;
        let verified = self.parts.tracker.resolve(&asked).await.map_err(|error| match error {
            ClientError::Resolve(error) => Untold::Failed(failure_of(&error)),
            error => {
                tracing::debug!(%error, "no tracker says what a name means");
                Untold::NoTracker
            }
        })?;
        let record = verified.record();
        Ok(Meaning {
            digest: record.digest,
            media_type: record.media_type.clone(),
            size_bytes: record.size_bytes,
            readable: record.anonymous == Anonymous::Readable,
        })
    }

    /// The origin's own word. Its client is anonymous: what it is told, everyone is.
    async fn ask_origin(&self, name: &ImageName, course: &Course) -> Result<Meaning, Failure> {
        if course.shared {
            return Err(Failure::new(Reason::Unavailable).with_detail("no tracker says what it means"));
        }
        let origin = self.origin(&name.registry, course)?;
        let head = origin.head_manifest(&name.repository, &name.reference).await;
        let head = head.map_err(|error| Failure::from(&error))?;
        let (digest, media_type, size_bytes) = (head.digest, head.media_type, head.size_bytes);
        Ok(Meaning { digest, media_type, size_bytes, readable: true })
    }

    /// The bytes: from the exchange, else from the origin.
    async fn body(&self, name: &ImageName, meaning: &Meaning, course: &Course) -> Result<Manifest, Failure> {
        if meaning.size_bytes > Manifest::MAX_BYTES as u64 {
            return Err(Failure::new(Reason::TooLarge));
        }
        match self.exchanged_body(name, meaning, course.shared).await {
            Ok(bytes) => {
                self.parts.metrics.gave(From::Exchange, bytes.len());
                Manifest::new(meaning.digest, media_type(&meaning.media_type)?, bytes)
            }
            Err(reason) => {
                self.parts.metrics.fell_back(reason);
                if course.shared {
                    let why = "neither another node nor the Swarm's credentials give it";
                    return Err(Failure::new(Reason::Denied).with_detail(why));
                }
                let by_digest = ImageName { reference: Reference::Digest(meaning.digest), ..name.clone() };
                self.manifest_of_origin(&by_digest, course).await
            }
        }
    }

    async fn exchanged_body(&self, name: &ImageName, meaning: &Meaning, private: bool) -> Result<Bytes, Fallback> {
        let transfer = match self.parts.exchange.stored(&meaning.digest) {
            Some(transfer) => transfer,
            None if !self.parts.exchange.is_ready() => return Err(Fallback::NoTracker),
            None => {
                let wanted = Wanted {
                    digest: meaning.digest,
                    size_bytes: meaning.size_bytes,
                    source: source(name, SourceKind::Manifest, private),
                    // Nothing of the image comes without it.
                    priority: 0,
                };
                self.start(wanted).await?
            }
        };
        wait::whole(&transfer).await.map_err(|trouble| {
            tracing::info!(%name, ?trouble, "a manifest doesn't come from the exchange");
            trouble.fallback()
        })
    }

    async fn manifest_of_origin(&self, name: &ImageName, course: &Course) -> Result<Manifest, Failure> {
        let origin = self.origin(&name.registry, course)?;
        let fetched = origin.manifest(&name.repository, &name.reference).await;
        let fetched = fetched.map_err(|error: OriginError| Failure::from(&error))?;
        self.parts.metrics.gave(From::Origin, fetched.body.len());
        if let Ok(contents) = Contents::parse(&fetched.body) {
            self.remember(name, Some(known::readable_until()), false, &contents);
        }
        Manifest::new(fetched.digest, media_type(&fetched.media_type)?, fetched.body)
    }

    /// Sizes and types of what a manifest points to: `stat` needs them.
    pub(super) fn remember(
        &self,
        name: &ImageName,
        readable_until: Option<Instant>,
        private: bool,
        contents: &Contents,
    ) {
        let blobs = contents.blobs();
        let children = match contents {
            Contents::Index { children } => children.as_slice(),
            Contents::Image { .. } | Contents::Opaque => &[],
        };
        // Who may read an image's manifest may read its blobs. An index's children are manifests, about which the origin is asked.
        let (readable_until, private) =
            (readable_until.filter(|_| children.is_empty()), private && children.is_empty());
        for descriptor in blobs.chain(children.iter().map(|child| &child.descriptor)).take(REMEMBERED) {
            let media_type: Option<Arc<str>> = Some(descriptor.media_type.as_str().into());
            let fact = Fact { size_bytes: descriptor.size_bytes, media_type, readable_until, private };
            self.known.learn(place(name, descriptor.digest), fact);
        }
    }

    /// Starts all blobs of an image, in the order in which its runtime will ask for them.
    async fn start_blobs(&self, name: &ImageName, private: bool, contents: &Contents) {
        let ahead = |blob: &&Descriptor| !blob.elsewhere && blob.size_bytes > 0;
        for (priority, blob) in (1..).zip(contents.blobs().filter(ahead).take(AHEAD)) {
            if self.parts.exchange.stored(&blob.digest).is_some() {
                continue;
            }
            let wanted = Wanted {
                digest: blob.digest,
                size_bytes: blob.size_bytes,
                source: source(name, SourceKind::Blob, private),
                priority,
            };
            if self.start(wanted).await.is_err() {
                // The others won't fit either; whoever asks for one is served without.
                return;
            }
        }
    }
}

/// Why the tracker hasn't said what a name means.
enum Untold {
    /// There is none that answers.
    NoTracker,
    /// It has, and this is it.
    Failed(Failure),
}

fn failure_of(error: &ResolveError) -> Failure {
    let failure = match error {
        ResolveError::NotFound(_) => Failure::new(Reason::NotFound).with_origin(OriginAnswer::Status(404)),
        ResolveError::Denied(_) => Failure::new(Reason::Denied).with_origin(OriginAnswer::Status(401)),
        ResolveError::Busy { retry_after } => {
            let reason = Reason::OriginBusy { retry_after: Some(*retry_after) };
            Failure::new(reason).with_origin(OriginAnswer::Status(429))
        }
        ResolveError::Unreachable(_) => Failure::new(Reason::Unavailable).with_origin(OriginAnswer::Unreachable),
        ResolveError::NotAllowed(_) => Failure::new(Reason::Withheld),
        ResolveError::Overloaded => Failure::new(Reason::Unavailable),
    };
    failure.with_detail(format_args!("the tracker says: {error}"))
}

/// A manifest that the runtime has, if it is what its name says.
fn manifest_in(content: &ContentStore, digest: &Digest) -> Option<Contents> {
    let blob = content.blob(digest).ok()??;
    let size = usize::try_from(blob.size_bytes()).ok().filter(|size| *size <= Manifest::MAX_BYTES)?;
    let mut bytes = vec![0; size];
    blob.read_at(0, &mut bytes).ok()?;
    (digest_of(digest.algorithm(), &bytes) == *digest).then(|| Contents::parse(&bytes).ok())?
}

/// Whether an origin's failure says that nobody may have it, or nobody can.
pub(super) fn is_refusal(error: &OriginError) -> bool {
    matches!(error.cause(), Cause::Unauthorized { .. } | Cause::NotFound { .. })
}

pub(super) fn place(name: &ImageName, digest: Digest) -> Place {
    Place { registry: name.registry.clone(), repository: name.repository.clone(), digest }
}

pub(super) fn source(name: &ImageName, kind: SourceKind, private: bool) -> Source {
    Source { registry: name.registry.clone(), repository: name.repository.clone(), kind, private }
}

fn media_type(text: &str) -> Result<HeaderValue, Failure> {
    let unusable = |_| Failure::new(Reason::Corrupt).with_detail("the manifest's media type isn't one");
    HeaderValue::from_str(text).map_err(unusable)
}
