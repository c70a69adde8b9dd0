//! Frames: the length, the kind, and what each kind has in it.
//!
//! State: none.
//! Invariants: no frame is longer than its limit, in either direction; decoding takes whole frames off the buffer or nothing.
//! Absent on purpose: the bytes of a chunk, which follow the frames of its slices outside of any.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use shoal_types::{BlobKey, ChunkIndex};

use super::limits::MAX_BODY_BYTES;
use super::messages::{put_message, take_message};
use super::raw::{Fault, Reader, Value, put_count, put_counted_bytes};
use super::{DecodeError, EncodeError};
use crate::{CloseReason, Hello, PeerFrame, Versions};

const HELLO: u8 = 1;
const CLOSE: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
// 16 to 31 are the exchange's messages.
const CHUNK: u8 = 32;
const CERTIFICATE_WANTED: u8 = 33;
const CERTIFICATE: u8 = 34;
const SLICE: u8 = 35;
pub(super) const ANNOUNCE: u8 = 48;
pub(super) const ANNOUNCE_REPLY: u8 = 49;
pub(super) const NOTICE: u8 = 50;
const PROVIDERS_WANTED: u8 = 64;
const PROVIDERS: u8 = 65;
const PROVIDE: u8 = 66;
const MEMBERS_WANTED: u8 = 67;
const MEMBERS: u8 = 68;

/// Certificates of a chain: a node's own, one between, the CA's, and one to spare.
const MAX_CHAIN: usize = 4;

/// One certificate: an Ed25519 one has 400 bytes, one with a large RSA key 2 KiB.
const MAX_CERTIFICATE_BYTES: usize = 8 << 10;

/// Something decoded, or something from a later release.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<T> {
    /// It is understood.
    Known(T),
    /// It is skipped: neither an error nor a reason to close.
    Unknown {
        /// The frame's kind.
        kind: u8,
    },
}

/// Appends a frame. `Have` and `Links` that are too long for one leave as several with the same meaning.
///
/// # Errors
/// If it is longer than a frame may be. Nothing of that frame has been written.
pub fn encode_frame(frame: &PeerFrame, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        PeerFrame::Message(message) => put_message(out, message),
        PeerFrame::Hello(hello) => put_frame(out, HELLO, |out| hello.put(out)),
        PeerFrame::Close(reason) => put_frame(out, CLOSE, |out| reason.put(out)),
        PeerFrame::Ping(number) => put_frame(out, PING, |out| number.put(out)),
        PeerFrame::Pong(number) => put_frame(out, PONG, |out| number.put(out)),
        PeerFrame::Chunk { key, chunk, length } => put_frame(out, CHUNK, |out| {
            key.put(out);
            chunk.put(out);
            length.put(out);
        }),
        PeerFrame::Slice { length } => put_frame(out, SLICE, |out| length.put(out)),
        PeerFrame::CertificateWanted { node } => put_frame(out, CERTIFICATE_WANTED, |out| node.put(out)),
        PeerFrame::Certificate { node, chain } => put_frame(out, CERTIFICATE, |out| {
            node.put(out);
            put_count(out, chain.len());
            chain.iter().for_each(|certificate| put_counted_bytes(out, certificate));
        }),
        PeerFrame::Announce { id, announce } => put_frame(out, ANNOUNCE, |out| {
            id.put(out);
            announce.put(out);
        }),
        PeerFrame::AnnounceReply { id, outcome } => put_frame(out, ANNOUNCE_REPLY, |out| {
            id.put(out);
            outcome.put(out);
        }),
        PeerFrame::Notice(notice) => put_frame(out, NOTICE, |out| notice.put(out)),
        PeerFrame::ProvidersWanted { id, digest } => put_frame(out, PROVIDERS_WANTED, |out| {
            id.put(out);
            digest.put(out);
        }),
        PeerFrame::Providers { id, contacts } => put_frame(out, PROVIDERS, |out| {
            id.put(out);
            contacts.put(out);
        }),
        PeerFrame::Provide { digest, provides } => put_frame(out, PROVIDE, |out| {
            digest.put(out);
            provides.put(out);
        }),
        PeerFrame::MembersWanted { id, want } => put_frame(out, MEMBERS_WANTED, |out| {
            id.put(out);
            want.put(out);
        }),
        PeerFrame::Members { id, contacts } => put_frame(out, MEMBERS, |out| {
            id.put(out);
            contacts.put(out);
        }),
    }
}

/// Takes the next frame off the buffer; none, while it isn't complete.
///
/// # Errors
/// If the bytes are no frame, or one with impossible fields. The connection is of no use any more.
pub fn decode_frame(buffer: &mut BytesMut) -> Result<Option<Decoded<PeerFrame>>, DecodeError> {
    Ok(decode_within(buffer, MAX_BODY_BYTES)?.map(|(decoded, length)| {
        buffer.advance(length);
        decoded
    }))
}

