//! One request to one answer: what is asked, may it be asked here, what the core says, the headers that runtimes insist on.
//!
//! ```text
//! head ──> refused? ──> manifest, blob or list from the core ──> answer
//!            │                     │ failure
//!            └─────────────────────┴──────────────────────────> OCI error, counted, and logged with what the origin said
//! ```
//!
//! State: the content, the registries, the settings.
//! Invariants: every answer has a `Content-Length`; `HEAD` has the headers of its `GET` and no body; no answer takes longer to begin than
//! [`Settings::source_patience`] for each question to the core.
//! Absent on purpose: `Accept-Encoding` (bytes are sent as the registry has them), `ETag` (a digest is in every URL that matters), requests'
//! bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, IF_RANGE, LINK, RANGE,
    RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use oci_client::errors::OciErrorCode;
use shoal_oci::paths::{self, Request, Target};
use shoal_oci::range::{Wanted, content_range, unsatisfied};
use shoal_oci::{ErrorBody, Reference, Registry, Repository, error_body};
use shoal_types::Digest;
use tokio::time::timeout;

use super::body::{AnswerBody, StreamedBody};
use super::content::{
    BlobName, BlobRequest, BlobStat, Content, Listing, ListingKind, ListingRequest, Manifest, ManifestRequest,
};
use super::cut::CutSwitch;
use super::failure::{Failure, Reason};
use super::metrics::Metrics;
use super::refusal::Refusal;
use super::settings::{Registries, Settings};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Whether a connection is served or only told to go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It has a place.
    Served,
    /// It is one too many.
    Refused,
}

/// What all connections share.
pub(super) struct Service<C> {
    content: Arc<C>,
    registries: Box<dyn Registries>,
    settings: Settings,
    metrics: Metrics,
}

type Answer = Response<AnswerBody>;

