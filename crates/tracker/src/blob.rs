//! A blob's swarm: its members, what they say to have, and what follows from all of them together.
//!
//! State: the members, the pool of the live ones, per-chunk counts of live members' bitmaps, counts of claims and reports.
//! Invariants: a member is *live* while its node is connected and it hasn't fallen silent; exactly the live ones are in the pool and
//! in the counts. A member *claims* completion or has a bitmap, never both; a claim counts as no chunk: whoever claims
//! everything would otherwise hide that nobody has it.
//! Absent on purpose: decisions. This answers questions; `leasing.rs`, `verdicts.rs` and `zones.rs` decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, NodeId, Time};

use crate::chain::Chain;
use crate::config::Quorum;
use crate::gateway::Gateways;
use crate::lease::{LeaseBook, Mark};
use crate::pool::{ZoneIx, ZonePool};
use crate::popularity::Popularity;
use crate::slab::{NodeIx, Slab, Slot};

/// What a member has said about fetching from the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Will {
    Declined,
    Willing,
    Impatient,
}

/// A node's part in a blob's swarm.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) node: NodeIx,
    pub(crate) id: NodeId,
    pub(crate) zone: ZoneIx,
    pub(crate) will: Will,
    live: bool,
    /// It says that it has everything.
    claim: Option<Claim>,
    /// It completed as the lead, with every link published, and others had something from it.
    proven: bool,
    /// As the lead it gave chunks that don't fit its links: nobody can have the blob from it.
    distrusted: bool,
    /// The generation of the chain that it has called false.
    calls_false: Option<u32>,
    pub(crate) seen_at: Time,
    /// Forgotten if it isn't seen for so long.
    pub(crate) expires_after_millis: u32,
    /// It isn't named as a lead before that time, where there is somebody else.
    pub(crate) passed_until: Time,
    have: Option<Arc<ChunkSet>>,
    pub(crate) bytes_from_peers: u64,
    pub(crate) bytes_from_origin: u64,
    /// Batches of this generation of the chain that it is still to be sent.
    pub(crate) owed: (u32, std::ops::Range<u32>),
}

/// What the tracker keeps for each (peer, blob), bitmap apart: the member, a number each in the pool, in the pool's index and in
/// the list of free places, and an entry in the node's list of its memberships. 132 bytes, and a vector that has just grown has room for twice its content.
const MEMBERSHIP_BYTES: usize =
    2 * (size_of::<Option<Member>>() + 3 * size_of::<Slot>() + size_of::<crate::nodes::Membership>());
const _: () = assert!(MEMBERSHIP_BYTES <= 512, "at most 512 bytes per (peer, blob)");

impl Member {
    pub(crate) fn new(now: Time, node: NodeIx, id: NodeId, zone: ZoneIx) -> Self {
        Self {
            node,
            id,
            zone,
            will: Will::Willing,
            live: false,
            claim: None,
            proven: false,
            distrusted: false,
            calls_false: None,
            seen_at: now,
            expires_after_millis: 0,
            passed_until: Time::ZERO,
            have: None,
            bytes_from_peers: 0,
            bytes_from_origin: 0,
            owed: (0, 0..0),
        }
    }

    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether it says that it has the whole blob.
    pub(crate) const fn claims(&self) -> bool {
        self.claim.is_some()
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.have.as_ref().map_or(0, |have| have.len())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_from_peers.saturating_add(self.bytes_from_origin)
    }

    /// Grows whenever the member gets something.
    pub(crate) fn progress(&self) -> u64 {
        self.bytes().saturating_add(u64::from(self.chunks()))
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { frontier: 0, chunks: self.chunks(), bytes: self.bytes() }
    }

    pub(crate) fn expires_at(&self) -> Time {
        self.seen_at + std::time::Duration::from_millis(self.expires_after_millis.into())
    }
}

/// A member's word that it has the whole blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It came with it: that says nothing about any chain.
    Brought,
    /// It came without and completed under this generation of the chain.
    Completed(u32),
}

