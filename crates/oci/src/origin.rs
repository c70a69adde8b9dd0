//! The client of one origin registry: manifests, blobs as resumable streams, tokens.
//!
//! State: connections kept alive, tokens, and until when the registry asked to be left alone.
//! Invariants: a manifest that is returned has the digest that was asked for or announced. Every wait has a limit, every body a bound,
//! every retry a count. While a Retry-After runs, requests fail at once as [`Cause::Busy`].
//! Absent on purpose: a cache of answers (the tracker's, with its signatures), environment variables, pushing.

mod auth;
mod blob;
mod busy;
mod config;
mod error;
mod http;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256, Sha512};
use shoal_types::{Algorithm, Digest, DigestError, Rng};
use url::Url;

pub use self::auth::{NoToken, PullToken};
pub use self::blob::BlobStream;
pub use self::config::{ConfigError, Credentials, ProxyConfig, RegistryConfig, Timeouts};
pub use self::error::{Cause, Lie, OriginError};

use self::auth::Auth;
use self::http::{Answer, Ask, Http, api_url};
use crate::guard::Hop;
use crate::manifest;
use crate::names::{Reference, Registry, Repository};
use crate::paths::Page;

/// Every manifest is welcome, in what it is stored as: those who resolve for others must not depend on one client's taste.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// The largest list of tags or referrers that is passed on: the specification's limit for manifests, and referrers are one.
const MAX_LIST_BYTES: usize = manifest::MAX_BYTES;

/// The first pause before a request is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A registry's client. Clones share everything.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Inner>);

struct Inner {
    registry: Registry,
    endpoint: Url,
    home: Hop,
    http: Arc<Http>,
    auth: Auth,
    connections: NonZeroUsize,
    near: Duration,
    retries: u32,
    rng: Mutex<Rng>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.registry, self.endpoint)
    }
}

/// What a registry says a manifest is, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as the registry says: passed on untouched.
    pub media_type: String,
    /// Its length.
    pub size_bytes: u64,
}

/// A manifest whose body has the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as the registry says.
    pub media_type: String,
    /// The body, at most [`manifest::MAX_BYTES`] long.
    pub body: Bytes,
}

/// A list that is passed on as it came.
#[derive(Clone, Debug)]
pub struct Passed {
    /// `Content-Type`, `Link` and `OCI-Filters-Applied`, where the registry sent them. A `Link` is a path at the registry: a mirror adds
    /// its own `ns`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Origin {
    /// A client for the registry. Nothing is sent yet.
    ///
    /// # Errors
    /// If the configuration can't be used.
    pub fn new(config: RegistryConfig) -> Result<Self, ConfigError> {
        let http = Arc::new(Http::new(&config)?);
        let endpoint = config.endpoint;
        let base = api_url(&endpoint, "");
        let home =
            http.guard().home(base).ok_or_else(|| ConfigError::Endpoint { registry: config.registry.clone() })?;
        let auth = Auth::new(Arc::clone(&http), config.registry.clone(), home.clone(), config.credentials);
        Ok(Self(Arc::new(Inner {
            registry: config.registry,
            endpoint,
            home,
            http,
            auth,
            connections: config.connections,
            near: config.near,
            retries: config.retries,
            rng: Mutex::new(Rng::new(config.seed)),
        })))
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Opens connections ahead of need, and learns how the registry wants to be satisfied. Any answer of the registry will do.
    ///
    /// # Errors
    /// If none of them could be opened.
    pub async fn warm(&self, connections: NonZeroUsize) -> Result<(), OriginError> {
        // At once, or they would all be one connection.
        let opening = (0..connections.get().min(self.0.connections.get())).map(|_| self.0.knock());
        let opened = join_all(opening).await;
        let failed = opened.iter().find_map(|result| result.as_ref().err());
        match failed {
            Some(error) if opened.iter().all(Result::is_err) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// What the registry says a manifest is. If its answer to HEAD isn't complete, the manifest itself is fetched.
    ///
    /// # Errors
    /// If the registry refuses, fails or contradicts itself.
    pub async fn head_manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<ManifestHead, OriginError> {
        let path = format!("{repository}/manifests/{reference}");
        let answer = match self.0.exchange(Method::HEAD, &path, accept(), repository).await {
            Ok(answer) => answer,
            Err(error) if matches!(error.cause(), Cause::Status { status: 405, .. }) => {
                return self.head_by_get(repository, reference).await;
            }
            Err(error) => return Err(error),
        };
        let (digest, size_bytes) = (announced_digest(&answer)?, answer.length());
        let media_type = media_type(&answer);
        let (Some(size_bytes), Some(media_type)) = (size_bytes, media_type) else {
            return self.head_by_get(repository, reference).await;
        };
        if size_bytes > manifest::MAX_BYTES as u64 {
            return Err(answer.fail(Cause::TooLarge { what: "the manifest", limit: manifest::MAX_BYTES }));
        }
        let digest = match (reference, digest) {
            (Reference::Digest(expected), Some(found)) if found.algorithm() == expected.algorithm() => {
                if found != *expected {
                    return Err(answer.fail(Cause::Lied(Lie::Digest { expected: *expected, found })));
                }
                found
            }
            (Reference::Digest(expected), _) => *expected,
            (Reference::Tag(_), Some(found)) => found,
            (Reference::Tag(_), None) => return self.head_by_get(repository, reference).await,
        };
        answer.drain().await;
        Ok(ManifestHead { digest, media_type, size_bytes })
    }

    /// Fetches a manifest. Its body has the digest asked for, or for a tag the one that the registry announced.
    ///
    /// # Errors
    /// If the registry refuses, fails, sends more than [`manifest::MAX_BYTES`], or another content.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<FetchedManifest, OriginError> {
        let mut failures = 0;
        loop {
            match self.manifest_once(repository, reference).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.0.pause_or_fail(error, &mut failures).await?,
            }
        }
    }

    /// A blob's size, for one that no manifest has announced.
    ///
    /// # Errors
    /// If the registry refuses, fails, or doesn't say.
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, OriginError> {
        let path = format!("{repository}/blobs/{digest}");
        let answer = self.0.exchange(Method::HEAD, &path, HeaderMap::new(), repository).await?;
        let size = answer.length().ok_or_else(|| answer.fail(Cause::Protocol("the blob's size isn't said")))?;
        answer.drain().await;
        Ok(size)
    }

    /// The bytes `range` of a blob that has `size_bytes`, in order. Requests leave when it is first polled.
    #[must_use]
    pub fn blob(&self, repository: &Repository, digest: Digest, size_bytes: u64, range: Range<u64>) -> BlobStream {
        BlobStream::new(Arc::clone(&self.0), repository, digest, size_bytes, range)
    }

    /// A repository's tags.
    ///
    /// # Errors
    /// If the registry refuses or fails.
    pub async fn tags(&self, repository: &Repository, page: &Page) -> Result<Passed, OriginError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(limit) = page.limit {
            query.append_pair("n", &limit.to_string());
        }
        if let Some(after) = &page.after {
            query.append_pair("last", after);
        }
        self.0.list(repository, &format!("{repository}/tags/list"), &query.finish()).await
    }

