//! What agent and tracker say, and the bodies in which it travels between them.
//!
//! State: none.
//! Invariants: a body has a version and then the frames that agents also send to a stand-in tracker, so that both are told alike.
//! Absent on purpose: requests' paths, and how a stream of directives is kept open.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use shoal_types::ChunkIndex;

use super::frame::{self, Decoded, decode_within, put_frame, put_within};
use super::limits::MAX_BATCH_BYTES;
use super::raw::{Fault, Reader, Value, put_short_text};
use super::{DecodeError, EncodeError};
use crate::{
    Accepted, Announce, AnnounceEvent, AnnounceOutcome, AnnounceReply, Directive, LeaseGrant, LeaseRequest, LeaseState,
    Notice, OriginFailure, PeerFrame, Refusal,
};

/// The version of bodies. It changes when a reader of the old one could no longer make sense of the new one.
pub const BODY_VERSION: u8 = 1;

/// The body of a request that announces; each announce with the number that its outcome refers to.
///
/// # Errors
/// If it is longer than [`MAX_BATCH_BYTES`]: announce fewer at a time.
pub fn encode_announces<'a>(announces: impl IntoIterator<Item = (u32, &'a Announce)>) -> Result<BytesMut, EncodeError> {
    body(announces, frame::ANNOUNCE, |(id, announce), out| {
        id.put(out);
        announce.put(out);
    })
}

/// The announces of a body. Those that this release can't understand are left out: their senders get no outcome for them.
///
/// # Errors
/// If the bytes are no such body.
pub fn decode_announces(body: &[u8]) -> Result<Vec<(u32, Announce)>, DecodeError> {
    frames(body, |frame| match frame {
        PeerFrame::Announce { id, announce } => Some((id, announce)),
        _ => None,
    })
}

/// The body of the answer to announces.
///
/// # Errors
/// If it is longer than [`MAX_BATCH_BYTES`].
pub fn encode_outcomes<'a>(
    outcomes: impl IntoIterator<Item = (u32, &'a AnnounceOutcome)>,
) -> Result<BytesMut, EncodeError> {
    body(outcomes, frame::ANNOUNCE_REPLY, |(id, outcome), out| {
        id.put(out);
        outcome.put(out);
    })
}

/// The outcomes of a body, each with its announce's number.
///
/// # Errors
/// If the bytes are no such body.
pub fn decode_outcomes(body: &[u8]) -> Result<Vec<(u32, AnnounceOutcome)>, DecodeError> {
    frames(body, |frame| match frame {
        PeerFrame::AnnounceReply { id, outcome } => Some((id, outcome)),
        _ => None,
    })
}

/// Appends to the stream from tracker to agent: one frame.
///
/// # Errors
/// If it is longer than a frame may be; nothing has been written then.
pub fn encode_notice(notice: &Notice, out: &mut BytesMut) -> Result<(), EncodeError> {
    put_frame(out, frame::NOTICE, |out| notice.put(out))
}

/// The next one of the stream from tracker to agent; none, while it isn't complete.
///
/// # Errors
/// If the bytes are no such stream: nothing that follows can be understood.
pub fn decode_notice(stream: &mut BytesMut) -> Result<Option<Decoded<Notice>>, DecodeError> {
    Ok(frame::decode_frame(stream)?.map(|decoded| match decoded {
        Decoded::Known(PeerFrame::Notice(notice)) => Decoded::Known(notice),
        // What agents say to each other means nothing here: a later release's tracker may give it a meaning.
        Decoded::Known(_) => Decoded::Unknown { kind: 0 },
        Decoded::Unknown { kind } => Decoded::Unknown { kind },
    }))
}

fn body<T>(
    items: impl IntoIterator<Item = T>,
    kind: u8,
    put: impl Fn(T, &mut BytesMut),
) -> Result<BytesMut, EncodeError> {
    let mut out = BytesMut::new();
    out.put_u8(BODY_VERSION);
    for item in items {
        put_within(&mut out, MAX_BATCH_BYTES, kind, |out| put(item, out))?;
    }
    match out.len() {
        bytes if bytes > MAX_BATCH_BYTES => Err(EncodeError::TooLong { bytes, limit: MAX_BATCH_BYTES }),
        _ => Ok(out),
    }
}

fn frames<T>(body: &[u8], pick: impl Fn(PeerFrame) -> Option<T>) -> Result<Vec<T>, DecodeError> {
    if body.len() > MAX_BATCH_BYTES {
        return Err(DecodeError::TooLong { bytes: body.len() as u64, limit: MAX_BATCH_BYTES });
    }
    let (version, mut rest) = body.split_first().ok_or(DecodeError::IncompleteBody)?;
    if *version != BODY_VERSION {
        return Err(DecodeError::Version { found: *version });
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (decoded, length) = decode_within(rest, MAX_BATCH_BYTES)?.ok_or(DecodeError::IncompleteBody)?;
        rest = &rest[length..];
        if let Decoded::Known(frame) = decoded {
            items.extend(pick(frame));
        }
    }
    Ok(items)
}

impl Value for Announce {
    const MIN_BYTES: usize = 34;

    fn put(&self, out: &mut BytesMut) {
        self.digest.put(out);
        self.size_bytes.put(out);
        self.chunk_size.put(out);
        self.event.put(out);
        self.have.put(out);
        self.want_peers.put(out);
        self.lease.put(out);
        self.links.put(out);
        self.false_chain.put(out);
        self.corrupt_lead.put(out);
        self.accused.put(out);
        self.bytes_from_peers.put(out);
        self.bytes_from_origin.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self {
            digest: body.take()?,
            size_bytes: body.take()?,
            chunk_size: body.take()?,
            event: body.take()?,
            have: body.take()?,
            want_peers: body.take()?,
            lease: body.take()?,
            links: body.take()?,
            false_chain: body.take()?,
            corrupt_lead: body.take()?,
            accused: body.take()?,
            bytes_from_peers: body.take()?,
            bytes_from_origin: body.take()?,
        })
    }
}

