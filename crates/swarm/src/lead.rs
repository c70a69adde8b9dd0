//! The lead: fetching a blob from its origin, in order, under a lease.
//!
//! State: the lease, the run of chunks that the driver is fetching, the frontier from which it goes on.
//!
//! ```text
//!   no lease ──granted──> frontier's links unknown ──links, or too late──> fetching from the frontier ──end──> fetching holes
//!      ^                                                                           │                              │
//!      └──────────────── revoked, yielded, refused by the origin, blob complete ───┴──────────────────────────────┘
//! ```
//!
//! Invariants: chunks in state Origin are exactly those of the run that have not come; only the holder of a lease has a run.
//! Absent on purpose: hashing, signing, requests to the origin: the driver's. Choosing the lead: the tracker's.

use std::ops::Range;
use std::time::Duration;

use shoal_chain::VerifiedLinks;
use shoal_types::{BlobKey, ChunkIndex, Time};
use shoal_wire::{LeaseGrant, LeaseRequest, OriginFailure, PeerMessage};

use crate::action::{Action, Recipients};
use crate::chain_state::Learned;
use crate::engine::Engine;
use crate::peer::BlobSlot;
use crate::picker;
use crate::spread::Fed;
use crate::transfer::{ChunkState, Transfer};

/// A successor waits so long for the links up to the frontier: some round trips, and little against a second fetch.
const LINKS_PATIENCE: Duration = Duration::from_millis(20);

/// A backlog is judged from so many fetched chunks on, and not before so much time: until then it is the pipeline's filling.
const JUDGED_FROM: u32 = 32;
const JUDGED_AFTER: Duration = Duration::from_millis(50);

/// The uplink is too slow to lead when more than half of what was fetched under the lease has reached nobody: it carries less
/// than half of what the origin sends.
const BACKLOG_SHARE: u32 = 2;

/// So many times a hole's patience without any progress, and a lead no longer believes what its neighbours say to have.
const STALLED: u32 = 3;

/// After so many leads of one blob another one makes it no faster.
const MANY_LEADS: usize = 3;

/// What was fetched counts as spread by nobody when less than an eighth of it has reached anybody: then its holder gives nothing, and is
/// no lead, whatever the others are. After so many of those the blob is had in vain from anyone.
const UNSPREAD_SHARE: u32 = 8;
const TOO_MANY_LEADS: usize = 8;

/// Where all uplinks are slow beside the origin, less than this share of what was fetched is nothing.
const HARDLY_ANY: u32 = 32;

/// An answer that is later than this isn't under way any more. Not for ever: without a tracker the same epoch comes again.
const LATE_ANSWER: Duration = Duration::from_secs(1);

/// Links that wait for the next announce, at most: with a signature each some 6 KiB.
const MAX_UNPUBLISHED: u32 = 32;

/// A blob's lead, as far as this agent is concerned.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    lease: Option<Lease>,
    /// The last lease that is over, and since when: an answer that was under way may still grant it.
    over: Option<(u64, Time)>,
    run: Option<Range<u32>>,
    pub(crate) fed: Fed,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: u64,
    since: Time,
    frontier: u32,
    fetched: u32,
    /// When the first chunk came: until then there was nothing to pass on.
    comes_since: Time,
    asked_for_links: bool,
    /// What neighbours say to have didn't come: a silent peer's chunks, or a liar's claims.
    trusts_nobody: bool,
    /// The bytes come to this node anyway, whoever leads.
    comes_anyway: bool,
}

impl Lead {
    /// The lease's epoch and how far its holder is.
    pub(crate) fn holding(&self) -> Option<(u64, ChunkIndex)> {
        let lease = self.lease.as_ref()?;
        Some((lease.epoch, ChunkIndex::new(self.run.as_ref().map_or(lease.frontier, |run| run.start))))
    }

    /// The chunks that are being fetched and have not come.
    pub(crate) const fn run(&self) -> Option<&Range<u32>> {
        self.run.as_ref()
    }

