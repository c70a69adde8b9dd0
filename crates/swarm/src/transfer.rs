//! One blob's exchange: what we have, what each neighbour has, and what state every chunk is in.
//!
//! State: the chunks' states, the neighbours that take part with their bitmaps, the availability of each chunk, the chain.
//!
//! A chunk is in exactly one of these states:
//!
//! ```text
//!              ┌─────── rejected, lost, cancelled ────────┐
//!              v                                           │
//!   ┌───── Missing ──ask──> Requested ──first bytes──> Arriving ──last byte──> Held ──links──> Verifying ──> Have
//!   │          ^  ^                                                                                │          │
//!   │  revoked │  └───────────────── wrong bytes, or links withdrawn <─────────────────────────────┴──────────┘
//!   v          │
//!  Origin ─────┴── (fetched and linked by ourselves) ──> Have
//! ```
//!
//! Invariants: `have` holds exactly the chunks in state Have; `wanted` exactly those in state Missing; `availability` is the sum of
//! the members' bitmaps. A local blob's chunks are Missing or Have, nothing between.
//! Absent on purpose: the decision whom to ask (`requests`), whom to serve (`serve`), who is to blame (`blame`).

use std::sync::Arc;
use std::time::Duration;

use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, NodeId, Time};
use shoal_wire::JoinFlags;

use crate::announce::AnnounceState;
use crate::blame::Evidence;
use crate::chain_state::ChainState;
use crate::lead::Lead;
use crate::promises::Promises;

/// Where a chunk stands. Peers are slots of [`crate::peer::Peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// Not here, nobody was asked.
    Missing,
    /// A neighbour was asked.
    Requested { peer: u16 },
    /// A neighbour is sending it.
    Arriving { peer: u16 },
    /// It is here but can't be verified before its links are.
    Held { peer: u16 },
    /// The driver is verifying it.
    Verifying { peer: u16 },
    /// The driver is fetching it from the origin.
    Origin,
    /// It is here and verified.
    Have,
}

/// A neighbour that takes part.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) peer: u16,
    /// It is of our zone.
    pub(crate) near: bool,
    pub(crate) flags: JoinFlags,
    /// It sent wrong bytes under links that prove nothing yet, or owned up to claims that weren't true.
    pub(crate) suspect: bool,
    /// Requests of this blob that it has not answered.
    pub(crate) outstanding: u16,
    /// Chunks that it said to have and then hadn't.
    pub(crate) false_claims: u16,
    pub(crate) count: u32,
    /// How many of the untold chunks it has been told.
    pub(crate) told: usize,
}

/// One blob.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) blob: BlobInfo,
    /// Lower comes first: the layer's place in its image.
    pub(crate) priority: u32,
    pub(crate) have: ChunkSet,
    pub(crate) chain: ChainState,
    pub(crate) members: Vec<Member>,
    /// How many members of our own zone have each chunk: what another zone has doesn't spread here.
    pub(crate) availability: Vec<u16>,
    pub(crate) wanted: Vec<u64>,
    pub(crate) lead: Lead,
    pub(crate) announce: AnnounceState,
    pub(crate) evidence: Vec<Evidence>,
    /// Our zone's gateway, if the blob comes from another zone.
    pub(crate) gateway: Option<NodeId>,
    /// The stream's next chunk, while somebody reads.
    pub(crate) stream_next: Option<ChunkIndex>,
    /// A chunk was verified last.
    pub(crate) progressed: Time,
    pub(crate) duplicates: u32,
    /// New chunks that not all members have been told.
    pub(crate) untold: Vec<ChunkIndex>,
    /// When the first of them was new.
    pub(crate) untold_since: Time,
    pub(crate) told: Time,
    pub(crate) promises: Promises,
    pub(crate) bytes_from_peers: u64,
    pub(crate) bytes_from_origin: u64,
    /// Every chunk is here and verified.
    pub(crate) finished: bool,
    /// The driver has all bytes, and hashes them: chunks become ours in order, and none is wanted of anybody.
    pub(crate) local: bool,
    /// Rises when links are withdrawn: what the driver verified under an earlier value proves nothing.
    pub(crate) generation: u32,
    /// When links were withdrawn last.
    pub(crate) withdrawn: Option<Time>,
    /// When links were asked for last that chunks wait for.
    pub(crate) sought_links: Time,
    /// When an agent that no tracker answers goes to the origin by itself.
    pub(crate) helps_itself_at: Option<Time>,
    states: Vec<ChunkState>,
    bits: Vec<u64>,
    words: usize,
    member_at: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

