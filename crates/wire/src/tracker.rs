//! Messages between an agent and the tracker, or the peer that stands in for it.

use std::sync::Arc;
use std::time::Duration;

use shoal_chain::SignedLinks;
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, NodeId, Zone};

/// What an agent tells the tracker about one blob. Who sent it, and from which zone, is the transport's word, not the message's.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// The blob.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// How the agent cuts it; nothing yet, if it waits to be told.
    pub chunk_size: Option<ChunkSize>,
    /// What happened.
    pub event: AnnounceEvent,
    /// All chunks that it has, if that changed since the last announce.
    pub have: Option<Arc<ChunkSet>>,
    /// How many peers it would like to hear of.
    pub want_peers: u16,
    /// What it says about the origin lease.
    pub lease: LeaseRequest,
    /// Links that are new since its last announce: the holder of the lease publishes, everybody else sends none.
    pub links: Vec<SignedLinks>,
    /// The epoch of a chain that it found false: the last chunk didn't give the digest, or a link contradicts the origin's bytes.
    pub false_chain: Option<u64>,
    /// The epoch of a lead that sent it a chunk which doesn't fit the links that this lead signed itself: one or the other is wrong.
    pub corrupt_lead: Option<u64>,
    /// Peers that sent it a chunk that fails under a closed chain.
    pub accused: Vec<NodeId>,
    /// Bytes of this blob that it has got from peers so far.
    pub bytes_from_peers: u64,
    /// Bytes of this blob that it has got from the origin so far.
    pub bytes_from_origin: u64,
}

/// Why an agent announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEvent {
    /// It wants the blob, or comes back with a part of it.
    Started,
    /// It goes on: the periodic announce, or a lead's report.
    Progress,
    /// It has the whole blob, verified.
    Completed,
    /// It leaves the swarm.
    Stopped,
}

/// What an announce says about the lease to fetch from the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaseRequest {
    /// It won't fetch from the origin: a full disk, no credentials.
    Declined,
    /// It would take the lease.
    #[default]
    Willing,
    /// It would take it now even though there is a lead: the swarm is too slow for it.
    Impatient,
    /// It holds the lease.
    Holding {
        /// The lease's epoch.
        epoch: u64,
        /// Chunks before this one it has fetched or found in the swarm.
        frontier: ChunkIndex,
        /// Chunks that it has and no neighbour has. If that keeps growing, its uplink is too slow to lead.
        backlog: u32,
    },
    /// It holds the lease and gives it back: its uplink is too slow, its disk is full.
    Yielded {
        /// The lease's epoch.
        epoch: u64,
    },
    /// It held the lease and the origin refused.
    Failed {
        /// The lease's epoch.
        epoch: u64,
        /// What the origin said.
        failure: OriginFailure,
    },
}

/// How an origin refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginFailure {
    /// 401 or 403.
    Unauthorized,
    /// 404.
    NotFound,
    /// 429 or 503 with a Retry-After.
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
    /// It can't be reached, or broke off.
    Unreachable,
}

/// The tracker's answer to an announce.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnounceReply {
    /// The swarm: the digest and the chunk size that holds for all.
    pub key: BlobKey,
    /// Some of the other members.
    pub peers: Vec<PeerInfo>,
    /// Who fetches from the origin.
    pub lease: LeaseState,
    /// Links that the agent may lack: those published, for a newcomer.
    pub links: Vec<SignedLinks>,
    /// Epochs up to and including this one are withdrawn: their links prove nothing.
    pub withdrawn: Option<u64>,
    /// The gateway of the agent's zone, where the blob comes from another one.
    pub gateway: Option<NodeId>,
    /// Nodes that everybody refuses.
    pub banned: Vec<NodeId>,
    /// When to announce again.
    pub interval: Duration,
}

/// A member of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub zone: Zone,
}

/// The lease as one agent sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum LeaseState {
    /// It holds the lease.
    Granted(LeaseGrant),
    /// Another one does.
    HeldBy(NodeId),
    /// Nobody does: there is a whole copy in the swarm, or nobody is willing.
    Nobody,
    /// The origin refused; asking again before this time is over is pointless.
    Refused {
        /// What it said.
        failure: OriginFailure,
        /// For how long that holds.
        retry_after: Duration,
    },
}

/// The right to fetch from the origin, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseGrant {
    /// Its number: each grant of a blob has a higher one.
    pub epoch: u64,
    /// The first chunk that the tracker doesn't know anyone to have: where to go on.
    pub frontier: ChunkIndex,
    /// Chunks before the frontier that no live member has said to have.
    pub holes: Vec<ChunkIndex>,
    /// Whether this is only the right to help oneself because the swarm is slow; the lead stays.
    pub impatient: bool,
}

/// What the tracker says unasked.
#[derive(Clone, Debug, PartialEq)]
pub enum Directive {
    /// The lease is yours.
    Lease {
        /// The swarm.
        key: BlobKey,
        /// The lease.
        grant: LeaseGrant,
    },
    /// The lease of this epoch is no longer yours: stop fetching.
    LeaseRevoked {
        /// The swarm.
        key: BlobKey,
        /// The epoch.
        epoch: u64,
    },
    /// Links of these epochs and earlier prove nothing.
    Withdraw {
        /// The swarm.
        key: BlobKey,
        /// The last withdrawn epoch.
        epoch: u64,
    },
    /// Your zone's gateway for a blob is this node.
    Gateway {
        /// The swarm.
        key: BlobKey,
        /// The gateway.
        node: NodeId,
    },
    /// Refuse these nodes.
    Ban {
        /// Whom.
        nodes: Vec<NodeId>,
    },
}
