//! The SHA-256 (and SHA-512) chain: one pass of the ordinary hash, cut at the chunks, proves each chunk on its own.
//!
//! A blob's digest is a chain of block compressions and a chunk is a whole number of blocks. The *link* of chunk i is the hash
//! state after it. Chunk i is right if compressing it from the link of chunk i − 1 (the initial state for chunk 0) gives the link
//! of chunk i; for the last chunk, with the hash's padding, the result must be the digest. When every chunk has passed, the
//! digest itself has been verified, in whatever order the chunks came.
//!
//! ```text
//! bytes in order ───> ChainBuilder ──┐
//!                                    ├── ChunkProof ──> OpenChain ── every chunk proven ──> ClosedChain
//! a chunk and its ──> ChunkVerifier ─┘
//! two links           verify_chunk
//! ```
//!
//! State: none beyond the values that callers hold.
//! Invariants: links of one batch have one algorithm; a [`VerifiedLinks`] exists only if its signature was checked; a
//! [`ChunkProof`] exists only if bytes were hashed; a [`ClosedChain`] exists only if every one of its chunks has a proof.
//! Absent on purpose: I/O, threads, keys, memory for chunks, and any opinion about who may publish links.

mod batch;
mod builder;
mod chain;
mod hasher;
mod link;
mod open;
mod proof;
mod verifier;

pub use batch::{ForgedLinks, LinkBatch, LinkVerifier, Signature, SignedLinks, VerifiedLinks};
pub use builder::{ChainBuilder, FinishError, Overrun};
pub use chain::{Chain, ChainError, ClosedChain};
pub use link::{Link, LinkError, LinkRun};
pub use open::{OpenChain, ProofError, StillOpen};
pub use proof::{ChunkProof, StartError};
pub use verifier::{BadChunk, ChunkVerifier, verify_chunk};
