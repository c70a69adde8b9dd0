//! Taking in an announce: first everything that could refuse it, then everything that it changes, in a fixed order.
//!
//! State: none of its own.
//! Invariants: [`Tracker::check`] changes nothing; what passes it can be applied without failing. A steady re-announce costs a few
//! lookups and no allocation.
//! Absent on purpose: judgements (`leasing.rs`, `verdicts.rs`, `zones.rs`).
//!
//! The order of the changes has reasons. The bitmap comes before the links, the claim after them: a lead that completes has
//! published every link only if those of this announce count. A chain is called false before the lease is given back: the
//! witness must still be the holder. The lease is decided when everything else is known, the gateway after the lease.

use std::sync::Arc;
use std::time::Duration;

use shoal_chain::{Link, SignedLinks};
use shoal_types::{BlobInfo, BlobKey, ChunkSet, ChunkSize, Geometry, NodeId, Time};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, LeaseRequest, LeaseState, PeerInfo};

use crate::blob::{Blob, Member};
use crate::error::AnnounceError;
use crate::lease::{self, LeaseBook};
use crate::leasing::Asker;
use crate::membership::BANS_AT_ONCE;
use crate::nodes::Membership;
use crate::pool::Draw;
use crate::slab::{BlobIx, NodeIx, Slot};
use crate::timers::Subject;
use crate::tracker::Tracker;

/// An announce that can be applied.
#[derive(Clone, Copy, Debug)]
struct Checked {
    node: NodeIx,
    place: Place,
    /// The announcer cuts the blob in another way: it is told, and what it has doesn't count.
    cut_otherwise: bool,
}

/// Where an announce belongs.
#[derive(Clone, Copy, Debug)]
enum Place {
    Member(BlobIx, Slot),
    Newcomer(BlobIx),
    FirstOf(Geometry),
}

impl Tracker {
    pub(crate) fn announce(
        &mut self,
        now: Time,
        from: NodeId,
        announce: &Announce,
    ) -> Result<AnnounceReply, AnnounceError> {
        let checked = self.check(from, announce)?;
        if announce.event == AnnounceEvent::Stopped {
            return Ok(self.stop(now, checked, announce));
        }
        let newcomer = !matches!(checked.place, Place::Member(..));
        let (blob, slot) = match checked.place {
            Place::Member(blob, slot) => (blob, slot),
            Place::Newcomer(blob) => (blob, self.admit(now, blob, checked.node, from)),
            Place::FirstOf(geometry) => {
                let blob = self.create(now, BlobInfo { digest: announce.digest, geometry });
                (blob, self.admit(now, blob, checked.node, from))
            }
        };
        let shows = announce.have.as_ref().is_some_and(|have| !have.is_empty());
        let comes_back = newcomer
            && (announce.event == AnnounceEvent::Progress
                || shows
                || announce.bytes_from_peers > 0
                || announce.bytes_from_origin > 0);

        self.adopt_lead(now, blob, slot, &announce.lease);
        self.take_progress(now, blob, slot, announce, checked.cut_otherwise);
        self.take_links(now, blob, slot, announce);
        let shows_all = announce.have.as_ref().is_some_and(|have| have.is_full());
        let completed = (announce.event == AnnounceEvent::Completed || shows_all) && !checked.cut_otherwise;
        if completed {
            self.take_claim(now, blob, slot, newcomer, &announce.lease);
        }
        if completed || !announce.links.is_empty() {
            self.judge_chain(now, blob);
        }
        if let Some(epoch) = announce.false_chain {
            self.take_false_chain(now, blob, slot, epoch);
        }
        // Who the chain's verdict was on accuses nobody.
        if !announce.accused.is_empty() && !self.nodes[checked.node].banned {
            self.take_accusations(now, from, &announce.accused);
        }
        // Either verdict may have been on the announcer itself: its accusation may bring others back within their budget, who accuse it.
        if self.nodes[checked.node].banned {
            return Err(AnnounceError::Banned);
        }
        self.take_lease_word(now, blob, slot, &announce.lease, completed);
        if let Some(epoch) = announce.corrupt_lead {
            self.take_corrupt_lead(now, blob, slot, epoch);
        }
        let lease = self.lease_state(now, blob, Asker { slot, comes_back });
        self.settle_gateways(now, blob, Some(slot));
        Ok(self.reply(now, blob, slot, announce, lease))
    }

