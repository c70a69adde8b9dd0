//! What can be set about the transport, with the reason of each default.
//!
//! State: none.
//! Absent on purpose: what the exchange decides (how many neighbours, which chunks): that is the engine's configuration.

use std::time::Duration;

/// The transport's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections that stand at a time. The engine keeps at most twice its 40 neighbours; the lookup without a tracker asks some
    /// members more.
    pub max_connections: usize,
    /// Connections of others that are in their handshake at a time: a burst of a whole neighbourhood.
    pub max_handshakes: usize,
    /// Of those, from one address: a node opens one, and a host may have several agents behind one address.
    pub max_handshakes_per_address: usize,
    /// A connection that isn't ready after this time isn't made: several round trips and retransmissions.
    pub handshake_within: Duration,
    /// A peer from which nothing came for so long is pinged …
    pub ping_after: Duration,
    /// … and for so long, is taken for dead. Also the time in which a peer must take a piece of what is sent to it.
    pub dead_after: Duration,
    /// Bytes of messages that wait for one peer. A join of the largest blob has 128 KiB, those of a hundred usual blobs 40 KiB.
    pub queued_bytes: usize,
    /// Chunks that wait for one peer: the engine sends one at a time, and at most 64.
    pub queued_chunks: usize,
    /// Bytes that the kernel keeps unsent for one connection: with four chunks leaving at a time that is 100 µs of a 10 Gbit/s link, and
    /// 20 ms of one of 50 Mbit/s. Messages wait behind them: with four times as much, and chunks in one piece, 8 nodes at
    /// 50 Mbit/s took 4 % longer.
    pub unsent_bytes: u32,
    /// Bytes a second that leave, all connections together.
    pub upload_limit: Option<u64>,
    /// Bytes a second that come, all connections together.
    pub download_limit: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 128,
            max_handshakes: 64,
            max_handshakes_per_address: 16,
            handshake_within: Duration::from_secs(5),
            ping_after: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            queued_bytes: 4 << 20,
            queued_chunks: 128,
            unsent_bytes: 32 << 10,
            upload_limit: None,
            download_limit: None,
        }
    }
}
