//! What can be chosen about the exchange. Each mechanism is a value here, so that the simulator can compare it with its alternative.
//!
//! State: none. Invariant: [`Config::validate`] holds for every preset.
//! Absent on purpose: per-node limits that only the driver can enforce (memory for chunks in flight, file descriptors).

use std::time::Duration;

/// In which order a leech asks for chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkOrder {
    /// The chunk that fewest neighbours have, ties broken at random.
    RarestFirst,
    /// Any chunk.
    Random,
    /// The first missing chunk: for comparison.
    Sequential,
}

/// In which order a sender serves what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeOrder {
    /// The chunk that fewest neighbours have; for a seed that is super-seeding.
    RarestFirst,
    /// As the requests came.
    Fifo,
}

/// Who is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// A sender keeps places for a few neighbours and serves them side by side; a neighbour takes up a place only while few
    /// others serve it, and gives it back when there is nothing to get. So as many flows leave each node as reach it, and no link
    /// is crowded while another one idles. Places go to those that gave first; those that only take get what is left over.
    Credit {
        /// Neighbours that are served at a time.
        slots: u16,
        /// Neighbours that one lets itself be served by at a time.
        sources: u16,
        /// A place without anything to get is given back after this time, or after that of a chunk, if that is longer.
        idle: Duration,
        /// How often a place moves to a neighbour that is left behind.
        rechoke: Duration,
        /// How many chunks a peer that gave nothing yet may take before it counts as one that only takes.
        allowance_chunks: u32,
    },
    /// BitTorrent's rule: every `rechoke` the peers that gave most are served, and one more, drawn anew every `optimistic`.
    TitForTat {
        /// How many peers are served at a time, the optimistic one among them.
        slots: u16,
        /// How often the slots are dealt.
        rechoke: Duration,
        /// How often the optimistic slot moves.
        optimistic: Duration,
    },
    /// Everybody is served alike.
    Open,
}

/// The exchange's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// In which order a leech asks.
    pub order: ChunkOrder,
    /// So many first chunks are drawn at random among the rare ones, so that newcomers don't all want the same.
    pub random_first_chunks: u32,
    /// Of a hundred choices so many go to the first chunk that a blob's reader lacks, instead of the rarest. None by default: see the
    /// simulator's page for what it costs.
    pub stream_percent: u8,
    /// In which order a sender serves.
    pub serve_order: ServeOrder,
    /// Who is served.
    pub serving: Serving,
    /// Chunks that are being sent at a time. More make every hop of a chunk's spread longer.
    pub uploads_at_once: u16,
    /// Of those, to one neighbour.
    pub uploads_per_link: u16,
    /// Those who have a place are told of a chunk when it begins to arrive, and may ask for it before it is here.
    pub promises: bool,
    /// Sends another chunk than the one asked for, if that has got around and nobody has the other.
    pub substitute: bool,
    /// Chunks that wait to be sent to one peer, at most; more are rejected.
    pub queued_per_peer: u16,
    /// Neighbours that are connected to, for all blobs together.
    pub max_peers: u16,
    /// Chunks asked for at one neighbour: at least so many …
    pub inflight_chunks: u16,
    /// … and so many bytes, as far as they come within a few milliseconds …
    pub inflight_bytes: u32,
    /// … and so many times what it brings in a round trip …
    pub inflight_round_trips: u16,
    /// … and never more than this.
    pub inflight_per_peer: u16,
    /// Duplicate requests in the end, in percent of the blob's chunks; at least 1 where it isn't 0.
    pub endgame_percent: u8,
    /// A peer that owes a chunk and sends nothing for so long loses its requests.
    pub snub_after: Duration,
    /// New chunks are told at most once in this time, and at most once for each two chunks of a 10 Gbit/s link; at zero each is told at
    /// once.
    pub have_interval: Duration,
    /// A leech without any progress for so long asks for a lease of its own. Without a tracker it takes one by itself after twice that, and up
    /// to twice that more, drawn at random.
    pub impatient_after: Duration,
    /// In a zone with a gateway the others ask across after so long without progress.
    pub zone_patience: Duration,
    /// A lead fetches chunks that somebody should have after so long without a neighbour that has them.
    pub hole_patience: Duration,
    /// A lead whose uplink turns out to be too slow gives its lease back.
    pub lead_yields: bool,
    /// A lead tells the tracker so often how far it is.
    pub lead_report: Duration,
    /// Peers that are asked for in an announce.
    pub want_peers: u16,
    /// Bytes a second that may leave, if not all that the link carries.
    pub upload_limit: Option<u64>,
    /// Bytes a second that may come from peers, if not all that the link carries.
    pub download_limit: Option<u64>,
}

