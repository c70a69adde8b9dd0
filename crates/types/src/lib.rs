//! The words every other crate speaks: digests, chunk geometry, nodes, zones, time, sets of chunks, seeded randomness.
//!
//! State: none. Everything here is a value.
//! Invariants: a value that exists is valid; constructors validate, fields are private.
//! Absent on purpose: I/O, clocks, hashing of content (that is `shoal-chain`), and anything that decides policy.

mod chunk_set;
mod digest;
mod geometry;
mod node;
mod rng;
mod time;

pub use chunk_set::{ChunkSet, ChunkSetError};
pub use digest::{Algorithm, Digest, DigestError};
pub use geometry::{BlobInfo, BlobKey, ByteRange, ChunkIndex, ChunkSize, Geometry, GeometryError};
pub use node::{NodeId, Zone, ZoneError};
pub use rng::Rng;
pub use time::Time;