impl Value for AnnounceEvent {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(match self {
            Self::Started => 1,
            Self::Progress => 2,
            Self::Completed => 3,
            Self::Stopped => 4,
        });
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Started,
            2 => Self::Progress,
            3 => Self::Completed,
            4 => Self::Stopped,
            _ => return Err(Fault::UnknownTag),
        })
    }
}

impl Value for LeaseRequest {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Declined => out.put_u8(1),
            Self::Willing => out.put_u8(2),
            Self::Impatient => out.put_u8(3),
            Self::Holding { epoch, frontier, backlog } => {
                out.put_u8(4);
                epoch.put(out);
                frontier.put(out);
                backlog.put(out);
            }
            Self::Yielded { epoch } => {
                out.put_u8(5);
                epoch.put(out);
            }
            Self::Failed { epoch, failure } => {
                out.put_u8(6);
                epoch.put(out);
                failure.put(out);
            }
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Declined,
            2 => Self::Willing,
            3 => Self::Impatient,
            4 => Self::Holding { epoch: body.take()?, frontier: body.take()?, backlog: body.take()? },
            5 => Self::Yielded { epoch: body.take()? },
            6 => Self::Failed { epoch: body.take()?, failure: body.take()? },
            _ => return Err(Fault::UnknownTag),
        })
    }
}

impl Value for OriginFailure {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Unauthorized => out.put_u8(1),
            Self::NotFound => out.put_u8(2),
            Self::Busy { retry_after } => {
                out.put_u8(3);
                retry_after.put(out);
            }
            Self::Unreachable => out.put_u8(4),
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Unauthorized,
            2 => Self::NotFound,
            3 => Self::Busy { retry_after: body.take()? },
            4 => Self::Unreachable,
            _ => return Err(Fault::UnknownTag),
        })
    }
}

impl Value for AnnounceOutcome {
    const MIN_BYTES: usize = 2;

    fn put(&self, out: &mut BytesMut) {
        match self {
            Ok(Accepted { reply, contacts }) => {
                out.put_u8(1);
                reply.put(out);
                contacts.put(out);
            }
            Err(refusal) => {
                out.put_u8(2);
                put_short_text(out, refusal.reason());
            }
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Ok(Accepted { reply: body.take()?, contacts: body.take()? }),
            2 => Err(Refusal::new(body.short_text("refusal")?)),
            _ => return Err(Fault::UnknownTag),
        })
    }
}

impl Value for AnnounceReply {
    const MIN_BYTES: usize = 34;

    fn put(&self, out: &mut BytesMut) {
        self.key.put(out);
        self.peers.put(out);
        self.lease.put(out);
        self.links.put(out);
        self.withdrawn.put(out);
        self.gateway.put(out);
        self.banned.put(out);
        self.interval.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self {
            key: body.take()?,
            peers: body.take()?,
            lease: body.take()?,
            links: body.take()?,
            withdrawn: body.take()?,
            gateway: body.take()?,
            banned: body.take()?,
            interval: body.take()?,
        })
    }
}

impl Value for LeaseState {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Granted(grant) => {
                out.put_u8(1);
                grant.put(out);
            }
            Self::HeldBy(node) => {
                out.put_u8(2);
                node.put(out);
            }
            Self::Nobody => out.put_u8(3),
            Self::Refused { failure, retry_after } => {
                out.put_u8(4);
                failure.put(out);
                retry_after.put(out);
            }
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Granted(body.take()?),
            2 => Self::HeldBy(body.take()?),
            3 => Self::Nobody,
            4 => Self::Refused { failure: body.take()?, retry_after: body.take::<Duration>()? },
            _ => return Err(Fault::UnknownTag),
        })
    }
}

impl Value for LeaseGrant {
    const MIN_BYTES: usize = 17;

    fn put(&self, out: &mut BytesMut) {
        self.epoch.put(out);
        self.frontier.put(out);
        self.holes.put(out);
        self.impatient.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self {
            epoch: body.take()?,
            frontier: body.take()?,
            holes: body.take::<Vec<ChunkIndex>>()?,
            impatient: body.take()?,
        })
    }
}

impl Value for Notice {
    const MIN_BYTES: usize = 9;

    fn put(&self, out: &mut BytesMut) {
        self.directive.put(out);
        self.contacts.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self { directive: body.take()?, contacts: body.take()? })
    }
}

impl Value for Directive {
    const MIN_BYTES: usize = 5;

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Lease { key, grant } => {
                out.put_u8(1);
                key.put(out);
                grant.put(out);
            }
            Self::LeaseRevoked { key, epoch } => {
                out.put_u8(2);
                key.put(out);
                epoch.put(out);
            }
            Self::Withdraw { key, epoch } => {
                out.put_u8(3);
                key.put(out);
                epoch.put(out);
            }
            Self::Gateway { key, node } => {
                out.put_u8(4);
                key.put(out);
                node.put(out);
            }
            Self::Ban { nodes } => {
                out.put_u8(5);
                nodes.put(out);
            }
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Lease { key: body.take()?, grant: body.take()? },
            2 => Self::LeaseRevoked { key: body.take()?, epoch: body.take()? },
            3 => Self::Withdraw { key: body.take()?, epoch: body.take()? },
            4 => Self::Gateway { key: body.take()?, node: body.take()? },
            5 => Self::Ban { nodes: body.take()? },
            _ => return Err(Fault::UnknownTag),
        })
    }
}
