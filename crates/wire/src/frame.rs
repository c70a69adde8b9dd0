//! What travels on the connection between two agents.
//!
//! State: none. Everything here is a value.
//! Invariants: as for the messages: well-formed, not true.
//! Absent on purpose: chunks' bytes. A [`PeerFrame::Slice`] says that some follow on the stream, outside of any frame, so that a
//! sender streams them from where they lie; between slices other frames go ahead, so that no request waits for a chunk to end.

use bytes::Bytes;
use shoal_types::{BlobKey, ChunkIndex, Digest, NodeId, Zone};

use crate::{Announce, AnnounceReply, Contact, Directive, NodeName, PeerMessage};

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerFrame {
    /// The first frame on a connection, in both directions.
    Hello(Hello),
    /// The sender closes the connection: the last frame.
    Close(CloseReason),
    /// Are you there?
    Ping(u64),
    /// I am: the number of the ping.
    Pong(u64),
    /// The exchange's traffic.
    Message(PeerMessage),
    /// This chunk's bytes follow, in slices.
    Chunk {
        /// The blob.
        key: BlobKey,
        /// The chunk.
        chunk: ChunkIndex,
        /// Its bytes: at most the key's chunk size.
        length: u32,
    },
    /// The next `length` bytes on the stream are the next ones of the chunk that has begun.
    Slice {
        /// At least one, and no more than the chunk still lacks.
        length: u32,
    },
    /// Send me this node's certificates: I have links of its.
    CertificateWanted {
        /// Whose.
        node: NodeId,
    },
    /// A node's certificates in DER, its own first. None, if the sender doesn't know them.
    Certificate {
        /// Whose.
        node: NodeId,
        /// The chain.
        chain: Vec<Bytes>,
    },
    /// To the blob's stand-in tracker: what the tracker would be told.
    Announce {
        /// What the answer refers to.
        id: u32,
        /// What is said.
        announce: Announce,
    },
    /// The stand-in tracker's answer.
    AnnounceReply {
        /// The announce's number.
        id: u32,
        /// What came of it.
        outcome: AnnounceOutcome,
    },
    /// What the stand-in tracker says unasked.
    Notice(Notice),
    /// Who provides this blob?
    ProvidersWanted {
        /// What the answer refers to.
        id: u32,
        /// The blob.
        digest: Digest,
    },
    /// Those who said so to me.
    Providers {
        /// The question's number.
        id: u32,
        /// The providers.
        contacts: Vec<Contact>,
    },
    /// I provide this blob, or a part of it; or no longer do.
    Provide {
        /// The blob.
        digest: Digest,
        /// Whether I do.
        provides: bool,
    },
    /// Which members do you know?
    MembersWanted {
        /// What the answer refers to.
        id: u32,
        /// How many at most.
        want: u16,
    },
    /// Some of those whom I know.
    Members {
        /// The question's number.
        id: u32,
        /// The members.
        contacts: Vec<Contact>,
    },
}

/// Who an agent is, and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which versions of the protocol it speaks.
    pub versions: Versions,
    /// Its name. Where there are certificates, they decide and this must agree.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
    /// The port at which it takes connections, at the address from which it speaks: which of its addresses others see, an agent
    /// doesn't know.
    pub port: u16,
    /// Another one in each run of its process: a connection of an earlier run is dead, however alive it seems.
    pub incarnation: u64,
}

/// A range of the protocol's versions. Within a version, kinds of frames and fields at a message's end may be added; what takes
/// more is a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The newest that is spoken.
    pub newest: u16,
    /// The oldest that is still spoken.
    pub oldest: u16,
}

impl Versions {
    /// Those of this release.
    pub const CURRENT: Self = Self { newest: 1, oldest: 1 };

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// Why an agent closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A reason that this release doesn't know.
    Other,
    /// It shuts down.
    Leaving,
    /// There is another connection between the two, and that one is kept.
    Duplicate,
    /// The other side broke the protocol.
    Violation,
    /// The other side is banned.
    Banned,
    /// There are enough connections.
    Full,
    /// The other side doesn't read what is sent to it.
    TooSlow,
    /// There is no version that both speak.
    Version,
    /// The other side isn't who it says, or not whom the sender wanted.
    Identity,
}

/// What came of an announce.
pub type AnnounceOutcome = Result<Accepted, Refusal>;

/// An announce that was taken in.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The tracker's answer.
    pub reply: AnnounceReply,
    /// Where the nodes are found that the answer names.
    pub contacts: Vec<Contact>,
}

/// What the tracker says unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What.
    pub directive: Directive,
    /// Where the nodes are found that it names.
    pub contacts: Vec<Contact>,
}

/// Why an announce was refused, in words for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Room for a sentence.
    pub const MAX_BYTES: usize = 200;

    /// A refusal with this reason; what is beyond [`Self::MAX_BYTES`] is cut off.
    #[must_use]
    pub fn new(reason: &str) -> Self {
        let end = reason.floor_char_boundary(Self::MAX_BYTES);
        Self(reason[..end].to_owned())
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_releases_find_a_common_version() {
        let speaks = |oldest, newest| Versions { newest, oldest };
        assert_eq!(speaks(1, 3).common(speaks(2, 5)), Some(3));
        assert_eq!(speaks(4, 4).common(speaks(4, 9)), Some(4));
        assert_eq!(speaks(1, 2).common(speaks(3, 4)), None);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let refusal = Refusal::new(&"é".repeat(150));
        assert_eq!(refusal.reason(), "é".repeat(100));
        assert_eq!(Refusal::new(&format!("a{}", "é".repeat(150))).reason().len(), 199);
    }
}