impl Default for Config {
    /// The preset for a data centre, as `docs/simulation.md` has found it.
    fn default() -> Self {
        Self {
            order: ChunkOrder::RarestFirst,
            random_first_chunks: 4,
            stream_percent: 0,
            serve_order: ServeOrder::RarestFirst,
            serving: Serving::Credit {
                slots: 4,
                sources: 4,
                idle: Duration::from_millis(3),
                rechoke: Duration::from_millis(100),
                allowance_chunks: 2,
            },
            uploads_at_once: 4,
            uploads_per_link: 1,
            promises: true,
            substitute: true,
            queued_per_peer: 64,
            max_peers: 40,
            inflight_chunks: 2,
            inflight_bytes: 384 << 10,
            inflight_round_trips: 2,
            inflight_per_peer: 64,
            endgame_percent: 1,
            snub_after: Duration::from_secs(1),
            have_interval: Duration::from_micros(200),
            impatient_after: Duration::from_secs(5),
            zone_patience: Duration::from_millis(250),
            hole_patience: Duration::from_millis(100),
            lead_yields: true,
            lead_report: Duration::from_millis(100),
            want_peers: 50,
            upload_limit: None,
            download_limit: None,
        }
    }
}

impl Config {
    /// BitTorrent's own figures: four slots, dealt every 10 s, the optimistic one every 30 s, five requests a peer.
    #[must_use]
    pub fn classic() -> Self {
        Self {
            serve_order: ServeOrder::Fifo,
            serving: Serving::TitForTat {
                slots: 5,
                rechoke: Duration::from_secs(10),
                optimistic: Duration::from_secs(30),
            },
            uploads_at_once: 5,
            uploads_per_link: 1,
            promises: false,
            substitute: false,
            lead_yields: false,
            inflight_chunks: 5,
            inflight_bytes: 0,
            inflight_per_peer: 5,
            // Waiting for a slot is no stall.
            hole_patience: Duration::from_secs(30),
            ..Self::default()
        }
    }

    /// Kraken's policy, as its source has it: ten connections, three requests on each, random pieces, nobody choked. Whatever is asked of
    /// an agent goes out as it came, on each connection one piece after the other and on all of them side by side. A piece is told at
    /// once.
    #[must_use]
    pub fn kraken_policy() -> Self {
        Self {
            order: ChunkOrder::Random,
            random_first_chunks: 0,
            serve_order: ServeOrder::Fifo,
            serving: Serving::Open,
            // All connections: those opened by others too.
            uploads_at_once: 20,
            uploads_per_link: 1,
            promises: false,
            substitute: false,
            lead_yields: false,
            max_peers: 10,
            inflight_chunks: 3,
            inflight_bytes: 0,
            inflight_round_trips: 0,
            inflight_per_peer: 3,
            have_interval: Duration::ZERO,
            ..Self::default()
        }
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The name of the first value that doesn't, and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let slots = match self.serving {
            Serving::TitForTat { slots, rechoke, optimistic } => {
                if rechoke.is_zero() || optimistic < rechoke {
                    return Err(ConfigError { name: "rechoke", expected: "more than 0 and at most optimistic" });
                }
                slots
            }
            Serving::Credit { slots, sources, .. } => slots.min(sources),
            Serving::Open => 1,
        };
        let checks = [
            ("slots", "at least 1, as sources must", slots >= 1),
            ("uploads_per_link", "1 to 64", (1..=64).contains(&self.uploads_per_link)),
            ("uploads_at_once", "1 to 64", (1..=64).contains(&self.uploads_at_once)),
            ("queued_per_peer", "1 to 1024", (1..=1024).contains(&self.queued_per_peer)),
            ("max_peers", "1 to 512", (1..=512).contains(&self.max_peers)),
            ("inflight_chunks", "1 to 4096", (1..=4096).contains(&self.inflight_chunks)),
            ("inflight_per_peer", "1 to 1024", (1..=1024).contains(&self.inflight_per_peer)),
            ("stream_percent", "0 to 100", self.stream_percent <= 100),
            ("endgame_percent", "0 to 100", self.endgame_percent <= 100),
            ("snub_after", "at least 10 ms", self.snub_after >= Duration::from_millis(10)),
            ("upload_limit", "at least 1", self.upload_limit != Some(0)),
            ("download_limit", "at least 1", self.download_limit != Some(0)),
        ];
        match checks.iter().find(|(_, _, holds)| !holds) {
            Some(&(name, expected, _)) => Err(ConfigError { name, expected }),
            None => Ok(()),
        }
    }
}

/// A setting that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}")]
pub struct ConfigError {
    /// The setting.
    pub name: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_nonsense_is_named() {
        for preset in [Config::default(), Config::classic(), Config::kraken_policy()] {
            assert_eq!(preset.validate(), Ok(()));
        }
        let error = Config { uploads_at_once: 0, ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "uploads_at_once must be 1 to 64");
    }
}
