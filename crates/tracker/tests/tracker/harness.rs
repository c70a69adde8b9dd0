//! A tracker with nodes that are connected to it, in milliseconds of virtual time.

use std::sync::Arc;
use std::time::Duration;

use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_tracker::{AnnounceError, BlobStatus, Config, Tracker};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Time, Zone};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, Directive, LeaseRequest, LeaseState, OriginFailure};

pub(crate) const CHUNKS: u32 = 16;

pub(crate) fn id(node: u32) -> NodeId {
    // In the high bits, which are what is printed.
    NodeId::new(u128::from(node) << 96)
}

/// The number of a node of [`id`].
pub(crate) fn number(node: NodeId) -> u32 {
    (node.get() >> 96) as u32
}

/// The blob of the tests, or another one.
pub(crate) fn blob(number: u8) -> BlobInfo {
    let geometry = Geometry::new(u64::from(CHUNKS) << 16, ChunkSize::MIN).unwrap();
    BlobInfo { digest: Digest::Sha256([number; 32]), geometry }
}

/// A bitmap as a string: `*` where the chunk is there.
pub(crate) fn bitmap(have: &str) -> Arc<ChunkSet> {
    let mut set = ChunkSet::empty(CHUNKS);
    for (at, _) in (0..).zip(have.bytes()).filter(|(_, byte)| *byte == b'*') {
        set.insert(ChunkIndex::new(at));
    }
    Arc::new(set)
}

/// Links as a string, a letter for each.
pub(crate) fn links(node: u32, number: u8, epoch: u64, first: u32, letters: &str) -> SignedLinks {
    let bytes = letters.bytes().flat_map(|letter| [letter; 32]).collect();
    let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(first), bytes).unwrap();
    SignedLinks {
        batch: LinkBatch { blob: blob(number), epoch, run },
        publisher: id(node),
        signature: Signature([0; 64]),
    }
}

/// All links of a blob but the last.
pub(crate) fn all_links(node: u32, epoch: u64, letter: &str) -> SignedLinks {
    links(node, 0, epoch, 0, &letter.repeat(CHUNKS as usize - 1))
}

pub(crate) struct World {
    pub(crate) tracker: Tracker,
    pub(crate) now: Time,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self { tracker: Tracker::new(config, 1), now: Time::ZERO }
    }

    /// So many nodes of the default zone, 0 and up, none of which has announced anything.
    pub(crate) fn with_nodes(nodes: u32) -> Self {
        let mut world = Self::new(Config::default());
        (0..nodes).for_each(|node| world.connect(node, ""));
        world
    }

    pub(crate) fn connect(&mut self, node: u32, zone: &str) {
        self.tracker.handle_connected(self.now, id(node), Zone::new(zone).unwrap());
        self.tracker.check_invariants();
    }

    pub(crate) fn disconnect(&mut self, node: u32) {
        self.tracker.handle_disconnected(self.now, id(node));
        self.tracker.check_invariants();
    }

    /// Lets time pass, timers firing when they are due.
    pub(crate) fn pass(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(at) = self.tracker.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tracker.handle_timeout(self.now);
            self.tracker.check_invariants();
            assert!(self.tracker.poll_timeout().is_none_or(|next| next > self.now), "a timer that is over is gone");
        }
        self.now = until;
    }

    pub(crate) fn tell(&mut self, announce: &Say) -> Result<AnnounceReply, AnnounceError> {
        let reply = self.tracker.handle_announce(self.now, id(announce.node), &announce.announce);
        self.tracker.check_invariants();
        reply
    }

    /// Announces and expects to be heard.
    pub(crate) fn say(&mut self, announce: &Say) -> AnnounceReply {
        self.tell(announce).unwrap()
    }

    /// Nodes that join with nothing.
    pub(crate) fn join(&mut self, nodes: impl IntoIterator<Item = u32>) {
        for node in nodes {
            self.say(&Say::started(node));
        }
    }

    pub(crate) fn directives(&mut self) -> Vec<(NodeId, Directive)> {
        std::iter::from_fn(|| self.tracker.poll_directive()).collect()
    }

    /// Who was granted the lease by directive since the last poll, with the epoch, frontier and holes.
    pub(crate) fn granted(&mut self) -> Vec<(NodeId, u64, u32, Vec<u32>)> {
        let grant = |(to, directive)| match directive {
            Directive::Lease { grant, .. } => {
                let holes = grant.holes.iter().map(|hole| hole.get()).collect();
                Some((to, grant.epoch, grant.frontier.get(), holes))
            }
            _ => None,
        };
        self.directives().into_iter().filter_map(grant).collect()
    }

    pub(crate) fn status(&self) -> BlobStatus {
        self.status_of(0)
    }

    pub(crate) fn status_of(&self, number: u8) -> BlobStatus {
        let status = self.tracker.snapshot(self.now, usize::MAX, usize::MAX);
        status.blobs.into_iter().find(|status| status.key.digest == blob(number).digest).unwrap()
    }

    pub(crate) fn lead(&self) -> Option<NodeId> {
        self.status().lead
    }

    pub(crate) fn banned(&self) -> Vec<NodeId> {
        self.tracker.snapshot(self.now, 0, usize::MAX).banned.into_iter().map(|(node, _)| node).collect()
    }
}

