//! Names to digests: one question to the origin however many nodes ask, and an answer that outlives the origin where that is allowed.
//!
//! A name is in exactly one of these states:
//!
//! ```text
//!             ask                     the origin answered
//!  unknown ────────> being asked ──────────────────────────> known, until it expires
//!     ▲                   ▲                                     │           │
//!     └── evicted ────────┼─────────────────────────────────────┘           │
//!                         └──────────────── ask, expired ───────────────────┘
//! ```
//!
//! A tag's answer is one about its digest, too: pods that name the digest start while the origin is down, whatever its outage policy says of tags.
//!
//! State: a bounded table of names: the last good answer, the verdict that holds now, the question under way; and until when a
//! registry wants to be left alone.
//! Invariants: at most one question per name is under way, and it goes on when those who asked have left. Nothing is asked of a
//! registry before its Retry-After is over.
//! Absent on purpose: the registry's protocol ([`OriginResolver`]); which registries may be asked (the resolver refuses the others).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use shoal_types::Digest;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;
use crate::metrics::Metrics;
use crate::pull_secret::PullSecret;
use crate::record::{Anonymous, Record, SignedJson};

/// A manifest's name: registry, repository, and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    registry: Box<str>,
    repository: Box<str>,
    reference: Box<str>,
}

impl ImageName {
    /// The name of these parts.
    ///
    /// # Errors
    /// If one can't be that part of a name.
    pub fn new(registry: &str, repository: &str, reference: &str) -> Result<Self, ImageNameError> {
        let host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
        let path = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let tag = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is = |text: &str, max: usize, allowed: &dyn Fn(u8) -> bool| {
            (1..=max).contains(&text.len()) && text.bytes().all(allowed)
        };
        let components =
            repository.split('/').all(|part| part.starts_with(|first: char| first.is_ascii_alphanumeric()));
        if !is(registry, 255, &host) || !is(repository, 255, &path) || !components {
            return Err(ImageNameError);
        }
        let is_tag = is(reference, 128, &tag) && !reference.starts_with(['.', '-']);
        if !is_tag && reference.parse::<Digest>().is_err() {
            return Err(ImageNameError);
        }
        Ok(Self { registry: registry.into(), repository: repository.into(), reference: reference.into() })
    }

    /// The registry's host, with a port where there is one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, or the digest.
    #[must_use]
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The digest, if that is what it is named by.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.reference.parse().ok()
    }

    /// The same manifest by its digest.
    fn by(&self, digest: &Digest) -> Self {
        Self { reference: digest.to_string().into(), ..self.clone() }
    }

    /// Where the name belongs among the replicas: as a digest of these bytes would. All names of a repository are one replica's, so that who knows a
    /// tag knows its digest.
    pub(crate) fn place(&self) -> Digest {
        use sha2::Digest as _;
        let text = format!("{}\0{}", self.registry, self.repository);
        Digest::Sha256(sha2::Sha256::digest(text.as_bytes()).into())
    }
}

/// The parts aren't a manifest's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the registry, repository and reference of a manifest")]
pub struct ImageNameError;

/// What an origin says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size.
    pub size_bytes: u64,
    /// Who may read it.
    pub anonymous: Anonymous,
}

/// Why a name isn't resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The origin doesn't have it: its own words.
    #[error("the origin doesn't have it: {0}")]
    NotFound(String),
    /// The origin wants other credentials: its own words.
    #[error("the origin refuses: {0}")]
    Denied(String),
    /// The origin wants to be left alone for a while.
    #[error("the origin is busy for {} s", retry_after.as_secs())]
    Busy {
        /// For how long.
        retry_after: Duration,
    },
    /// The origin doesn't answer, or not as it should.
    #[error("the origin can't be asked: {0}")]
    Unreachable(String),
    /// This registry isn't to be asked.
    #[error("the registry isn't to be asked: {0}")]
    NotAllowed(String),
    /// Too many names are being asked for.
    #[error("too many names are being asked for")]
    Overloaded,
}