    pub(crate) const fn is_leading(&self) -> bool {
        self.lease.is_some()
    }
}

impl Engine {
    /// A chunk has come from the origin, in order, and is kept; `links` are what the driver's builder got from it, signed. The last
    /// chunk has none: the driver has compared its link with the digest.
    pub fn handle_origin_chunk(
        &mut self,
        now: Time,
        key: BlobKey,
        epoch: u64,
        chunk: ChunkIndex,
        links: Option<&VerifiedLinks>,
    ) {
        let Some(slot) = self.find(key) else { return };
        let transfer = self.transfer_mut(slot);
        let bytes = transfer.chunk_bytes(chunk);
        let expected = transfer.lead.run.as_ref().is_some_and(|run| run.start == chunk.get());
        let current = transfer.lead.lease.as_ref().is_some_and(|lease| lease.epoch == epoch);
        if !expected || !current {
            return; // Under way when the lease was lost.
        }
        if let Some(links) = links {
            match transfer.chain.learn(links) {
                Learned::New => {
                    transfer.announce.unpublished.push(links.get().clone());
                    // Told before they are many: they are held here until then.
                    if transfer.announce.waiting_links() >= MAX_UNPUBLISHED {
                        self.announce_soon(now, slot);
                    }
                }
                Learned::Nothing => {}
                Learned::Contradicts { epoch } => {
                    // The origin's bytes contradict what an earlier lead signed.
                    transfer.announce.false_chain = Some(epoch);
                    let alone = transfer.announce.unanswered;
                    self.announce_soon(now, slot);
                    if alone {
                        // Nobody else will judge it, and the origin is the witness.
                        self.end_lease(now, slot, None);
                        self.withdraw(now, slot, epoch);
                    }
                    return;
                }
            }
        }
        let transfer = self.transfer_mut(slot);
        transfer.bytes_from_origin += bytes;
        let run_ended = match &mut transfer.lead.run {
            Some(run) => {
                run.start += 1;
                run.start >= run.end
            }
            None => false,
        };
        if run_ended {
            transfer.lead.run = None;
        }
        if let Some(lease) = &mut transfer.lead.lease {
            if lease.fetched == 0 {
                lease.comes_since = now;
            }
            lease.fetched += 1;
            lease.frontier = lease.frontier.max(chunk.get() + 1);
        }
        self.chunk_is_here(now, slot, chunk);
        self.pump(now);
        self.yield_if_too_slow(now, slot);
        if run_ended {
            self.drive_lead(now, slot);
        }
    }

    /// What is fetched under this lease comes to this node whoever leads: another lead would cost the origin another copy, so this one doesn't
    /// yield, however slow its uplink is.
    pub fn handle_comes_anyway(&mut self, key: BlobKey, epoch: u64) {
        let Some(slot) = self.find(key) else { return };
        if let Some(lease) = &mut self.transfer_mut(slot).lead.lease
            && lease.epoch == epoch
        {
            lease.comes_anyway = true;
        }
    }

    /// The builder's link, to merge with others into one signed batch: a signature for eight links keeps the chain's
    /// bookkeeping small for everybody.
    pub fn handle_merged_links(&mut self, now: Time, key: BlobKey, links: &VerifiedLinks) {
        if let Some(slot) = self.find(key) {
            let transfer = self.transfer_mut(slot);
            if transfer.lead.is_leading() {
                let _ = transfer.chain.learn(links);
                transfer.announce.merge(links.get());
                self.timers.sweep = self.timers.sweep.min(now + Self::SWEEP);
            }
        }
    }

    /// The origin has refused, or can't be reached.
    pub fn handle_origin_failed(&mut self, now: Time, key: BlobKey, epoch: u64, failure: OriginFailure) {
        let Some(slot) = self.find(key) else { return };
        if self.transfer(slot).lead.lease.as_ref().is_some_and(|lease| lease.epoch == epoch) {
            self.end_lease(now, slot, Some(LeaseRequest::Failed { epoch, failure }));
            self.announce_soon(now, slot);
            self.fill(now);
        }
    }