/// An announce in the making.
#[derive(Clone)]
pub(crate) struct Say {
    pub(crate) node: u32,
    pub(crate) announce: Announce,
}

impl Say {
    fn new(node: u32, event: AnnounceEvent) -> Self {
        let announce = Announce {
            digest: blob(0).digest,
            size_bytes: blob(0).geometry.size_bytes(),
            chunk_size: None,
            event,
            have: None,
            want_peers: 0,
            lease: LeaseRequest::Willing,
            links: Vec::new(),
            false_chain: None,
            corrupt_lead: None,
            accused: Vec::new(),
            bytes_from_peers: 0,
            bytes_from_origin: 0,
        };
        Self { node, announce }
    }

    pub(crate) fn started(node: u32) -> Self {
        Self::new(node, AnnounceEvent::Started)
    }

    pub(crate) fn progress(node: u32) -> Self {
        Self::new(node, AnnounceEvent::Progress)
    }

    pub(crate) fn completed(node: u32) -> Self {
        Self::new(node, AnnounceEvent::Completed).lease(LeaseRequest::Declined)
    }

    pub(crate) fn stopped(node: u32) -> Self {
        Self::new(node, AnnounceEvent::Stopped)
    }

    pub(crate) fn of(mut self, number: u8) -> Self {
        self.announce.digest = blob(number).digest;
        self
    }

    pub(crate) fn have(mut self, have: &str) -> Self {
        self.announce.have = Some(bitmap(have));
        self
    }

    pub(crate) fn want(mut self, peers: u16) -> Self {
        self.announce.want_peers = peers;
        self
    }

    pub(crate) fn lease(mut self, lease: LeaseRequest) -> Self {
        self.announce.lease = lease;
        self
    }

    pub(crate) fn declined(self) -> Self {
        self.lease(LeaseRequest::Declined)
    }

    pub(crate) fn impatient(self) -> Self {
        self.lease(LeaseRequest::Impatient)
    }

    pub(crate) fn holding(self, epoch: u64, frontier: u32) -> Self {
        self.lease(LeaseRequest::Holding { epoch, frontier: ChunkIndex::new(frontier), backlog: 0 })
    }

    pub(crate) fn failed(self, epoch: u64, failure: OriginFailure) -> Self {
        self.lease(LeaseRequest::Failed { epoch, failure })
    }

    pub(crate) fn links(mut self, links: SignedLinks) -> Self {
        self.announce.links.push(links);
        self
    }

    pub(crate) fn false_chain(mut self, epoch: u64) -> Self {
        self.announce.false_chain = Some(epoch);
        self
    }

    pub(crate) fn corrupt_lead(mut self, epoch: u64) -> Self {
        self.announce.corrupt_lead = Some(epoch);
        self
    }

    pub(crate) fn accuses(mut self, nodes: impl IntoIterator<Item = u32>) -> Self {
        self.announce.accused.extend(nodes.into_iter().map(id));
        self
    }

    pub(crate) fn bytes(mut self, from_peers: u64, from_origin: u64) -> Self {
        (self.announce.bytes_from_peers, self.announce.bytes_from_origin) = (from_peers, from_origin);
        self
    }
}

pub(crate) fn epoch_of(reply: &AnnounceReply) -> Option<u64> {
    match &reply.lease {
        LeaseState::Granted(grant) => Some(grant.epoch),
        _ => None,
    }
}