impl ResolveError {
    /// What travels to a node beside the kind of the error.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::NotFound(says) | Self::Denied(says) | Self::Unreachable(says) | Self::NotAllowed(says) => {
                says.clone()
            }
            Self::Busy { .. } | Self::Overloaded => self.to_string(),
        }
    }
}

/// Asks origins.
pub trait OriginResolver: Send + Sync + 'static {
    /// Asks the origin about a name: who may read it is what it says without credentials, where the registry's `access` is
    /// `VerifyAtOrigin`.
    fn resolve<'a>(&'a self, name: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>>;

    /// What lets the lead of this blob read its repository; none, where there are no credentials for its registry.
    fn pull_secret<'a>(&'a self, _name: &'a ImageName) -> BoxFuture<'a, Result<Option<PullSecret>, ResolveError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// What holds for this name; the defaults, if nothing else does.
    fn policy(&self, _name: &ImageName) -> ResolvePolicy {
        ResolvePolicy::default()
    }
}

/// How long answers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvePolicy {
    /// A tag's: it moves.
    pub tag_ttl: Duration,
    /// A digest's: only who may read it can change.
    pub digest_ttl: Duration,
    /// What is answered when the origin is down or busy.
    pub outage: OutagePolicy,
}

impl Default for ResolvePolicy {
    fn default() -> Self {
        let (tag_ttl, digest_ttl) = (Duration::from_secs(60), Duration::from_secs(3_600));
        Self { tag_ttl, digest_ttl, outage: OutagePolicy::LastResolved }
    }
}

/// What is answered when the origin is down or busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutagePolicy {
    /// What it said last.
    LastResolved,
    /// That it is down.
    Deny,
}

/// Names kept: about 2 KiB each with their record, so 32 MiB.
const MAX_NAMES: usize = 1 << 14;
/// Questions to origins at a time, so that one that doesn't answer leaves room for the others.
const MAX_ASKING: usize = 64;
/// An origin that hasn't answered by then is down.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// A refusal is repeated for so long: a push that was just made is seen soon.
const REFUSAL_HOLDS: Duration = Duration::from_secs(5);
/// An origin that is down is asked again after this time.
const OUTAGE_HOLDS: Duration = Duration::from_secs(5);
/// A Retry-After is believed up to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Registries whose Retry-After is remembered: those of one cluster.
const MAX_BUSY: usize = 256;
/// The longest media type, as RFC 6838 has it.
const MAX_MEDIA_TYPE: usize = 255;

type Verdict = Result<SignedJson, ResolveError>;

#[derive(Default)]
struct Name {
    last: Option<(Resolved, SystemTime)>,
    verdict: Option<(Verdict, Instant)>,
    question: Option<watch::Receiver<Option<Verdict>>>,
    used: u64,
}

#[derive(Default)]
struct Table {
    names: BTreeMap<ImageName, Name>,
    busy: BTreeMap<Box<str>, Instant>,
    clock: u64,
}

/// The cache in front of the origins.
#[derive(Clone)]
pub(crate) struct Resolver {
    origin: Arc<dyn OriginResolver>,
    credentials: Arc<Credentials>,
    metrics: Metrics,
    table: Arc<Mutex<Table>>,
    asking: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    max_names: usize,
}

impl Resolver {
    pub(crate) fn new(
        origin: Arc<dyn OriginResolver>,
        credentials: Arc<Credentials>,
        metrics: Metrics,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (table, asking) = (Arc::default(), Arc::new(Semaphore::new(MAX_ASKING)));
        Self { origin, credentials, metrics, table, asking, tasks, stop, max_names: MAX_NAMES }
    }

