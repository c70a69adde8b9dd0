//! Chunks of blobs: on disk, in memory, and in containerd's content store.
//!
//! ```text
//!                     ┌── DiskStore    own chunks in a directory, across restarts
//! agent ──> Store <───┼── MemoryStore  the same without a disk
//!                     └── FaultyStore  around either: slow, corrupt, full
//!
//! agent ──> RuntimeStore ──> either, and what containerd lends: its blobs, read in place
//!           containerd::ContentStore   those blobs; the growing ingests; what comes and goes
//!           compute_chain              the chain of a blob that lies there
//! ```
//!
//! State: a store's own chunks with the links under which each was proven, and the signed links that the agent gives it to keep.
//!
//! A chunk is in exactly one of these states:
//!
//! ```text
//!  Absent ──keep, with its proof──> Verified ──the node crashed──> Suspect ──recheck──> Verified
//!    ^                                 │                              │  └──────keep──────^
//!    └──────────── remove ─────────────┴────────── recheck fails ─────┘
//! ```
//!
//! Invariants:
//! - [`Store::read_at`] gives bytes of verified chunks only, and only from the file to which they were written: a verified chunk's
//!   bytes are never written again, and a removed blob's file is never used for its successor.
//! - Nothing is written to a store without a [`shoal_chain::ChunkProof`].
//! - A blob is sealed only if the proofs of all its chunks join: the first starts at the hash's initial state, each goes on where the
//!   one before it ends, and the last ends at the digest. Chunks that passed under false links don't join.
//! - A store takes in no chunk and no link beyond its quota, nor where less of its file system than [`Limits::keep_free`] would stay free;
//!   what a failed write has allocated is given back. What it notes about chunks that are here already needs no leave.
//!
//! # A disk store's directory
//!
//! ```text
//! format                                     "shoal-store 1"; a store of a later version is refused
//! lock                                       flock'ed by the one process that uses the store; holds its id
//! blobs/sha256-<hex>-<chunk size>-<n>.data     the blob's bytes, each chunk at its place; sparse
//! blobs/sha256-<hex>-<chunk size>-<n>.journal  what is known of them
//! ```
//!
//! `n` counts the blobs that the store has begun: a blob that comes again after its removal gets other files. A journal is a sequence of
//! records:
//!
//! ```text
//! kind u8 | length u32 | payload | check: first 8 bytes of SHA-256(digest, chunk size, offset, kind, length, payload)
//!
//! 1 Blob    the blob's size; every journal's first record
//! 2 Boot    the boot id of the node: what follows was written under it
//! 3 Proven  chunk, link before, link after: the chunk's bytes are in the data file
//! 4 Links   bytes that the agent gave to keep
//! 5 Sealed  all proofs join
//! ```
//!
//! Numbers are little-endian. A reader ends at the first record that isn't whole, or whose check (which no record of another blob or place
//! fits) fails, and cuts off the rest.
//!
//! # What survives
//!
//! *SIGKILL at any moment:* everything whose `keep` had returned. The page cache outlives the process, so order is enough and nothing is
//! synced: a chunk's bytes are in the file before its record is in the journal; a journal's first record is there before a data file; a
//! journal goes before its data file, and a data file without journal is deleted when the store is opened. The file `format` alone is synced.
//!
//! *A crash of the node:* the order in which the kernel wrote pages is unknown, so every chunk that was recorded under another boot id is
//! suspect, until its bytes were hashed again from the link before it to the link after it. Files that crashed half-written are thus
//! noticed chunk by chunk.
//!
//! Absent on purpose: async (callers have blocking threads for it), a clock in decisions, popularity and replicas (the agent knows them
//! and [`Store::make_room`] asks), and the question who may have a blob.

pub mod containerd;

mod beside;
mod compute;
mod disk;
mod error;
mod eviction;
mod faulty;
mod limits;
mod memory;
mod proofs;
mod store;

pub use beside::RuntimeStore;
pub use compute::{ComputeError, compute_chain};
pub use disk::{BootId, DiskStore, OpenError};
pub use error::{Shortage, StoreError};
pub use eviction::{Candidate, Need, Standing, plan_eviction};
pub use faulty::{Faults, FaultyStore};
pub use limits::{Limits, Percent};
pub use memory::MemoryStore;
pub use store::{Pace, Store, StoredBlob, Usage};