    /// The origin's bytes, taken together, don't give the digest: the links that the fetch went on from are false.
    pub fn handle_origin_mismatch(&mut self, now: Time, key: BlobKey, epoch: u64) {
        let Some(slot) = self.find(key) else { return };
        let transfer = self.transfer_mut(slot);
        let Some(lease) = transfer.lead.lease.filter(|lease| lease.epoch == epoch) else { return };
        let author = transfer.chain.author_of(ChunkIndex::new(lease.frontier.saturating_sub(lease.fetched + 1)));
        match author {
            Some((earlier, _)) if earlier != epoch => {
                transfer.announce.false_chain = Some(earlier);
                let alone = transfer.announce.unanswered;
                self.end_lease(now, slot, Some(LeaseRequest::Yielded { epoch }));
                if alone {
                    // Nobody else will judge it, and the origin is the witness.
                    self.withdraw(now, slot, earlier);
                }
            }
            _ => {
                let failure = OriginFailure::NotFound;
                self.end_lease(now, slot, Some(LeaseRequest::Failed { epoch, failure }));
            }
        }
        self.announce_soon(now, slot);
    }

    pub(crate) fn take_lease(&mut self, now: Time, slot: BlobSlot, grant: &LeaseGrant) {
        let lead_report = self.config.lead_report;
        let transfer = self.transfer_mut(slot);
        let knows = |lease: &Lease| lease.epoch >= grant.epoch;
        let is_over = transfer.lead.over.is_some_and(|(epoch, at)| epoch == grant.epoch && now.since(at) < LATE_ANSWER);
        if transfer.is_served() || is_over || transfer.lead.lease.as_ref().is_some_and(knows) {
            return;
        }
        // What an earlier lease had begun would be signed under its epoch, and ignored.
        self.end_lease(now, slot, None);
        let transfer = self.transfer_mut(slot);
        transfer.lead.lease = Some(Lease {
            epoch: grant.epoch,
            since: now,
            frontier: grant.frontier.get(),
            fetched: 0,
            comes_since: now,
            asked_for_links: false,
            trusts_nobody: false,
            comes_anyway: false,
        });
        transfer.announce.due = now + lead_report;
        self.timers.announce = self.timers.announce.min(now + lead_report);
        self.drive_lead(now, slot);
    }

    pub(crate) fn lose_lease(&mut self, now: Time, slot: BlobSlot, epoch: u64) {
        if self.transfer(slot).lead.lease.as_ref().is_some_and(|lease| lease.epoch == epoch) {
            self.end_lease(now, slot, None);
            if self.transfer(slot).announce.waiting_links() > 0 {
                // Neighbours have them, so nobody will publish them again.
                self.announce_soon(now, slot);
            }
            self.fill(now);
        }
    }