    /// Everything that can be wrong with an announce.
    fn check(&self, from: NodeId, announce: &Announce) -> Result<Checked, AnnounceError> {
        let limits = &self.config.limits;
        let node = self.nodes.find(from).filter(|node| self.nodes[*node].connected);
        let node = node.ok_or(AnnounceError::NotConnected)?;
        let entry = &self.nodes[node];
        if entry.banned {
            return Err(AnnounceError::Banned);
        }
        if announce.accused.len() > limits.announced_accused {
            let (found, limit) = (announce.accused.len(), limits.announced_accused);
            return Err(AnnounceError::TooManyAccused { found, limit });
        }
        if announce.links.len() > limits.announced_batches {
            let (found, limit) = (announce.links.len(), limits.announced_batches);
            return Err(AnnounceError::TooManyLinks { found, limit });
        }
        let chunk_size = announce.chunk_size.unwrap_or_else(|| ChunkSize::for_blob(announce.size_bytes));
        let known = self.by_content.get(&(announce.digest, announce.size_bytes)).copied();
        let place = match known {
            Some(blob) => match entry.slot_in(blob) {
                Some(slot) => Place::Member(blob, slot),
                None => Place::Newcomer(blob),
            },
            None => Place::FirstOf(Geometry::new(announce.size_bytes, chunk_size)?),
        };
        let geometry = match (known, place) {
            (_, Place::FirstOf(geometry)) => geometry,
            (Some(blob), _) => self.blobs[blob].info.geometry,
            (None, _) => unreachable!("a blob that isn't known is the first of its kind"),
        };
        if !matches!(place, Place::Member(..)) && announce.event != AnnounceEvent::Stopped {
            self.check_newcomer(node, known, announce)?;
        }
        // What the announcer shows is measured by its own cut, and counts only if that is everybody's.
        let own = match announce.chunk_size {
            Some(size) if size != geometry.chunk_size() => Geometry::new(announce.size_bytes, size)?,
            _ => geometry,
        };
        check_bitmap(announce, own)?;
        if let LeaseRequest::Holding { frontier, .. } = announce.lease
            && frontier.get() > own.chunk_count()
        {
            return Err(AnnounceError::FrontierBeyondEnd { frontier: frontier.get(), chunks: own.chunk_count() });
        }
        for links in &announce.links {
            check_links(links, from, BlobInfo { digest: announce.digest, geometry })?;
            self.check_publisher(from, place, &announce.lease, links.batch.epoch)?;
        }
        Ok(Checked { node, place, cut_otherwise: own != geometry })
    }

    fn check_newcomer(&self, node: NodeIx, known: Option<BlobIx>, announce: &Announce) -> Result<(), AnnounceError> {
        let limits = &self.config.limits;
        let entry = &self.nodes[node];
        if known.is_none() && self.blobs.len() >= limits.blobs {
            return Err(AnnounceError::TooManyBlobs { limit: limits.blobs });
        }
        if entry.memberships.len() >= limits.memberships_per_node {
            return Err(AnnounceError::TooManyMemberships { limit: limits.memberships_per_node });
        }
        // Others of the same digest and another size: is the announcer a member there?
        let same_digest = self.by_content.range((announce.digest, 0)..=(announce.digest, u64::MAX));
        for ((_, first), blob) in same_digest {
            if entry.slot_in(*blob).is_some() {
                return Err(AnnounceError::SizeContradicts { first: *first, now: announce.size_bytes });
            }
        }
        Ok(())
    }

    /// Links are taken from who holds, or held, the lease of their epoch, or says so as the first one.
    fn check_publisher(
        &self,
        from: NodeId,
        place: Place,
        word: &LeaseRequest,
        epoch: u64,
    ) -> Result<(), AnnounceError> {
        let says_so = matches!(word, LeaseRequest::Holding { epoch: held, .. } if *held == epoch);
        let (Place::Member(blob, _) | Place::Newcomer(blob)) = place else {
            return if says_so { Ok(()) } else { Err(AnnounceError::NotTheHolder { epoch }) };
        };
        let leases = &self.blobs[blob].leases;
        if leases.was_held(from, epoch) || (says_so && leases.may_adopt(epoch)) {
            Ok(())
        } else {
            Err(AnnounceError::NotTheHolder { epoch })
        }
    }

