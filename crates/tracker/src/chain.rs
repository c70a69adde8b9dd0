//! A blob's chain as the tracker keeps it: links for newcomers and for a lead's successor, and evidence.
//!
//! The chain is in exactly one state:
//!
//! ```text
//!                      a later holder's links differ
//!        ┌──────────> Provisional ───────────────> Contested
//!        │             │      │                     │     │
//!  links of the        │      │ a quorum completes  │     │ a quorum completes
//!  next holder         │      └─────> Closed <──────┼─────┘
//!        │             │                            │
//!        │             │ called false by a quorum,  │ called false by half a quorum
//!        │             │ or by a later holder       │
//!   Quarantined <──────┴────────────────────────────┘
//! ```
//!
//! Only the holder of the lease publishes, so two publishers contradict each other only across a succession. Which of them lies can't
//! be told yet: a successor goes on from its predecessor's links, so even an honest one's are false when those were. So all of
//! them are withdrawn, everybody who published them may not lead this blob again, and a new lead starts at chunk 0. When its chain
//! closes, the first withdrawn link that differs shows who lied. It takes care to blame nobody else: the publisher is to blame only if
//! it started there, at chunk 0, or published the link before it too, and that one is right. Otherwise it may have gone on from a false
//! link that the tracker never saw.
//!
//! State: the published batches, an index of them by chunk, the chains withdrawn so far, who may not lead any more.
//! Invariants: a batch that is kept had new links for at least half of its chunks, so that all together are at most twice the chain;
//! kept batches are of the current generation; a closed chain is never quarantined.
//! Absent on purpose: checking signatures (a publisher announces its own links over its own authenticated connection; everybody else
//! checks), and checking links (the tracker sees no bytes).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use shoal_chain::{Link, SignedLinks};
use shoal_types::{ChunkIndex, NodeId};

/// Withdrawn chains that are kept as evidence. Each one cost its publishers the right to lead.
const MAX_EVIDENCE: usize = 4;

/// Nodes that may not lead a blob any more: beyond that many the first ones are forgiven, so that somebody can lead.
const MAX_BARRED: usize = 64;

/// What a batch occupies beside its links.
const BATCH_OVERHEAD: usize = size_of::<SignedLinks>();

/// What the tracker thinks of a blob's links: see the module's diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainState {
    /// Links of the lead, or none yet; nothing is proven.
    Provisional,
    /// The holder of this later epoch has published links that differ from earlier ones.
    Contested {
        /// The later epoch.
        epoch: u64,
    },
    /// The links so far are withdrawn, the next lead has published none yet.
    Quarantined,
    /// A quorum has completed the blob under these links: they are right.
    Closed,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// It is kept.
    Kept,
    /// It has too little that is new.
    Known,
    /// There is no place for more links of this blob.
    NoPlace,
    /// It is kept, and it differs from what an earlier holder published.
    Contests,
    /// It differs from what the same holder published.
    ContradictsItself,
    /// It differs from the closed chain.
    ContradictsProof,
}

#[derive(Debug)]
pub(crate) struct Chain {
    state: ChainState,
    /// Counts quarantines: what was said about an earlier generation says nothing about this one.
    generation: u32,
    batches: Vec<SignedLinks>,
    /// By chunk: the last batch with its link, counted from 1; 0 if there is none.
    by_chunk: Vec<u32>,
    linked: u32,
    end: u32,
    bytes: usize,
    withdrawn: Option<u64>,
    evidence: VecDeque<Vec<SignedLinks>>,
    barred: VecDeque<NodeId>,
}

impl Chain {
    pub(crate) const fn new() -> Self {
        Self {
            state: ChainState::Provisional,
            generation: 0,
            batches: Vec::new(),
            by_chunk: Vec::new(),
            linked: 0,
            end: 0,
            bytes: 0,
            withdrawn: None,
            evidence: VecDeque::new(),
            barred: VecDeque::new(),
        }
    }

