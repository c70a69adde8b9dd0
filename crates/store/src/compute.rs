//! The chain of a blob whose bytes lie somewhere already: in the content store, or sealed in a store of ours.
//!
//! State: one piece of the blob.
//! Invariants: the chain that comes out is closed: the bytes that were read have the blob's size and digest.
//! Absent on purpose: threads and priorities. The caller has a thread for it and slows it down through the pace.

use std::io::{self, Read};

use shoal_chain::{ChainBuilder, ChunkProof, ClosedChain, FinishError, OpenChain, Overrun};
use shoal_types::BlobInfo;

use crate::Pace;

/// Large enough that a read's cost vanishes beside the hash's (0.2 ms), small enough that a pause between two is short.
const PIECE_BYTES: usize = 256 << 10;

/// Reads a blob from its first byte to its last and computes its chain. `proven` gets the proof of each chunk as soon as it is there, in
/// order, for whoever publishes links while a swarm waits for them. `pace` is called after each piece.
///
/// # Errors
/// If the bytes can't be read, are not the blob, or `pace` broke off.
pub fn compute_chain(
    mut bytes: impl Read,
    blob: BlobInfo,
    proven: &mut dyn FnMut(&ChunkProof),
    pace: &mut Pace<'_>,
) -> Result<ClosedChain, ComputeError> {
    let mut builder = ChainBuilder::new(blob);
    let mut chain = OpenChain::new(blob);
    let mut add = |proof: &ChunkProof| {
        chain.add(proof).expect("proofs of one builder join");
        proven(proof);
    };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match bytes.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ComputeError::Read(error)),
        };
        builder.push(&piece[..read], |proof| add(&proof))?;
        if pace(read as u64).is_break() {
            return Err(ComputeError::BrokenOff);
        }
    }
    add(&builder.finish()?);
    Ok(chain.close().expect("every chunk up to the last is proven"))
}

/// Why there is no chain.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The bytes can't be read.
    #[error("the blob can't be read: {0}")]
    Read(#[source] io::Error),
    /// There are more bytes than the blob has.
    #[error(transparent)]
    TooLong(#[from] Overrun),
    /// There are fewer, or they are others.
    #[error(transparent)]
    NotTheBlob(#[from] FinishError),
    /// The pace broke off.
    #[error("broken off")]
    BrokenOff,
}