/// Counts over the live members.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    claims: usize,
    claims_by_zone: BTreeMap<ZoneIx, usize>,
    /// Members that completed under this generation of the chain: the only claims that say something about it.
    fresh_claims: usize,
    proven: usize,
    calls_false: usize,
}

impl Tally {
    fn add(&mut self, member: &Member, generation: u32) {
        if let Some(claim) = member.claim {
            self.claims += 1;
            *self.claims_by_zone.entry(member.zone).or_default() += 1;
            self.fresh_claims += usize::from(claim == Claim::Completed(generation));
        }
        self.proven += usize::from(member.proven);
        self.calls_false += usize::from(member.calls_false == Some(generation));
    }

    fn subtract(&mut self, member: &Member, generation: u32) {
        if let Some(claim) = member.claim {
            self.claims -= 1;
            let in_zone = self.claims_by_zone.get_mut(&member.zone).expect("a claim was counted in its zone");
            *in_zone -= 1;
            if *in_zone == 0 {
                self.claims_by_zone.remove(&member.zone);
            }
            self.fresh_claims -= usize::from(claim == Claim::Completed(generation));
        }
        self.proven -= usize::from(member.proven);
        self.calls_false -= usize::from(member.calls_false == Some(generation));
    }
}

#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) info: BlobInfo,
    pub(crate) members: Slab<Slot, Member>,
    pub(crate) live: ZonePool<Slot>,
    tally: Tally,
    /// By chunk: live members whose bitmap has it. Empty until somebody shows a bitmap.
    availability: Vec<u32>,
    pub(crate) leases: LeaseBook,
    pub(crate) chain: Chain,
    pub(crate) gateways: Gateways,
    pub(crate) popularity: Popularity,
    /// When a member that doesn't lead last said that it got something.
    pub(crate) progressed_at: Time,
    /// Since when it has had no members.
    pub(crate) empty_since: Time,
    pub(crate) armed: Time,
}

impl Blob {
    pub(crate) fn new(now: Time, info: BlobInfo, leases: LeaseBook) -> Self {
        Self {
            info,
            members: Slab::new(),
            live: ZonePool::new(),
            tally: Tally::default(),
            availability: Vec::new(),
            leases,
            chain: Chain::new(),
            gateways: Gateways::default(),
            popularity: Popularity::default(),
            progressed_at: Time::ZERO,
            empty_since: now,
            armed: Time::MAX,
        }
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.info.geometry.chunk_count()
    }

    /// Live members who claim to have everything.
    pub(crate) fn claims(&self) -> usize {
        self.tally.claims
    }

    /// Live members who still want something.
    pub(crate) fn leeches(&self) -> usize {
        self.live.len() - self.tally.claims
    }

    /// Whether there is a live whole copy, as far as can be believed: a lead's that published every link and gave, or a quorum's word.
    pub(crate) fn has_whole_copy(&self, quorum: Quorum) -> bool {
        self.tally.proven > 0 || (self.tally.claims > 0 && self.tally.claims >= quorum.of(self.live.len()))
    }

    /// The same, of one zone on its own.
    pub(crate) fn zone_has_whole_copy(&self, zone: ZoneIx, quorum: Quorum) -> bool {
        let claims = self.tally.claims_by_zone.get(&zone).copied().unwrap_or_default();
        claims > 0 && claims >= quorum.of(self.live.len_in(zone))
    }

    /// The first zone, in the zones' order, where somebody claims to have everything.
    pub(crate) fn first_zone_with_claims(&self) -> Option<ZoneIx> {
        self.tally.claims_by_zone.keys().next().copied()
    }

    /// Replicas of the whole blob that can be counted on.
    pub(crate) fn replicas(&self, quorum: Quorum) -> usize {
        if self.has_whole_copy(quorum) { self.tally.claims.max(self.tally.proven) } else { 0 }
    }

    /// Whether a quorum has completed under this generation of the chain. A publisher that is alone is no witness for itself.
    pub(crate) fn chain_is_proven(&self, quorum: Quorum) -> bool {
        self.tally.fresh_claims >= quorum.of(self.live.len()).max(2)
    }

