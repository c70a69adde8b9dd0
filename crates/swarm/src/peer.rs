//! The neighbours: one entry a connection, for all blobs.
//!
//! State: per neighbour what we asked it for, what it gave and took, how busy it says it is, who chokes whom.
//! Invariants: a handle whose generation has passed reaches nobody; a chunk stands at most once in a neighbour's outstanding list; `sources`
//! and `served` hold exactly those that don't choke us and that we don't choke.
//! Absent on purpose: addresses and certificates (the driver's), and what a neighbour has of a blob (that is `transfer::Member`).

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_types::{ChunkIndex, NodeId, Time, Zone};
use shoal_wire::Load;

/// A neighbour's place in the engine while its connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerHandle {
    pub(crate) slot: u16,
    generation: u32,
}

impl PeerHandle {
    /// A small number for a driver's table: unique among the neighbours of one time, used again afterwards.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot as usize
    }
}

/// A blob's place in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobSlot(pub(crate) u16);

/// A chunk that a neighbour was asked for and has not delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) blob: BlobSlot,
    pub(crate) chunk: ChunkIndex,
    pub(crate) asked: Time,
    /// Its first bytes have come.
    pub(crate) arriving: bool,
    /// It isn't there yet: it was asked for on a promise.
    pub(crate) promised: bool,
}

impl Outstanding {
    /// Whether the neighbour has it: it said so, or is sending it.
    pub(crate) const fn is_due(&self) -> bool {
        self.arriving || !self.promised
    }
}

/// One neighbour.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) near: bool,
    pub(crate) outstanding: Vec<Outstanding>,
    pub(crate) load: Load,
    /// How fast it sends.
    pub(crate) pace: Pace,
    /// It serves us and there was nothing to ask it for since then.
    pub(crate) useless_since: Option<Time>,
    /// It didn't want the place that it had: not before this time again.
    pub(crate) declined_until: Time,
    /// It refuses to serve us.
    chokes_us: bool,
    /// We refuse to serve it.
    choked: bool,
    /// It kept us waiting; asked again only after this time.
    pub(crate) snubbed_until: Time,
    /// Something came from it last.
    pub(crate) heard: Time,
    pub(crate) bytes_from: u64,
    pub(crate) bytes_to: u64,
    /// Others got from it what it had from us alone.
    pub(crate) passes_on: bool,
    /// What it had from us alone went no further, see `spread`.
    pub(crate) hoards: bool,
    /// Bytes since the slots were dealt last, in the direction that counts: from it while we want, to it when we only give.
    pub(crate) merit: u64,
    /// Chunks of ours that it waits for.
    pub(crate) queued: u16,
    /// Chunks that are on the link to it.
    pub(crate) sending: u16,
    generation: u32,
}

impl Peer {
    /// Whether it refuses to serve us.
    pub(crate) const fn chokes_us(&self) -> bool {
        self.chokes_us
    }

    /// Whether we refuse to serve it.
    pub(crate) const fn choked(&self) -> bool {
        self.choked
    }

    /// Whether it only takes: it got more than the allowance and gave nothing, refuses us, or keeps us waiting.
    pub(crate) fn only_takes(&self, allowance_bytes: u64, now: Time) -> bool {
        self.bytes_from == 0 && (self.bytes_to >= allowance_bytes || self.chokes_us || self.snubbed_until > now)
    }

    pub(crate) fn forget_outstanding(&mut self, blob: BlobSlot, chunk: ChunkIndex) -> Option<Outstanding> {
        let at = self.outstanding.iter().position(|owed| owed.blob == blob && owed.chunk == chunk)?;
        Some(self.outstanding.swap_remove(at))
    }

    /// How many chunks it owes that it has.
    pub(crate) fn owed_now(&self) -> usize {
        self.outstanding.iter().filter(|owed| !owed.promised).count()
    }

    pub(crate) fn owes(&self, blob: BlobSlot, chunk: ChunkIndex) -> Option<&Outstanding> {
        self.outstanding.iter().find(|owed| owed.blob == blob && owed.chunk == chunk)
    }
}

/// All neighbours, with places that are reused.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    /// Those that serve us, and those that we serve, in the order of their places: mostly a few of dozens, and asked for with every chunk.
    sources: Vec<u16>,
    served: Vec<u16>,
    by_node: BTreeMap<NodeId, u16>,
    next_generation: u32,
}