/// Why there is no answer but an error.
enum Problem {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<C: Content> Service<C> {
    pub(super) fn new(content: Arc<C>, registries: Box<dyn Registries>, settings: Settings, metrics: Metrics) -> Self {
        Self { content, registries, settings, metrics }
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request of a connection with this switch.
    pub(super) async fn answer(&self, asked: Parts, admission: Admission, cut: CutSwitch) -> Answer {
        let head = asked.method == Method::HEAD;
        let request = self.read(&asked, admission);
        let kind = request.as_ref().map_or(Kind::Unknown, Kind::of);
        let answer = match request {
            Ok(request) => self.fulfil(request, &asked, cut).await,
            Err(refusal) => Err(refusal.into()),
        };
        let mut answer = answer.unwrap_or_else(|problem| self.explain(problem, kind, &asked));
        self.metrics.answered(kind.label(), answer.status());
        if head {
            *answer.body_mut() = AnswerBody::whole(Bytes::new());
        }
        answer
    }

    /// What is asked, if it may be asked here.
    fn read(&self, asked: &Parts, admission: Admission) -> Result<Request, Refusal> {
        if admission == Admission::Refused {
            return Err(Refusal::Overloaded);
        }
        if let Some(token) = &self.settings.token {
            let shown = asked.headers.get(Settings::TOKEN_HEADER).map_or(&b""[..], HeaderValue::as_bytes);
            if !token.matches(shown) {
                return Err(Refusal::Token);
            }
        }
        if !matches!(asked.method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let request = paths::parse(asked.uri.path(), asked.uri.query(), self.settings.default_registry.as_ref())
            .map_err(Refusal::Path)?;
        match &request {
            Request::In { registry, .. } if !self.registries.allows(registry) => Err(Refusal::NotServed),
            _ => Ok(request),
        }
    }

    async fn fulfil(&self, request: Request, asked: &Parts, cut: CutSwitch) -> Result<Answer, Problem> {
        let Request::In { registry, repository, target } = request else { return Ok(base()) };
        match target {
            Target::Manifest(reference) => self.manifest(registry, repository, reference, asked).await,
            Target::Blob(digest) => self.blob(BlobName { registry, repository, digest }, asked, cut).await,
            Target::Tags(page) => self.listing(registry, repository, ListingKind::Tags(page), asked).await,
            Target::Referrers { digest, artifact_type } => {
                self.listing(registry, repository, ListingKind::Referrers { digest, artifact_type }, asked).await
            }
        }
    }

    async fn manifest(
        &self,
        registry: Registry,
        repository: Repository,
        reference: Reference,
        asked: &Parts,
    ) -> Result<Answer, Problem> {
        let by_digest = match &reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        let head = asked.method == Method::HEAD;
        let wanted = ManifestRequest { registry, repository, reference, head };
        let manifest = self.in_time(self.content.manifest(wanted)).await?;
        if by_digest.is_some_and(|digest| digest != manifest.digest()) {
            return Err(Failure::new(Reason::Corrupt).with_detail("another manifest came than was asked for").into());
        }
        Ok(of_manifest(&manifest))
    }

    async fn blob(&self, name: BlobName, asked: &Parts, cut: CutSwitch) -> Result<Answer, Problem> {
        let digest = name.digest;
        if asked.method == Method::HEAD {
            let stat = self.in_time(self.content.stat(name)).await?;
            return Ok(of_blob(digest, &stat, StatusCode::OK, stat.size_bytes, AnswerBody::whole(Bytes::new())));
        }
        // Without an ETag no If-Range can match, and RFC 9110 (13.1.5) then wants the range ignored.
        let header = asked.headers.get(RANGE).filter(|_| !asked.headers.contains_key(IF_RANGE));
        let wanted = Wanted::parse(header.map(HeaderValue::as_bytes));
        let range = if wanted == Ok(Wanted::Whole) {
            None
        } else {
            let size_bytes = self.in_time(self.content.stat(name.clone())).await?.size_bytes;
            let range = wanted.and_then(|wanted| wanted.within(size_bytes));
            range.map_err(|error| Refusal::Range { error, size_bytes })?.map(|range| (range, size_bytes))
        };
        let wanted = BlobRequest { name, range: range.as_ref().map(|(range, _)| range.clone()) };
        let blob = self.in_time(self.content.blob(wanted)).await?;
        let size_bytes = blob.stat.size_bytes;
        let streamed = |bytes| {
            let patience = self.settings.source_patience;
            AnswerBody::Streamed(StreamedBody::new(blob.stream, bytes, patience, cut, self.metrics.clone()))
        };
        let Some((range, stat_bytes)) = range else {
            return Ok(of_blob(digest, &blob.stat, StatusCode::OK, size_bytes, streamed(size_bytes)));
        };
        if stat_bytes != size_bytes {
            return Err(Failure::new(Reason::Corrupt).with_detail("the blob's size is contested").into());
        }
        let bytes = range.end - range.start;
        let mut answer = of_blob(digest, &blob.stat, StatusCode::PARTIAL_CONTENT, bytes, streamed(bytes));
        put(&mut answer, CONTENT_RANGE, ascii(&content_range(&range, size_bytes)));
        Ok(answer)
    }

    async fn listing(
        &self,
        registry: Registry,
        repository: Repository,
        kind: ListingKind,
        asked: &Parts,
    ) -> Result<Answer, Problem> {
        let link_ns = asked.uri.query().is_some_and(names_registry).then(|| registry.clone());
        let listing = self.in_time(self.content.listing(ListingRequest { registry, repository, kind })).await?;
        if listing.bytes.len() > Listing::MAX_BYTES {
            return Err(Failure::new(Reason::TooLarge).into());
        }
        let mut answer = whole(StatusCode::OK, listing.media_type, listing.bytes);
        if let Some(next) = listing.link.as_ref().and_then(|link| next_page(link, asked.uri.path(), link_ns.as_ref())) {
            put(&mut answer, LINK, next);
        }
        if let Some(filters) = listing.filters_applied {
            put(&mut answer, OCI_FILTERS_APPLIED, filters);
        }
        Ok(answer)
    }

    async fn in_time<T>(&self, asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(self.settings.source_patience, asking).await.unwrap_or(Err(Failure::new(Reason::Stalled)))
    }

    /// The error that a problem becomes, counted and logged.
    fn explain(&self, problem: Problem, kind: Kind, asked: &Parts) -> Answer {
        match problem {
            Problem::Refused(refusal) => {
                self.metrics.refused(refusal.label());
                tracing::debug!(cause = refusal.label(), "a request to the mirror is refused");
                let mut answer = of_error(&refusal.body());
                match refusal {
                    Refusal::Overloaded => put(&mut answer, CONNECTION, HeaderValue::from_static("close")),
                    Refusal::Method => put(&mut answer, ALLOW, HeaderValue::from_static("GET, HEAD")),
                    Refusal::Range { size_bytes, .. } => {
                        put(&mut answer, CONTENT_RANGE, ascii(&unsatisfied(size_bytes)));
                    }
                    Refusal::Token | Refusal::Path(_) | Refusal::NotServed => {}
                }
                answer
            }
            Problem::Failed(failure) => {
                self.metrics.failed(&failure);
                let status = failure.reason().status();
                // The query passed its parser, so it is short. The path is in the span.
                tracing::info!(
                    query = asked.uri.query(),
                    status = status.as_u16(),
                    %failure,
                    "the mirror sends a runtime to the next host"
                );
                let mut answer = of_error(&ErrorBody::new(status, kind.code(failure.reason()), failure.to_string()));
                // An answer to HEAD has no body, and containerd shows the status line to people as it is.
                if let Ok(phrase) = ReasonPhrase::try_from(failure.to_string().into_bytes()) {
                    answer.extensions_mut().insert(phrase);
                }
                if let Reason::OriginBusy { retry_after: Some(wait) } = failure.reason() {
                    put(&mut answer, RETRY_AFTER, HeaderValue::from(seconds(wait)));
                }
                answer
            }
        }
    }
}

/// What is asked for, as far as labels and error codes go.
#[derive(Clone, Copy)]
enum Kind {
    Unknown,
    Base,
    Manifest,
    Blob,
    Listing,
}

impl Kind {
    const fn of(request: &Request) -> Self {
        match request {
            Request::Base => Self::Base,
            Request::In { target: Target::Manifest(_), .. } => Self::Manifest,
            Request::In { target: Target::Blob(_), .. } => Self::Blob,
            Request::In { target: Target::Tags(_) | Target::Referrers { .. }, .. } => Self::Listing,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Base => "base",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Listing => "listing",
        }
    }

    fn code(self, reason: Reason) -> OciErrorCode {
        match reason {
            Reason::NotFound | Reason::Withheld => match self {
                Self::Manifest => OciErrorCode::ManifestUnknown,
                Self::Blob => OciErrorCode::BlobUnknown,
                Self::Listing | Self::Base | Self::Unknown => OciErrorCode::NameUnknown,
            },
            Reason::Denied => OciErrorCode::Denied,
            Reason::Unsupported => OciErrorCode::Unsupported,
            Reason::TooLarge => OciErrorCode::SizeInvalid,
            Reason::OriginBusy { .. } => OciErrorCode::Toomanyrequests,
            // The specification has no code for what passes; this is the one that registries use.
            Reason::Unavailable | Reason::Stalled | Reason::Corrupt => OciErrorCode::Other("UNAVAILABLE".into()),
        }
    }
}

fn base() -> Answer {
    let mut answer = whole(StatusCode::OK, HeaderValue::from_static("application/json"), Bytes::from_static(b"{}"));
    put(&mut answer, DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
    answer
}

fn of_manifest(manifest: &Manifest) -> Answer {
    let mut answer = whole(StatusCode::OK, manifest.media_type().clone(), manifest.bytes().clone());
    put(&mut answer, DOCKER_CONTENT_DIGEST, ascii(&manifest.digest().to_string()));
    answer
}

fn of_blob(digest: Digest, stat: &BlobStat, status: StatusCode, bytes: u64, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    put(&mut answer, CONTENT_LENGTH, HeaderValue::from(bytes));
    put(&mut answer, CONTENT_TYPE, stat.media_type.clone().unwrap_or(OCTETS));
    put(&mut answer, DOCKER_CONTENT_DIGEST, ascii(&digest.to_string()));
    put(&mut answer, ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer
}

fn of_error(error: &ErrorBody) -> Answer {
    whole(error.status(), HeaderValue::from_static(error_body::MEDIA_TYPE), error.json())
}

fn whole(status: StatusCode, media_type: HeaderValue, bytes: Bytes) -> Answer {
    let length = HeaderValue::from(bytes.len());
    let mut answer = Response::new(AnswerBody::whole(bytes));
    *answer.status_mut() = status;
    put(&mut answer, CONTENT_LENGTH, length);
    put(&mut answer, CONTENT_TYPE, media_type);
    answer
}

fn put(answer: &mut Answer, name: HeaderName, value: HeaderValue) {
    answer.headers_mut().insert(name, value);
}

/// A header's value that we wrote ourselves: digests and numbers have nothing that a header can't carry.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Whole seconds, rounded up, at least one: an early retry is worth nothing.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Whether the registry was named by `ns`. The query has been read before: this only says which way the next page has to name it.
fn names_registry(query: &str) -> bool {
    query.split('&').any(|part| part.starts_with("ns="))
}

/// The link to a list's next page, on this mirror: the origin's query under the path that was asked for, with the registry as it was named.
fn next_page(origins: &HeaderValue, path: &str, ns: Option<&Registry>) -> Option<HeaderValue> {
    let (target, _) = origins.to_str().ok()?.split_once('<')?.1.split_once('>')?;
    let (_, query) = target.split_once('?')?;
    let ns = ns.map(|registry| format!("&ns={registry}")).unwrap_or_default();
    HeaderValue::from_str(&format!("<{path}?{query}{ns}>; rel=\"next\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_one_of_the_mirror() {
        let registry: Registry = "r.example:5000".parse().unwrap();
        let next = |link: &'static str, ns| {
            let link = HeaderValue::from_static(link);
            next_page(&link, "/v2/a/tags/list", ns).map(|link| link.to_str().unwrap().to_owned())
        };
        let relative = "</v2/a/tags/list?n=2&last=b>; rel=\"next\"";
        let ours = Some("</v2/a/tags/list?n=2&last=b&ns=r.example:5000>; rel=\"next\"".to_owned());
        assert_eq!(next(relative, Some(&registry)), ours);
        let absolute = "<https://r.example:5000/v2/a/tags/list?n=2&last=b>; rel=\"next\"";
        assert_eq!(next(absolute, Some(&registry)), ours);
        assert_eq!(next(relative, None), Some("</v2/a/tags/list?n=2&last=b>; rel=\"next\"".to_owned()));
        assert_eq!(next("nonsense", Some(&registry)), None);
    }

    #[test]
    fn waiting_is_told_in_whole_seconds() {
        assert_eq!([0, 1, 1000, 1001].map(|millis| seconds(Duration::from_millis(millis))), [1, 1, 1, 2]);
    }
}