    /// Starts the next run of chunks, if there is a lease, no run, and something that nobody has.
    pub(crate) fn drive_lead(&mut self, now: Time, slot: BlobSlot) {
        let hole_patience = self.config.hole_patience;
        let Self { transfers, peers, .. } = &mut *self;
        let Some(transfer) = &mut transfers[usize::from(slot.0)] else { return };
        let gave = |peer: u16| peers.at(peer).bytes_from > 0;
        let Some(lease) = transfer.lead.lease else { return };
        if transfer.lead.run.is_some() || transfer.is_served() {
            return;
        }
        let count = transfer.blob.geometry.chunk_count();
        if let Some(run) = untested_run(transfer) {
            self.fetch(slot, run);
            return;
        }
        if lease.frontier < count {
            // As far as links are known somebody has fetched. A neighbour that claims more is asked for the links that prove it.
            let frontier = transfer.chain.first_unknown().map_or(count - 1, |first| first.get()).max(lease.frontier);
            let linked = transfer.chain.link_before(ChunkIndex::new(frontier)).is_some();
            if (claimed_frontier(transfer) > frontier || !linked) && now.since(lease.since) < LINKS_PATIENCE {
                self.ask_for_links(slot);
                self.timers.sweep = self.timers.sweep.min(now + LINKS_PATIENCE / 4);
                return;
            }
            // The tracker may know of more than anybody here told: go on from where the links end.
            let frontier =
                if linked { frontier } else { transfer.chain.first_unknown().map_or(0, |first| first.get()) };
            if let Some(run) = unspread_run(transfer, frontier, gave) {
                self.fetch(slot, run);
                return;
            }
            if let Some(run) = next_run(transfer, frontier..count, |chunk| is_open(transfer, chunk, false)) {
                self.fetch(slot, run);
                return;
            }
        }
        // Behind the frontier: what no neighbour has had for a while, and in the end what is claimed and doesn't come.
        let stalled = transfer.idle(now) >= hole_patience * STALLED;
        let Some(lease) = &mut transfer.lead.lease else { return };
        lease.trusts_nobody |= stalled;
        let (lease, given_up) = (*lease, lease.trusts_nobody);
        let patient = transfer.idle(now).max(now.since(lease.since)) < hole_patience && !given_up;
        let lacking = |chunk| is_open(transfer, chunk, given_up) && (given_up || !transfer.is_to_be_had(chunk));
        if !patient && let Some(run) = next_run(transfer, 0..count, lacking) {
            self.fetch(slot, run);
        }
    }

    /// What a lead says of itself.
    pub(crate) fn holding(&self, slot: BlobSlot) -> Option<LeaseRequest> {
        let lead = &self.transfer(slot).lead;
        let (epoch, frontier) = lead.holding()?;
        let keeps_it = !self.config.lead_yields || lead.lease.is_some_and(|lease| lease.comes_anyway);
        let backlog = if keeps_it { 0 } else { self.backlog(slot) };
        Some(LeaseRequest::Holding { epoch, frontier, backlog })
    }

    /// Chunks that we have fetched and no neighbour has, where there is one.
    fn backlog(&self, slot: BlobSlot) -> u32 {
        let transfer = self.transfer(slot);
        if !transfer.lead.is_leading() || transfer.members.is_empty() {
            return 0;
        }
        let alone = transfer.have.iter().filter(|chunk| transfer.availability[chunk.as_usize()] == 0).count();
        u32::try_from(alone).unwrap_or(u32::MAX)
    }

    pub(crate) fn end_lease(&mut self, now: Time, slot: BlobSlot, parting: Option<LeaseRequest>) {
        self.forget_fed(slot);
        let transfer = self.transfer_mut(slot);
        if let Some(lease) = transfer.lead.lease.take() {
            transfer.lead.over = Some((lease.epoch, now));
        }
        if parting.is_some() {
            transfer.announce.parting = parting;
        }
        self.stop_run(slot);
    }

    fn stop_run(&mut self, slot: BlobSlot) {
        let Some(run) = self.transfer_mut(slot).lead.run.take() else { return };
        for chunk in run.map(ChunkIndex::new) {
            if self.transfer(slot).state(chunk) == ChunkState::Origin {
                self.reopen(slot, chunk);
            }
        }
        let key = self.transfer(slot).blob.key();
        self.act(Action::StopOrigin { key });
    }

    /// Somebody has sent a chunk that doesn't fit its own links. If we lead after it, its links are tested now rather than in the end.
    pub(crate) fn test_links(&mut self, now: Time, slot: BlobSlot) {
        let transfer = self.transfer(slot);
        let goes_on_from = transfer.lead.run.as_ref().map(|run| run.start);
        if transfer.lead.is_leading()
            && let Some(untested) = untested_run(transfer)
            && goes_on_from.is_some_and(|start| untested.start < start)
        {
            self.stop_run(slot);
            self.drive_lead(now, slot);
        }
    }

