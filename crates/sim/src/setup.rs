//! What is simulated: nodes, links, blobs, who wants what when, who misbehaves, and what goes wrong.
//!
//! State: none, a description. A scenario makes one from its name, its size and a seed; the world runs it.

use std::time::Duration;

use shoal_swarm::Config;
use shoal_types::{ChunkSize, Time};

/// 10 Gbit/s in bytes a second.
pub(crate) const TEN_GIGABIT: f64 = 1.25e9;

/// How a node behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// As the engine does.
    #[default]
    Honest,
    /// Corrupts every chunk that it sends.
    Liar,
    /// Says to have everything, has nothing, and accuses honest nodes.
    Framer,
    /// Takes and never gives.
    Rider,
    /// Invents content and links that fit, if it gets the lease.
    LyingLead,
    /// The origin as one of the peers: it has every blob from the start, sends at the origin's rate and wants nothing. Nobody fetches from
    /// the registry then.
    Origin,
}

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSetup {
    pub(crate) zone: usize,
    pub(crate) up: f64,
    pub(crate) down: f64,
    pub(crate) role: Role,
    /// The blobs that it wants, in layer order.
    pub(crate) wants: Vec<usize>,
    pub(crate) pulls_at: Time,
}

/// One blob.
#[derive(Clone, Debug)]
pub(crate) struct BlobSetup {
    pub(crate) size_bytes: u64,
    pub(crate) chunk_size: ChunkSize,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// These nodes die; their connections close, or nobody notices.
    Kill { nodes: Vec<u32>, silently: bool },
    /// Whoever fetches from the origin dies.
    KillLead { silently: bool },
    /// The tracker is gone for good.
    TrackerDies,
    /// The origin stops sending.
    OriginStops,
    /// The origin sends again.
    OriginResumes,
}

/// A whole simulation.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) nodes: Vec<NodeSetup>,
    pub(crate) blobs: Vec<BlobSetup>,
    pub(crate) config: Config,
    pub(crate) seed: u64,
    pub(crate) round_trip: Duration,
    pub(crate) origin_up: f64,
    pub(crate) origin_per_connection: Option<f64>,
    /// The link between each two zones, one way.
    pub(crate) between_zones: Option<f64>,
    /// Nobody exchanges anything: each node fetches from the origin.
    pub(crate) client_server: bool,
    /// Neighbours have connections before the pull begins, as they have in a cluster where agents run for days.
    pub(crate) standing_mesh: bool,
    /// How often nodes announce.
    pub(crate) announce_every: Option<Duration>,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// Cores that an agent may use for hashing.
    pub(crate) cores: usize,
    /// After so much virtual time the run is given up.
    pub(crate) give_up: Time,
}

/// What a node pays, as the model has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs;

impl Costs {
    /// Round trips for a new connection: TCP and TLS 1.3.
    pub(crate) const CONNECT_ROUND_TRIPS: u32 = 2;
    /// The handshake's work at each end.
    pub(crate) const CONNECT_CPU: Duration = Duration::from_millis(1);
    /// The tracker's work on an announce.
    pub(crate) const ANNOUNCE_CPU: Duration = Duration::from_micros(5);
    /// Bytes hashed a second on one core.
    pub(crate) const HASH_RATE: f64 = 1.2e9;
    /// A chunk is hashed in pieces of this size as they come.
    pub(crate) const PIECE: u64 = 64 << 10;
    /// Cores that an agent may use for hashing, unless the setup says otherwise.
    pub(crate) const CORES: usize = 2;
}
