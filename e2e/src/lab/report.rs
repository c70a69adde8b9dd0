//! What the lab found.
//!
//! State: none. Invariants: the lines and the JSON object say the same.

use serde::Serialize;

/// The result. Times in seconds, rates in Mbit/s of payload.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) t_last: f64,
    pub(super) p50: f64,
    pub(super) bound: f64,
    pub(super) t_last_over_bound: f64,
    pub(super) origin_copies: f64,
    pub(super) max_over_p50: f64,
    pub(super) cpu_seconds_per_gb: f64,
    pub(super) rss_max_mib: u64,
    pub(super) box_cpu_percent: f64,
    /// What one flow from the origin to a node carried in this run.
    pub(super) goodput_origin_mbit: f64,
    /// What one flow from a node to another carried.
    pub(super) goodput_nodes_mbit: f64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) direct: Option<Direct>,
}

/// All nodes straight from the origin, in the same run.
#[derive(Debug, Serialize)]
pub(super) struct Direct {
    pub(super) direct_t_last: f64,
    pub(super) t_last_over_direct: f64,
}

impl Report {
    /// For people: a line for each key of the object, in its order.
    pub(super) fn lines(&self) -> anyhow::Result<String> {
        let object = serde_json::to_value(self)?;
        let keys = [
            "t_last",
            "p50",
            "bound",
            "t_last_over_bound",
            "origin_copies",
            "max_over_p50",
            "cpu_seconds_per_gb",
            "rss_max_mib",
            "box_cpu_percent",
            "goodput_origin_mbit",
            "goodput_nodes_mbit",
            "direct_t_last",
            "t_last_over_direct",
        ];
        let there = keys.iter().filter_map(|key| object.get(key).map(|value| format!("{key:22} {value}\n")));
        Ok(there.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_have_every_key() {
        let mut report = Report {
            t_last: 26.5,
            p50: 25.0,
            bound: 24.0,
            t_last_over_bound: 1.104,
            origin_copies: 1.01,
            max_over_p50: 1.06,
            cpu_seconds_per_gb: 3.0,
            rss_max_mib: 60,
            box_cpu_percent: 50.0,
            goodput_origin_mbit: 47.0,
            goodput_nodes_mbit: 47.0,
            direct: None,
        };
        assert_eq!(report.lines().unwrap().lines().count(), 11);
        report.direct = Some(Direct { direct_t_last: 380.0, t_last_over_direct: 0.07 });
        let object = serde_json::to_value(&report).unwrap();
        assert_eq!(report.lines().unwrap().lines().count(), object.as_object().unwrap().len());
    }
}
