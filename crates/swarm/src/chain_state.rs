//! What an agent knows of a blob's chain while it has only part of it.
//!
//! State: the links known so far, each with the signed batch it came in, and the withdrawn epochs.
//!
//! ```text
//!   Provisional ──(every chunk verified, the last against the digest)──> Closed
//!        │  ^
//!        │  └──────────(links of a later epoch)──────────┐
//!        └──(the tracker withdraws the epoch)──> links of it forgotten
//! ```
//!
//! Invariants: a chain is exactly one of provisional and closed; a closed chain's links never change; no link of a withdrawn epoch
//! is kept; the last chunk's link is always the digest and needs no publisher.
//! Absent on purpose: hashing and signatures. Batches come verified, chunks are verified by the driver.

use std::collections::BTreeMap;

use shoal_chain::{Link, LinkBatch, LinkRun, Signature, SignedLinks, VerifiedLinks};
use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, NodeId};

/// Leases of one blob whose links are told apart: a lease that moves every second does so for a minute.
const MAX_AUTHORS: usize = 64;

/// The links of one blob.
#[derive(Debug)]
pub(crate) struct ChainState {
    blob: BlobInfo,
    /// Packed links, one place a chunk; the places of unknown ones are zero. Allocated with the first link.
    bytes: Box<[u8]>,
    known: ChunkSet,
    /// Where the batches begin. Batches don't overlap: a later one that overlaps an earlier one replaces it.
    batches: BTreeMap<ChunkIndex, BatchRecord>,
    /// Leases and their publishers, one entry each: the batches' records are many and stay small.
    authors: Vec<(u64, NodeId)>,
    closed: bool,
    withdrawn: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct BatchRecord {
    count: u32,
    author: u16,
    signature: Signature,
}

/// What a batch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Links that were not known.
    New,
    /// Nothing that wasn't known.
    Nothing,
    /// It contradicts links of this earlier or equal epoch, which are kept.
    Contradicts {
        /// The epoch of the links that are kept.
        epoch: u64,
    },
}