    /// Live members who call this generation of the chain false.
    pub(crate) fn calls_false(&self) -> usize {
        self.tally.calls_false
    }

    /// Where a lead would go on: behind every link, and behind what a quorum of bitmaps has. One bitmap is one node's word.
    pub(crate) fn frontier(&self, quorum: Quorum) -> u32 {
        let enough = u32::try_from(quorum.of(self.leeches())).unwrap_or(u32::MAX);
        let had = self.availability.iter().rposition(|count| *count >= enough).map_or(0, |last| last + 1);
        self.chain.end().max(u32::try_from(had).unwrap_or(u32::MAX))
    }

    /// The chunks before `frontier` that no live member's bitmap has, up to a limit; and the frontier, moved back to the first of
    /// them that found no place.
    pub(crate) fn holes(&self, frontier: u32, limit: usize) -> (u32, Vec<ChunkIndex>) {
        let is_hole = |chunk: &u32| self.availability.get(*chunk as usize).is_none_or(|count| *count == 0);
        let mut missing = (0..frontier).filter(is_hole);
        let holes = missing.by_ref().take(limit).map(ChunkIndex::new).collect();
        (missing.next().unwrap_or(frontier), holes)
    }

    pub(crate) fn admit(&mut self, member: Member) -> Slot {
        debug_assert!(!member.live, "a member starts outside the counts");
        self.members.insert(member)
    }

    /// Takes a member out that is no longer live.
    pub(crate) fn dismiss(&mut self, slot: Slot) -> Member {
        debug_assert!(!self.members[slot].live, "a member leaves the counts before it leaves");
        self.members.remove(slot)
    }

    pub(crate) fn set_live(&mut self, slot: Slot, live: bool) {
        let generation = self.chain.generation();
        let member = &mut self.members[slot];
        if member.live == live {
            return;
        }
        member.live = live;
        if live {
            self.live.insert(member.zone, slot);
            self.tally.add(member, generation);
            count(&mut self.availability, None, member.have.as_deref());
        } else {
            self.live.remove(member.zone, slot);
            self.tally.subtract(member, generation);
            count(&mut self.availability, member.have.as_deref(), None);
        }
    }

    /// A member's bitmap; it claims nothing. Whether it shows more than the last one.
    pub(crate) fn set_have(&mut self, slot: Slot, have: Option<Arc<ChunkSet>>) -> bool {
        self.set_flags(slot, |member| {
            member.claim = None;
            member.proven = false;
        });
        let member = &mut self.members[slot];
        let grown = have.as_ref().map_or(0, |have| have.len()) > member.chunks();
        if member.live {
            count(&mut self.availability, member.have.as_deref(), have.as_deref());
        }
        member.have = have;
        grown
    }

    /// A member says that it has everything; `newcomer`: with its first announce.
    pub(crate) fn set_claim(&mut self, slot: Slot, newcomer: bool) {
        if self.members[slot].claims() || self.members[slot].distrusted {
            return;
        }
        let claim = if newcomer { Claim::Brought } else { Claim::Completed(self.chain.generation()) };
        self.set_have(slot, None);
        self.set_flags(slot, |member| member.claim = Some(claim));
    }

    /// A member gives wrong chunks: what it says to have is of use to nobody.
    pub(crate) fn distrust(&mut self, slot: Slot) {
        self.set_have(slot, None);
        self.members[slot].distrusted = true;
    }

    /// A member that claims completion was the lead and has published every link.
    pub(crate) fn set_proven(&mut self, slot: Slot) {
        self.set_flags(slot, |member| member.proven = true);
    }

    /// A member calls the chain of this generation false.
    pub(crate) fn set_calls_false(&mut self, slot: Slot) {
        let generation = self.chain.generation();
        self.set_flags(slot, |member| member.calls_false = Some(generation));
    }