impl Peers {
    /// A new neighbour; none if the node is connected already or there is no place.
    pub(crate) fn insert(&mut self, node: NodeId, zone: &Zone, own_zone: &Zone, now: Time) -> Option<PeerHandle> {
        if self.by_node.contains_key(&node) {
            return None;
        }
        let free = self.slots.iter().position(Option::is_none);
        let slot = u16::try_from(free.unwrap_or(self.slots.len())).ok().filter(|slot| *slot < u16::MAX)?;
        self.next_generation = self.next_generation.wrapping_add(1);
        let peer = Peer {
            node,
            near: zone == own_zone,
            outstanding: Vec::new(),
            load: Load::default(),
            pace: Pace::default(),
            useless_since: None,
            declined_until: Time::ZERO,
            chokes_us: false,
            choked: false,
            snubbed_until: Time::ZERO,
            heard: now,
            bytes_from: 0,
            passes_on: false,
            hoards: false,
            bytes_to: 0,
            merit: 0,
            queued: 0,
            sending: 0,
            generation: self.next_generation,
        };
        let handle = PeerHandle { slot, generation: peer.generation };
        if free.is_some() {
            self.slots[usize::from(slot)] = Some(peer);
        } else {
            self.slots.push(Some(peer));
        }
        self.by_node.insert(node, slot);
        keep_listed(&mut self.sources, slot, true);
        keep_listed(&mut self.served, slot, true);
        Some(handle)
    }

    pub(crate) fn remove(&mut self, handle: PeerHandle) -> Option<Peer> {
        self.get(handle)?;
        let peer = self.slots[usize::from(handle.slot)].take()?;
        self.by_node.remove(&peer.node);
        keep_listed(&mut self.sources, handle.slot, false);
        keep_listed(&mut self.served, handle.slot, false);
        Some(peer)
    }

    /// A neighbour serves us from now on, or doesn't any more.
    pub(crate) fn note_chokes_us(&mut self, slot: u16, chokes_us: bool) {
        self.at_mut(slot).chokes_us = chokes_us;
        keep_listed(&mut self.sources, slot, !chokes_us);
    }

    /// We serve a neighbour from now on, or don't any more.
    pub(crate) fn note_choked(&mut self, slot: u16, choked: bool) {
        self.at_mut(slot).choked = choked;
        keep_listed(&mut self.served, slot, !choked);
    }

    /// The places of those that serve us.
    pub(crate) fn sources(&self) -> &[u16] {
        &self.sources
    }

    /// The places of those that we serve.
    pub(crate) fn served(&self) -> &[u16] {
        &self.served
    }

    pub(crate) fn get(&self, handle: PeerHandle) -> Option<&Peer> {
        self.slots.get(usize::from(handle.slot))?.as_ref().filter(|peer| peer.generation == handle.generation)
    }

    pub(crate) fn get_mut(&mut self, handle: PeerHandle) -> Option<&mut Peer> {
        self.slots.get_mut(usize::from(handle.slot))?.as_mut().filter(|peer| peer.generation == handle.generation)
    }

    /// The neighbour in a place that a transfer's member points to.
    pub(crate) fn at(&self, slot: u16) -> &Peer {
        match &self.slots[usize::from(slot)] {
            Some(peer) => peer,
            None => unreachable!("a member's neighbour is connected: its membership ends with its connection"),
        }
    }

    pub(crate) fn at_mut(&mut self, slot: u16) -> &mut Peer {
        match &mut self.slots[usize::from(slot)] {
            Some(peer) => peer,
            None => unreachable!("a member's neighbour is connected: its membership ends with its connection"),
        }
    }

    pub(crate) fn handle_at(&self, slot: u16) -> PeerHandle {
        PeerHandle { slot, generation: self.at(slot).generation }
    }

    pub(crate) fn handle_of(&self, node: NodeId) -> Option<PeerHandle> {
        self.by_node.get(&node).map(|slot| self.handle_at(*slot))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_node.len()
    }

    /// All neighbours, beginning at a place.
    pub(crate) fn handles_from(&self, start: usize) -> impl Iterator<Item = PeerHandle> + '_ {
        let start = start.min(self.slots.len());
        let handle = |at: usize| {
            let peer = self.slots[at].as_ref()?;
            Some(PeerHandle { slot: u16::try_from(at).ok()?, generation: peer.generation })
        };
        (start..self.slots.len()).chain(0..start).filter_map(handle)
    }

    /// How many places there are, taken or not.
    pub(crate) fn places(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn handles(&self) -> impl Iterator<Item = PeerHandle> + '_ {
        self.iter().map(|(handle, _)| handle)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerHandle, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(slot, peer)| {
            let peer = peer.as_ref()?;
            let slot = u16::try_from(slot).ok()?;
            Some((PeerHandle { slot, generation: peer.generation }, peer))
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten()
    }
}

