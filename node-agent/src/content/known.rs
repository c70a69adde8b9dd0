//! What is known of content before its bytes: its size and type from a manifest or a record, and until when the origin has shown that
//! anonymous clients may read it.
//!
//! State: a bounded table.
//! Invariants: an entry is of one repository. What one repository's manifest says about a digest says nothing about another's: neither
//! who may read it nor how long it is.
//! Absent on purpose: bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_oci::{Registry, Repository};
use shoal_types::Digest;
use tokio::time::Instant;

use super::bounded::Bounded;

/// An entry takes some 400 bytes: 6 MiB for all. A node's 250 pods have images of 10 to 30 blobs.
const MAX_ENTRIES: usize = 1 << 14;

/// That something is readable for everyone is believed for as long as a tracker believes it (the ttl of a digest's record) …
const READABLE_FOR: Duration = Duration::from_secs(3_600);
/// … and for as long as a pull may take, if it is what was known last while the origin can't be asked.
const READABLE_AS_BEFORE_FOR: Duration = Duration::from_secs(300);

/// Until when it is believed that everyone may read what the origin has just shown.
pub(super) fn readable_until() -> Instant {
    Instant::now() + READABLE_FOR
}

/// The same of what it had shown before it went down.
pub(super) fn readable_as_before_until() -> Instant {
    Instant::now() + READABLE_AS_BEFORE_FOR
}

/// A digest in a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) registry: Registry,
    pub(super) repository: Repository,
    pub(super) digest: Digest,
}

/// What is known of it.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) size_bytes: u64,
    pub(super) media_type: Option<Arc<str>>,
    /// Until when it may be served to everyone; none if nobody has asked.
    pub(super) readable_until: Option<Instant>,
    /// The origin shows it to nobody anonymous: it is served to those who name its digest, and fetched with credentials.
    pub(super) private: bool,
}

impl Fact {
    pub(super) fn is_readable(&self) -> bool {
        self.readable_until.is_some_and(|until| until > Instant::now())
    }

    /// Whether a blob may be served to whoever names it.
    pub(super) fn may_be_had(&self) -> bool {
        self.private || self.is_readable()
    }

    /// Whether it was readable when somebody asked last, however long ago.
    pub(super) const fn was_readable(&self) -> bool {
        self.readable_until.is_some()
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Known(Mutex<Bounded<Place, Fact>>);

impl Known {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Bounded::new(MAX_ENTRIES)))
    }

    pub(super) fn get(&self, place: &Place) -> Option<Fact> {
        self.lock().get(place).cloned()
    }

    pub(super) fn learn(&self, place: Place, fact: Fact) {
        let mut table = self.lock();
        // A manifest that was read without a check takes nothing away from what a check has shown.
        let proven =
            table.get(&place).filter(|old| old.size_bytes == fact.size_bytes).and_then(|old| old.readable_until);
        table.insert(place, Fact { readable_until: fact.readable_until.max(proven), ..fact });
    }

    /// The origin has said no.
    pub(super) fn forget(&self, place: &Place) {
        self.lock().remove(place);
    }

    fn lock(&self) -> MutexGuard<'_, Bounded<Place, Fact>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