    fn create(&mut self, now: Time, info: BlobInfo) -> BlobIx {
        let leases = LeaseBook::new(self.config.first_epoch, self.epoch_floor);
        let blob = self.blobs.insert(Blob::new(now, info, leases));
        self.by_content.insert((info.digest, info.geometry.size_bytes()), blob);
        blob
    }

    fn admit(&mut self, now: Time, blob: BlobIx, node: NodeIx, id: NodeId) -> Slot {
        let entry = &mut self.blobs[blob];
        let mut member = Member::new(now, node, id, self.nodes[node].zone);
        member.owed = (entry.chain.generation(), 0..entry.chain.batch_count());
        let slot = entry.admit(member);
        self.nodes[node].join(Membership { blob, slot });
        self.counters.joined += 1;
        slot
    }

    /// What the announcer has, and that it is there.
    fn take_progress(&mut self, now: Time, blob: BlobIx, slot: Slot, announce: &Announce, cut_otherwise: bool) {
        let entry = &mut self.blobs[blob];
        let leads = entry.leases.held().is_some_and(|lease| lease.holder == slot);
        let member = &mut entry.members[slot];
        let returns = !member.is_live();
        let before = member.bytes_from_peers;
        member.seen_at = now;
        member.bytes_from_peers = announce.bytes_from_peers;
        member.bytes_from_origin = announce.bytes_from_origin;
        let starts = announce.event == AnnounceEvent::Started;
        if starts {
            member.owed = (entry.chain.generation(), 0..entry.chain.batch_count());
            entry.popularity.count(now, self.config.membership.popularity_half_life);
        }
        let mut grown = announce.bytes_from_peers > before;
        match &announce.have {
            _ if cut_otherwise => {
                entry.set_have(slot, None);
            }
            // A full one is a claim.
            Some(have) if have.is_full() => {}
            Some(have) => grown |= entry.set_have(slot, Some(Arc::clone(have))),
            None if starts => {
                entry.set_have(slot, None);
            }
            None => {}
        }
        if grown && !leads {
            entry.progressed_at = now;
        }
        let member = &entry.members[slot];
        let (zone, progress) = (member.zone, member.progress());
        entry.gateways.note(now, zone, slot, progress);
        if returns {
            self.set_live(blob, slot, true);
        }
    }

    fn take_claim(&mut self, now: Time, blob: BlobIx, slot: Slot, newcomer: bool, word: &LeaseRequest) {
        let entry = &mut self.blobs[blob];
        entry.set_claim(slot, newcomer);
        let Some(lease) = entry.leases.held().filter(|lease| lease.holder == slot) else { return };
        if !entry.members[slot].claims() || !entry.chain.is_complete(entry.chunks()) {
            return;
        }
        let stayed = if let LeaseRequest::Holding { backlog, .. } = word { *backlog } else { 0 };
        if lease::gives(entry.chunks().saturating_sub(lease.frontier), stayed) {
            entry.set_proven(slot);
        } else {
            // Nobody has anything from it yet. It gets as long to give as a seed that pauses.
            entry.progressed_at = now;
        }
    }

    fn stop(&mut self, now: Time, checked: Checked, announce: &Announce) -> AnnounceReply {
        let (key, withdrawn) = match checked.place {
            Place::Member(blob, _) | Place::Newcomer(blob) => {
                (self.blobs[blob].info.key(), self.blobs[blob].chain.withdrawn())
            }
            Place::FirstOf(geometry) => (BlobKey { digest: announce.digest, chunk_size: geometry.chunk_size() }, None),
        };
        if let Place::Member(blob, slot) = checked.place {
            self.expel(now, blob, slot);
        }
        AnnounceReply {
            key,
            peers: Vec::new(),
            lease: LeaseState::Nobody,
            links: Vec::new(),
            withdrawn,
            gateway: None,
            banned: self.news_of_bans(checked.node),
            interval: self.config.membership.interval,
        }
    }

