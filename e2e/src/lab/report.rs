//! What the lab found.
//!
//! State: none. Invariants: the lines and the JSON object say the same.

use serde::Serialize;
use serde_json::Value;

use super::faults::Fault;
use super::pulls::Outcome;
use super::usage::Used;
use crate::figures::{Times, float, rounded};

/// A round: all nodes with cold stores, once.
#[derive(Debug)]
pub(super) struct Round {
    /// How the pulls went.
    pub(super) outcome: Outcome,
    /// Meanwhile.
    pub(super) used: Used,
    /// Requests for manifests at the origin.
    pub(super) manifest_requests: u64,
}

/// What a round is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// How many nodes pull.
    pub(super) nodes: u32,
    /// The image.
    pub(super) bytes: u64,
    /// The least time.
    pub(super) bound: f64,
    /// What the origin's link carries for a byte of payload.
    pub(super) wire_per_payload: f64,
}

/// The result. Times in seconds, rates in Mbit/s of payload.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) shoal: Figures,
    /// What one flow from the origin to a node carried in this run.
    pub(super) goodput_origin_mbit: f64,
    /// What one flow from a node to another carried.
    pub(super) goodput_nodes_mbit: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) direct: Option<Direct>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) libtorrent: Option<Libtorrent>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<Faulty>,
}

/// A round's figures.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) t_last: f64,
    pub(super) p50: f64,
    pub(super) bound: f64,
    pub(super) t_last_over_bound: f64,
    pub(super) origin_copies: f64,
    /// Requests for manifests at the origin, of all nodes together.
    pub(super) manifest_requests: u64,
    pub(super) max_over_p50: f64,
    pub(super) cpu_seconds_per_gb: f64,
    pub(super) rss_max_mib: u64,
    pub(super) box_cpu_percent: f64,
}

/// All nodes straight from the origin, in the same run.
#[derive(Debug, Serialize)]
pub(super) struct Direct {
    pub(super) direct_t_last: f64,
    pub(super) t_last_over_direct: f64,
}

/// Medians of several pairs of rounds, one of Shoal and one of libtorrent each.
#[derive(Debug, Serialize)]
pub(super) struct Libtorrent {
    pub(super) pairs: usize,
    pub(super) libtorrent_t_last: f64,
    pub(super) libtorrent_over_bound: f64,
    pub(super) libtorrent_origin_copies: f64,
    pub(super) libtorrent_cpu_seconds_per_gb: f64,
    pub(super) libtorrent_box_cpu_percent: f64,
    pub(super) t_last_over_libtorrent: f64,
}

/// Rounds with a fault beside the undisturbed one, which the other figures are of.
#[derive(Debug, Serialize)]
pub(super) struct Faulty {
    pub(super) fault: String,
    /// Nodes that were to have everything in the end.
    pub(super) fault_expected: usize,
    /// Those that have.
    pub(super) fault_finished: usize,
    pub(super) fault_t_last: f64,
    pub(super) t_last_over_undisturbed: f64,
    pub(super) fault_origin_copies: f64,
    /// Pulls that failed and were tried again.
    pub(super) fault_failures: u32,
    /// Wrong bytes that clients were given, where they compared.
    pub(super) fault_wrong_bytes: u64,
    /// Chunks whose links refuted them, of all honest nodes together.
    pub(super) fault_chunks_wrong: u64,
    /// Nodes that an honest node refuses for good, on average.
    pub(super) fault_bans: f64,
}

const KEYS: [&str; 31] = [
    "t_last",
    "p50",
    "bound",
    "t_last_over_bound",
    "origin_copies",
    "manifest_requests",
    "max_over_p50",
    "cpu_seconds_per_gb",
    "rss_max_mib",
    "box_cpu_percent",
    "goodput_origin_mbit",
    "goodput_nodes_mbit",
    "direct_t_last",
    "t_last_over_direct",
    "pairs",
    "libtorrent_t_last",
    "libtorrent_over_bound",
    "libtorrent_origin_copies",
    "libtorrent_cpu_seconds_per_gb",
    "libtorrent_box_cpu_percent",
    "t_last_over_libtorrent",
    "fault",
    "fault_expected",
    "fault_finished",
    "fault_t_last",
    "t_last_over_undisturbed",
    "fault_origin_copies",
    "fault_failures",
    "fault_wrong_bytes",
    "fault_chunks_wrong",
    "fault_bans",
];

impl Round {
    /// Its figures.
    pub(super) fn figures(&self, scale: &Scale) -> anyhow::Result<Figures> {
        let (times, bytes) = (self.outcome.times()?, float(scale.bytes));
        Ok(Figures {
            t_last: rounded(times.last()),
            p50: rounded(times.p50()),
            bound: rounded(scale.bound),
            t_last_over_bound: rounded(times.last() / scale.bound),
            origin_copies: self.origin_copies(scale),
            manifest_requests: self.manifest_requests,
            max_over_p50: rounded(times.last() / times.p50()),
            cpu_seconds_per_gb: rounded(self.used.cpu_seconds / (f64::from(scale.nodes) * bytes / 1e9)),
            rss_max_mib: self.used.rss_max_mib,
            box_cpu_percent: rounded(self.used.box_cpu_percent),
        })
    }

