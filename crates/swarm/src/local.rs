//! A blob that lies whole on this node and whose links nobody here knows: the runtime pulled it before this agent came.
//!
//! The driver hashes it in order and hands over each stretch of chunks with its links. So such a blob comes into the swarm as from a
//! lead, only that no lease is needed: the origin isn't asked, and whoever else has the blob may do the same at the same time. The links
//! are signed under epoch 0, which no tracker grants; they go to the neighbours with the chunks and not to the tracker.
//!
//! ```text
//!   start_local ──> claimed before the tracker, nothing to be had yet ──handle_local_chunks──> … ──the last one──> finished
//! ```
//!
//! State: a flag of the transfer.
//! Invariants: neighbours are told of, and get, chunks only whose links are known; nothing is wanted of anybody; others' links count for
//! nothing, so no withdrawal of theirs takes what was hashed here.
//! Absent on purpose: hashing, and when to hash: the driver's.

use std::ops::Range;

use shoal_chain::VerifiedLinks;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, Time};

use crate::engine::Engine;
use crate::transfer::{ChunkState, Transfer};

impl Engine {
    /// The epoch of links that come from a node's own copy.
    pub const LOCAL_EPOCH: u64 = 0;

    /// Takes part in a blob's swarm as one who has all of it and will link it. A blob that is started already stays as it is.
    pub fn start_local(&mut self, now: Time, blob: BlobInfo, priority: u32) {
        if self.find(blob.key()).is_none() {
            let mut transfer = Transfer::new(blob, ChunkSet::empty_of(blob.geometry), priority, now);
            transfer.local = true;
            self.enter(now, transfer);
        }
    }

    /// The driver has hashed these chunks of a local blob, which follow those that it has reported before. `links` are theirs, under
    /// [`Self::LOCAL_EPOCH`]; a blob's last chunk may be reported only if the digest is right.
    pub fn handle_local_chunks(&mut self, now: Time, key: BlobKey, chunks: Range<u32>, links: &VerifiedLinks) {
        let Some(slot) = self.find(key).filter(|slot| self.transfer(*slot).local) else { return };
        let _ = self.transfer_mut(slot).chain.learn(links);
        for chunk in chunks.map(ChunkIndex::new) {
            let transfer = self.transfer(slot);
            if transfer.blob.geometry.contains(chunk) && transfer.state(chunk) == ChunkState::Missing {
                self.chunk_is_here(now, slot, chunk);
            }
        }
        self.pump(now);
    }
}