    /// Withdraws the chain: what was verified under it is gone, so no bitmap holds any more. Who claims to have the blob verified it
    /// against its digest and goes on claiming, but says nothing about the next chain.
    pub(crate) fn quarantine(&mut self) {
        self.chain.quarantine(self.leases.last_epoch());
        for slot in self.members.keys() {
            self.members[slot].have = None;
            self.members[slot].proven = false;
        }
        self.availability = Vec::new();
        self.tally = self.counted();
    }

    fn set_flags(&mut self, slot: Slot, change: impl FnOnce(&mut Member)) {
        let generation = self.chain.generation();
        let member = &mut self.members[slot];
        if member.live {
            self.tally.subtract(member, generation);
        }
        change(member);
        if member.live {
            self.tally.add(member, generation);
        }
    }

    fn counted(&self) -> Tally {
        let mut tally = Tally::default();
        let live = self.members.iter().filter(|(_, member)| member.live);
        live.for_each(|(_, member)| tally.add(member, self.chain.generation()));
        tally
    }

    pub(crate) fn check_invariants(&self) {
        self.live.check_invariants();
        assert_eq!(self.tally, self.counted(), "claims and reports are counted");
        let mut availability = Vec::new();
        for (slot, member) in self.members.iter() {
            assert_eq!(member.live, self.live.contains(slot), "the pool holds the live ones");
            assert!(member.live || !member.zone_is_led_by(slot, self), "only live members have a part to play");
            assert!(member.claim.is_none() || member.have.is_none(), "a claim or a bitmap");
            assert!(member.claim.is_some() || !member.proven, "what is proven was claimed");
            if let Some(have) = member.have.as_deref() {
                assert_eq!(have.capacity(), self.chunks(), "a bitmap fits its blob");
                if member.live {
                    count(&mut availability, None, Some(have));
                }
            }
        }
        let nonzero = |counts: &[u32]| counts.iter().rposition(|count| *count != 0).map_or(0, |last| last + 1);
        let (kept, counted) = (&self.availability, &availability);
        assert_eq!(kept[..nonzero(kept)], counted[..nonzero(counted)], "chunks are counted");
    }
}

impl Member {
    fn zone_is_led_by(&self, slot: Slot, blob: &Blob) -> bool {
        blob.gateways.of(self.zone) == Some(slot) || blob.leases.held().is_some_and(|lease| lease.holder == slot)
    }
}