impl Transfer {
    pub(crate) fn new(blob: BlobInfo, have: ChunkSet, priority: u32, now: Time) -> Self {
        let count = blob.geometry.chunk_count();
        let states = blob
            .geometry
            .chunks()
            .map(|chunk| if have.contains(chunk) { ChunkState::Have } else { ChunkState::Missing })
            .collect();
        let full = ChunkSet::full(count);
        let wanted = full.words().iter().zip(have.words()).map(|(all, ours)| all & !ours).collect::<Vec<_>>();
        let words = wanted.len();
        let finished = have.is_full();
        Self {
            blob,
            priority,
            chain: ChainState::new(blob),
            members: Vec::new(),
            availability: vec![0; count as usize],
            wanted,
            lead: Lead::default(),
            announce: AnnounceState::new(now),
            evidence: Vec::new(),
            gateway: None,
            stream_next: None,
            progressed: now,
            duplicates: 0,
            untold: Vec::new(),
            untold_since: now,
            told: Time::ZERO,
            promises: Promises::new(count),
            bytes_from_peers: 0,
            bytes_from_origin: 0,
            finished,
            local: false,
            generation: 0,
            withdrawn: None,
            sought_links: Time::ZERO,
            helps_itself_at: None,
            states,
            bits: Vec::new(),
            words,
            member_at: Vec::new(),
            have,
        }
    }

    pub(crate) fn state(&self, chunk: ChunkIndex) -> ChunkState {
        self.states[chunk.as_usize()]
    }

    /// Moves a chunk to another state and keeps the sets that follow from it.
    pub(crate) fn set_state(&mut self, chunk: ChunkIndex, state: ChunkState) {
        let (word, bit) = (chunk.as_usize() / 64, 1 << (chunk.get() % 64));
        match state {
            ChunkState::Missing => self.wanted[word] |= bit,
            _ => self.wanted[word] &= !bit,
        }
        match state {
            ChunkState::Have => {
                self.have.insert(chunk);
            }
            _ => {
                self.have.remove(chunk);
            }
        }
        self.states[chunk.as_usize()] = state;
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_bytes(&self, chunk: ChunkIndex) -> u64 {
        self.blob.geometry.byte_range(chunk).map_or(0, |range| u64::from(range.len))
    }

    /// Whether neither a neighbour nor an origin has anything that is needed here.
    pub(crate) const fn is_served(&self) -> bool {
        self.finished || self.local
    }

    pub(crate) fn nothing_missing(&self) -> bool {
        self.wanted.iter().all(|word| *word == 0)
    }

    pub(crate) fn member(&self, peer: u16) -> Option<usize> {
        self.member_at.get(usize::from(peer)).filter(|at| **at != NOBODY).map(|at| usize::from(*at))
    }

    pub(crate) fn member_words(&self, member: usize) -> &[u64] {
        &self.bits[member * self.words..][..self.words]
    }

    pub(crate) fn member_has(&self, member: usize, chunk: ChunkIndex) -> bool {
        self.bits[member * self.words + chunk.as_usize() / 64] >> (chunk.get() % 64) & 1 == 1
    }

    /// Lets a neighbour take part, or takes its new word for what it has.
    pub(crate) fn join(&mut self, peer: u16, near: bool, have: &ChunkSet, flags: JoinFlags) {
        let member = match self.member(peer) {
            Some(member) => {
                self.count_bits(member, false);
                member
            }
            None => {
                if self.member_at.len() <= usize::from(peer) {
                    self.member_at.resize(usize::from(peer) + 1, NOBODY);
                }
                let member = self.members.len();
                self.member_at[usize::from(peer)] =
                    u16::try_from(member).unwrap_or_else(|_| unreachable!("as many members as neighbours at most"));
                self.members.push(Member {
                    peer,
                    near,
                    flags,
                    suspect: false,
                    outstanding: 0,
                    false_claims: 0,
                    count: 0,
                    told: 0,
                });
                // A bitmap at a time: neighbours come rarely, and half a table of spare bitmaps is a lot.
                self.bits.reserve_exact(self.words);
                self.bits.resize(self.members.len() * self.words, 0);
                member
            }
        };
        self.members[member].flags = flags;
        self.bits[member * self.words..][..self.words].copy_from_slice(have.words());
        self.count_bits(member, true);
    }

    /// Ends a neighbour's part. Its outstanding requests are the caller's to move.
    pub(crate) fn leave(&mut self, peer: u16) {
        let Some(member) = self.member(peer) else { return };
        self.count_bits(member, false);
        let last = self.members.len() - 1;
        self.members.swap_remove(member);
        if member != last {
            self.bits.copy_within(last * self.words..(last + 1) * self.words, member * self.words);
            self.member_at[usize::from(self.members[member].peer)] =
                u16::try_from(member).unwrap_or_else(|_| unreachable!("as many members as neighbours at most"));
        }
        self.bits.truncate(last * self.words);
        self.member_at[usize::from(peer)] = NOBODY;
    }

    /// Whether a neighbour that is still asked says to have the chunk.
    pub(crate) fn is_to_be_had(&self, chunk: ChunkIndex) -> bool {
        (0..self.members.len()).any(|at| !self.members[at].suspect && self.member_has(at, chunk))
    }

    /// Notes that a member has a chunk; whether that is new.
    pub(crate) fn member_got(&mut self, member: usize, chunk: ChunkIndex) -> bool {
        let word = &mut self.bits[member * self.words + chunk.as_usize() / 64];
        let bit = 1 << (chunk.get() % 64);
        let new = *word & bit == 0;
        if new {
            *word |= bit;
            self.availability[chunk.as_usize()] += u16::from(self.members[member].near);
            self.members[member].count += 1;
        }
        new
    }

    /// Which neighbour was the only one of our zone to have the chunk that a member has got now.
    pub(crate) fn only_holder_before(&self, member: usize, chunk: ChunkIndex) -> Option<u16> {
        if self.availability[chunk.as_usize()] != 2 || !self.members[member].near {
            return None;
        }
        let had = |at: &usize| *at != member && self.members[*at].near && self.member_has(*at, chunk);
        (0..self.members.len()).find(had).map(|at| self.members[at].peer)
    }

    /// Notes that a member hasn't a chunk after all.
    pub(crate) fn member_lost(&mut self, member: usize, chunk: ChunkIndex) {
        let word = &mut self.bits[member * self.words + chunk.as_usize() / 64];
        let bit = 1 << (chunk.get() % 64);
        if *word & bit != 0 {
            *word &= !bit;
            self.availability[chunk.as_usize()] -= u16::from(self.members[member].near);
            self.members[member].count -= 1;
        }
    }

    /// Forgets what the members said to have, and what was held against them on an open chain.
    pub(crate) fn forget_claims(&mut self) {
        for member in 0..self.members.len() {
            self.count_bits(member, false);
            self.members[member].suspect = false;
        }
        self.bits.fill(0);
    }

    /// How long nothing was verified.
    pub(crate) fn idle(&self, now: Time) -> Duration {
        now.since(self.progressed)
    }

    /// The chunks that we have, to send.
    pub(crate) fn have_now(&self) -> Arc<ChunkSet> {
        Arc::new(self.have.clone())
    }

    /// The chunks that the tracker is told of.
    pub(crate) fn have_to_announce(&self) -> Arc<ChunkSet> {
        if self.local { Arc::new(ChunkSet::full_of(self.blob.geometry)) } else { self.have_now() }
    }

    /// What this occupies on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.have.heap_bytes()
            + self.chain.heap_bytes()
            + self.announce.heap_bytes()
            + self.lead.fed.heap_bytes()
            + self.members.capacity() * size_of::<Member>()
            + self.availability.len() * 2
            + self.wanted.len() * 8
            + self.evidence.capacity() * size_of::<Evidence>()
            + self.untold.capacity() * size_of::<ChunkIndex>()
            + self.promises.heap_bytes()
            + self.states.len() * size_of::<ChunkState>()
            + self.bits.capacity() * 8
            + self.member_at.capacity() * 2
            + size_of::<Self>()
    }

