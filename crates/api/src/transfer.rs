//! How nodes exchange content: what can be written, and what it comes to.
//!
//! State: none. Invariant: the presets' figures here are those of the engine's presets of the same name, which `docs/simulation.md` has found.
//! Absent on purpose: what belongs to a node (quota, limits on bytes a second), which are settings of the agent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shoal_types::ChunkSize;

use crate::{Problem, Verification};

/// How nodes exchange content. A preset gives all values; single values override it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = crate::rules::transfer()))]
pub struct TransferSpec {
    /// Where values that aren't given come from. Datacenter: fast links, short round trips. Classic: BitTorrent's own figures.
    pub preset: Preset,
    /// The unit of exchange: Auto (a 2048th of the blob, within 64Ki and 4Mi) or a power of two: 64Ki, 128Ki, 256Ki, 512Ki, 1Mi, 2Mi or 4Mi.
    /// Datacenter: Auto; Classic: 256Ki.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_size: Option<ChunkSizeSpec>,
    /// Nodes that a node is connected to. Datacenter and Classic: 40.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 512))]
    pub max_peers: Option<u32>,
    /// Nodes that a node sends to at a time. Datacenter: 4; Classic: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub upload_slots: Option<u32>,
    /// How often slots are dealt anew, in milliseconds. Datacenter: 100; Classic: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3_600_000))]
    pub rechoke_milliseconds: Option<u32>,
    /// How often the slot moves that a node gives without having got anything, in milliseconds; at least rechokeMilliseconds. Datacenter: 300; Classic: 30000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3_600_000))]
    pub optimistic_milliseconds: Option<u32>,
    /// Ranges that the node which fetches from the registry asks for at a time. Datacenter: 4; Classic: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub origin_connections: Option<u32>,
    /// When content may reach the runtime. Eager: as it comes, checked under the links of the node that fetches it. Strict: when its digest is proven.
    pub verification: Verification,
}

/// Where values that aren't given come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// Fast links, short round trips.
    #[default]
    Datacenter,
    /// BitTorrent's own figures.
    Classic,
}

/// The unit of exchange: Auto (a 2048th of the blob, within 64Ki and 4Mi) or a power of two: 64Ki, 128Ki, 256Ki, 512Ki, 1Mi, 2Mi or 4Mi.
/// Datacenter: Auto; Classic: 256Ki.
// One spelling each, so that the schema can list them. What describes the type is what the definition shows of the optional field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChunkSizeSpec {
    /// By the blob's size.
    Auto,
    /// 64 KiB.
    #[serde(rename = "64Ki")]
    Ki64,
    /// 128 KiB.
    #[serde(rename = "128Ki")]
    Ki128,
    /// 256 KiB.
    #[serde(rename = "256Ki")]
    Ki256,
    /// 512 KiB.
    #[serde(rename = "512Ki")]
    Ki512,
    /// 1 MiB.
    #[serde(rename = "1Mi")]
    Mi1,
    /// 2 MiB.
    #[serde(rename = "2Mi")]
    Mi2,
    /// 4 MiB.
    #[serde(rename = "4Mi")]
    Mi4,
}

impl ChunkSizeSpec {
    /// The size; `None` for one that goes by the blob's.
    #[must_use]
    pub fn fixed(self) -> Option<ChunkSize> {
        let bytes = match self {
            Self::Auto => return None,
            Self::Ki64 => 64 << 10,
            Self::Ki128 => 128 << 10,
            Self::Ki256 => 256 << 10,
            Self::Ki512 => 512 << 10,
            Self::Mi1 => 1 << 20,
            Self::Mi2 => 2 << 20,
            Self::Mi4 => 4 << 20,
        };
        ChunkSize::new(bytes).ok()
    }
}

/// What a [`TransferSpec`] comes to: every value there, each in its range.
///
/// The agent starts from the engine's preset and sets `slots` (as its senders, its sources and its uploads at once: as many flows leave a node as
/// reach it), `rechoke`, `optimistic` where the preset has an optimistic slot, and `max_peers`. The rest concerns the agent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The engine's preset.
    pub preset: Preset,
    /// The unit of exchange; `None`: by the blob's size.
    pub chunk_size: Option<ChunkSize>,
    /// Nodes that a node is connected to.
    pub max_peers: u16,
    /// Nodes that a node sends to at a time.
    pub slots: u16,
    /// How often slots are dealt.
    pub rechoke: Duration,
    /// How often the optimistic slot moves.
    pub optimistic: Duration,
    /// Ranges in flight at the origin.
    pub origin_connections: u16,
    /// When content may reach the runtime.
    pub verification: Verification,
}