/// The first frame and how many bytes it takes up.
pub(super) fn decode_within(buffer: &[u8], limit: usize) -> Result<Option<(Decoded<PeerFrame>, usize)>, DecodeError> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    match length {
        0 => return Err(DecodeError::Empty),
        // The kind doesn't count.
        _ if length > limit + 1 => return Err(DecodeError::TooLong { bytes: length as u64, limit }),
        _ if length > rest.len() => return Ok(None),
        _ => {}
    }
    let (kind, body) = (rest[0], &rest[1..length]);
    let decoded = match take_frame(kind, &mut Reader(body)) {
        Ok(frame) => Decoded::Known(frame),
        Err(Fault::UnknownTag) => Decoded::Unknown { kind },
        Err(Fault::Truncated) => return Err(DecodeError::Truncated { kind }),
        Err(Fault::Invalid(field)) => return Err(DecodeError::Invalid { kind, field }),
    };
    Ok(Some((decoded, 4 + length)))
}

/// Appends a frame with this body, unless that turns out longer than a frame's may be.
pub(super) fn put_frame(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
    put_within(out, MAX_BODY_BYTES, kind, body)
}

pub(super) fn put_within(
    out: &mut BytesMut,
    limit: usize,
    kind: u8,
    body: impl FnOnce(&mut BytesMut),
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    body(out);
    let bytes = out.len() - start - 5;
    match u32::try_from(bytes + 1) {
        Ok(length) if bytes <= limit => {
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(EncodeError::TooLong { bytes, limit })
        }
    }
}

fn take_frame(kind: u8, body: &mut Reader<'_>) -> Result<PeerFrame, Fault> {
    Ok(match kind {
        HELLO => PeerFrame::Hello(body.take()?),
        CLOSE => PeerFrame::Close(body.take()?),
        PING => PeerFrame::Ping(body.take()?),
        PONG => PeerFrame::Pong(body.take()?),
        CHUNK => {
            let (key, chunk, length): (BlobKey, ChunkIndex, u32) = (body.take()?, body.take()?, body.take()?);
            if length > key.chunk_size.bytes() {
                return Err(Fault::Invalid("length"));
            }
            PeerFrame::Chunk { key, chunk, length }
        }
        SLICE => PeerFrame::Slice { length: body.take()? },
        CERTIFICATE_WANTED => PeerFrame::CertificateWanted { node: body.take()? },
        CERTIFICATE => PeerFrame::Certificate { node: body.take()?, chain: take_chain(body)? },
        ANNOUNCE => PeerFrame::Announce { id: body.take()?, announce: body.take()? },
        ANNOUNCE_REPLY => PeerFrame::AnnounceReply { id: body.take()?, outcome: body.take()? },
        NOTICE => PeerFrame::Notice(body.take()?),
        PROVIDERS_WANTED => PeerFrame::ProvidersWanted { id: body.take()?, digest: body.take()? },
        PROVIDERS => PeerFrame::Providers { id: body.take()?, contacts: body.take()? },
        PROVIDE => PeerFrame::Provide { digest: body.take()?, provides: body.take()? },
        MEMBERS_WANTED => PeerFrame::MembersWanted { id: body.take()?, want: body.take()? },
        MEMBERS => PeerFrame::Members { id: body.take()?, contacts: body.take()? },
        _ => PeerFrame::Message(take_message(kind, body)?),
    })
}

fn take_chain(body: &mut Reader<'_>) -> Result<Vec<Bytes>, Fault> {
    let count = body.count(4)?;
    if count > MAX_CHAIN {
        return Err(Fault::Invalid("chain of certificates"));
    }
    let certificate = |_| match body.counted_bytes()? {
        der if der.len() > MAX_CERTIFICATE_BYTES => Err(Fault::Invalid("certificate")),
        der => Ok(Bytes::copy_from_slice(der)),
    };
    (0..count).map(certificate).collect()
}

impl Value for Hello {
    const MIN_BYTES: usize = 17;

    fn put(&self, out: &mut BytesMut) {
        self.versions.newest.put(out);
        self.versions.oldest.put(out);
        self.name.put(out);
        self.zone.put(out);
        self.port.put(out);
        self.incarnation.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let versions = Versions { newest: body.take()?, oldest: body.take()? };
        Ok(Self { versions, name: body.take()?, zone: body.take()?, port: body.take()?, incarnation: body.take()? })
    }
}

impl Value for CloseReason {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(match self {
            Self::Other => 0,
            Self::Leaving => 1,
            Self::Duplicate => 2,
            Self::Violation => 3,
            Self::Banned => 4,
            Self::Full => 5,
            Self::TooSlow => 6,
            Self::Version => 7,
            Self::Identity => 8,
        });
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take::<u8>()? {
            1 => Self::Leaving,
            2 => Self::Duplicate,
            3 => Self::Violation,
            4 => Self::Banned,
            5 => Self::Full,
            6 => Self::TooSlow,
            7 => Self::Version,
            8 => Self::Identity,
            _ => Self::Other,
        })
    }
}
