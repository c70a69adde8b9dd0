//! Messages between two agents, on the one connection they have for all blobs.

use std::sync::Arc;

use shoal_chain::SignedLinks;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet};

/// What an agent says to another. A chunk's bytes travel beside these, announced by the driver to the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// I take part in this blob's swarm and have these chunks.
    Join {
        /// The blob and how I cut it.
        blob: BlobInfo,
        /// The chunks that I have, verified.
        have: Arc<ChunkSet>,
        /// What else is to know about me in this swarm.
        flags: JoinFlags,
    },
    /// I no longer take part: forget what I have and want.
    Leave {
        /// The swarm.
        key: BlobKey,
    },
    /// I have these chunks too.
    Have {
        /// The swarm.
        key: BlobKey,
        /// The new ones.
        chunks: Arc<[ChunkIndex]>,
        /// How busy I am.
        load: Load,
    },
    /// The first bytes of this chunk have reached me: if you ask me for it, it leaves as soon as it is verified.
    Coming {
        /// The swarm.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// Send me this chunk.
    Request {
        /// The swarm.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// I lack a link that it takes to verify the chunk: send those first.
        needs_links: bool,
    },
    /// I don't want this chunk from you any more. If it is being sent already, it will come.
    Cancel {
        /// The swarm.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// You won't get this chunk from me for this request.
    Reject {
        /// The swarm.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// Why.
        reason: RejectReason,
    },
    /// I don't serve you for now; what you requested and don't have is forgotten.
    Choke,
    /// I serve you.
    Unchoke,
    /// I don't use the place that you keep for me: enough others serve me, or you have nothing that I lack. Give it to somebody
    /// else.
    Decline,
    /// You have what I lack, and few serve me: if somebody whom you serve has plenty, give me that place.
    Hungry {
        /// How many serve me.
        sources: u8,
    },
    /// Instead of the chunk that you asked for you get another one, which none of my neighbours has.
    Substitute {
        /// The swarm.
        key: BlobKey,
        /// What you asked for.
        asked: ChunkIndex,
        /// What comes.
        sent: ChunkIndex,
    },
    /// Links, as their publishers signed them.
    Links {
        /// The swarm.
        key: BlobKey,
        /// The batches.
        batches: Vec<SignedLinks>,
    },
    /// Send me the links that you have from this chunk on.
    LinksWanted {
        /// The swarm.
        key: BlobKey,
        /// The first chunk whose link I lack.
        from: ChunkIndex,
    },
}

/// What a peer is in a swarm, beside its chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinFlags {
    /// It is its zone's gateway: what it gets, its whole zone gets.
    pub gateway: bool,
    /// It only gives: it wants nothing.
    pub seed: bool,
    /// The sender doesn't know what the receiver has: answer with a `Join` of yours.
    pub answer: bool,
}

/// How busy an agent is, as it says itself: a hint for choosing whom to ask and whom to serve, nothing that is relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Neighbours that serve it.
    pub sources: u8,
}

/// Why a request isn't served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The sender doesn't have the chunk, or isn't in the swarm.
    Absent,
    /// Too many requests of this peer wait already.
    TooMany,
    /// The requester is choked.
    Choked,
    /// The chunk was verified under a chain that has been withdrawn, or was coming and turned out wrong.
    Withdrawn,
}
