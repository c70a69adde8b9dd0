//! Private content that only the runtime can get, because neither this agent nor the tracker has credentials: the runtime fetches a blob with the pod's
//! secret, for all nodes, and what it downloads is this node's source as its lead.
//!
//! ```text
//!   manifest by digest, refused ──> the runtime gets it from the origin ──> it lies in its content store: the blobs' sizes
//!   blob ──> the exchange ── another node leads ──> bytes from there
//!                 └── this node leads ──> asked: whoever waits for it here is sent to the origin ──> the ingest grows ──> all
//! ```
//!
//! State: the manifests that were refused lately; the blobs that the runtime is to fetch, or is fetching.
//! Invariants: sizes are taken only from what has the manifest's digest. A blob is asked for only as long as its lead waits for the
//! first byte.
//! Absent on purpose: credentials. The runtime shows them to no mirror that doesn't ask for them, and this one never does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_types::Digest;
use tokio::sync::watch;

use super::bounded::Bounded;
use super::known::Place;

/// Private images that one node begins to pull within moments, with their indexes.
const MAX_REFUSED: usize = 64;

/// What is left to the runtime. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Handover(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    refused: Mutex<Bounded<Place, ()>>,
    /// Each blob has one run, but for the moment in which another follows it.
    runs: watch::Sender<BTreeMap<Digest, Runs>>,
}

/// The lead's runs of a blob that wait for the runtime, and those that follow its download.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    waiting: usize,
    following: usize,
}

/// A lead's run that has the runtime fetch a blob.
#[derive(Debug)]
pub(super) struct Errand {
    handover: Handover,
    digest: Digest,
    begun: bool,
}

impl Handover {
    pub(super) fn new() -> Self {
        let refused = Mutex::new(Bounded::new(MAX_REFUSED));
        Self(Arc::new(Inner { refused, runs: watch::Sender::default() }))
    }

    /// A manifest was refused to this node's runtime, which asks the origin now.
    pub(super) fn refused(&self, manifest: Place) {
        self.manifests().insert(manifest, ());
    }

    /// Those of a blob's repository that were refused.
    pub(super) fn refused_beside(&self, blob: &Place) -> Vec<Digest> {
        let manifests = self.manifests();
        let beside = manifests
            .iter()
            .filter(|(place, ())| place.registry == blob.registry && place.repository == blob.repository);
        beside.map(|(place, ())| place.digest).collect()
    }

    /// What a manifest has in it is known.
    pub(super) fn understood(&self, manifest: &Place) {
        self.manifests().remove(manifest);
    }

    /// The runtime is to fetch this blob.
    pub(super) fn ask(&self, digest: Digest) -> Errand {
        self.0.runs.send_modify(|runs| runs.entry(digest).or_default().waiting += 1);
        Errand { handover: self.clone(), digest, begun: false }
    }

    /// Returns when the runtime is to fetch this blob. Cancel-safe.
    pub(super) async fn asked(&self, digest: &Digest) {
        let waits = |runs: &BTreeMap<Digest, Runs>| runs.get(digest).is_some_and(|runs| runs.waiting > 0);
        // The sender is our own: it can't be gone.
        let _ = self.0.runs.subscribe().wait_for(waits).await;
    }

    /// Whether the runtime is fetching this blob for all.
    pub(super) fn is_followed(&self, digest: &Digest) -> bool {
        self.0.runs.borrow().get(digest).is_some_and(|runs| runs.following > 0)
    }

    fn manifests(&self) -> MutexGuard<'_, Bounded<Place, ()>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Errand {
    /// The first bytes have come; whether that is news.
    pub(super) fn begun(&mut self) -> bool {
        if self.begun {
            return false;
        }
        self.begun = true;
        self.handover.0.runs.send_modify(|runs| {
            let runs = runs.entry(self.digest).or_default();
            (runs.waiting, runs.following) = (runs.waiting - 1, runs.following + 1);
        });
        true
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.handover.0.runs.send_modify(|all| {
            let Some(runs) = all.get_mut(&self.digest) else { return };
            let count = if self.begun { &mut runs.following } else { &mut runs.waiting };
            *count -= 1;
            if runs.waiting + runs.following == 0 {
                all.remove(&self.digest);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_blob_is_asked_for_until_it_begins_to_come() {
        let (handover, digest) = (Handover::new(), Digest::Sha256([1; 32]));
        let state = |digest: &Digest| (handover.asked(digest).now_or_never().is_some(), handover.is_followed(digest));
        assert_eq!(state(&digest), (false, false));
        let (mut first, second) = (handover.ask(digest), handover.ask(digest));
        assert_eq!((state(&digest), state(&Digest::Sha256([2; 32]))), ((true, false), (false, false)));
        assert!(first.begun() && !first.begun());
        assert_eq!(state(&digest), (true, true));
        drop(second);
        assert_eq!(state(&digest), (false, true));
        drop(first);
        assert_eq!(state(&digest), (false, false));
        assert!(handover.0.runs.borrow().is_empty());
    }

    #[test]
    fn refused_manifests_are_their_repositorys() {
        let handover = Handover::new();
        let place = |repository: &str, byte| Place {
            registry: "a.example".parse().unwrap(),
            repository: repository.parse().unwrap(),
            digest: Digest::Sha256([byte; 32]),
        };
        handover.refused(place("team/app", 1));
        handover.refused(place("team/other", 2));
        assert_eq!(handover.refused_beside(&place("team/app", 9)), [Digest::Sha256([1; 32])]);
        handover.understood(&place("team/app", 1));
        assert!(handover.refused_beside(&place("team/app", 9)).is_empty());
    }
}