impl ChainState {
    pub(crate) fn new(blob: BlobInfo) -> Self {
        let count = blob.geometry.chunk_count();
        Self {
            blob,
            bytes: Box::default(),
            known: ChunkSet::empty(count),
            batches: BTreeMap::new(),
            authors: Vec::new(),
            closed: false,
            withdrawn: None,
        }
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Every chunk has been verified under these links.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// The state after the chunk, if known. The last chunk's is the digest.
    pub(crate) fn link_after(&self, chunk: ChunkIndex) -> Option<Link> {
        if chunk == self.blob.geometry.last_chunk() {
            return Some(self.blob.digest.into());
        }
        let width = self.width();
        self.known.contains(chunk).then(|| {
            let at = chunk.as_usize() * width;
            match Link::from_bytes(self.blob.digest.algorithm(), &self.bytes[at..at + width]) {
                Ok(link) => link,
                Err(error) => unreachable!("a place is as wide as a link: {error}"),
            }
        })
    }

    /// The state before the chunk, if known: outer `None`. Chunk 0 starts from the hash's initial state: inner `None`.
    #[allow(clippy::option_option, reason = "unknown and initial are different answers")]
    pub(crate) fn link_before(&self, chunk: ChunkIndex) -> Option<Option<Link>> {
        match chunk.get().checked_sub(1) {
            None => Some(None),
            Some(previous) => self.link_after(ChunkIndex::new(previous)).map(Some),
        }
    }

    /// Whether the chunk can be verified.
    pub(crate) fn can_verify(&self, chunk: ChunkIndex) -> bool {
        let after = chunk == self.blob.geometry.last_chunk() || self.known.contains(chunk);
        after && (chunk.get() == 0 || self.known.contains(ChunkIndex::new(chunk.get() - 1)))
    }

    /// The first chunk whose link is unknown, not counting the last, whose link is the digest.
    pub(crate) fn first_unknown(&self) -> Option<ChunkIndex> {
        let first = self.known.prefix_len();
        (first < self.blob.geometry.last_chunk().get()).then(|| ChunkIndex::new(first))
    }

    /// The lease and the publisher behind the links that verify this chunk: the last chunk's are those of the one before it.
    pub(crate) fn author_of(&self, chunk: ChunkIndex) -> Option<(u64, NodeId)> {
        let own = self.record_of(chunk);
        let record = own.or_else(|| self.record_of(ChunkIndex::new(chunk.get().checked_sub(1)?)));
        record.map(|(_, record)| self.author(record))
    }

    /// Takes a batch in.
    pub(crate) fn learn(&mut self, links: &VerifiedLinks) -> Learned {
        let SignedLinks { batch: LinkBatch { blob, epoch, run }, publisher, signature } = links.get();
        let last = self.blob.geometry.last_chunk();
        let foreign = *blob != self.blob || run.algorithm() != self.blob.digest.algorithm();
        let beyond = run.first().get().saturating_add(run.count()) > last.get() + 1;
        // A last link that isn't the digest is false on its face: it contradicts nobody but its author.
        let false_end = run.get(last).is_some_and(|link| link != self.blob.digest.into());
        if foreign || beyond || false_end || self.closed || self.is_withdrawn(*epoch) {
            return Learned::Nothing;
        }
        let contradicted = run.iter().find(|(chunk, link)| self.link_after(*chunk).is_some_and(|known| known != *link));
        if let Some((chunk, _)) = contradicted {
            return Learned::Contradicts { epoch: self.author_of(chunk).map_or(*epoch, |(epoch, _)| epoch) };
        }
        let new = run.iter().filter(|(chunk, _)| !self.known.contains(*chunk)).count();
        let end = run.first().get() + run.count();
        let swallowed: Vec<ChunkIndex> = self
            .batches
            .range(run.first()..ChunkIndex::new(end))
            .filter(|(first, record)| first.get() + record.count <= end)
            .map(|(first, _)| *first)
            .collect();
        // A batch that says in one signature what several said is worth having even without news.
        if new == 0 && swallowed.len() < 2 {
            return Learned::Nothing;
        }
        let Some(author) = self.intern((*epoch, *publisher)) else { return Learned::Nothing };
        let width = self.width();
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.blob.geometry.chunk_count() as usize * width].into();
        }
        for (chunk, link) in run.iter() {
            self.known.insert(chunk);
            self.bytes[chunk.as_usize() * width..][..width].copy_from_slice(link.as_bytes());
        }
        for first in swallowed {
            self.batches.remove(&first);
        }
        let record = BatchRecord { count: run.count(), author, signature: *signature };
        self.batches.insert(run.first(), record);
        if new == 0 { Learned::Nothing } else { Learned::New }
    }

    /// The batches, as signed, that someone needs who is to verify the chunk.
    pub(crate) fn batches_for(&self, chunk: ChunkIndex) -> Vec<SignedLinks> {
        let mut batches = Vec::new();
        let before = chunk.get().checked_sub(1).and_then(|previous| self.record_of(ChunkIndex::new(previous)));
        let after = self.record_of(chunk);
        if let Some((first, record)) = before {
            batches.extend(self.signed(first, record));
        }
        if let Some((first, record)) = after
            && before.is_none_or(|(earlier, _)| earlier != first)
        {
            batches.extend(self.signed(first, record));
        }
        batches
    }

    /// The batches, as signed, from a chunk on; `limit` of them at most.
    pub(crate) fn batches_from(&self, chunk: ChunkIndex, limit: usize) -> Vec<SignedLinks> {
        let start = self.record_of(chunk).map_or(chunk, |(first, _)| first);
        self.batches.range(start..).take(limit).filter_map(|(first, record)| self.signed(*first, record)).collect()
    }

    /// Whether links of this epoch prove nothing already.
    pub(crate) fn is_withdrawn(&self, epoch: u64) -> bool {
        self.withdrawn.is_some_and(|withdrawn| epoch <= withdrawn)
    }

    /// How many leases have published links that are kept, and the last one's epoch.
    pub(crate) fn leases_seen(&self) -> (usize, u64) {
        (self.authors.len(), self.authors.iter().map(|(epoch, _)| *epoch).max().unwrap_or_default())
    }

    /// Forgets the links of this epoch and of earlier ones; the chunks whose verification rested on them.
    pub(crate) fn withdraw(&mut self, epoch: u64) -> ChunkSet {
        let mut shaken = ChunkSet::empty(self.known.capacity());
        self.withdrawn = self.withdrawn.max(Some(epoch));
        if self.closed {
            return shaken;
        }
        let gone: Vec<ChunkIndex> =
            self.batches.iter().filter(|(_, record)| self.author(record).0 <= epoch).map(|(first, _)| *first).collect();
        for first in gone {
            let Some(record) = self.batches.remove(&first) else { continue };
            for chunk in (first.get()..first.get() + record.count).map(ChunkIndex::new) {
                if self.record_of(chunk).is_none() && self.known.remove(chunk) {
                    shaken.insert(chunk);
                    if self.blob.geometry.contains(chunk.next()) {
                        shaken.insert(chunk.next());
                    }
                }
            }
        }
        shaken
    }

    /// What this occupies on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let record = size_of::<ChunkIndex>() + size_of::<BatchRecord>();
        // A B-tree that is filled in order leaves six of each node's eleven places taken.
        let batches = self.batches.len() * record * 11 / 6;
        self.bytes.len() + self.known.heap_bytes() + batches + self.authors.capacity() * size_of::<(u64, NodeId)>()
    }

    pub(crate) fn check_invariants(&self) {
        let covered: u32 = self.known.iter().map(|chunk| u32::from(self.record_of(chunk).is_some())).sum();
        assert_eq!(covered, self.known.len(), "every known link has the batch it came in");
        if let Some(withdrawn) = self.withdrawn.filter(|_| !self.closed) {
            assert!(self.batches.values().all(|record| self.author(record).0 > withdrawn), "no withdrawn link");
        }
    }

    fn width(&self) -> usize {
        self.blob.digest.algorithm().digest_bytes()
    }

    fn author(&self, record: &BatchRecord) -> (u64, NodeId) {
        self.authors[usize::from(record.author)]
    }

    /// The author's place; none if there are more leases than any blob has.
    fn intern(&mut self, author: (u64, NodeId)) -> Option<u16> {
        let known = self.authors.iter().position(|other| *other == author);
        let at = known.or_else(|| {
            if self.authors.len() < MAX_AUTHORS {
                self.authors.push(author);
                return Some(self.authors.len() - 1);
            }
            // All places are taken: that of one whose links are gone.
            let used = |at: &usize| self.batches.values().any(|record| usize::from(record.author) == *at);
            let free = (0..self.authors.len()).find(|at| !used(at))?;
            self.authors[free] = author;
            Some(free)
        })?;
        u16::try_from(at).ok()
    }

    fn record_of(&self, chunk: ChunkIndex) -> Option<(ChunkIndex, &BatchRecord)> {
        // Overlapping batches are possible where a later one began inside an earlier one: look a few back.
        self.batches
            .range(..=chunk)
            .rev()
            .take(4)
            .find(|(first, record)| chunk.get() < first.get() + record.count)
            .map(|(first, record)| (*first, record))
    }

    fn signed(&self, first: ChunkIndex, record: &BatchRecord) -> Option<SignedLinks> {
        let width = self.width();
        let bytes = &self.bytes[first.as_usize() * width..][..record.count as usize * width];
        let run = LinkRun::new(self.blob.digest.algorithm(), first, bytes.to_vec()).ok()?;
        let (epoch, publisher) = self.author(record);
        Some(SignedLinks { batch: LinkBatch { blob: self.blob, epoch, run }, publisher, signature: record.signature })
    }
}
