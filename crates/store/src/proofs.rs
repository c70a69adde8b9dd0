//! The links between which each chunk of a blob was proven.
//!
//! State: two links a chunk.
//! Invariants: none of its own: it repeats what proofs said, and [`Proofs::check_joined`] tells whether they agree.
//! Absent on purpose: the proofs. They don't outlive the process; what they said does.

use shoal_chain::Link;
use shoal_types::{BlobInfo, ChunkIndex};

use crate::StoreError;

/// The link before a chunk and the link after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) before: Link,
    pub(crate) after: Link,
}

/// Ends of a blob's chunks. At most [`shoal_types::Geometry::MAX_CHUNKS`] of 130 bytes, 260 KiB for the usual 2,048 chunks, while they are
/// being looked at.
pub(crate) struct Proofs {
    blob: BlobInfo,
    ends: Vec<Option<Ends>>,
}

impl Proofs {
    pub(crate) fn none(blob: BlobInfo) -> Self {
        Self { blob, ends: vec![None; blob.geometry.chunk_count() as usize] }
    }

    /// Notes what a chunk's proof said: the latest holds.
    pub(crate) fn set(&mut self, chunk: ChunkIndex, ends: Ends) {
        if let Some(place) = self.ends.get_mut(chunk.as_usize()) {
            *place = Some(ends);
        }
    }

    pub(crate) fn get(&self, chunk: ChunkIndex) -> Option<Ends> {
        self.ends.get(chunk.as_usize()).copied().flatten()
    }

    /// Whether they lead from the hash's initial state to the digest without a gap.
    pub(crate) fn check_joined(&self) -> Result<(), StoreError> {
        let mut reached = Link::initial(self.blob.digest.algorithm());
        for chunk in self.blob.geometry.chunks() {
            match self.get(chunk) {
                Some(ends) if ends.before == reached => reached = ends.after,
                _ => return Err(StoreError::FalseChain { chunk }),
            }
        }
        if reached == self.blob.digest.into() {
            Ok(())
        } else {
            Err(StoreError::FalseChain { chunk: self.blob.geometry.last_chunk() })
        }
    }
}
