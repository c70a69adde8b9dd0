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

use shoal_chain::{Link, LinkBatch, LinkRun, SignedLinks, VerifiedLinks};
use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, NodeId};

use crate::batches::{BatchRecord, Batches};

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
    batches: Batches,
    /// Leases and their publishers, one entry each: the batches' records are many and stay small.
    authors: Vec<(u64, NodeId)>,
    closed: bool,
    withdrawn: Option<u64>,
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
            batches: Batches::default(),
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

    /// The lease and the publisher that alone say that this chunk is right: it signed what comes before and what comes after under one lease.
    /// A successor may have gone on from a false link in good faith; this one has hashed from what it signed itself.
    pub(crate) fn sole_author_of(&self, chunk: ChunkIndex) -> Option<(u64, NodeId)> {
        let author = |chunk| self.record_of(chunk).map(|(_, record)| self.author(record));
        // The digest is nobody's word.
        let after = author(chunk).filter(|_| chunk != self.blob.geometry.last_chunk())?;
        let before = chunk.get().checked_sub(1).map_or(Some(after), |previous| author(ChunkIndex::new(previous)))?;
        (before == after).then_some(after)
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
            .filter(|(first, record)| first.get() + u32::from(record.count) <= end)
            .map(|(first, _)| first)
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
            self.batches.remove(first);
        }
        let Ok(count) = u16::try_from(run.count()) else { return Learned::Nothing };
        let record = BatchRecord { count, author, signature: *signature };
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
        self.batches.range(start..).take(limit).filter_map(|(first, record)| self.signed(first, record)).collect()
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
            self.batches.iter().filter(|(_, record)| self.author(record).0 <= epoch).map(|(first, _)| first).collect();
        for first in gone {
            let Some(record) = self.batches.remove(first) else { continue };
            for chunk in (first.get()..first.get() + u32::from(record.count)).map(ChunkIndex::new) {
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
        let batches = self.batches.heap_bytes();
        self.bytes.len() + self.known.heap_bytes() + batches + self.authors.capacity() * size_of::<(u64, NodeId)>()
    }

    pub(crate) fn check_invariants(&self) {
        let covered: u32 = self.known.iter().map(|chunk| u32::from(self.record_of(chunk).is_some())).sum();
        assert_eq!(covered, self.known.len(), "every known link has the batch it came in");
        if let Some(withdrawn) = self.withdrawn.filter(|_| !self.closed) {
            assert!(self.batches.iter().all(|(_, record)| self.author(record).0 > withdrawn), "no withdrawn link");
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
            let used = |at: &usize| self.batches.iter().any(|(_, record)| usize::from(record.author) == *at);
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
            .find(|(first, record)| chunk.get() < first.get() + u32::from(record.count))
    }

    fn signed(&self, first: ChunkIndex, record: &BatchRecord) -> Option<SignedLinks> {
        let width = self.width();
        let bytes = &self.bytes[first.as_usize() * width..][..usize::from(record.count) * width];
        let run = LinkRun::new(self.blob.digest.algorithm(), first, bytes.to_vec()).ok()?;
        let (epoch, publisher) = self.author(record);
        Some(SignedLinks { batch: LinkBatch { blob: self.blob, epoch, run }, publisher, signature: record.signature })
    }
}

#[cfg(test)]
mod tests {
    use shoal_chain::Signature;
    use std::ops::Range;

    use proptest::prelude::*;
    use shoal_types::{Algorithm, ChunkSize, Digest, Geometry};

    use super::*;

    const CHUNKS: u32 = 8;

    fn link(index: u32, variant: u8) -> [u8; 32] {
        let mut bytes = [variant; 32];
        bytes[..4].copy_from_slice(&index.to_be_bytes());
        bytes
    }

    fn blob() -> BlobInfo {
        let geometry = Geometry::new(u64::from(CHUNKS) << 16, ChunkSize::MIN).unwrap();
        BlobInfo { digest: Digest::Sha256(link(CHUNKS - 1, 0)), geometry }
    }

    /// Links of these chunks under a lease, true ones if the variant is 0. The publisher has the epoch's number.
    fn batch(epoch: u64, chunks: Range<u32>, variant: u8) -> VerifiedLinks {
        let bytes = chunks.clone().flat_map(|index| link(index, variant)).collect();
        let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(chunks.start), bytes).unwrap();
        let batch = LinkBatch { blob: blob(), epoch, run };
        let publisher = NodeId::new(epoch.into());
        VerifiedLinks::trusted(SignedLinks { batch, publisher, signature: Signature([1; 64]) })
    }

    /// Batches by their epochs and chunks.
    type Batches<'a> = &'a [(u64, Range<u32>)];

    fn chain(batches: Batches<'_>) -> ChainState {
        let mut chain = ChainState::new(blob());
        for (epoch, chunks) in batches {
            chain.learn(&batch(*epoch, chunks.clone(), 0));
            chain.check_invariants();
        }
        chain
    }

    /// Each chunk's link by the epoch that it is of, a `.` where it is unknown.
    fn text(chain: &ChainState) -> String {
        let epoch = |(_, record): (ChunkIndex, &BatchRecord)| chain.author(record).0.to_string();
        let mark = |chunk| chain.record_of(chunk).filter(|_| chain.known.contains(chunk)).map_or(".".into(), epoch);
        chain.blob.geometry.chunks().map(mark).collect()
    }

    fn ranges(batches: &[SignedLinks]) -> Vec<(u32, u32)> {
        batches.iter().map(|links| (links.batch.run.first().get(), links.batch.run.count())).collect()
    }

    #[test]
    fn batches_add_up_and_larger_ones_take_the_place_of_those_inside() {
        let cases: [(Batches<'_>, &str, usize); 7] = [
            (&[(1, 0..3)], "111.....", 1),
            (&[(1, 0..3), (1, 3..4), (2, 6..7)], "1111..2.", 3),
            (&[(1, 0..1), (1, 1..2), (1, 2..3), (1, 0..3)], "111.....", 1),
            (&[(1, 0..3), (1, 1..2)], "111.....", 1),
            (&[(1, 0..3), (2, 2..5)], "11222...", 2),
            (&[(2, 2..5), (1, 0..3), (3, 0..7)], "3333333.", 1),
            (&[(1, 4..6), (1, 2..5), (1, 0..3), (1, 3..7)], "1111111.", 3),
        ];
        for (batches, expected, records) in cases {
            let chain = chain(batches);
            assert_eq!((text(&chain).as_str(), chain.batches.len()), (expected, records), "{batches:?}");
        }
    }

    #[test]
    fn what_a_batch_brings_is_told() {
        let mut chain = chain(&[(2, 0..3)]);
        assert_eq!(chain.learn(&batch(2, 1..4, 0)), Learned::New);
        assert_eq!(chain.learn(&batch(2, 1..4, 0)), Learned::Nothing);
        assert_eq!(chain.learn(&batch(5, 2..5, 9)), Learned::Contradicts { epoch: 2 });
        assert_eq!(text(&chain), "2222....", "the earlier ones are kept");
        // Beyond the end, of another algorithm, with an end that isn't the digest: no links of this blob.
        assert_eq!(chain.learn(&batch(2, 6..9, 0)), Learned::Nothing);
        assert_eq!(chain.learn(&batch(5, 7..8, 9)), Learned::Nothing);
        let long = LinkRun::single(ChunkIndex::new(6), Link::Sha512([0; 64]));
        let SignedLinks { batch: of, publisher, signature } = batch(2, 0..1, 0).into_inner();
        let foreign = SignedLinks { batch: LinkBatch { run: long, ..of }, publisher, signature };
        assert_eq!(chain.learn(&VerifiedLinks::trusted(foreign)), Learned::Nothing);
        assert_eq!(text(&chain), "2222....");
    }

    #[test]
    fn a_chunk_can_be_verified_between_two_known_links() {
        let chain = chain(&[(1, 0..2), (1, 3..4), (1, 6..7)]);
        let verifiable: Vec<u32> =
            chain.blob.geometry.chunks().filter(|chunk| chain.can_verify(*chunk)).map(ChunkIndex::get).collect();
        assert_eq!(verifiable, [0, 1, 7], "the first starts from nothing, the last ends at the digest");
        assert_eq!(chain.first_unknown(), Some(ChunkIndex::new(2)));
        assert_eq!(chain.link_before(ChunkIndex::new(0)), Some(None));
        assert_eq!(chain.link_before(ChunkIndex::new(4)), Some(Some(Link::Sha256(link(3, 0)))));
        assert_eq!(chain.link_before(ChunkIndex::new(3)), None);
    }

    #[test]
    fn who_is_to_verify_a_chunk_gets_the_batches_around_it() {
        let chain = chain(&[(1, 0..3), (1, 3..4), (1, 4..7)]);
        let for_chunk = |index| ranges(&chain.batches_for(ChunkIndex::new(index)));
        assert_eq!(for_chunk(0), [(0, 3)]);
        assert_eq!(for_chunk(2), [(0, 3)]);
        assert_eq!(for_chunk(3), [(0, 3), (3, 1)]);
        assert_eq!(for_chunk(7), [(4, 3)]);
        assert_eq!(ranges(&chain.batches_from(ChunkIndex::new(2), 9)), [(0, 3), (3, 1), (4, 3)]);
        assert_eq!(ranges(&chain.batches_from(ChunkIndex::new(3), 1)), [(3, 1)]);
        assert_eq!(ranges(&chain.batches_from(ChunkIndex::new(7), 9)), []);
    }

    #[test]
    fn a_withdrawal_takes_the_links_of_its_epoch_and_of_earlier_ones() {
        let cases: [(Batches<'_>, u64, &str, &str); 4] = [
            (&[(1, 0..3), (2, 3..5)], 1, "...22...", "****...."),
            (&[(1, 0..3), (2, 3..5)], 2, "........", "******.."),
            (&[(1, 0..4), (2, 2..6)], 1, "..2222..", "***....."),
            (&[(3, 0..4)], 2, "3333....", "........"),
        ];
        for (batches, epoch, left, expected) in cases {
            let mut chain = chain(batches);
            let shaken = chain.withdraw(epoch);
            let marks = chain.blob.geometry.chunks().map(|chunk| if shaken.contains(chunk) { '*' } else { '.' });
            assert_eq!((text(&chain).as_str(), marks.collect::<String>().as_str()), (left, expected), "{batches:?}");
            chain.check_invariants();
            assert_eq!(chain.learn(&batch(epoch, 0..7, 0)), Learned::Nothing);
            assert_eq!(chain.learn(&batch(epoch + 2, 0..7, 0)), Learned::New);
        }
    }

    #[test]
    fn a_closed_chain_neither_learns_nor_forgets() {
        let mut chain = chain(&[(1, 0..4)]);
        chain.close();
        assert_eq!(chain.learn(&batch(2, 3..7, 0)), Learned::Nothing);
        assert!(chain.withdraw(9).is_empty());
        assert_eq!(text(&chain), "1111....");
    }

    #[test]
    fn authors_whose_links_are_gone_make_room() {
        let mut chain = ChainState::new(blob());
        for epoch in 0..10 * MAX_AUTHORS as u64 {
            assert_eq!(chain.learn(&batch(epoch, 0..1, 0)), Learned::New);
            chain.withdraw(epoch);
        }
        assert!(chain.authors.len() <= MAX_AUTHORS);
    }

    proptest! {
        #[test]
        fn whatever_is_learnt_and_withdrawn_the_links_stay_consistent(
            steps in prop::collection::vec((0_u64..6, 0_u32..8, 1_u32..9, 0_u8..10, any::<bool>()), 1..60),
        ) {
            let mut chain = ChainState::new(blob());
            for (epoch, first, count, odds, withdraws) in steps {
                let before: Vec<Option<Link>> = blob().geometry.chunks().map(|chunk| chain.link_after(chunk)).collect();
                if withdraws && odds == 0 {
                    let shaken = chain.withdraw(epoch);
                    for (chunk, link) in blob().geometry.chunks().zip(before) {
                        let (gone, now) = (shaken.contains(chunk), chain.link_after(chunk));
                        prop_assert!(now == link || (gone && now.is_none()), "only what is shaken goes: {}", chunk);
                    }
                } else {
                    // One in ten is false.
                    let learned = chain.learn(&batch(epoch, first..first + count, u8::from(odds == 1)));
                    for (chunk, link) in blob().geometry.chunks().zip(before) {
                        let now = chain.link_after(chunk);
                        prop_assert!(now == link || (learned == Learned::New && link.is_none()), "a link changed");
                    }
                }
                chain.check_invariants();
                for links in chain.batches_from(ChunkIndex::new(0), usize::MAX) {
                    for (chunk, link) in links.batch.run.iter() {
                        prop_assert_eq!(chain.link_after(chunk), Some(link), "as it was signed");
                    }
                }
            }
        }
    }
}