    fn fetch(&mut self, slot: BlobSlot, run: Range<u32>) {
        let transfer = self.transfer_mut(slot);
        let Some(before) = transfer.chain.link_before(ChunkIndex::new(run.start)) else { return };
        let Some(lease) = &transfer.lead.lease else { return };
        let epoch = lease.epoch;
        for chunk in run.clone().map(ChunkIndex::new) {
            self.cancel_all(slot, chunk);
            self.transfer_mut(slot).set_state(chunk, ChunkState::Origin);
        }
        let transfer = self.transfer_mut(slot);
        transfer.lead.run = Some(run.clone());
        let key = transfer.blob.key();
        self.act(Action::FetchOrigin { key, epoch, chunks: run, before });
    }

    /// Whether some blob comes into the swarm through us.
    pub(crate) fn is_leading(&self) -> bool {
        self.transfers.iter().flatten().any(|transfer| transfer.lead.is_leading())
    }

    fn ask_for_links(&mut self, slot: BlobSlot) {
        let transfer = self.transfer_mut(slot);
        let Some(lease) = &mut transfer.lead.lease else { return };
        if std::mem::replace(&mut lease.asked_for_links, true) {
            return;
        }
        let Some(from) = transfer.chain.first_unknown() else { return };
        let key = transfer.blob.key();
        // Those that claim the most, whether it is true or not: all neighbours at most, once a lease.
        let beyond =
            |member: &usize| picker::ones(transfer.member_words(*member)).last().is_some_and(|last| last >= from);
        let holders = (0..transfer.members.len()).filter(beyond);
        let peers: Vec<u16> = holders.map(|member| transfer.members[member].peer).collect();
        let to = peers.into_iter().map(|peer| self.peers.handle_at(peer)).collect();
        self.act(Action::Send { to: Recipients::Many(to), message: PeerMessage::LinksWanted { key, from } });
    }

    fn yield_if_too_slow(&mut self, now: Time, slot: BlobSlot) {
        let Some(Lease { epoch, fetched, comes_since, comes_anyway, .. }) = self.transfer(slot).lead.lease else {
            return;
        };
        let alone_in_swarm = self.transfer(slot).members.is_empty();
        if !self.config.lead_yields
            || comes_anyway
            || fetched < JUDGED_FROM
            || now.since(comes_since) < JUDGED_AFTER
            || fetched % 8 != 0
            || alone_in_swarm
        {
            return;
        }
        // When leads have given up before, it isn't this uplink that is slow, it is all of them, and something spreads all the same; from one
        // that gives nothing nothing does.
        let leads = self.transfer(slot).chain.leases_seen().0;
        let most = if leads < MANY_LEADS { fetched / BACKLOG_SHARE } else { fetched - fetched / HARDLY_ANY };
        if leads < TOO_MANY_LEADS && self.uplink_is_taken(slot) && self.backlog(slot) > most {
            self.end_lease(now, slot, Some(LeaseRequest::Yielded { epoch }));
            self.announce_soon(now, slot);
            self.fill(now);
        }
    }
}

/// The first chunk beyond all that we have or a neighbour says to have.
fn claimed_frontier(transfer: &Transfer) -> u32 {
    let sets = (0..transfer.members.len()).map(|member| transfer.member_words(member));
    let last = sets.chain([transfer.have.words()]).filter_map(|words| picker::ones(words).last()).max();
    last.map_or(0, |chunk| chunk.get() + 1)
}

/// The first stretch of chunks in the range that fit and whose links lead up to it.
fn next_run(transfer: &Transfer, range: Range<u32>, fits: impl Fn(ChunkIndex) -> bool) -> Option<Range<u32>> {
    let fits = |index: u32| fits(ChunkIndex::new(index));
    let start =
        range.clone().find(|index| fits(*index) && transfer.chain.link_before(ChunkIndex::new(*index)).is_some())?;
    let end = (start..range.end).find(|index| !fits(*index)).unwrap_or(range.end);
    Some(start..end)
}

