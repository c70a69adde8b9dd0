//! Everything that a scenario can turn: the presets' values, and what goes wrong.
//!
//! State: none, values. Invariants: a preset alone is an undisturbed burst on equal links.
//! Absent on purpose: the number of nodes, the size and the seed, which every run is given anyway.

use std::time::Duration;

use clap::ValueEnum;
use shoal_swarm::Config;
use shoal_types::ChunkSize;

use super::units::Share;
use crate::setup::{Costs, TEN_GIGABIT};

/// A system to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Preset {
    /// What agents do by default.
    #[default]
    Shoal,
    /// BitTorrent's textbook: 256 KiB chunks, slots dealt every 10 s, an optimistic one every 30 s.
    Classic,
    /// 4 MiB chunks, 10 peers, random order, 3 requests in flight, nobody choked, an announce every 3 s; the origin is a peer.
    KrakenPolicy,
    /// No exchange: everybody fetches from the origin.
    ClientServer,
}

impl Preset {
    pub(crate) const ALL: [Self; 4] = [Self::Shoal, Self::Classic, Self::KrakenPolicy, Self::ClientServer];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Shoal => "shoal",
            Self::Classic => "classic",
            Self::KrakenPolicy => "kraken-policy",
            Self::ClientServer => "client-server",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Shoal => "what agents do by default",
            Self::Classic => {
                "BitTorrent's textbook: 256 KiB chunks, slots dealt every 10 s, an optimistic one every 30 s"
            }
            Self::KrakenPolicy => {
                "4 MiB chunks, 10 peers, random order, 3 requests in flight, nobody choked; the origin is one of the peers"
            }
            Self::ClientServer => "no exchange: every node fetches from the origin",
        }
    }
}

/// How a blob of this size is cut, if nothing else is set.
pub(crate) fn chunk_size(preset: Preset, size_bytes: u64) -> ChunkSize {
    match preset {
        Preset::Classic => ChunkSize::new(256 << 10).unwrap_or(ChunkSize::MIN),
        Preset::KrakenPolicy | Preset::ClientServer => ChunkSize::MAX,
        Preset::Shoal => ChunkSize::for_blob(size_bytes),
    }
}

/// How blobs are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    /// As the preset does.
    Preset,
    /// Into chunks of this size.
    Size(ChunkSize),
    /// Into about so many chunks.
    Chunks(u64),
}

/// What goes wrong. Times are fractions of the time that the last node takes when nothing does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) liars: Share,
    pub(crate) framers: Share,
    pub(crate) riders: Share,
    pub(crate) lying_lead: bool,
    pub(crate) stragglers: Share,
    /// A straggler's uplink, as a fraction of the others'.
    pub(crate) straggler_uplink: f64,
    pub(crate) killed: Share,
    pub(crate) killed_at: f64,
    pub(crate) lead_dies_at: Option<f64>,
    pub(crate) lead_vanishes_at: Option<f64>,
    pub(crate) tracker_dies_at: Option<f64>,
    pub(crate) origin_stops_at: Option<f64>,
    pub(crate) origin_outage: Duration,
}

impl Trouble {
    pub(crate) const NONE: Self = Self {
        liars: Share::NONE,
        framers: Share::NONE,
        riders: Share::NONE,
        lying_lead: false,
        stragglers: Share::NONE,
        straggler_uplink: 0.25,
        killed: Share::NONE,
        killed_at: 0.5,
        lead_dies_at: None,
        lead_vanishes_at: None,
        tracker_dies_at: None,
        origin_stops_at: None,
        origin_outage: Duration::from_millis(500),
    };

    /// Whether a run has to be compared with the one in which nothing goes wrong. Free riders alone are compared with the others
    /// of their own run.
    pub(crate) fn disturbs(&self) -> bool {
        let quiet = Self {
            riders: self.riders,
            straggler_uplink: self.straggler_uplink,
            killed_at: self.killed_at,
            origin_outage: self.origin_outage,
            ..Self::NONE
        };
        *self != quiet
    }
}

