//! What comes to the content store and what goes from it.
//!
//! State: the blobs that were reported, and watches on the directories of blobs.
//! Invariants: a blob is reported as added once it is there under its own name, complete, because containerd renames it into place; every
//! change is looked up before it is reported, whoever told of it. After each full look, what was reported is what is there.
//! Absent on purpose: threads and queues. The kernel's queue is bounded; when it overflows, the next look is a full one. The growing files'
//! directory isn't watched: it would tell of every write.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use shoal_types::{Algorithm, Digest};

use super::{ContentStore, digest_of};

/// How often everything is looked at, whatever was told. It takes a stat a blob: milliseconds for a thousand.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(60);

/// Where nothing tells of changes, looking is all there is.
const BLIND_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Names that are looked up in one go: an image has tens of blobs.
const BATCH: usize = 1024;

/// A blob came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Added {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
    },
    /// It was there.
    Removed {
        /// The blob.
        digest: Digest,
    },
}

/// Says what comes to the content store and what goes from it.
#[derive(Debug)]
pub struct Follower {
    store: ContentStore,
    known: BTreeMap<Digest, u64>,
    watch: Option<Watch>,
    last_full_look: Option<Instant>,
}

impl Follower {
    pub(super) fn new(store: ContentStore) -> Self {
        Self { store, known: BTreeMap::new(), watch: None, last_full_look: None }
    }

    /// What has changed since the last call; the first one gives everything that is there, at once. Waits for `timeout` at most, and
    /// then gives nothing. It blocks: call it in a loop, from a thread of its own.
    ///
    /// # Errors
    /// If the content store can't be read. It is tried again after a few seconds.
    pub fn next(&mut self, timeout: Duration) -> std::io::Result<Vec<Change>> {
        let now = Instant::now();
        let every = if self.watch.as_ref().is_some_and(Watch::sees) { FULL_LOOK_EVERY } else { BLIND_LOOK_EVERY };
        let until_look =
            self.last_full_look.map_or(Duration::ZERO, |last| (last + every).saturating_duration_since(now));
        let told = match &mut self.watch {
            Some(watch) if !until_look.is_zero() => watch.wait(timeout.min(until_look)),
            None if !until_look.is_zero() => {
                std::thread::sleep(timeout.min(until_look));
                Told::Nothing
            }
            _ => Told::LookEverywhere,
        };
        let changes = match told {
            Told::Nothing => Vec::new(),
            Told::Names(digests) => self.look_at(&digests),
            Told::LookEverywhere => self.look_everywhere()?,
        };
        Ok(changes)
    }

    fn look_everywhere(&mut self) -> std::io::Result<Vec<Change>> {
        // Watches first: what comes while the directory is being read is told of.
        let watch = self.watch.take().or_else(Watch::new);
        self.watch = watch.map(|watch| watch.on(&self.store));
        self.last_full_look = Some(Instant::now());
        // Blind until that works again, so that it is tried again soon.
        let there = self.store.list().inspect_err(|_| self.watch = None)?;
        let mut touched: Vec<Digest> = self.known.keys().copied().collect();
        // The list's end may be a bound: what isn't in it is looked up by name as well.
        touched.retain(|digest| there.binary_search_by_key(digest, |(digest, _)| *digest).is_err());
        touched.extend(
            there.iter().filter(|(digest, size)| self.known.get(digest) != Some(size)).map(|(digest, _)| *digest),
        );
        Ok(self.look_at(&touched))
    }

    fn look_at(&mut self, digests: &[Digest]) -> Vec<Change> {
        digests.iter().filter_map(|digest| self.look_at_one(*digest)).collect()
    }

    fn look_at_one(&mut self, digest: Digest) -> Option<Change> {
        let size_bytes = match self.store.blob(&digest) {
            Ok(blob) => blob.map(|blob| blob.size_bytes()),
            Err(error) => {
                tracing::debug!(%digest, %error, "a blob of the content store can't be opened");
                None
            }
        };
        match size_bytes {
            Some(size_bytes) => {
                let before = self.known.insert(digest, size_bytes);
                (before != Some(size_bytes)).then_some(Change::Added { digest, size_bytes })
            }
            None => self.known.remove(&digest).map(|_| Change::Removed { digest }),
        }
    }
}

enum Told {
    Nothing,
    Names(Vec<Digest>),
    LookEverywhere,
}

/// inotify on `blobs` and on the directory of each algorithm.
#[derive(Debug)]
struct Watch {
    inotify: OwnedFd,
    algorithms: BTreeMap<i32, Algorithm>,
}

impl Watch {
    /// None where the kernel has no more of them to give.
    fn new() -> Option<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .inspect_err(|error| tracing::warn!(%error, "no inotify: the content store is looked at every few seconds"))
            .ok()?;
        Some(Self { inotify, algorithms: BTreeMap::new() })
    }

    /// Watches the directories that are there by now; watching one again changes nothing.
    fn on(mut self, store: &ContentStore) -> Self {
        let blobs = store.path.join("blobs");
        // Not what is created in place: that isn't complete, and containerd doesn't do it.
        let come_and_go = WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        // A directory of an algorithm that is created later, and `blobs` itself.
        for dir in [&store.path, &blobs] {
            let _ = inotify::add_watch(
                &self.inotify,
                dir,
                WatchFlags::CREATE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW,
            );
        }
        self.algorithms.clear();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            if let Ok(watch) = inotify::add_watch(&self.inotify, blobs.join(algorithm.name()), come_and_go) {
                self.algorithms.insert(watch, algorithm);
            }
        }
        self
    }

    /// Whether there is a directory of blobs under watch.
    fn sees(&self) -> bool {
        !self.algorithms.is_empty()
    }

    fn wait(&mut self, timeout: Duration) -> Told {
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN)];
        // A signal is as good as a timeout: the caller comes back.
        if !matches!(poll(&mut fds, timeout.as_ref()), Ok(1..)) {
            return Told::Nothing;
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut digests = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(_) => return Told::LookEverywhere,
            };
            // More was told than the kernel keeps, a directory has gone, or a new one has come.
            let Some(algorithm) = self.algorithms.get(&event.wd()) else { return Told::LookEverywhere };
            if event.events().intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED) {
                return Told::LookEverywhere;
            }
            digests.extend(event.file_name().map(CStr::to_bytes).and_then(|name| digest_of(*algorithm, name)));
            // What the reader has taken from the kernel is told by nobody else.
            if digests.len() >= BATCH && reader.is_buffer_empty() {
                break;
            }
        }
        Told::Names(digests)
    }
}
