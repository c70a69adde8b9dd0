//! What peers say to each other and what an agent and its tracker say to each other: the messages, and their bytes in [`codec`].
//!
//! State: none.
//! Invariants: a message in memory has well-formed fields (digests, bitmaps, link runs), but nothing says that it is true, or that
//! it fits the blob it names: that is for who handles it to check.
//! Absent on purpose: bytes of chunks (they never enter a state machine), signatures' verification, connections.

pub mod codec;
mod contact;
mod frame;
mod peer;
mod tracker;

pub use contact::{Contact, NodeName, NodeNameError, node_id};
pub use frame::{Accepted, AnnounceOutcome, CloseReason, Hello, Notice, PeerFrame, Refusal, Versions};
pub use peer::{JoinFlags, Load, PeerMessage, RejectReason};
pub use tracker::{
    Announce, AnnounceEvent, AnnounceReply, Directive, LeaseGrant, LeaseRequest, LeaseState, OriginFailure, PeerInfo,
};