    pub(crate) const fn state(&self) -> ChainState {
        self.state
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The last epoch whose links prove nothing.
    pub(crate) const fn withdrawn(&self) -> Option<u64> {
        self.withdrawn
    }

    /// The chunk after the last one with a link.
    pub(crate) const fn end(&self) -> u32 {
        self.end
    }

    pub(crate) fn batch_count(&self) -> u32 {
        u32::try_from(self.batches.len()).expect("every batch has a new link, of 2^20 chunks")
    }

    /// Whether every link is there but the last, which is the digest.
    pub(crate) fn is_complete(&self, chunks: u32) -> bool {
        let last_is_linked = self.by_chunk.last().is_some_and(|batch| *batch != 0);
        self.linked - u32::from(last_is_linked) + 1 >= chunks
    }

    pub(crate) fn is_barred(&self, node: NodeId) -> bool {
        self.barred.contains(&node)
    }

    pub(crate) fn bar(&mut self, node: NodeId) {
        if !self.is_barred(node) {
            self.barred.push_back(node);
            if self.barred.len() > MAX_BARRED {
                self.barred.pop_front();
            }
        }
    }

    /// Takes in a batch of the lease's holder, already checked to be of this blob.
    pub(crate) fn publish(&mut self, links: &SignedLinks, chunks: u32, limit_bytes: usize) -> Published {
        let run = &links.batch.run;
        let (mut new, mut contested) = (0, false);
        for (chunk, link) in run.iter() {
            match self.link(chunk) {
                None => new += 1,
                Some((known, _)) if known == link => {}
                Some(_) if self.state == ChainState::Closed => return Published::ContradictsProof,
                Some((_, by)) if by.batch.epoch == links.batch.epoch => return Published::ContradictsItself,
                Some(_) => {
                    new += 1;
                    contested = true;
                }
            }
        }
        if new * 2 < run.count() {
            return Published::Known;
        }
        let bytes = run.as_bytes().len() + BATCH_OVERHEAD;
        if self.bytes + bytes > limit_bytes {
            return Published::NoPlace;
        }
        self.bytes += bytes;
        self.batches.push(links.clone());
        let batch = self.batch_count();
        self.by_chunk.resize(chunks as usize, 0);
        for (chunk, _) in run.iter() {
            let place = &mut self.by_chunk[chunk.as_usize()];
            self.linked += u32::from(*place == 0);
            *place = batch;
        }
        self.end = self.end.max(run.first().get() + run.count());
        self.state = match self.state {
            ChainState::Provisional | ChainState::Contested { .. } if contested => {
                ChainState::Contested { epoch: links.batch.epoch }
            }
            ChainState::Quarantined => ChainState::Provisional,
            state => state,
        };
        if contested { Published::Contests } else { Published::Kept }
    }

    /// The batches of a range, from its start, as many as fit; and where to go on.
    pub(crate) fn batches(&self, range: Range<u32>, limit_bytes: usize) -> (Vec<SignedLinks>, u32) {
        let end = range.end.min(self.batch_count());
        let mut next = range.start;
        let mut bytes = 0;
        while next < end {
            let size = self.batches[next as usize].batch.run.as_bytes().len() + BATCH_OVERHEAD;
            // The first one goes even if it is larger: otherwise it would never go.
            if bytes > 0 && bytes + size > limit_bytes {
                break;
            }
            bytes += size;
            next += 1;
        }
        let batches = self.batches.get(range.start as usize..next as usize).unwrap_or_default();
        (batches.to_vec(), next)
    }

    /// Withdraws everything up to an epoch. Its publishers may not lead any more.
    pub(crate) fn quarantine(&mut self, epoch: u64) {
        assert_ne!(self.state, ChainState::Closed, "a closed chain is right");
        let publishers: BTreeSet<NodeId> = self.batches.iter().map(|links| links.publisher).collect();
        publishers.into_iter().for_each(|publisher| self.bar(publisher));
        if !self.batches.is_empty() {
            self.evidence.push_back(std::mem::take(&mut self.batches));
            if self.evidence.len() > MAX_EVIDENCE {
                self.evidence.pop_front();
            }
        }
        self.by_chunk.clear();
        (self.linked, self.end, self.bytes) = (0, 0, 0);
        self.withdrawn = Some(epoch);
        self.generation += 1;
        self.state = ChainState::Quarantined;
    }

    /// A quorum has completed under these links. Gives those who published the first false link of a withdrawn chain.
    pub(crate) fn close(&mut self) -> BTreeSet<NodeId> {
        self.state = ChainState::Closed;
        let evidence = std::mem::take(&mut self.evidence);
        evidence.iter().filter_map(|batches| self.culprit(batches)).collect()
    }

    fn culprit(&self, withdrawn: &[SignedLinks]) -> Option<NodeId> {
        // By chunk, then by epoch: the first to have published a link comes first.
        let mut links: BTreeMap<(ChunkIndex, u64), (Link, NodeId)> = BTreeMap::new();
        for signed in withdrawn {
            for (chunk, link) in signed.batch.run.iter() {
                links.entry((chunk, signed.batch.epoch)).or_insert((link, signed.publisher));
            }
        }
        let right = |chunk: ChunkIndex| self.link(chunk).map(|(link, _)| link);
        let differs = |(chunk, _): &(ChunkIndex, u64), link: Link| right(*chunk).is_some_and(|right| right != link);
        let first = links.iter().find(|(at, (link, _))| differs(at, *link))?.0.0;
        let liars = links.range((first, 0)..=(first, u64::MAX)).filter(|(at, (link, _))| differs(at, *link));
        let knew_better = |publisher: NodeId| {
            let Some(before) = first.get().checked_sub(1).map(ChunkIndex::new) else { return true };
            let said = links.range((before, 0)..=(before, u64::MAX));
            said.into_iter().any(|(_, (link, by))| *by == publisher && right(before) == Some(*link))
        };
        liars.map(|(_, (_, publisher))| *publisher).find(|publisher| knew_better(*publisher))
    }

    fn link(&self, chunk: ChunkIndex) -> Option<(Link, &SignedLinks)> {
        let batch = self.by_chunk.get(chunk.as_usize())?.checked_sub(1)?;
        let signed = &self.batches[batch as usize];
        Some((signed.batch.run.get(chunk).expect("the index points to a batch with the link"), signed))
    }

    pub(crate) fn check_invariants(&self, limit_bytes: usize) {
        let known = self.by_chunk.iter().filter(|batch| **batch != 0).count();
        assert_eq!(self.linked as usize, known, "links are counted");
        assert!(self.bytes <= limit_bytes, "the chain is bounded");
        assert!(self.evidence.len() <= MAX_EVIDENCE && self.barred.len() <= MAX_BARRED, "evidence is bounded");
        assert!(self.state != ChainState::Quarantined || self.batches.is_empty(), "a quarantined chain has no links");
        if let Some(withdrawn) = self.withdrawn {
            assert!(self.batches.iter().all(|links| links.batch.epoch > withdrawn), "withdrawn links are gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_chain::{LinkBatch, LinkRun, Signature};
    use shoal_types::{Algorithm, BlobInfo, ChunkSize, Digest, Geometry};

    use super::*;

    const CHUNKS: u32 = 8;
    const LIMIT: usize = 1 << 20;

    /// Links of consecutive chunks, one letter each: the same letter at the same chunk is the same link.
    fn batch(node: u128, epoch: u64, first: u32, letters: &str) -> SignedLinks {
        let geometry = Geometry::new(u64::from(CHUNKS) << 16, ChunkSize::MIN).unwrap();
        let blob = BlobInfo { digest: Digest::Sha256([0; 32]), geometry };
        let bytes = letters.bytes().flat_map(|letter| [letter; 32]).collect();
        let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(first), bytes).unwrap();
        let batch = LinkBatch { blob, epoch, run };
        SignedLinks { batch, publisher: NodeId::new(node), signature: Signature([0; 64]) }
    }

    fn publish(chain: &mut Chain, node: u128, epoch: u64, first: u32, letters: &str) -> Published {
        let published = chain.publish(&batch(node, epoch, first, letters), CHUNKS, LIMIT);
        chain.check_invariants(LIMIT);
        published
    }

    fn culprits(withdrawn: &[(u128, u64, u32, &str)], closed: &[(u128, u64, u32, &str)]) -> Vec<u128> {
        let mut chain = Chain::new();
        for (node, epoch, first, letters) in withdrawn {
            publish(&mut chain, *node, *epoch, *first, letters);
        }
        chain.quarantine(10);
        chain.check_invariants(LIMIT);
        assert_eq!(chain.state(), ChainState::Quarantined);
        for (node, epoch, first, letters) in closed {
            assert_eq!(publish(&mut chain, *node, *epoch, *first, letters), Published::Kept);
        }
        chain.close().into_iter().map(NodeId::get).collect()
    }

    #[test]
    fn the_first_false_link_has_one_author() {
        let right: (u128, u64, u32, &str) = (9, 11, 0, "abcdefg");
        // From the start.
        assert_eq!(culprits(&[(1, 1, 0, "x")], &[right]), [1]);
        // After right ones of its own; the successor went on from a false link and is honest.
        assert_eq!(culprits(&[(1, 1, 0, "abx"), (2, 2, 3, "yz")], &[right]), [1]);
        // The second lead lies: only once it has shown that it knew the link before.
        assert_eq!(culprits(&[(1, 1, 0, "abc"), (2, 2, 3, "dx")], &[right]), [2]);
        // It may have gone on from a false link that the first one gave to it alone.
        assert_eq!(culprits(&[(1, 1, 0, "abc"), (2, 2, 3, "xy")], &[right]), [] as [u128; 0]);
        // The link before is missing: nobody can tell.
        assert_eq!(culprits(&[(1, 1, 0, "ab"), (2, 2, 5, "xy")], &[right]), [] as [u128; 0]);
        // A right chain that was slandered.
        assert_eq!(culprits(&[(1, 1, 0, "abcdefg")], &[right]), [] as [u128; 0]);
        // A contradiction where the earlier one was right.
        assert_eq!(culprits(&[(1, 1, 0, "abcd"), (2, 2, 2, "cx")], &[right]), [2]);
    }

    #[test]
    fn a_later_holder_may_contest_and_nobody_contradicts_a_proof() {
        let mut chain = Chain::new();
        assert_eq!(publish(&mut chain, 1, 1, 0, "abcd"), Published::Kept);
        assert_eq!(publish(&mut chain, 1, 1, 0, "abcd"), Published::Known);
        assert_eq!(publish(&mut chain, 1, 1, 2, "cdef"), Published::Kept);
        assert_eq!(publish(&mut chain, 1, 1, 1, "bcdefg"), Published::Known);
        assert_eq!(publish(&mut chain, 1, 1, 5, "x"), Published::ContradictsItself);
        assert_eq!(publish(&mut chain, 2, 2, 5, "x"), Published::Contests);
        assert_eq!(chain.state(), ChainState::Contested { epoch: 2 });
        assert_eq!(publish(&mut chain, 2, 2, 6, "g"), Published::Kept);
        assert!(chain.is_complete(CHUNKS));
        assert_eq!(chain.close(), BTreeSet::new());
        assert_eq!(publish(&mut chain, 3, 3, 0, "z"), Published::ContradictsProof);
        assert_eq!(chain.state(), ChainState::Closed);
    }

    #[test]
    fn replies_carry_as_much_as_fits_and_go_on_from_there() {
        let mut chain = Chain::new();
        for chunk in 0..4 {
            publish(&mut chain, 1, 1, chunk * 2, "ab");
        }
        let two = 2 * (64 + BATCH_OVERHEAD);
        let (batches, next) = chain.batches(0..4, two);
        assert_eq!((batches.len(), next), (2, 2));
        assert_eq!(chain.batches(next..9, two).0.len(), 2);
        assert_eq!(chain.batches(3..4, 1), (vec![batch(1, 1, 6, "ab")], 4));
        assert_eq!(chain.batches(7..9, two), (vec![], 7));
        assert_eq!(chain.publish(&batch(1, 2, 0, "xy"), CHUNKS, 3 * two / 2), Published::NoPlace);
    }

    #[test]
    fn the_barred_are_bounded() {
        let mut chain = Chain::new();
        (0..100).for_each(|node| chain.bar(NodeId::new(node)));
        assert!(!chain.is_barred(NodeId::new(0)) && chain.is_barred(NodeId::new(99)));
        chain.check_invariants(LIMIT);
    }
}