    pub(crate) fn check_invariants(&self) {
        for chunk in self.blob.geometry.chunks() {
            let state = self.state(chunk);
            let wanted = self.wanted[chunk.as_usize() / 64] >> (chunk.get() % 64) & 1 == 1;
            assert_eq!(wanted, state == ChunkState::Missing, "wanted are the missing ones: {chunk} is {state:?}");
            assert_eq!(self.have.contains(chunk), state == ChunkState::Have, "have: {chunk} is {state:?}");
            let near = |member: &usize| self.members[*member].near && self.member_has(*member, chunk);
            let holders = (0..self.members.len()).filter(near).count();
            assert_eq!(usize::from(self.availability[chunk.as_usize()]), holders, "availability of {chunk}");
        }
        for (at, member) in self.members.iter().enumerate() {
            assert_eq!(self.member(member.peer), Some(at), "a member is found by its neighbour");
        }
        let between = |chunk| !matches!(self.state(chunk), ChunkState::Missing | ChunkState::Have);
        assert!(!self.local || !self.blob.geometry.chunks().any(between), "local bytes come from nowhere else");
        assert!(!self.chain.is_closed() || self.finished, "a closed chain has every chunk");
        self.chain.check_invariants();
    }

    fn count_bits(&mut self, member: usize, add: bool) {
        let range = member * self.words..(member + 1) * self.words;
        let mut count = 0;
        let one = u16::from(self.members[member].near);
        for chunk in crate::picker::ones(&self.bits[range]) {
            let availability = &mut self.availability[chunk.as_usize()];
            *availability = if add { *availability + one } else { *availability - one };
            count += 1;
        }
        self.members[member].count = if add { count } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_types::{ChunkSize, Digest, Geometry};

    use super::*;

    fn set(text: &str) -> ChunkSet {
        let mut set = ChunkSet::empty(u32::try_from(text.len()).unwrap());
        let chunks = (0..).map(ChunkIndex::new).zip(text.bytes());
        for (chunk, _) in chunks.filter(|(_, mark)| *mark == b'*') {
            set.insert(chunk);
        }
        set
    }

    fn transfer(have: &str) -> Transfer {
        let geometry = Geometry::new((have.len() as u64) << 16, ChunkSize::MIN).unwrap();
        Transfer::new(BlobInfo { digest: Digest::Sha256([0; 32]), geometry }, set(have), 0, Time::ZERO)
    }

    /// How many members of our zone have each chunk.
    fn availability(transfer: &Transfer) -> String {
        transfer.check_invariants();
        transfer.availability.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn availability_follows_who_joins_rejoins_and_leaves() {
        let mut transfer = transfer("......");
        transfer.join(4, true, &set("**...."), JoinFlags::default());
        transfer.join(0, true, &set("*.*..."), JoinFlags::default());
        transfer.join(2, false, &set("*****."), JoinFlags::default());
        assert_eq!(availability(&transfer), "211000", "another zone's don't count");
        transfer.join(4, true, &set(".....*"), JoinFlags::default());
        assert_eq!(availability(&transfer), "101001");
        transfer.leave(0);
        assert_eq!(availability(&transfer), "000001");
        let far = transfer.member(2).expect("it stays");
        assert!(transfer.member_has(far, ChunkIndex::new(4)), "a place that moves keeps its bits");
        transfer.leave(0);
        assert_eq!(availability(&transfer), "000001", "leaving twice is leaving once");
    }

    #[test]
    fn single_chunks_are_counted_once() {
        let mut transfer = transfer("....");
        transfer.join(1, true, &set("*..."), JoinFlags::default());
        assert!(transfer.member_got(0, ChunkIndex::new(2)));
        assert!(!transfer.member_got(0, ChunkIndex::new(2)));
        assert_eq!((availability(&transfer).as_str(), transfer.members[0].count), ("1010", 2));
        transfer.member_lost(0, ChunkIndex::new(0));
        transfer.member_lost(0, ChunkIndex::new(0));
        assert_eq!((availability(&transfer).as_str(), transfer.members[0].count), ("0010", 1));
        transfer.forget_claims();
        assert_eq!((availability(&transfer).as_str(), transfer.members[0].count), ("0000", 0));
    }

    #[test]
    fn wanted_are_the_missing_chunks_and_have_the_verified_ones() {
        let mut transfer = transfer("*...");
        assert_eq!(transfer.wanted, [0b1110]);
        let states = [
            ChunkState::Requested { peer: 3 },
            ChunkState::Arriving { peer: 3 },
            ChunkState::Held { peer: 3 },
            ChunkState::Verifying { peer: 3 },
            ChunkState::Origin,
        ];
        for state in states {
            transfer.set_state(ChunkIndex::new(2), state);
            assert_eq!((transfer.wanted.as_slice(), transfer.have.len()), ([0b1010].as_slice(), 1), "{state:?}");
        }
        transfer.set_state(ChunkIndex::new(2), ChunkState::Have);
        assert_eq!(transfer.have, set("*.*."));
        transfer.set_state(ChunkIndex::new(2), ChunkState::Missing);
        assert_eq!((transfer.wanted.as_slice(), transfer.have.len()), ([0b1110].as_slice(), 1));
    }

    #[test]
    fn a_blob_that_is_here_is_finished() {
        assert!(transfer("**").finished);
        assert!(transfer("**").nothing_missing());
        assert!(!transfer("*.").finished);
    }

    proptest! {
        #[test]
        fn members_come_and_go_in_any_order(
            steps in prop::collection::vec((0_u16..6, 0_u8..4, prop::collection::vec(any::<bool>(), 70)), 1..60),
        ) {
            let mut transfer = transfer(&".".repeat(70));
            for (peer, what, bits) in steps {
                let text: String = bits.iter().map(|bit| if *bit { '*' } else { '.' }).collect();
                match (what, transfer.member(peer)) {
                    (0..=1, _) => transfer.join(peer, peer > 1, &set(&text), JoinFlags::default()),
                    (2, Some(member)) => drop(transfer.member_got(member, ChunkIndex::new(u32::from(peer) * 11))),
                    _ => transfer.leave(peer),
                }
                transfer.check_invariants();
                prop_assert_eq!(transfer.bits.len(), transfer.members.len() * transfer.words);
            }
        }
    }
}