/// Puts a place into an ordered list, or takes it out.
fn keep_listed(places: &mut Vec<u16>, place: u16, is_in: bool) {
    match (places.binary_search(&place), is_in) {
        (Err(at), true) => places.insert(at, place),
        (Ok(at), false) => drop(places.remove(at)),
        (Ok(_), true) | (Err(_), false) => {}
    }
}

/// How fast a neighbour sends, for the depth of its pipeline.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    bytes: u64,
    since: Time,
    bytes_per_second: f64,
}

impl Pace {
    /// The shortest time over which a rate is measured: some round trips.
    const WINDOW: Duration = Duration::from_millis(2);

    /// A chunk has come.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn received(&mut self, now: Time, bytes: u64) {
        self.bytes += bytes;
        let span = now.since(self.since);
        if span >= Self::WINDOW {
            let rate = self.bytes as f64 / span.as_secs_f64();
            // Up at once, down by halves: a pause is not a slow link.
            self.bytes_per_second = rate.max((rate + self.bytes_per_second) / 2.0);
            self.bytes = 0;
            self.since = now;
        }
    }

    /// The pipeline was empty: the time until now says nothing about the link.
    pub(crate) fn restart(&mut self, now: Time) {
        self.bytes = 0;
        self.since = now;
    }

    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_in(Duration::from_secs(1))
    }

    /// How long so many bytes take; none, where nothing has come yet.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn time_for(&self, bytes: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).ok()
    }

    /// Bytes that arrive within this time.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, never negative")]
    pub(crate) fn bytes_in(&self, span: Duration) -> u64 {
        (self.bytes_per_second * span.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(peers: &mut Peers, node: u128) -> Option<PeerHandle> {
        peers.insert(NodeId::new(node), &Zone::default(), &Zone::default(), Time::ZERO)
    }

    #[test]
    fn a_handle_reaches_nobody_after_its_connection() {
        let mut peers = Peers::default();
        let (first, second) = (connect(&mut peers, 1).unwrap(), connect(&mut peers, 2).unwrap());
        assert!(peers.remove(first).is_some());
        assert!(peers.get(first).is_none() && peers.remove(first).is_none());
        let third = connect(&mut peers, 3).unwrap();
        assert_eq!(third.slot, first.slot, "its place is used again");
        assert!(peers.get(first).is_none());
        assert_eq!(peers.handle_of(NodeId::new(3)), Some(third));
        assert_eq!(peers.handle_of(NodeId::new(1)), None);
        assert_eq!(peers.handles_from(1).collect::<Vec<_>>(), [second, third]);
    }

    #[test]
    fn a_node_is_connected_once() {
        let mut peers = Peers::default();
        assert!(connect(&mut peers, 1).is_some());
        assert!(connect(&mut peers, 1).is_none());
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn who_gives_or_has_taken_little_is_no_free_rider() {
        let mut peers = Peers::default();
        let handle = connect(&mut peers, 1).unwrap();
        let peer = peers.at_mut(handle.slot);
        let mut only_takes = |bytes_from, bytes_to, chokes_us| {
            (peer.bytes_from, peer.bytes_to, peer.chokes_us) = (bytes_from, bytes_to, chokes_us);
            peer.only_takes(100, Time::ZERO)
        };
        assert!(!only_takes(0, 99, false));
        assert!(only_takes(0, 100, false));
        assert!(only_takes(0, 0, true));
        assert!(!only_takes(1, 1000, true));
    }

    /// What a pace says after chunks of 1,000 bytes at these milliseconds, in bytes a second.
    fn pace(at: &[u64]) -> u64 {
        let mut pace = Pace::default();
        let begins = Time::from_nanos(1_000_000_000);
        pace.restart(begins);
        at.iter().for_each(|millis| pace.received(begins + Duration::from_millis(*millis), 1_000));
        pace.bytes_in(Duration::from_secs(1))
    }

    #[test]
    fn a_pace_rises_at_once_and_falls_by_halves() {
        assert_eq!(pace(&[]), 0);
        assert_eq!(pace(&[1]), 0, "too short a time says nothing");
        assert_eq!(pace(&[1, 2]), 1_000_000);
        assert_eq!(pace(&[4]), 250_000);
        assert_eq!(pace(&[4, 6]), 500_000);
        assert_eq!(pace(&[2, 6]), 375_000, "500,000, and then half as much");
    }

    #[test]
    fn an_empty_pipeline_is_no_slow_link() {
        let mut pace = Pace::default();
        let begins = Time::from_nanos(1_000_000_000);
        pace.restart(begins);
        pace.received(begins + Duration::from_millis(2), 1_000);
        pace.restart(begins + Duration::from_secs(9));
        pace.received(begins + Duration::from_secs(9) + Duration::from_millis(2), 1_000);
        assert_eq!(pace.bytes_in(Duration::from_secs(1)), 500_000);
    }
}