/// Whether a chunk is the lead's to fetch: nobody is asked for it, or what a neighbour sends can't be verified before somebody has
/// fetched it and told its link, or who is asked isn't trusted any more.
fn is_open(transfer: &Transfer, chunk: ChunkIndex, trusts_nobody: bool) -> bool {
    match transfer.state(chunk) {
        ChunkState::Missing => true,
        ChunkState::Requested { .. } | ChunkState::Arriving { .. } | ChunkState::Held { .. } => {
            trusts_nobody || !transfer.chain.can_verify(chunk)
        }
        ChunkState::Verifying { .. } | ChunkState::Origin | ChunkState::Have => false,
    }
}

/// Chunks that nobody has, by links of somebody who has sent wrong ones. If a link is false, so are all that follow.
fn untested_run(transfer: &Transfer) -> Option<Range<u32>> {
    if transfer.evidence.is_empty() {
        return None;
    }
    let linked = transfer.chain.first_unknown().map_or(transfer.blob.geometry.chunk_count() - 1, ChunkIndex::get);
    let untested = |chunk| {
        let by = transfer.chain.author_of(chunk).map(|(_, publisher)| publisher);
        // What that one is asked for is as good as missing.
        is_open(transfer, chunk, true)
            && !transfer.is_to_be_had(chunk)
            && transfer.evidence.iter().any(|evidence| Some(evidence.sender) == by)
    };
    next_run(transfer, 0..linked, untested)
}

/// What the leases before this one fetched, if hardly anybody got any of it from their holders: they give nothing.
fn unspread_run(transfer: &Transfer, frontier: u32, gave: impl Fn(u16) -> bool) -> Option<Range<u32>> {
    let epoch_of = |chunk: u32| Some(transfer.chain.author_of(ChunkIndex::new(chunk))?.0);
    let fits = |chunk: ChunkIndex| is_open(transfer, chunk, false) && !is_spread(transfer, chunk, &gave);
    let mut begin = frontier;
    while begin > 0 {
        let epoch = epoch_of(begin - 1)?;
        let first = (0..begin).rev().find(|chunk| epoch_of(*chunk) != Some(epoch)).map_or(0, |before| before + 1);
        let count = (first..begin).filter(|chunk| fits(ChunkIndex::new(*chunk))).count();
        let unspread = u32::try_from(count).unwrap_or(u32::MAX);
        let fetched = begin - first;
        if unspread < JUDGED_FROM || unspread < fetched - fetched / UNSPREAD_SHARE {
            break;
        }
        begin = first;
    }
    next_run(transfer, begin..frontier, fits)
}

/// Whether a chunk has got around: several neighbours have it, or one that has given us something.
fn is_spread(transfer: &Transfer, chunk: ChunkIndex, gave: impl Fn(u16) -> bool) -> bool {
    let has = |at: &usize| !transfer.members[*at].suspect && transfer.member_has(*at, chunk);
    let mut holders = (0..transfer.members.len()).filter(has);
    let Some(first) = holders.next() else { return false };
    gave(transfer.members[first].peer) || holders.next().is_some()
}

#[cfg(test)]
mod tests {
    use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
    use shoal_types::{Algorithm, BlobInfo, ChunkSet, ChunkSize, Digest, Geometry, NodeId};
    use shoal_wire::JoinFlags;

    use super::*;

