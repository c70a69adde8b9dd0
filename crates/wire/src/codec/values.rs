//! The small types that messages are made of.
//!
//! State: none.
//! Invariants: what is read went through its type's validating constructor.
//! Absent on purpose: whole messages (`messages`, `tracker`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_types::{Algorithm, BlobInfo, BlobKey, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Zone};

use super::raw::{Fault, Reader, Value, put_counted_bytes, put_short_text};
use crate::{Contact, NodeName, PeerInfo};

impl Value for Algorithm {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        out.put_u8(match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        });
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        match body.take::<u8>()? {
            1 => Ok(Self::Sha256),
            2 => Ok(Self::Sha512),
            _ => Err(Fault::UnknownTag),
        }
    }
}

impl Value for Digest {
    const MIN_BYTES: usize = 33;

    fn put(&self, out: &mut BytesMut) {
        self.algorithm().put(out);
        out.put_slice(self.as_bytes());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match body.take()? {
            Algorithm::Sha256 => Self::Sha256(body.array()?),
            Algorithm::Sha512 => Self::Sha512(body.array()?),
        })
    }
}

/// As its power of two: a u8.
impl Value for ChunkSize {
    const MIN_BYTES: usize = 1;

    #[allow(clippy::cast_possible_truncation, reason = "a u32 has at most 32 trailing zeros")]
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.bytes().trailing_zeros() as u8);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let bytes = 1_u32.checked_shl(body.take::<u8>()?.into());
        bytes.and_then(|bytes| Self::new(bytes).ok()).ok_or(Fault::Invalid("chunk size"))
    }
}

impl Value for BlobKey {
    const MIN_BYTES: usize = Digest::MIN_BYTES + 1;

    fn put(&self, out: &mut BytesMut) {
        self.digest.put(out);
        self.chunk_size.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self { digest: body.take()?, chunk_size: body.take()? })
    }
}

impl Value for BlobInfo {
    const MIN_BYTES: usize = Digest::MIN_BYTES + 9;

    fn put(&self, out: &mut BytesMut) {
        self.digest.put(out);
        self.geometry.size_bytes().put(out);
        self.geometry.chunk_size().put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let (digest, size_bytes, chunk_size) = (body.take()?, body.take()?, body.take()?);
        let geometry = Geometry::new(size_bytes, chunk_size).map_err(|_| Fault::Invalid("blob size"))?;
        Ok(Self { digest, geometry })
    }
}

impl Value for ChunkIndex {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.get());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        body.take().map(Self::new)
    }
}

/// Always the bitmap, even if it is full: a few bytes that stand for 128 KiB would let a sender make us allocate what it doesn't send.
impl Value for Arc<ChunkSet> {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.capacity());
        let mut left = self.capacity().div_ceil(8) as usize;
        for word in self.words() {
            let bytes = word.to_le_bytes();
            out.put_slice(&bytes[..left.min(8)]);
            left = left.saturating_sub(8);
        }
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let chunks: u32 = body.take()?;
        if chunks > Geometry::MAX_CHUNKS {
            return Err(Fault::Invalid("bitmap"));
        }
        let bytes = body.bytes(chunks.div_ceil(8) as usize)?;
        ChunkSet::from_bytes(bytes, chunks).map(Self::new).map_err(|_| Fault::Invalid("bitmap"))
    }
}

impl Value for NodeId {
    const MIN_BYTES: usize = 16;

    fn put(&self, out: &mut BytesMut) {
        self.get().put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        body.take().map(Self::new)
    }
}

impl Value for Zone {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut BytesMut) {
        put_short_text(out, self.name());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Self::new(body.short_text("zone")?).map_err(|_| Fault::Invalid("zone"))
    }
}

impl Value for NodeName {
    const MIN_BYTES: usize = 2;

    fn put(&self, out: &mut BytesMut) {
        put_short_text(out, self.as_str());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Self::new(body.short_text("name")?).map_err(|_| Fault::Invalid("name"))
    }
}

/// A u8 4 or 6, the address, the port. An IPv6 scope is the sender's own affair and doesn't travel.
impl Value for SocketAddr {
    const MIN_BYTES: usize = 7;

    fn put(&self, out: &mut BytesMut) {
        match self.ip() {
            IpAddr::V4(ip) => {
                out.put_u8(4);
                out.put_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.put_u8(6);
                out.put_slice(&ip.octets());
            }
        }
        out.put_u16(self.port());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let ip: IpAddr = match body.take::<u8>()? {
            4 => body.array::<4>()?.into(),
            6 => body.array::<16>()?.into(),
            _ => return Err(Fault::UnknownTag),
        };
        Ok(Self::new(ip, body.take()?))
    }
}

/// Without the node: it is computed from the name.
impl Value for Contact {
    const MIN_BYTES: usize = NodeName::MIN_BYTES + Zone::MIN_BYTES + SocketAddr::MIN_BYTES;

    fn put(&self, out: &mut BytesMut) {
        self.name().put(out);
        self.zone().put(out);
        self.address().put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self::new(body.take()?, body.take()?, body.take()?))
    }
}

impl Value for PeerInfo {
    const MIN_BYTES: usize = NodeId::MIN_BYTES + Zone::MIN_BYTES;

    fn put(&self, out: &mut BytesMut) {
        self.node.put(out);
        self.zone.put(out);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self { node: body.take()?, zone: body.take()? })
    }
}

/// In nanoseconds. More than 584 years are 584 years.
impl Value for Duration {
    const MIN_BYTES: usize = 8;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64(u64::try_from(self.as_nanos()).unwrap_or(u64::MAX));
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        body.take().map(Self::from_nanos)
    }
}

impl Value for LinkRun {
    const MIN_BYTES: usize = 1 + 4 + 4 + 32;

    fn put(&self, out: &mut BytesMut) {
        self.algorithm().put(out);
        self.first().put(out);
        put_counted_bytes(out, self.as_bytes());
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let (algorithm, first) = (body.take()?, body.take()?);
        Self::new(algorithm, first, body.counted_bytes()?.to_vec()).map_err(|_| Fault::Invalid("run of links"))
    }
}

impl Value for SignedLinks {
    const MIN_BYTES: usize = BlobInfo::MIN_BYTES + 8 + LinkRun::MIN_BYTES + 16 + 64;

    fn put(&self, out: &mut BytesMut) {
        self.batch.blob.put(out);
        self.batch.epoch.put(out);
        self.batch.run.put(out);
        self.publisher.put(out);
        out.put_slice(&self.signature.0);
    }

    fn take(body: &mut Reader<'_>) -> Result<Self, Fault> {
        let batch = LinkBatch { blob: body.take()?, epoch: body.take()?, run: body.take()? };
        Ok(Self { batch, publisher: body.take()?, signature: Signature(body.array()?) })
    }
}