impl Preset {
    /// The preset's own values.
    #[must_use]
    pub fn transfer(self) -> Transfer {
        let datacenter = Transfer {
            preset: self,
            chunk_size: None,
            max_peers: 40,
            slots: 4,
            rechoke: Duration::from_millis(100),
            optimistic: Duration::from_millis(300),
            origin_connections: 4,
            verification: Verification::Eager,
        };
        match self {
            Self::Datacenter => datacenter,
            Self::Classic => Transfer {
                chunk_size: ChunkSizeSpec::Ki256.fixed(),
                slots: 5,
                rechoke: Duration::from_secs(10),
                optimistic: Duration::from_secs(30),
                origin_connections: 1,
                ..datacenter
            },
        }
    }
}

impl Default for Transfer {
    fn default() -> Self {
        Preset::default().transfer()
    }
}

impl TransferSpec {
    /// The values that hold; what is wrong is added to `problems`, under `path`.
    pub(crate) fn check(&self, path: &str, problems: &mut Vec<Problem>) -> Transfer {
        let mut number = |name: &str, value: Option<u32>, range: std::ops::RangeInclusive<u32>, preset: u32| match value
        {
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let (low, high) = range.into_inner();
                let problem = format!("{value} is out of range: write {low} to {high}, or leave it out for {preset}");
                problems.push(Problem::new(format!("{path}.{name}"), problem));
                preset
            }
            None => preset,
        };
        let preset = self.preset.transfer();
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        let max_peers = number("maxPeers", self.max_peers, 1..=512, preset.max_peers.into());
        let slots = number("uploadSlots", self.upload_slots, 1..=64, preset.slots.into());
        let origin = number("originConnections", self.origin_connections, 1..=16, preset.origin_connections.into());
        let rechoke = number("rechokeMilliseconds", self.rechoke_milliseconds, 10..=3_600_000, millis(preset.rechoke));
        // A preset's value gives way to a longer interval; only what was written can contradict it.
        let optimistic = millis(preset.optimistic).max(rechoke);
        let optimistic = number("optimisticMilliseconds", self.optimistic_milliseconds, 10..=3_600_000, optimistic);
        if optimistic < rechoke {
            let problem =
                format!("{optimistic} is less than rechokeMilliseconds: write at least {rechoke}, or leave it out");
            problems.push(Problem::new(format!("{path}.optimisticMilliseconds"), problem));
        }
        // Each was checked to be at most 512.
        let narrow = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        Transfer {
            preset: self.preset,
            chunk_size: self.chunk_size.map_or(preset.chunk_size, ChunkSizeSpec::fixed),
            max_peers: narrow(max_peers),
            slots: narrow(slots),
            rechoke: Duration::from_millis(rechoke.into()),
            optimistic: Duration::from_millis(optimistic.into()),
            origin_connections: narrow(origin),
            verification: self.verification,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_override_the_preset() {
        let mut problems = Vec::new();
        let spec = TransferSpec {
            preset: Preset::Classic,
            upload_slots: Some(8),
            chunk_size: Some(ChunkSizeSpec::Auto),
            ..TransferSpec::default()
        };
        let expected = Transfer { slots: 8, chunk_size: None, ..Preset::Classic.transfer() };
        assert_eq!(spec.check("transfer", &mut problems), expected);
        assert_eq!(TransferSpec::default().check("transfer", &mut problems), Transfer::default());
        let spec = TransferSpec { rechoke_milliseconds: Some(400), ..TransferSpec::default() };
        assert_eq!(spec.check("transfer", &mut problems).optimistic, Duration::from_millis(400));
        assert_eq!(problems, []);
    }

    #[test]
    fn every_written_chunk_size_exists() {
        use ChunkSizeSpec::{Ki64, Ki128, Ki256, Ki512, Mi1, Mi2, Mi4};
        let sizes = [Ki64, Ki128, Ki256, Ki512, Mi1, Mi2, Mi4].map(|size| size.fixed().unwrap().bytes());
        assert_eq!(sizes, [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20]);
        assert_eq!(ChunkSizeSpec::Auto.fixed(), None);
    }

    #[test]
    fn impossible_values_say_what_to_write() {
        let cases = [
            (
                TransferSpec { max_peers: Some(0), ..TransferSpec::default() },
                "transfer.maxPeers: 0 is out of range: write 1 to 512, or leave it out for 40",
            ),
            (
                TransferSpec { upload_slots: Some(70_000), ..TransferSpec::default() },
                "transfer.uploadSlots: 70000 is out of range: write 1 to 64, or leave it out for 4",
            ),
            (
                TransferSpec { optimistic_milliseconds: Some(50), ..TransferSpec::default() },
                "transfer.optimisticMilliseconds: 50 is less than rechokeMilliseconds: write at least 100, or leave it out",
            ),
        ];
        for (spec, message) in cases {
            let mut problems = Vec::new();
            spec.check("transfer", &mut problems);
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
        }
    }
}