    /// A blob whose chunks are missing (`.`), asked for (`?`), waiting for links (`h`) or here (`*`), and whose links are known up to,
    /// and without, a chunk.
    fn transfer(states: &str, linked: u32) -> Transfer {
        let count = u32::try_from(states.len()).unwrap();
        let geometry = Geometry::new(u64::from(count) << 16, ChunkSize::MIN).unwrap();
        let blob = BlobInfo { digest: Digest::Sha256([0; 32]), geometry };
        let mut transfer = Transfer::new(blob, ChunkSet::empty(count), 0, Time::ZERO);
        for (chunk, mark) in geometry.chunks().zip(states.bytes()) {
            let state = match mark {
                b'?' => ChunkState::Requested { peer: 0 },
                b'h' => ChunkState::Held { peer: 0 },
                b'*' => ChunkState::Have,
                _ => ChunkState::Missing,
            };
            transfer.set_state(chunk, state);
        }
        if linked > 0 {
            let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(0), vec![7; linked as usize * 32]).unwrap();
            let batch = LinkBatch { blob, epoch: 1, run };
            let links = SignedLinks { batch, publisher: NodeId::new(1), signature: Signature([0; 64]) };
            assert_eq!(transfer.chain.learn(&VerifiedLinks::trusted(links)), Learned::New);
        }
        transfer
    }

    #[test]
    fn a_run_is_the_first_stretch_of_what_is_the_lead_s_to_fetch() {
        let run = |states: &str, linked, from: u32| {
            let transfer = transfer(states, linked);
            let count = transfer.blob.geometry.chunk_count();
            next_run(&transfer, from..count, |chunk| is_open(&transfer, chunk, false)).map(|run| (run.start, run.end))
        };
        assert_eq!(run("........", 0, 0), Some((0, 8)));
        assert_eq!(run("**..*...", 7, 0), Some((2, 4)));
        assert_eq!(run("**..*...", 7, 3), Some((3, 4)));
        assert_eq!(run("********", 7, 0), None);
        // What neighbours are asked for is theirs where it can be verified, and the lead's where it can't.
        assert_eq!(run("*??h....", 7, 0), Some((4, 8)));
        assert_eq!(run("*??h....", 1, 0), Some((1, 8)));
        assert_eq!(run("*??h....", 2, 0), Some((2, 8)));
        // It begins only where links lead to.
        assert_eq!(run("**......", 2, 4), None);
    }

    #[test]
    fn what_leads_that_give_nothing_fetched_is_fetched_again() {
        let run = |spread: u32, gave: bool| {
            let mut transfer = transfer(&".".repeat(100), 64);
            for (peer, end) in [(0, 64), (1, spread)] {
                let mut have = ChunkSet::empty(100);
                for chunk in 0..end {
                    have.insert(ChunkIndex::new(chunk));
                }
                transfer.join(peer, true, &have, JoinFlags::default());
            }
            unspread_run(&transfer, 64, |_| gave).map(|run| (run.start, run.end))
        };
        assert_eq!(run(0, false), Some((0, 64)));
        assert_eq!(run(8, false), Some((8, 64)), "an eighth is less than a lead spreads by then");
        assert_eq!(run(9, false), None);
        assert_eq!(run(0, true), None, "it has given us something");
    }

    #[test]
    fn only_members_that_are_still_asked_count_as_holders() {
        let mut transfer = transfer("...", 2);
        transfer.join(0, true, &ChunkSet::full(3), JoinFlags::default());
        transfer.join(1, false, &ChunkSet::empty(3), JoinFlags::default());
        let chunk = ChunkIndex::new(1);
        assert!(transfer.is_to_be_had(chunk));
        transfer.members[0].suspect = true;
        assert!(!transfer.is_to_be_had(chunk));
        transfer.member_got(1, chunk);
        assert!(transfer.is_to_be_had(chunk), "in whatever zone");
    }

    #[test]
    fn the_claimed_frontier_is_beyond_all_that_anybody_says_to_have() {
        let mut transfer = transfer("*....", 0);
        assert_eq!(claimed_frontier(&transfer), 1);
        let mut have = ChunkSet::empty(5);
        have.insert(ChunkIndex::new(3));
        transfer.join(0, true, &have, JoinFlags::default());
        assert_eq!(claimed_frontier(&transfer), 4);
    }
}
