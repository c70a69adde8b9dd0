//! Connections between agents: TCP, TLS 1.3 with the nodes' certificates, frames, and chunks' bytes beside them.
//!
//! ```text
//!   driver ── send, send_chunk, connect, close ──> PeerNet ──> a queue a peer ──> write ──┐
//!   driver <── Events ────────────────────────────────────────────────── read <───────────┤ one task a connection
//!   store  <── IncomingChunk::put, OutgoingChunk::next ───────────────────────────────────┘
//! ```
//!
//! One connection stands between two nodes, for all blobs. Messages and chunks leave in the order in which they were given, so that
//! links are there before the chunk that they verify; connections don't wait for each other, except for the node's rate limit.
//! Chunks' bytes go to the store while they come, on the connection's task; the driver hears of the beginning and the end.
//!
//! State: the connections, and what waits to be sent on them.
//! Invariants: at most one connection a node counts; everything that a peer can make this side keep is bounded; what a peer sends
//! that it shouldn't ends its connection and is counted.
//! Absent on purpose: what messages mean, which node to connect to, trying again, and TLS for the tracker (its client's).

mod connection;
mod counters;
mod event;
mod handshake;
mod identity;
mod net;
mod outgoing;
mod rate;
mod read;
mod registry;
mod secure;
mod settings;
mod store;
mod tls;
mod write;

#[cfg(test)]
mod tests;

pub use counters::CountersSnapshot;
pub use event::{CloseCause, ConnectError, Connected, Event, Malformed, PeerId};
pub use identity::{Identity, IdentityError, NodeCertificate};
pub use net::{Events, Local, PeerNet, Security};
pub use settings::Settings;
pub use store::{ChunkStore, IncomingChunk, OutgoingChunk};