    /// What refers to a manifest.
    ///
    /// # Errors
    /// If the registry refuses or fails, or knows no referrers.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Passed, OriginError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(artifact_type) = artifact_type {
            query.append_pair("artifactType", artifact_type);
        }
        self.0.list(repository, &format!("{repository}/referrers/{digest}"), &query.finish()).await
    }

    /// A token that lets its bearer read the repository, to hand to a lead; none where the registry gives no tokens.
    ///
    /// # Errors
    /// If the registry or its token server refuses or fails.
    pub async fn pull_token(&self, repository: &Repository) -> Result<Option<PullToken>, OriginError> {
        if !self.0.auth.gives_tokens() {
            self.0.knock().await?;
        }
        if !self.0.auth.gives_tokens() {
            return Ok(None);
        }
        self.0.auth.token(repository).await.map(Some)
    }

    /// Uses a token that somebody else fetched, for this repository and until it no longer holds.
    pub fn adopt_token(&self, repository: &Repository, token: PullToken) {
        self.0.auth.adopt(repository, token);
    }

    async fn manifest_once(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<FetchedManifest, OriginError> {
        let url = self.0.url(&format!("{repository}/manifests/{reference}"));
        let answer = self.0.exchange_once(Method::GET, url, accept(), repository).await?;
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => announced_digest(&answer)?,
        };
        // Without a Content-Type, what every JSON reader can take.
        let media_type = media_type(&answer).unwrap_or_else(|| "application/json".to_owned());
        let body = answer.body("the manifest", manifest::MAX_BYTES).await?;
        let found = digest_of(&body, expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
        match expected {
            Some(expected) if expected != found => {
                Err(OriginError::new(&self.0.registry, Some(repository), Cause::Lied(Lie::Digest { expected, found })))
            }
            _ => Ok(FetchedManifest { digest: found, media_type, body }),
        }
    }

    async fn head_by_get(&self, repository: &Repository, reference: &Reference) -> Result<ManifestHead, OriginError> {
        let FetchedManifest { digest, media_type, body } = self.manifest(repository, reference).await?;
        Ok(ManifestHead { digest, media_type, size_bytes: body.len() as u64 })
    }
}

