//! Fetching from the origin as a blob's lead: bytes in order, links as they come, signed.
//!
//! State: one task for each run of chunks; the hash, and the chunk that is coming.
//! Invariants: what is reported was kept before; links are signed under the epoch of the lease that the run is for; the last chunk is
//! reported only if the digest is right.
//! Absent on purpose: trying again. The origin's client resumes broken connections; what it gives up ends the lease.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use shoal_chain::{ChainBuilder, ChunkProof, FinishError, Link, LinkBatch, LinkRun, SignedLinks, VerifiedLinks};
use shoal_oci::origin::{Cause, OriginError};
use shoal_store::StoreError;
use shoal_tracker_server::client::NodeIdentity;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex};
use shoal_wire::OriginFailure;
use tokio::sync::mpsc;

use super::blobs::{Kept, Shelf};
use super::room::Done;
use super::verifying::{Backlog, Waiting};
use super::{FetchError, Origins, Source};

/// Links that are signed once more together: for everybody a signature for eight links is much less to keep than one for each.
const MERGED: usize = 8;

/// One run of chunks.
pub(super) struct Errand {
    pub(super) blob: BlobInfo,
    pub(super) epoch: u64,
    pub(super) chunks: Range<u32>,
    pub(super) before: Option<Link>,
    pub(super) source: Source,
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) origins: Arc<dyn Origins>,
    pub(super) shelf: Shelf,
    pub(super) backlog: Backlog,
}

/// What came of it.
pub(super) enum Fetched {
    /// The next chunk is here and kept.
    Chunk {
        epoch: u64,
        chunk: ChunkIndex,
        kept: Kept,
        links: Option<Box<VerifiedLinks>>,
        /// The last few links together.
        merged: Option<Box<VerifiedLinks>>,
        waiting: Waiting,
        /// It comes to this node whoever leads.
        anyway: bool,
    },
    /// The origin refuses, or can't be reached.
    Failed { epoch: u64, failure: OriginFailure, error: Option<OriginError> },
    /// The bytes are not the blob's.
    Mismatch { epoch: u64 },
    /// They can't be stored.
    NoRoom,
}

/// Fetches the run and reports, until it is done or its task is aborted.
pub(super) async fn fetch(errand: Errand, done: mpsc::Sender<Done>) {
    let key = errand.blob.key();
    let epoch = errand.epoch;
    let last = match run(errand, &done).await {
        Ok(()) => return,
        Err(Trouble::Origin(error)) => Fetched::Failed { epoch, failure: failure_of(&error), error: Some(error) },
        // An origin that ends early or goes on too long isn't one to be asked again at once; and that this node has no way to it says
        // nothing of the others.
        Err(Trouble::Length | Trouble::NoWay) => {
            Fetched::Failed { epoch, failure: OriginFailure::Unreachable, error: None }
        }
        Err(Trouble::Mismatch) => Fetched::Mismatch { epoch },
        Err(Trouble::Store) => Fetched::NoRoom,
        Err(Trouble::Ended) => return,
    };
    // The room ends before its channel does.
    let _ = done.send(Done::Fetched { key, fetched: last }).await;
}

enum Trouble {
    Origin(OriginError),
    Length,
    NoWay,
    Mismatch,
    Store,
    Ended,
}

