//! What the transport tells its driver.
//!
//! State: none.
//! Invariants: each `Connected` is followed by exactly one `Closed` of the same peer, and nothing of that peer comes before the one
//! or after the other. A node's next `Connected` comes after the `Closed` of its connection before.
//! Absent on purpose: chunks' bytes: the driver's [`ChunkStore`](super::ChunkStore) takes them while they come.

use std::fmt;
use std::io;
use std::sync::Arc;

use shoal_types::{BlobKey, ChunkIndex, NodeId};
use shoal_wire::codec::DecodeError;
use shoal_wire::{CloseReason, Contact, NodeName, PeerFrame};

use super::identity::{IdentityError, NodeCertificate};

/// A connection: a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event<C> {
    /// A connection stands.
    Connected(Connected),
    /// A connection that was asked for doesn't come about.
    ConnectFailed {
        /// To whom.
        node: NodeId,
        /// Why. With [`ConnectError::Refused`] for [`CloseReason::Duplicate`] the two dialled at once, and the other's connection
        /// stands or is about to.
        error: ConnectError,
    },
    /// A frame has come. Pings, greetings and chunks are the transport's own affair and don't appear here.
    Frame {
        /// From whom.
        peer: PeerId,
        /// What.
        frame: PeerFrame,
    },
    /// The first bytes of a chunk have come.
    ChunkStarted {
        /// From whom.
        peer: PeerId,
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// All bytes of a chunk have come.
    Chunk {
        /// From whom.
        peer: PeerId,
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// What the store made of them.
        received: C,
    },
    /// A chunk has left.
    Sent {
        /// To whom.
        peer: PeerId,
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// A chunk can't be sent, because its first bytes can't be read. The peer still waits for it: reject it.
    SendFailed {
        /// To whom.
        peer: PeerId,
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// Why.
        error: io::Error,
    },
    /// A connection is gone.
    Closed {
        /// Whose.
        peer: PeerId,
        /// Why.
        cause: CloseCause,
    },
}

/// A connection that stands.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The connection.
    pub peer: PeerId,
    /// Who is at the other end, and where others find it.
    pub contact: Contact,
    /// What it proved it with; nothing on plain links.
    pub certificate: Option<Arc<NodeCertificate>>,
    /// The version that both speak.
    pub version: u16,
    /// Whether this side opened it.
    pub dialled: bool,
}

/// Why a connection has ended.
#[derive(Debug)]
pub enum CloseCause {
    /// This side ended it.
    Local(CloseReason),
    /// The other side ended it and said why.
    Remote(CloseReason),
    /// The other side is gone without a word.
    Gone(Option<io::Error>),
    /// Nothing came for too long, not even an answer to a ping.
    Silent,
    /// What came is no frame, or one that has no place here.
    Malformed(Malformed),
    /// A chunk's bytes couldn't be read to the end, so what follows on the stream would be taken for them.
    Source(io::Error),
}

impl CloseCause {
    /// A name for counters: one of a closed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Local(reason) => match reason {
                CloseReason::Duplicate => "duplicate",
                CloseReason::TooSlow => "too_slow",
                CloseReason::Leaving => "leaving",
                CloseReason::Violation => "violation",
                CloseReason::Banned => "banned",
                CloseReason::Full => "full",
                CloseReason::Version | CloseReason::Identity | CloseReason::Other => "other",
            },
            Self::Remote(_) => "remote",
            Self::Gone(_) => "gone",
            Self::Silent => "silent",
            Self::Malformed(_) => "malformed",
            Self::Source(_) => "source",
        }
    }

    /// What the other side is told, if it can still be told anything.
    pub(super) const fn told(&self) -> Option<CloseReason> {
        match self {
            Self::Local(reason) => Some(*reason),
            Self::Malformed(_) => Some(CloseReason::Violation),
            Self::Remote(_) | Self::Gone(_) | Self::Silent | Self::Source(_) => None,
        }
    }
}

/// How a peer broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] DecodeError),
    /// Another frame than a greeting at first, or a greeting later.
    #[error("a greeting is the first frame, and only that")]
    Greeting,
    /// A slice without its chunk or longer than the rest of it, or a chunk within a chunk.
    #[error("a slice belongs to the chunk that has begun, and a chunk begins when the one before it has ended")]
    Slice,
}

/// Why a connection doesn't come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("no connection within the time for it")]
    Timeout,
    /// The network, or TLS, which reports the other side's certificate here.
    #[error("no connection")]
    Io(#[from] io::Error),
    /// The other side doesn't want it.
    #[error("refused by the other side: {0:?}")]
    Refused(CloseReason),
    /// This side doesn't want it.
    #[error("refused: {0:?}")]
    Rejected(CloseReason),
    /// The other side's certificate isn't a node's.
    #[error("the other side isn't a node of this cluster")]
    Identity(#[from] IdentityError),
    /// Another node answers.
    #[error("{found} is there instead of {wanted}")]
    WrongNode {
        /// Whom this side wanted, or who the certificate says it is.
        wanted: NodeName,
        /// Who it is.
        found: NodeName,
    },
    /// The other side speaks something else.
    #[error("the other side speaks another protocol")]
    Protocol,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol")]
    Malformed(#[from] Malformed),
}

impl ConnectError {
    /// A name for counters: one of a closed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Io(_) => "io",
            Self::Refused(_) => "refused",
            Self::Rejected(CloseReason::Duplicate) => "duplicate",
            Self::Rejected(CloseReason::Full) => "full",
            Self::Rejected(_) => "rejected",
            Self::Identity(_) => "identity",
            Self::WrongNode { .. } => "wrong_node",
            Self::Protocol => "protocol",
            Self::Malformed(_) => "malformed",
        }
    }
}