impl Inner {
    /// One request with a successful answer, tried again as often as the configuration allows.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        repository: &Repository,
    ) -> Result<Answer, OriginError> {
        let mut failures = 0;
        loop {
            match self.exchange_once(method.clone(), self.url(path), headers.clone(), repository).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause_or_fail(error, &mut failures).await?,
            }
        }
    }

    /// One request with a successful answer. A challenge is met once.
    async fn exchange_once(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        repository: &Repository,
    ) -> Result<Answer, OriginError> {
        let no_way = || OriginError::new(&self.registry, Some(repository), Cause::Protocol("no URL of the registry"));
        let hop = self.http.guard().home(url).ok_or_else(no_way)?;
        let ask = Ask { method, hop, headers, repository: Some(repository) };
        let sent = self.auth.authorization(Some(repository)).await?;
        let mut answer = self.http.send(&ask, sent.as_ref()).await?;
        // Only the registry's own challenge counts: its storage has no claim to our tokens.
        if answer.status() == StatusCode::UNAUTHORIZED && !answer.moved {
            let better = self.auth.challenged(answer.headers(), Some(repository), sent.as_ref()).await?;
            if let Some(better) = better {
                answer.drain().await;
                answer = self.http.send(&ask, Some(&better)).await?;
            }
        }
        if answer.status().is_success() { Ok(answer) } else { Err(answer.into_error().await) }
    }

    /// Asks for nothing: opens a connection, and hears a challenge where there is one.
    async fn knock(&self) -> Result<(), OriginError> {
        let ask = Ask { method: Method::GET, hop: self.home.clone(), headers: HeaderMap::new(), repository: None };
        let answer = self.http.send(&ask, None).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && !answer.moved {
            self.auth.learn(answer.headers());
        }
        answer.drain().await;
        Ok(())
    }

    async fn list(&self, repository: &Repository, path: &str, query: &str) -> Result<Passed, OriginError> {
        let mut failures = 0;
        loop {
            match self.list_once(repository, path, query).await {
                Ok(list) => return Ok(list),
                Err(error) => self.pause_or_fail(error, &mut failures).await?,
            }
        }
    }

    async fn list_once(&self, repository: &Repository, path: &str, query: &str) -> Result<Passed, OriginError> {
        let mut url = self.url(path);
        url.set_query((!query.is_empty()).then_some(query));
        let answer = self.exchange_once(Method::GET, url, HeaderMap::new(), repository).await?;
        let mut headers = HeaderMap::new();
        for name in [header::CONTENT_TYPE, header::LINK, header::HeaderName::from_static("oci-filters-applied")] {
            if let Some(value) = answer.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Ok(Passed { headers, body: answer.body("the list", MAX_LIST_BYTES).await? })
    }

    fn url(&self, path: &str) -> Url {
        api_url(&self.endpoint, path)
    }

    /// Waits before what failed for a moment is tried again; gives any other error back.
    async fn pause_or_fail(&self, error: OriginError, failures: &mut u32) -> Result<(), OriginError> {
        if *failures == self.retries || !error.is_transient() {
            return Err(error);
        }
        tracing::debug!(%error, "a request is tried again");
        tokio::time::sleep(self.pause(*failures)).await;
        *failures += 1;
        Ok(())
    }

    /// The pause after so many failures: doubled each time, and half of it random, so that nodes that failed together don't come
    /// back together.
    fn pause(&self, failures: u32) -> Duration {
        let unit = self.rng.lock().unwrap_or_else(PoisonError::into_inner).unit();
        // 100 ms · 2^6 are six seconds: the swarm has a new lead by then.
        FIRST_PAUSE.saturating_mul(1 << failures.min(6)).mul_f64(0.5 + unit / 2.0)
    }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ACCEPT))])
}

fn media_type(answer: &Answer) -> Option<String> {
    let value = answer.headers().get(header::CONTENT_TYPE)?.to_str().ok()?.trim();
    (1..=255).contains(&value.len()).then(|| value.to_owned())
}

/// The digest in the header. One of an algorithm that we don't know says nothing to us.
fn announced_digest(answer: &Answer) -> Result<Option<Digest>, OriginError> {
    let Some(value) = answer.headers().get("docker-content-digest") else { return Ok(None) };
    match value.to_str().unwrap_or_default().parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(DigestError::UnknownAlgorithm) => Ok(None),
        Err(_) => Err(answer.fail(Cause::Protocol("Docker-Content-Digest isn't a digest"))),
    }
}

fn digest_of(body: &[u8], algorithm: Algorithm) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::Sha256(Sha256::digest(body).into()),
        Algorithm::Sha512 => Digest::Sha512(Sha512::digest(body).into()),
    }
}