async fn run(errand: Errand, done: &mpsc::Sender<Done>) -> Result<(), Trouble> {
    let Errand { blob, epoch, chunks, before, source, identity, origins, shelf, backlog } = errand;
    let geometry = blob.geometry;
    let first = ChunkIndex::new(chunks.start);
    let (Some(from), Some(to)) = (geometry.byte_range(first), geometry.byte_range(ChunkIndex::new(chunks.end - 1)))
    else {
        return Err(Trouble::Length);
    };
    let range = from.start..to.start + u64::from(to.len);
    let mut builder = match before {
        Some(link) => ChainBuilder::resume(blob, first, link).map_err(|_| Trouble::Mismatch)?,
        None => ChainBuilder::new(blob),
    };
    let mut stream = origins.fetch(&source, &blob.digest, geometry.size_bytes(), range);
    let mut recent: Vec<(ChunkIndex, Link)> = Vec::with_capacity(MERGED);
    let mut coming = BytesMut::new();
    for chunk in chunks.clone().map(ChunkIndex::new) {
        let length = geometry.byte_range(chunk).map_or(0, |range| range.len as usize);
        while coming.len() < length {
            match stream.next().await {
                Some(Ok(piece)) => coming.extend_from_slice(&piece),
                Some(Err(FetchError::Origin(error))) => return Err(Trouble::Origin(error)),
                Some(Err(FetchError::NoWay)) => return Err(Trouble::NoWay),
                None => return Err(Trouble::Length),
            }
        }
        backlog.has_room().await;
        let waiting = backlog.add(length);
        let bytes = coming.split_to(length).freeze();
        let last = chunk == geometry.last_chunk();
        let shelf = shelf.clone();
        let hashed =
            tokio::task::spawn_blocking(move || -> Result<(Option<ChainBuilder>, ChunkProof, Kept), Trouble> {
                let mut proof = None;
                builder.push(&bytes, |complete| proof = Some(complete)).map_err(|_| Trouble::Length)?;
                let (builder, proof) = match proof {
                    Some(proof) => (Some(builder), proof),
                    None => match builder.finish() {
                        Ok(proof) => (None, proof),
                        Err(FinishError::Digest { .. }) => return Err(Trouble::Mismatch),
                        Err(FinishError::Incomplete { .. }) => return Err(Trouble::Length),
                    },
                };
                match shelf.keep(&proof, bytes) {
                    Ok(Some(kept)) => Ok((builder, proof, kept)),
                    // Withdrawn meanwhile: whoever started this run has ended it.
                    Ok(None) | Err(StoreError::Absent) => Err(Trouble::Ended),
                    Err(_) => Err(Trouble::Store),
                }
            });
        let (next, proof, kept) = hashed.await.map_err(|_| Trouble::Ended)??;
        let sign = |run| {
            let batch = LinkBatch { blob, epoch, run };
            let signature = identity.sign(&batch.signed_bytes());
            Box::new(VerifiedLinks::trusted(SignedLinks { batch, publisher: identity.node(), signature }))
        };
        let links = (!last).then(|| sign(LinkRun::single(chunk, proof.link_after())));
        recent.push((chunk, proof.link_after()));
        let merged = (recent.len() == MERGED).then(|| std::mem::take(&mut recent)).filter(|_| !last);
        let merged = merged.and_then(|run| {
            let bytes = run.iter().flat_map(|(_, link)| link.as_bytes().to_vec()).collect();
            LinkRun::new(blob.digest.algorithm(), run[0].0, bytes).ok().map(sign)
        });
        let anyway = origins.comes_anyway(&blob.digest);
        let fetched = Fetched::Chunk { epoch, chunk, kept, links, merged, waiting, anyway };
        done.send(Done::Fetched { key: blob.key(), fetched }).await.map_err(|_| Trouble::Ended)?;
        match next {
            Some(next) => builder = next,
            None => break,
        }
    }
    Ok(())
}

/// What the tracker is told.
fn failure_of(error: &OriginError) -> OriginFailure {
    match error.cause() {
        Cause::Unauthorized { .. } => OriginFailure::Unauthorized,
        Cause::NotFound { .. } => OriginFailure::NotFound,
        Cause::Busy { retry_after, .. } => {
            OriginFailure::Busy { retry_after: (*retry_after).max(Duration::from_secs(1)) }
        }
        _ => OriginFailure::Unreachable,
    }
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chunk { epoch, chunk, .. } => write!(f, "chunk {chunk} of epoch {epoch}"),
            Self::Failed { failure, .. } => write!(f, "{failure:?}"),
            Self::Mismatch { epoch } => write!(f, "mismatch of epoch {epoch}"),
            Self::NoRoom => f.write_str("no room"),
        }
    }
}

/// A key for the table of runs: one at a time for each blob.
pub(super) type Runs = std::collections::BTreeMap<BlobKey, tokio::task::JoinHandle<()>>;
