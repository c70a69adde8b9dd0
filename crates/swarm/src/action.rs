//! What the engine wants its driver to do.

use std::ops::Range;

use shoal_chain::Link;
use shoal_types::{BlobKey, ChunkIndex, ChunkSize, NodeId};
use shoal_wire::{Announce, PeerMessage};

use crate::peer::PeerHandle;

/// Something to do, in the order in which it comes out.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message.
    Send {
        /// To whom.
        to: Recipients,
        /// What.
        message: PeerMessage,
    },
    /// Send a chunk's bytes after everything sent to this neighbour before; then call `handle_sent`.
    SendChunk {
        /// To whom.
        to: PeerHandle,
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// Verify a chunk that has arrived, keep it if it is right, then call `handle_verified`.
    Verify {
        /// What to give back with the answer.
        ticket: VerifyTicket,
        /// The hash's state before the chunk; none is the hash's initial one.
        before: Option<Link>,
        /// What the state must be afterwards; for the last chunk this is the digest.
        after: Link,
    },
    /// Fetch these chunks from the origin in order, building links from `before` on; report each with `handle_origin_chunk`.
    FetchOrigin {
        /// The blob.
        key: BlobKey,
        /// The lease under which the links are signed.
        epoch: u64,
        /// The chunks.
        chunks: Range<u32>,
        /// The hash's state before the first of them; none is the hash's initial one.
        before: Option<Link>,
    },
    /// Stop fetching this blob from the origin.
    StopOrigin {
        /// The blob.
        key: BlobKey,
    },
    /// Tell the tracker, or whoever stands in for it.
    Announce(Announce),
    /// Connect to this node; if that works, call `handle_connected`.
    Connect {
        /// The node.
        node: NodeId,
    },
    /// Close the connection; the engine has forgotten the neighbour already.
    Disconnect {
        /// Whom.
        peer: PeerHandle,
        /// Why.
        reason: DisconnectReason,
    },
    /// Every chunk is here and the digest is proven.
    Completed {
        /// The blob.
        key: BlobKey,
    },
    /// The links under which chunks were verified are withdrawn: no chunk of the blob is here any more, and what was passed on
    /// is not to be trusted.
    ChainFailed {
        /// The blob.
        key: BlobKey,
    },
    /// The cluster cuts this blob otherwise: stop it and start it again with this chunk size.
    Recut {
        /// The blob as it was started.
        key: BlobKey,
        /// The chunk size that holds.
        chunk_size: ChunkSize,
    },
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// One neighbour.
    One(PeerHandle),
    /// Several.
    Many(Vec<PeerHandle>),
}

/// A verification that the driver owes an answer for.
#[derive(Debug, PartialEq, Eq, Clone)]
#[must_use = "the chunk stays in verification until handle_verified gets this back"]
pub struct VerifyTicket {
    pub(crate) key: BlobKey,
    pub(crate) chunk: ChunkIndex,
    pub(crate) from: PeerHandle,
    pub(crate) generation: u32,
}

impl VerifyTicket {
    /// The blob.
    #[must_use]
    pub const fn key(&self) -> BlobKey {
        self.key
    }

    /// The chunk.
    #[must_use]
    pub const fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    /// Who sent it.
    #[must_use]
    pub const fn from(&self) -> PeerHandle {
        self.from
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// It broke the protocol.
    Violation,
    /// It sent bytes that a closed chain refutes, or the tracker banned it.
    Banned,
    /// There are enough neighbours.
    Full,
}
