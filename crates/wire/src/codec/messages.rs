//! The exchange's messages.
//!
//! State: none.
//! Invariants: each message is one kind of frame, so that one that a later release adds is skipped by this one.
//! Absent on purpose: the frame around them (`frame`).

use bytes::{BufMut, BytesMut};
use shoal_chain::SignedLinks;
use shoal_types::ChunkIndex;

use super::EncodeError;
use super::frame::put_frame;
use super::limits::MAX_BODY_BYTES;
use super::raw::{Fault, Reader, Value, put_list};
use crate::{JoinFlags, Load, PeerMessage, RejectReason};

const JOIN: u8 = 16;
const LEAVE: u8 = 17;
const HAVE: u8 = 18;
const REQUEST: u8 = 19;
const CANCEL: u8 = 20;
const REJECT: u8 = 21;
const CHOKE: u8 = 22;
const UNCHOKE: u8 = 23;
const DECLINE: u8 = 24;
const HUNGRY: u8 = 25;
const SUBSTITUTE: u8 = 26;
const LINKS: u8 = 27;
const LINKS_WANTED: u8 = 28;
const COMING: u8 = 29;

/// Chunks in one frame: 64 KiB of them. More leave as several frames.
const HAVES_PER_FRAME: usize = 16 << 10;

/// Links in one frame, unless a single batch is longer: four frames' worth of the longest batches' bodies.
const LINKS_PER_FRAME_BYTES: usize = MAX_BODY_BYTES / 4;

pub(super) fn put_message(out: &mut BytesMut, message: &PeerMessage) -> Result<(), EncodeError> {
    match message {
        PeerMessage::Join { blob, have, flags } => put_frame(out, JOIN, |out| {
            blob.put(out);
            have.put(out);
            flags.put(out);
        }),
        PeerMessage::Leave { key } => put_frame(out, LEAVE, |out| key.put(out)),
        PeerMessage::Have { key, chunks, load } => {
            let mut put = |chunks: &[ChunkIndex]| {
                put_frame(out, HAVE, |out| {
                    key.put(out);
                    put_list(out, chunks);
                    load.put(out);
                })
            };
            if chunks.is_empty() { put(&[]) } else { chunks.chunks(HAVES_PER_FRAME).try_for_each(put) }
        }
        PeerMessage::Coming { key, chunk } => put_frame(out, COMING, |out| {
            key.put(out);
            chunk.put(out);
        }),
        PeerMessage::Request { key, chunk, needs_links } => put_frame(out, REQUEST, |out| {
            key.put(out);
            chunk.put(out);
            needs_links.put(out);
        }),
        PeerMessage::Cancel { key, chunk } => put_frame(out, CANCEL, |out| {
            key.put(out);
            chunk.put(out);
        }),
        PeerMessage::Reject { key, chunk, reason } => put_frame(out, REJECT, |out| {
            key.put(out);
            chunk.put(out);
            reason.put(out);
        }),
        PeerMessage::Choke => put_frame(out, CHOKE, |_| ()),
        PeerMessage::Unchoke => put_frame(out, UNCHOKE, |_| ()),
        PeerMessage::Decline => put_frame(out, DECLINE, |_| ()),
        PeerMessage::Hungry { sources } => put_frame(out, HUNGRY, |out| sources.put(out)),
        PeerMessage::Substitute { key, asked, sent } => put_frame(out, SUBSTITUTE, |out| {
            key.put(out);
            asked.put(out);
            sent.put(out);
        }),
        PeerMessage::Links { key, batches } => {
            let mut rest = batches.as_slice();
            loop {
                let (now, later) = rest.split_at(fitting(rest));
                put_frame(out, LINKS, |out| {
                    key.put(out);
                    put_list(out, now);
                })?;
                if later.is_empty() {
                    return Ok(());
                }
                rest = later;
            }
        }
        PeerMessage::LinksWanted { key, from } => put_frame(out, LINKS_WANTED, |out| {
            key.put(out);
            from.put(out);
        }),
    }
}

pub(super) fn take_message(kind: u8, body: &mut Reader<'_>) -> Result<PeerMessage, Fault> {
    Ok(match kind {
        JOIN => PeerMessage::Join { blob: body.take()?, have: body.take()?, flags: body.take()? },
        LEAVE => PeerMessage::Leave { key: body.take()? },
        HAVE => {
            PeerMessage::Have { key: body.take()?, chunks: body.take::<Vec<ChunkIndex>>()?.into(), load: body.take()? }
        }
        COMING => PeerMessage::Coming { key: body.take()?, chunk: body.take()? },
        REQUEST => PeerMessage::Request { key: body.take()?, chunk: body.take()?, needs_links: body.take()? },
        CANCEL => PeerMessage::Cancel { key: body.take()?, chunk: body.take()? },
        REJECT => PeerMessage::Reject { key: body.take()?, chunk: body.take()?, reason: body.take()? },
        CHOKE => PeerMessage::Choke,
        UNCHOKE => PeerMessage::Unchoke,
        DECLINE => PeerMessage::Decline,
        HUNGRY => PeerMessage::Hungry { sources: body.take()? },
        SUBSTITUTE => PeerMessage::Substitute { key: body.take()?, asked: body.take()?, sent: body.take()? },
        LINKS => PeerMessage::Links { key: body.take()?, batches: body.take()? },
        LINKS_WANTED => PeerMessage::LinksWanted { key: body.take()?, from: body.take()? },
        _ => return Err(Fault::UnknownTag),
    })
}

/// How many of the batches go into one frame: at least one, if there is one.
fn fitting(batches: &[SignedLinks]) -> usize {
    let mut bytes = 0;
    let fits = |links: &&SignedLinks| {
        // With a SHA-512 digest a batch has 32 bytes more than the least.
        bytes += SignedLinks::MIN_BYTES + 32 + links.batch.run.as_bytes().len();
        bytes <= LINKS_PER_FRAME_BYTES
    };
    batches.iter().take_while(fits).count().max(1).min(batches.len())
}

/// One bit a flag; a later release's flags are ignored.
impl Value for JoinFlags {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.gateway) | u8::from(self.seed) << 1 | u8::from(self.answer) << 2);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let bits: u8 = body.take()?;
        Ok(Self { gateway: bits & 1 != 0, seed: bits & 2 != 0, answer: bits & 4 != 0 })
    }
}

impl Value for Load {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        self.sources.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self { sources: body.take()? })
    }
}

impl Value for RejectReason {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(match self {
            Self::Absent => 1,
            Self::TooMany => 2,
            Self::Choked => 3,
            Self::Withdrawn => 4,
        });
    }

    /// A later release's reason is still a rejection: to skip it would leave the requester waiting.
    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            2 => Self::TooMany,
            3 => Self::Choked,
            4 => Self::Withdrawn,
            _ => Self::Absent,
        })
    }
}