/// Replaces one bitmap by another in the counts.
fn count(availability: &mut Vec<u32>, old: Option<&ChunkSet>, new: Option<&ChunkSet>) {
    let chunks = old.or(new).map_or(0, |have| have.capacity()) as usize;
    if availability.len() < chunks {
        availability.resize(chunks, 0);
    }
    let words = |have: Option<&ChunkSet>, at: usize| have.map_or(0, |have| have.words()[at]);
    for (at, counts) in availability[..chunks].chunks_mut(64).enumerate() {
        let (old, new) = (words(old, at), words(new, at));
        let mut changed = old ^ new;
        while changed != 0 {
            let bit = changed.trailing_zeros();
            changed &= changed - 1;
            let count = &mut counts[bit as usize];
            *count = if new >> bit & 1 == 1 { *count + 1 } else { *count - 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_types::{ChunkSize, Digest, Geometry};

    use super::*;
    use crate::slab::Key as _;

    const QUORUM: Quorum = Quorum { floor: 3, one_in: 4 };

    fn blob_of(chunks: u32) -> Blob {
        let geometry = Geometry::new(u64::from(chunks) << 16, ChunkSize::MIN).unwrap();
        Blob::new(Time::ZERO, BlobInfo { digest: Digest::Sha256([0; 32]), geometry }, LeaseBook::new(0, 0))
    }

    fn add(blob: &mut Blob, have: &str) -> Slot {
        let node = u32::try_from(blob.members.len()).unwrap();
        let zone = ZoneIx(u16::from(!node.is_multiple_of(2)));
        let member = Member::new(Time::ZERO, NodeIx::new(node), NodeId::new(node.into()), zone);
        let slot = blob.admit(member);
        blob.set_live(slot, true);
        show(blob, slot, have);
        slot
    }

    /// A bitmap as a string: `*` where the chunk is there; `!` alone for a claim of completion.
    fn show(blob: &mut Blob, slot: Slot, have: &str) {
        if have == "!" {
            blob.set_claim(slot, false);
        } else {
            let mut set = ChunkSet::empty(blob.chunks());
            for (at, _) in (0..).zip(have.bytes()).filter(|(_, byte)| *byte == b'*') {
                set.insert(ChunkIndex::new(at));
            }
            blob.set_have(slot, Some(Arc::new(set)));
        }
        blob.check_invariants();
    }

    fn holes(blob: &Blob, limit: usize) -> (u32, Vec<u32>) {
        let (frontier, holes) = blob.holes(blob.frontier(QUORUM), limit);
        (frontier, holes.into_iter().map(ChunkIndex::get).collect())
    }

    #[test]
    fn frontier_and_holes_come_from_the_live_members_bitmaps() {
        let mut blob = blob_of(8);
        assert_eq!(holes(&blob, 9), (0, vec![]));
        let slots = ["* *     ", "* **    ", "*  *  * ", "!"].map(|have| add(&mut blob, have));
        // It takes 3 of 3 bitmaps to move the frontier, and one to fill a hole.
        assert_eq!(holes(&blob, 9), (1, vec![]));
        show(&mut blob, slots[0], "* ** ** ");
        show(&mut blob, slots[1], "* **  * ");
        assert_eq!(holes(&blob, 9), (7, vec![1, 4]));
        assert_eq!(holes(&blob, 1), (4, vec![1]));
        blob.set_live(slots[0], false);
        blob.check_invariants();
        assert_eq!(holes(&blob, 9), (7, vec![1, 4, 5]));
        blob.set_live(slots[0], true);
        assert_eq!(holes(&blob, 9), (7, vec![1, 4]));
    }

    #[test]
    fn one_claim_is_one_nodes_word() {
        let mut blob = blob_of(8);
        let slots = ["", "", "", "", "!", "!"].map(|have| add(&mut blob, have));
        assert!(!blob.has_whole_copy(QUORUM) && blob.leeches() == 4 && blob.replicas(QUORUM) == 0);
        show(&mut blob, slots[0], "!");
        assert!(blob.has_whole_copy(QUORUM) && blob.replicas(QUORUM) == 3);
        // Two of them are of zone 0, of whose three members it takes all.
        assert!(!blob.zone_has_whole_copy(ZoneIx(0), QUORUM));
        show(&mut blob, slots[2], "!");
        assert!(blob.zone_has_whole_copy(ZoneIx(0), QUORUM) && !blob.zone_has_whole_copy(ZoneIx(1), QUORUM));
        slots.iter().for_each(|slot| show(&mut blob, *slot, ""));
        assert!(!blob.has_whole_copy(QUORUM));
        blob.set_claim(slots[1], false);
        blob.set_proven(slots[1]);
        assert!(blob.has_whole_copy(QUORUM) && !blob.chain_is_proven(QUORUM));
    }

    #[test]
    fn a_quarantine_leaves_claims_and_no_bitmaps_and_old_claims_prove_no_new_chain() {
        let mut blob = blob_of(8);
        let slots = ["!", "!", "!", "**", ""].map(|have| add(&mut blob, have));
        blob.set_calls_false(slots[3]);
        assert!(blob.chain_is_proven(QUORUM) && blob.calls_false() == 1);
        blob.quarantine();
        blob.check_invariants();
        assert_eq!((blob.claims(), blob.calls_false(), blob.frontier(QUORUM)), (3, 0, 0));
        assert!(blob.has_whole_copy(QUORUM) && !blob.chain_is_proven(QUORUM));
        slots.iter().for_each(|slot| show(&mut blob, *slot, "!"));
        assert!(!blob.chain_is_proven(QUORUM));
    }
}