/// All that can be set about a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Knobs {
    pub(crate) preset: Preset,
    pub(crate) config: Config,
    pub(crate) cut: Cut,
    pub(crate) round_trip: Duration,
    pub(crate) uplink: f64,
    pub(crate) downlink: f64,
    pub(crate) origin_rate: f64,
    pub(crate) origin_connection_rate: Option<f64>,
    /// The origin takes part in the exchange with every blob, instead of answering whoever leads.
    pub(crate) origin_is_peer: bool,
    pub(crate) zones: usize,
    /// The link between two zones each way, as a fraction of one zone's uplinks together; none if it never limits.
    pub(crate) zone_link: Option<f64>,
    pub(crate) standing_mesh: bool,
    pub(crate) announce_every: Option<Duration>,
    pub(crate) cores: usize,
    /// The last node comes after this multiple of the bound's time, the others evenly before it.
    pub(crate) arrivals: f64,
    /// Instead of one blob: so many images of 8 layers, one for each node.
    pub(crate) images: usize,
    pub(crate) trouble: Trouble,
}

impl Knobs {
    /// A preset's undisturbed burst.
    pub(crate) fn of(preset: Preset) -> Self {
        let (config, announce_every) = match preset {
            Preset::Shoal | Preset::ClientServer => (Config::default(), None),
            Preset::Classic => (Config::classic(), None),
            Preset::KrakenPolicy => (Config::kraken_policy(), Some(Duration::from_secs(3))),
        };
        Self {
            preset,
            config,
            cut: Cut::Preset,
            round_trip: Duration::from_micros(500),
            uplink: TEN_GIGABIT,
            downlink: TEN_GIGABIT,
            origin_rate: TEN_GIGABIT,
            origin_connection_rate: None,
            origin_is_peer: preset == Preset::KrakenPolicy,
            zones: 1,
            zone_link: None,
            standing_mesh: true,
            announce_every,
            cores: Costs::CORES,
            arrivals: 0.0,
            images: 0,
            trouble: Trouble::NONE,
        }
    }

    /// The same with nothing going wrong.
    pub(crate) fn undisturbed(&self) -> Self {
        Self { trouble: Trouble { riders: self.trouble.riders, ..Trouble::NONE }, ..self.clone() }
    }

    /// How a blob of this size is cut.
    pub(crate) fn chunk_size(&self, size_bytes: u64) -> ChunkSize {
        match self.cut {
            Cut::Preset => chunk_size(self.preset, size_bytes),
            Cut::Size(size) => size,
            Cut::Chunks(chunks) => ChunkSize::for_blob_with(size_bytes, chunks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preset_cuts_in_its_own_way() {
        let bytes = |preset, size| chunk_size(preset, size).bytes();
        assert_eq!(bytes(Preset::Shoal, 1 << 30), ChunkSize::for_blob(1 << 30).bytes());
        assert_eq!(bytes(Preset::Shoal, 32 << 20), 64 << 10);
        assert_eq!(bytes(Preset::Classic, 1 << 30), 256 << 10);
        assert_eq!(bytes(Preset::KrakenPolicy, 32 << 20), 4 << 20);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for preset in Preset::ALL {
            assert_eq!(Preset::from_str(preset.name(), false), Ok(preset));
        }
    }

    #[test]
    fn only_what_goes_wrong_disturbs() {
        assert!(!Trouble::NONE.disturbs());
        assert!(!Trouble { riders: Share::Fraction(0.3), killed_at: 0.1, ..Trouble::NONE }.disturbs());
        assert!(Trouble { killed: Share::Count(1), ..Trouble::NONE }.disturbs());
        let mut knobs = Knobs::of(Preset::Shoal);
        knobs.trouble.lying_lead = true;
        assert!(knobs.trouble.disturbs() && !knobs.undisturbed().trouble.disturbs());
    }
}
