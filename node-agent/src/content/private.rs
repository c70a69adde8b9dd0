//! Fetching what anonymous clients may not read, as the lead of a blob: with what the tracker hands its lead.
//!
//! ```text
//!   fetch ── a client whose secret still holds? ── no ──> the tracker: a token for this repository, or a password
//!     │                                                      └── none ──> what the runtime downloads with the pod's secret, as it comes
//!     └──> the registry ── refuses in spite of it ──> the tracker once more, then it is the origin's word
//! ```
//!
//! State: a client for each private repository, until its secret no longer holds; the registries without credentials.
//! Invariants: a secret lies in memory only, in the client of the one registry for which it was asked; nothing that an anonymous client is
//! asked is ever asked of these.
//! Absent on purpose: deciding that something is private (`manifests`, `blobs`).

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use shoal_oci::origin::{BlobStream, Cause, Origin, OriginError};
use shoal_oci::{Credentials, Reference, Registry, Repository};
use shoal_origins::Clients;
use shoal_tracker_server::SecretKind;
use shoal_tracker_server::client::TrackerClient;
use shoal_types::Digest;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::handover::{Errand, Handover};
use super::policy::Policies;
use crate::exchange::{FetchError, OriginStream, Source, SourceKind};
use crate::runtime::{Growing, Runtime};

/// Private repositories that one node leads blobs of within five minutes. A client has up to 300 KiB of roots.
const MAX_CLIENTS: usize = 32;

/// That there are no credentials is believed for so long: as long as it takes to change the Swarm and try again.
const NONE_HOLDS: Duration = Duration::from_secs(10);

/// The way to private repositories. A clone is the same one.
#[derive(Clone)]
pub(super) struct PrivateDoor(Arc<Inner>);

struct Inner {
    policies: Policies,
    clients: Arc<Clients>,
    tracker: TrackerClient,
    runtime: Runtime,
    handover: Handover,
    keys: Mutex<Bounded<(Registry, Repository), Key>>,
}

/// What is known of a repository.
struct Key {
    /// None: there are no credentials.
    client: Option<Origin>,
    until: Instant,
}

impl fmt::Debug for PrivateDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateDoor")
    }
}

impl PrivateDoor {
    pub(super) fn new(policies: Policies, clients: Arc<Clients>, tracker: TrackerClient, runtime: Runtime) -> Self {
        let keys = Mutex::new(Bounded::new(MAX_CLIENTS));
        Self(Arc::new(Inner { policies, clients, tracker, runtime, handover: Handover::new(), keys }))
    }

    /// What is left to the runtime.
    pub(super) fn handover(&self) -> &Handover {
        &self.0.handover
    }

    /// The bytes of a blob or manifest.
    pub(super) fn fetch(&self, source: &Source, digest: &Digest, size_bytes: u64, range: Range<u64>) -> OriginStream {
        let fetching = Fetching {
            door: self.clone(),
            source: source.clone(),
            digest: *digest,
            size_bytes,
            left: range,
            stream: None,
            growing: None,
            renewed: false,
        };
        Box::pin(stream::try_unfold(fetching, async |mut fetching| {
            Ok(fetching.next().await?.map(|bytes| (bytes, fetching)))
        }))
    }

    /// A client that may read the repository, to fetch this blob; none without credentials.
    async fn client(&self, source: &Source, digest: &Digest) -> Result<Option<Origin>, FetchError> {
        let (registry, repository) = (&source.registry, &source.repository);
        // Asked each time: a Swarm that has gone takes its credentials along.
        let decision = self.0.policies.decide(registry, repository).ok_or(FetchError::NoWay)?;
        let place = (registry.clone(), repository.clone());
        if let Some(known) = self.known(&place) {
            return Ok(known);
        }
        let secret = match self.0.tracker.pull_secret(registry.as_str(), repository.as_str(), digest).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(%registry, %repository, %error, "the tracker gives no credentials");
                return Ok(None);
            }
        };
        let (client, holds) = match secret {
            None => (None, NONE_HOLDS),
            Some(secret) => {
                let credentials = match secret.kind {
                    SecretKind::Token(token) => Credentials::Bearer(token),
                    SecretKind::Password(user, password) => Credentials::Basic(user, password),
                };
                let client = self.0.clients.own_client(registry, &decision, credentials);
                let client = client.map_err(|error| {
                    tracing::warn!(%registry, %error, "a registry can't be asked");
                    FetchError::NoWay
                })?;
                (Some(client), secret.holds)
            }
        };
        let until = Instant::now() + holds;
        self.keys().insert(place, Key { client: client.clone(), until });
        Ok(client)
    }

    fn known(&self, place: &(Registry, Repository)) -> Option<Option<Origin>> {
        let now = Instant::now();
        let mut keys = self.keys();
        // What no longer holds isn't kept either.
        keys.retain(|key| key.until > now);
        keys.get(place).map(|key| key.client.clone())
    }

    fn forget(&self, source: &Source) {
        self.keys().remove(&(source.registry.clone(), source.repository.clone()));
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Bounded<(Registry, Repository), Key>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch under way.
struct Fetching {
    door: PrivateDoor,
    source: Source,
    digest: Digest,
    size_bytes: u64,
    left: Range<u64>,
    stream: Option<BlobStream>,
    /// What the runtime downloads.
    growing: Option<(Growing, Errand)>,
    /// The secret was asked for once more, and nothing has come since.
    renewed: bool,
}

impl Fetching {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        while !self.left.is_empty() {
            match self.piece().await {
                Ok(Some(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    self.renewed = false;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                // A token that ran out while the blob came, or a password that was changed.
                Err(FetchError::Origin(error)) if is_denial(&error) && !self.renewed => {
                    self.door.forget(&self.source);
                    self.stream = None;
                    self.renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, FetchError> {
        if self.growing.is_some() {
            return self.piece_of_runtime().await;
        }
        let repository = &self.source.repository;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let Some(origin) = self.door.client(&self.source, &self.digest).await? else {
                    return self.piece_of_runtime().await;
                };
                if self.source.kind == SourceKind::Manifest {
                    let body = origin.manifest(repository, &Reference::Digest(self.digest)).await?.body;
                    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                    let piece = body.slice(within(self.left.start)..within(self.left.end));
                    return Ok((!piece.is_empty()).then_some(piece));
                }
                self.stream.insert(origin.blob(repository, self.digest, self.size_bytes, self.left.clone()))
            }
        };
        Ok(stream.next().await.transpose()?)
    }

    async fn piece_of_runtime(&mut self) -> Result<Option<Bytes>, FetchError> {
        let (growing, errand) = match &mut self.growing {
            Some(growing) => growing,
            None => {
                // Of manifests it downloads those that it was refused here, and nobody else is given them.
                let content = self.door.0.runtime.content().filter(|_| self.source.kind == SourceKind::Blob);
                let growing = Growing::new(content.ok_or(FetchError::NoWay)?, self.digest, self.left.clone());
                self.growing.insert((growing, self.door.0.handover.ask(self.digest)))
            }
        };
        let bytes = growing.next().await.ok_or(FetchError::NoWay)?;
        if errand.begun() {
            tracing::info!(digest = %self.digest, "the runtime's own download is what other nodes get");
        }
        Ok(Some(bytes))
    }
}

fn is_denial(error: &OriginError) -> bool {
    matches!(error.cause(), Cause::Unauthorized { .. })
}
