//! The messages as bytes.
//!
//! ```text
//! frame:      u32 length of what follows | u8 kind | body
//! one body:   u8 version | frames                      (agent ↔ tracker: announces, their outcomes)
//! ```
//!
//! Numbers are big endian, lists have a u32 count in front, options and enums a u8 tag. Between peers frames follow each other on
//! the connection, a chunk's bytes after the `Slice` frames; between agent and tracker they are put into bodies.
//!
//! Neighbouring releases understand each other: a reader ignores what follows after the fields that it knows, and skips frames of a
//! kind, or with a tag inside, that it doesn't know ([`Decoded::Unknown`]).
//!
//! State: none.
//! Invariants: what is decoded is well-formed. Reading allocates no more than a small multiple of the bytes that are there: a count
//! is believed only if so many items fit into what follows.
//! Absent on purpose: serde, so that the format is what stands here; chunks' bytes; sockets.

mod frame;
mod limits;
mod messages;
mod raw;
mod tracker;
mod values;

pub use frame::{Decoded, decode_frame, encode_frame};
pub use limits::{MAX_BATCH_BYTES, MAX_BODY_BYTES, MAX_CONTACT_BYTES, MAX_CONTACTS, MAX_RUN_BYTES};
pub use tracker::{
    BODY_VERSION, decode_announces, decode_notice, decode_outcomes, encode_announces, encode_notice, encode_outcomes,
};

/// Why a message can't be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Nobody would read it.
    #[error("a message of {bytes} bytes (at most {limit})")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A frame without a kind.
    #[error("an empty frame")]
    Empty,
    /// More than any message has.
    #[error("a frame of {bytes} bytes (at most {limit})")]
    TooLong {
        /// How long it says to be.
        bytes: u64,
        /// How long it may be.
        limit: usize,
    },
    /// It ends in the middle of a field, or says to have more items than bytes.
    #[error("a message of kind {kind} ends in the middle")]
    Truncated {
        /// The frame's kind.
        kind: u8,
    },
    /// A field has a value that it can't have.
    #[error("a message of kind {kind} has an impossible {field}")]
    Invalid {
        /// The frame's kind.
        kind: u8,
        /// The field.
        field: &'static str,
    },
    /// A body of another version than [`BODY_VERSION`].
    #[error("a body of version {found} (this release reads {BODY_VERSION})")]
    Version {
        /// The version.
        found: u8,
    },
    /// A body ends in the middle of a frame, or has no version.
    #[error("a body ends in the middle of a frame")]
    IncompleteBody,
}

#[cfg(test)]
mod tests;