    /// What is known about the name, or what the origin says.
    pub(crate) async fn ask(&self, name: &ImageName) -> Verdict {
        let verdict = match self.look_up(name) {
            Ok(verdict) => verdict,
            // The sender keeps its place in the table until it has sent: without an answer the server is stopping.
            Err(mut question) => match question.wait_for(Option::is_some).await {
                Ok(verdict) => verdict.clone().unwrap_or(Err(ResolveError::Overloaded)),
                Err(_) => Err(ResolveError::Overloaded),
            },
        };
        self.metrics.resolution(match &verdict {
            Ok(_) => "resolved",
            Err(ResolveError::NotFound(_)) => "not_found",
            Err(ResolveError::Denied(_)) => "denied",
            Err(ResolveError::Busy { .. }) => "busy",
            Err(ResolveError::Unreachable(_)) => "unreachable",
            Err(ResolveError::NotAllowed(_)) => "not_allowed",
            Err(ResolveError::Overloaded) => "overloaded",
        });
        verdict
    }

    /// The origin's word of now, as far as it can be asked.
    pub(crate) async fn ask_afresh(&self, name: &ImageName) -> Result<Resolved, ResolveError> {
        if let Some(entry) = self.table().names.get_mut(name) {
            entry.verdict = None;
        }
        self.ask(name).await?;
        let table = self.table();
        // Only many other names asked for in this moment can have taken its place.
        let last = table.names.get(name).and_then(|entry| entry.last.as_ref());
        last.map(|(resolved, _)| resolved.clone()).ok_or(ResolveError::Overloaded)
    }

    /// What lets a blob's lead read its repository.
    pub(crate) async fn pull_secret(&self, name: &ImageName) -> Result<Option<PullSecret>, ResolveError> {
        let secret = match self.asking.acquire().await {
            Ok(_place) => timeout(ANSWER_WITHIN, self.origin.pull_secret(name)).await.unwrap_or_else(|_| Err(silent())),
            Err(_) => Err(ResolveError::Overloaded),
        };
        self.metrics.pull_secret(match &secret {
            Ok(Some(_)) => "handed",
            Ok(None) => "none",
            Err(_) => "failed",
        });
        secret
    }

    /// The verdict that holds, or the question whose answer will be one.
    fn look_up(&self, name: &ImageName) -> Result<Verdict, watch::Receiver<Option<Verdict>>> {
        let now = Instant::now();
        let mut table = self.table();
        table.clock += 1;
        let clock = table.clock;
        if !table.names.contains_key(name) && table.names.len() >= self.max_names && !table.evict() {
            return Ok(Err(ResolveError::Overloaded));
        }
        let entry = table.names.entry(name.clone()).or_default();
        entry.used = clock;
        if let Some((verdict, until)) = &entry.verdict
            && *until > now
        {
            return Ok(verdict.clone());
        }
        // A question whose asker is gone without an answer panicked: it is asked again.
        if let Some(question) = entry.question.as_ref().filter(|question| question.has_changed().is_ok()) {
            return Err(question.clone());
        }
        let (answer, question) = watch::channel(None);
        entry.question = Some(question.clone());
        drop(table);
        let (this, name) = (self.clone(), name.clone());
        self.tasks.spawn(async move {
            let answered = this.stop.clone().run_until_cancelled_owned(this.ask_origin(&name)).await;
            let verdict = this.conclude(&name, answered.unwrap_or(Err(ResolveError::Overloaded)));
            answer.send_replace(Some(verdict));
        });
        Err(question)
    }

    async fn ask_origin(&self, name: &ImageName) -> Result<Resolved, ResolveError> {
        let Ok(_place) = self.asking.acquire().await else { return Err(ResolveError::Overloaded) };
        // Only now: while this question waited, another one may have been told to wait.
        if let Some(until) = self.table().busy.get(name.registry()) {
            let retry_after = until.saturating_duration_since(Instant::now());
            if !retry_after.is_zero() {
                return Err(ResolveError::Busy { retry_after });
            }
        }
        self.metrics.origin_requests.inc();
        match timeout(ANSWER_WITHIN, self.origin.resolve(name)).await {
            Ok(Ok(resolved)) if resolved.media_type.len() > MAX_MEDIA_TYPE => {
                Err(ResolveError::Unreachable("it names an endless media type".to_owned()))
            }
            Ok(Ok(resolved)) if name.digest().is_some_and(|digest| digest != resolved.digest) => {
                Err(ResolveError::Unreachable("it answers with another digest".to_owned()))
            }
            Ok(answer) => answer,
            Err(_) => Err(silent()),
        }
    }

