//! What the registry has, and what happened to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use shoal_types::Digest;
use tokio::sync::watch;
use tokio::time::Instant;

use super::content::Content;
use super::fault::{Fault, Trouble};
use crate::names::Repository;

/// What was asked for and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Bytes of bodies that were handed to connections.
    pub body_bytes: u64,
    /// Requests with `Authorization`.
    pub authorized: u64,
    /// Requests with `Range`.
    pub ranged: u64,
}

#[derive(Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    /// Bodies on their way.
    sending: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    blobs: BTreeMap<(Repository, Digest), Content>,
    manifests: BTreeMap<(Repository, Digest), (String, Bytes)>,
    tags: BTreeMap<(Repository, String), Digest>,
    tokens: BTreeMap<String, (Repository, Instant)>,
    tokens_given: u64,
    /// By path. The paths are those of the clients of a test: nobody floods it.
    traffic: BTreeMap<String, Traffic>,
    connections: u64,
    faults: Vec<Fault>,
    bytes_per_second: Option<u64>,
    /// When the line is free again.
    line_free: Option<Instant>,
}

impl State {
    pub(super) fn limit(&self, bytes_per_second: Option<u64>) {
        self.lock().bytes_per_second = bytes_per_second;
    }

    /// Takes the line for so many bytes; until when it is taken.
    pub(super) fn take_line(&self, bytes: usize) -> Option<Instant> {
        let mut inner = self.lock();
        let rate = inner.bytes_per_second?;
        let free = inner.line_free.unwrap_or_else(Instant::now).max(Instant::now());
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
        let taken = free + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        inner.line_free = Some(taken);
        Some(taken)
    }

    /// How much is sent at once: 10 ms of the line, so that a slow one isn't jerky.
    pub(super) fn piece_bytes(&self) -> usize {
        const LARGEST: usize = 64 << 10;
        let rate = self.lock().bytes_per_second;
        rate.map_or(LARGEST, |rate| usize::try_from(rate / 100).unwrap_or(LARGEST).clamp(1 << 10, LARGEST))
    }

    pub(super) fn push_blob(&self, repository: &Repository, content: Content) -> Digest {
        let digest = content.digest();
        self.push_generated(repository, digest, content);
        digest
    }

    /// A blob whose digest is known already: hashing takes the time.
    pub(super) fn push_generated(&self, repository: &Repository, digest: Digest, content: Content) {
        self.lock().blobs.insert((repository.clone(), digest), content);
    }

    pub(super) fn push_manifest(
        &self,
        repository: &Repository,
        tag: Option<&str>,
        media_type: &str,
        body: Bytes,
    ) -> Digest {
        let digest = Content::bytes(body.clone()).digest();
        let mut inner = self.lock();
        inner.manifests.insert((repository.clone(), digest), (media_type.into(), body));
        if let Some(tag) = tag {
            inner.tags.insert((repository.clone(), tag.into()), digest);
        }
        digest
    }

    pub(super) fn blob(&self, repository: &Repository, digest: Digest) -> Option<Content> {
        self.lock().blobs.get(&(repository.clone(), digest)).cloned()
    }

    pub(super) fn manifest(&self, repository: &Repository, digest: Digest) -> Option<(String, Bytes)> {
        self.lock().manifests.get(&(repository.clone(), digest)).cloned()
    }

    pub(super) fn tagged(&self, repository: &Repository, tag: &str) -> Option<Digest> {
        self.lock().tags.get(&(repository.clone(), tag.into())).copied()
    }

    pub(super) fn tags(&self, repository: &Repository) -> Vec<String> {
        let inner = self.lock();
        inner.tags.keys().filter(|(of, _)| of == repository).map(|(_, tag)| tag.clone()).collect()
    }

    pub(super) fn manifests(&self, repository: &Repository) -> Vec<(Digest, String, Bytes)> {
        let inner = self.lock();
        let own = inner.manifests.iter().filter(|((of, _), _)| of == repository);
        own.map(|((_, digest), (media_type, body))| (*digest, media_type.clone(), body.clone())).collect()
    }

    pub(super) fn give_token(&self, repository: Repository, holds: Duration) -> String {
        let mut inner = self.lock();
        inner.tokens_given += 1;
        let token = format!("token-{}", inner.tokens_given);
        inner.tokens.insert(token.clone(), (repository, Instant::now() + holds));
        token
    }

    pub(super) fn holds(&self, token: &str, repository: &Repository) -> bool {
        let inner = self.lock();
        inner.tokens.get(token).is_some_and(|(of, until)| of == repository && *until > Instant::now())
    }

    pub(super) fn revoke(&self) {
        self.lock().tokens.clear();
    }

    pub(super) fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// The troubles of a request: those of every fault that is about it.
    pub(super) fn troubles(&self, method: &Method, path: &str) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut inner = self.lock();
        for fault in &mut inner.faults {
            if fault.times > 0
                && path.contains(&fault.path_contains)
                && fault.method.as_ref().is_none_or(|only| only == method)
            {
                fault.times -= u32::from(fault.times != u32::MAX);
                troubles.push(fault.trouble.clone());
            }
        }
        inner.faults.retain(|fault| fault.times > 0);
        troubles
    }

    pub(super) fn begin_sending(&self) {
        self.sending.send_modify(|bodies| *bodies += 1);
    }

    pub(super) fn end_sending(&self) {
        self.sending.send_modify(|bodies| *bodies -= 1);
    }

    pub(super) fn sending(&self) -> watch::Receiver<u64> {
        self.sending.subscribe()
    }

    pub(super) fn count_connection(&self) {
        self.lock().connections += 1;
    }

    pub(super) fn connections(&self) -> u64 {
        self.lock().connections
    }

    pub(super) fn count(&self, path: &str, change: impl FnOnce(&mut Traffic)) {
        change(self.lock().traffic.entry(path.into()).or_default());
    }

    pub(super) fn traffic(&self, path: impl Fn(&str) -> bool) -> Traffic {
        let inner = self.lock();
        inner.traffic.iter().filter(|(of, _)| path(of)).fold(Traffic::default(), |sum, (_, traffic)| Traffic {
            requests: sum.requests + traffic.requests,
            body_bytes: sum.body_bytes + traffic.body_bytes,
            authorized: sum.authorized + traffic.authorized,
            ranged: sum.ranged + traffic.ranged,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
