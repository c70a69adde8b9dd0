//! A blob passed through from the origin, without storing it.
//!
//! State: the hash of what has passed, and one piece that is held back.
//! Invariants: of a whole blob the last piece is given only when the digest is right; a stream that fails is noted as cut. A part of a blob can't be proven here: it is what the
//! origin sends, as it would be without the mirror.
//! Absent on purpose: resuming. The origin's client does it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256, Sha512};
use shoal_oci::origin::{self, Origin};
use shoal_types::{Algorithm, Digest};

use super::Shared;
use super::known::Place;
use super::metrics::From;
use crate::mirror::{BlobStream, Failure, Reason};

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

struct Passing {
    stream: origin::BlobStream,
    /// None for a part.
    hasher: Option<Hasher>,
    held: Option<Bytes>,
    content: Arc<Shared>,
    place: Place,
    ended: bool,
}

/// The bytes `range` of a blob.
///
/// # Errors
/// What the origin says instead of the first of them.
pub(super) async fn through(
    content: Arc<Shared>,
    origin: &Origin,
    place: Place,
    size_bytes: u64,
    range: Range<u64>,
) -> Result<BlobStream, Failure> {
    let whole = range == (0..size_bytes);
    let stream = origin.blob(&place.repository, place.digest, size_bytes, range);
    let hasher = whole.then(|| Hasher::new(place.digest.algorithm()));
    let mut passing = Passing { stream, hasher, held: None, content, place, ended: false };
    // What the origin says first decides whether the runtime hears a status or a body.
    let first = passing.next().await?;
    let rest = stream::try_unfold(passing, async |mut passing| {
        let next = passing.next().await.inspect_err(|_| passing.content.cuts.note(&passing.place));
        Ok(next?.map(|bytes| (bytes, passing)))
    });
    Ok(Box::pin(stream::iter(first.map(Ok)).chain(rest)))
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        while !self.ended {
            match self.stream.next().await {
                Some(Ok(bytes)) => {
                    let ready = match &mut self.hasher {
                        Some(hasher) => {
                            hasher.update(&bytes);
                            self.held.replace(bytes)
                        }
                        None => Some(bytes),
                    };
                    if let Some(bytes) = ready {
                        return Ok(Some(self.count(bytes)));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(Failure::from(&error));
                }
                None => {
                    self.ended = true;
                    if self.hasher.take().is_some_and(|hasher| hasher.finish() != self.place.digest) {
                        let why = "the origin's bytes have another digest";
                        return Err(Failure::new(Reason::Corrupt).with_detail(why));
                    }
                }
            }
        }
        let last = self.held.take();
        Ok(last.map(|bytes| self.count(bytes)))
    }

    fn count(&self, bytes: Bytes) -> Bytes {
        self.content.parts.metrics.gave(From::Origin, bytes.len());
        bytes
    }
}

/// The digest of bytes that are here already.
pub(super) fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}