    /// Takes the origin's word into the table.
    fn conclude(&self, name: &ImageName, answered: Result<Resolved, ResolveError>) -> Verdict {
        let policy = self.origin.policy(name);
        let (now, clock) = (Instant::now(), SystemTime::now());
        let mut table = self.table();
        if let Err(ResolveError::Busy { retry_after }) = &answered {
            table.remember_busy(name.registry(), now, (*retry_after).min(MAX_RETRY_AFTER));
        }
        if let Ok(resolved) = &answered
            && name.digest().is_none()
        {
            table.remember_digest(name.by(&resolved.digest), resolved, clock, self.max_names);
        }
        let entry = table.names.entry(name.clone()).or_default();
        entry.question = None;
        let (known, holds) = match answered {
            Ok(resolved) => {
                let ttl = if name.digest().is_some() { policy.digest_ttl } else { policy.tag_ttl };
                entry.last = Some((resolved, clock));
                (Ok(()), ttl)
            }
            Err(error @ (ResolveError::Unreachable(_) | ResolveError::Busy { .. })) => {
                let holds = match &error {
                    ResolveError::Busy { retry_after } => (*retry_after).clamp(Duration::from_secs(1), MAX_RETRY_AFTER),
                    _ => OUTAGE_HOLDS,
                };
                // A digest never means anything else.
                let last_will_do = policy.outage == OutagePolicy::LastResolved || name.digest().is_some();
                (if last_will_do && entry.last.is_some() { Ok(()) } else { Err(error) }, holds)
            }
            // It is the server that is busy: the next one who asks tries again.
            Err(ResolveError::Overloaded) => (Err(ResolveError::Overloaded), Duration::ZERO),
            Err(error) => {
                entry.last = None;
                (Err(error), REFUSAL_HOLDS)
            }
        };
        let verdict = match (known, &entry.last) {
            (Ok(()), Some((resolved, resolved_at))) => {
                let record = Record {
                    name: name.clone(),
                    digest: resolved.digest,
                    media_type: resolved.media_type.clone(),
                    size_bytes: resolved.size_bytes,
                    anonymous: resolved.anonymous,
                    resolved_at: *resolved_at,
                    issued_at: clock,
                    expires_at: clock + holds,
                };
                Ok(self.credentials.signer().sign(record))
            }
            (Err(error), _) => Err(error),
            (Ok(()), None) => unreachable!("what is known is the last answer"),
        };
        entry.verdict = Some((verdict.clone(), now + holds));
        verdict
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics with the table in hand")
    }
}

fn silent() -> ResolveError {
    ResolveError::Unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))
}

impl Table {
    /// Forgets the sixteenth of the names that has been unused for longest, so that a full table isn't searched for each new name.
    /// Whether there is room now.
    fn evict(&mut self) -> bool {
        let mut idle: Vec<u64> =
            self.names.values().filter(|name| name.question.is_none()).map(|name| name.used).collect();
        if idle.is_empty() {
            return false;
        }
        idle.sort_unstable();
        let youngest = idle[(idle.len() / 16).min(idle.len() - 1)];
        self.names.retain(|_, name| name.question.is_some() || name.used > youngest);
        true
    }

    /// What a tag means is an answer about its digest as well, for when the origin can't give one.
    fn remember_digest(&mut self, name: ImageName, resolved: &Resolved, at: SystemTime, max_names: usize) {
        if self.names.len() < max_names || self.names.contains_key(&name) || self.evict() {
            let used = self.clock;
            let entry = self.names.entry(name).or_default();
            entry.used = used;
            entry.last = Some((resolved.clone(), at));
        }
    }

    fn remember_busy(&mut self, registry: &str, now: Instant, retry_after: Duration) {
        self.busy.retain(|_, until| *until > now);
        if self.busy.len() < MAX_BUSY || self.busy.contains_key(registry) {
            let until = self.busy.entry(registry.into()).or_insert(now);
            *until = (*until).max(now + retry_after);
        }
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
