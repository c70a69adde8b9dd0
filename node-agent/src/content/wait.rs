//! Waiting for a transfer's bytes no longer than it makes sense.
//!
//! State: none.
//! Invariants: every wait ends: with bytes, with the transfer's own failure, or with a reason to go to the origin.
//! Absent on purpose: what follows from it.

use std::time::Duration;

use bytes::Bytes;
use shoal_oci::origin::OriginError;
use tokio::time::{Instant, timeout};

use super::metrics::Fallback;
use crate::exchange::{Transfer, TransferError};
use crate::mirror::{Failure, Reason};

/// What is read at once: the mirror's own piece.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// No chunk verified for so long, and the transfer counts as stalled. Runtimes cancel a pull after minutes; a chunk of 4 MiB takes as
/// long at 1.7 Mbit/s. Chunks count wherever they lie: they come rarest first, so that the next one for a reader may be long in coming
/// while the blob comes along well.
const PROGRESS_WITHIN: Duration = Duration::from_secs(20);
/// A refusal of the origin that this node has asked counts if nobody else has brought anything for so long.
const REFUSAL_COUNTS: Duration = Duration::from_secs(2);
/// And no longer than this without a byte for the reader, as when a strict stream waits for the digest. Just under the mirror's own bound
/// of 120 s, so that the reason is counted.
const BYTE_WITHIN: Duration = Duration::from_secs(118);
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a transfer gives no bytes.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Failed(TransferError),
    Stalled,
    /// The origin said no to this node.
    Refused(OriginError),
    /// This node leads, and only its runtime may read the origin.
    Handed,
}

impl Trouble {
    pub(super) const fn fallback(&self) -> Fallback {
        match self {
            Self::Failed(TransferError::ChainFailed) => Fallback::ChainFailed,
            Self::Failed(TransferError::NoRoom) => Fallback::NoRoom,
            Self::Handed => Fallback::Handed,
            Self::Failed(TransferError::Ended) | Self::Stalled | Self::Refused(_) => Fallback::Stalled,
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(error) => Self::from(&error),
            Trouble::Stalled => Self::new(Reason::Stalled),
            Trouble::Handed => {
                Self::new(Reason::Denied).with_detail("only the runtime may fetch it: it asks with the pod's secret")
            }
            Trouble::Failed(error @ TransferError::ChainFailed) => Self::new(Reason::Corrupt).with_detail(error),
            Trouble::Failed(error) => Self::new(Reason::Unavailable).with_detail(error),
        }
    }
}

/// Whether a transfer moves.
struct Progress<'a> {
    transfer: &'a Transfer,
    verified: u64,
    since: Instant,
}

impl<'a> Progress<'a> {
    fn of(transfer: &'a Transfer) -> Self {
        Self { transfer, verified: transfer.progress().0, since: Instant::now() }
    }

    /// Looks again. It may stand still for less than `within`, and for less than [`REFUSAL_COUNTS`] once the origin has refused.
    fn look(&mut self, within: Duration) -> Result<(), Trouble> {
        let (now, verified) = (Instant::now(), self.transfer.progress().0);
        if verified != self.verified {
            (self.verified, self.since) = (verified, now);
        }
        let still = now - self.since;
        match self.transfer.origin_error() {
            Some(error) if still >= REFUSAL_COUNTS && !error.is_transient() => Err(Trouble::Refused(error)),
            _ if still >= within => Err(Trouble::Stalled),
            _ => Ok(()),
        }
    }
}

/// The next verified bytes from `offset` on, before `end`.
pub(super) async fn piece(transfer: &Transfer, offset: u64, end: u64, strict: bool) -> Result<Bytes, Trouble> {
    let most = usize::try_from(end - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    let (started, mut progress) = (Instant::now(), Progress::of(transfer));
    let mut reading = std::pin::pin!(transfer.read(offset, most, strict));
    loop {
        match timeout(LOOK_EVERY, reading.as_mut()).await {
            // Within the blob there is no end.
            Ok(Ok(bytes)) if bytes.is_empty() => return Err(Trouble::Failed(TransferError::Ended)),
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => return Err(Trouble::Failed(error)),
            Err(_) => {}
        }
        progress.look(PROGRESS_WITHIN)?;
        if started.elapsed() >= BYTE_WITHIN {
            return Err(Trouble::Stalled);
        }
    }
}

/// The whole of a transfer that nobody reads yet. It may have to let others pass, so that it has more time to move.
pub(super) async fn completed(transfer: &Transfer) -> Result<(), Trouble> {
    let mut progress = Progress::of(transfer);
    let mut completed = std::pin::pin!(transfer.completed());
    loop {
        if let Ok(ended) = timeout(LOOK_EVERY, completed.as_mut()).await {
            return ended.map_err(Trouble::Failed);
        }
        progress.look(BYTE_WITHIN)?;
    }
}

/// All bytes of a transfer that is held in memory: a manifest.
pub(super) async fn whole(transfer: &Transfer) -> Result<Bytes, Trouble> {
    let size = transfer.size_bytes();
    let mut all = bytes::BytesMut::new();
    while (all.len() as u64) < size {
        all.extend_from_slice(&piece(transfer, all.len() as u64, size, true).await?);
    }
    Ok(all.freeze())
}