    /// Copies of the image that left the origin.
    pub(super) fn origin_copies(&self, scale: &Scale) -> f64 {
        rounded(float(self.used.origin_wire_bytes) / scale.wire_per_payload / float(scale.bytes))
    }
}

impl Faulty {
    /// Of rounds with a fault, and what the exchanges of the agents that were left in each had seen. Times and copies are the worst ones.
    pub(super) fn of(fault: Fault, rounds: &[(Round, Vec<Value>)], undisturbed: &Figures, scale: &Scale) -> Self {
        let outcomes = || rounds.iter().map(|(round, _)| &round.outcome);
        let worst = |of: &dyn Fn(&Round) -> f64| rounds.iter().map(|(round, _)| of(round)).fold(0.0, f64::max);
        let last = worst(&|round| round.outcome.seconds.iter().copied().fold(0.0, f64::max));
        let pages = || rounds.iter().flat_map(|(_, seen)| seen);
        let count = |key: &str| pages().filter_map(|page| page[key].as_u64()).sum::<u64>();
        let finished = outcomes().map(|outcome| outcome.seconds.len()).sum();
        Self {
            fault: fault.to_string(),
            fault_expected: finished + outcomes().map(|outcome| outcome.unfinished.len()).sum::<usize>(),
            fault_finished: finished,
            fault_t_last: rounded(last),
            t_last_over_undisturbed: rounded(last / undisturbed.t_last),
            fault_origin_copies: worst(&|round| round.origin_copies(scale)),
            fault_failures: outcomes().map(|outcome| outcome.failures).sum(),
            fault_wrong_bytes: outcomes().map(|outcome| outcome.wrong_bytes).sum(),
            fault_chunks_wrong: count("chunks_wrong"),
            fault_bans: rounded(float(count("bans")) / float(pages().count().max(1) as u64)),
        }
    }
}

impl Libtorrent {
    /// Of pairs: Shoal's, libtorrent's. None of no pair.
    pub(super) fn of(pairs: &[(Figures, Figures)]) -> Option<Self> {
        let median = |of: &dyn Fn(&(Figures, Figures)) -> f64| {
            Times::new(pairs.iter().map(of).collect()).map(|values| rounded(values.p50()))
        };
        Some(Self {
            pairs: pairs.len(),
            libtorrent_t_last: median(&|(_, peer)| peer.t_last)?,
            libtorrent_over_bound: median(&|(_, peer)| peer.t_last_over_bound)?,
            libtorrent_origin_copies: median(&|(_, peer)| peer.origin_copies)?,
            libtorrent_cpu_seconds_per_gb: median(&|(_, peer)| peer.cpu_seconds_per_gb)?,
            libtorrent_box_cpu_percent: median(&|(_, peer)| peer.box_cpu_percent)?,
            t_last_over_libtorrent: median(&|(shoal, peer)| shoal.t_last / peer.t_last)?,
        })
    }
}

impl Report {
    /// For people: a line for each key of the object, in its order.
    pub(super) fn lines(&self) -> anyhow::Result<String> {
        let object = serde_json::to_value(self)?;
        let there = KEYS.iter().filter_map(|key| object.get(key).map(|value| format!("{key:29} {value}\n")));
        Ok(there.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(t_last: f64) -> Figures {
        Figures { t_last, bound: 20.0, t_last_over_bound: t_last / 20.0, ..Figures::default() }
    }

    #[test]
    fn the_lines_have_every_key() {
        let mut report = Report {
            shoal: figures(22.0),
            goodput_origin_mbit: 47.0,
            goodput_nodes_mbit: 47.0,
            direct: None,
            libtorrent: None,
            fault: None,
        };
        assert_eq!(report.lines().unwrap().lines().count(), 12);
        report.direct = Some(Direct { direct_t_last: 380.0, t_last_over_direct: 0.07 });
        report.libtorrent = Libtorrent::of(&[(figures(22.0), figures(30.0))]);
        report.fault = Some(Faulty {
            fault: "liars:2".to_owned(),
            fault_expected: 14,
            fault_finished: 14,
            fault_t_last: 25.0,
            t_last_over_undisturbed: 1.13,
            fault_origin_copies: 1.01,
            fault_failures: 0,
            fault_wrong_bytes: 0,
            fault_chunks_wrong: 20,
            fault_bans: 2.0,
        });
        let object = serde_json::to_value(&report).unwrap();
        assert_eq!(report.lines().unwrap().lines().count(), KEYS.len());
        assert_eq!(object.as_object().unwrap().len(), KEYS.len());
    }

    #[test]
    fn of_pairs_the_medians_count() {
        let pairs = [(20.0, 30.0), (10.0, 40.0), (30.0, 10.0)].map(|(a, b)| (figures(a), figures(b)));
        let libtorrent = Libtorrent::of(&pairs).unwrap();
        assert_eq!((libtorrent.libtorrent_t_last, libtorrent.t_last_over_libtorrent), (30.0, 0.667));
        assert!(Libtorrent::of(&[]).is_none());
    }
}