    fn reply(&mut self, now: Time, blob: BlobIx, slot: Slot, announce: &Announce, lease: LeaseState) -> AnnounceReply {
        let interval = self.interval(blob, slot);
        let config = &self.config.membership;
        let lenient = interval.max(config.interval) * config.expiry_intervals;
        let entry = &mut self.blobs[blob];
        let member = &mut entry.members[slot];
        member.expires_after_millis = u32::try_from(lenient.as_millis()).unwrap_or(u32::MAX);
        let (node, zone, expires_at) = (member.node, member.zone, member.expires_at());

        let (generation, owed) = member.owed.clone();
        let links = if owed.is_empty() || generation != entry.chain.generation() {
            Vec::new()
        } else {
            let (links, next) = entry.chain.batches(owed.clone(), self.config.limits.reply_link_bytes);
            member.owed = (generation, next..owed.end);
            links
        };
        let want = usize::from(announce.want_peers.min(config.max_peers));
        let peers = if want == 0 {
            Vec::new()
        } else {
            let others = want.div_ceil(config.other_zones_one_in.into());
            let drawn = entry.live.draw(&mut self.rng, Draw { home: zone, want, others, except: Some(slot) });
            let info = |slot| {
                let member = &entry.members[slot];
                PeerInfo { node: member.id, zone: self.nodes.zone_name(member.zone).clone() }
            };
            drawn.into_iter().map(info).collect()
        };
        let reply = AnnounceReply {
            key: entry.info.key(),
            peers,
            lease,
            links,
            withdrawn: entry.chain.withdrawn(),
            gateway: entry.gateways.of(zone).map(|gateway| entry.members[gateway].id),
            banned: self.news_of_bans(node),
            interval,
        };
        self.timers.arm(Subject::Node(node), &mut self.nodes[node].armed, expires_at);
        self.arm_blob(now, blob);
        reply
    }

    /// When to announce again: as rarely as the member's part allows.
    fn interval(&self, blob: BlobIx, slot: Slot) -> Duration {
        let config = &self.config;
        let entry = &self.blobs[blob];
        let member = &entry.members[slot];
        let live = u32::try_from(self.live_memberships).unwrap_or(u32::MAX);
        let affordable = Duration::from_secs(1) * live / config.membership.announces_per_second;
        let holds = |holder: Slot| holder == slot;
        let leads = entry.leases.held().is_some_and(|lease| holds(lease.holder));
        // Three reports within the time in which one is expected.
        if leads || entry.leases.impatient.iter().any(|lease| holds(lease.holder)) {
            return config.lease.silence / 3;
        }
        if entry.gateways.of(member.zone) == Some(slot) && !member.claims() {
            return (config.membership.gateway_silence / 3).min(config.membership.interval).max(affordable);
        }
        let wanted = if entry.leases.waits_for_claims() {
            config.lease.claims_patience / 2
        } else if member.claims() {
            config.membership.seed_interval
        } else {
            config.membership.interval
        };
        wanted.max(affordable)
    }

    fn news_of_bans(&mut self, node: NodeIx) -> Vec<NodeId> {
        let log = self.ledger.log();
        let entry = &mut self.nodes[node];
        let end = log.len().min(entry.bans_told + BANS_AT_ONCE);
        let news = log[entry.bans_told..end].to_vec();
        entry.bans_told = end;
        news
    }
}

fn check_bitmap(announce: &Announce, geometry: Geometry) -> Result<(), AnnounceError> {
    let Some(have) = announce.have.as_deref() else { return Ok(()) };
    if have.capacity() != geometry.chunk_count() {
        return Err(AnnounceError::BitmapLength { expected: geometry.chunk_count(), found: have.capacity() });
    }
    if announce.event == AnnounceEvent::Completed && !ChunkSet::is_full(have) {
        return Err(AnnounceError::CompletedWithChunksMissing);
    }
    Ok(())
}

/// Whether links can be the announcer's own, of this blob as everybody cuts it.
fn check_links(links: &SignedLinks, from: NodeId, blob: BlobInfo) -> Result<(), AnnounceError> {
    let run = &links.batch.run;
    let chunks = blob.geometry.chunk_count();
    let fits = run.first().get().checked_add(run.count()).is_some_and(|end| end <= chunks);
    if links.publisher != from || links.batch.blob != blob || run.algorithm() != blob.digest.algorithm() || !fits {
        return Err(AnnounceError::ForeignLinks);
    }
    match run.get(blob.geometry.last_chunk()) {
        Some(last) if last != Link::from(blob.digest) => Err(AnnounceError::FalseLastLink),
        _ => Ok(()),
    }
}
