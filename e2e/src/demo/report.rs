//! What the demo found.
//!
//! State: none. Invariants: the table and the JSON object say the same.

use std::fmt::Write;

use serde::Serialize;

use crate::bound::Network;
use crate::figures::{NodeFigures, Times, float, rounded};

/// The result. Times in seconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    t_first: f64,
    t_last: f64,
    bound: f64,
    t_last_over_bound: f64,
    client_server: f64,
    origin_bytes: u64,
    origin_copies: f64,
    max_over_p50: f64,
    image_bytes: u64,
    nodes: Vec<NodeFigures>,
}

impl Report {
    pub(super) fn new(
        network: &Network,
        image_bytes: u64,
        times: &Times,
        origin_bytes: u64,
        nodes: Vec<NodeFigures>,
    ) -> Self {
        let bound = network.bound(float(image_bytes));
        Self {
            t_first: rounded(times.first()),
            t_last: rounded(times.last()),
            bound: rounded(bound),
            t_last_over_bound: rounded(times.last() / bound),
            client_server: rounded(network.client_server(float(image_bytes))),
            origin_bytes,
            origin_copies: rounded(float(origin_bytes) / float(image_bytes)),
            max_over_p50: rounded(times.last() / times.p50()),
            image_bytes,
            nodes,
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let mut line = |text: String| {
            // Writing to a String doesn't fail.
            let _ = writeln!(table, "{text}");
        };
        line(format!("{:10} {:>8} {:>14} {:>14}", "node", "seconds", "from peers", "from origin"));
        for node in &self.nodes {
            let (peers, origin) = (mebibytes(node.peer_bytes), mebibytes(node.origin_bytes));
            line(format!("{:10} {:>8.2} {peers:>14} {origin:>14}", node.name, node.seconds));
        }
        let mut fact = |name: &str, value: String| line(format!("{name:42} {value}"));
        fact("first node done after", format!("{:.2} s", self.t_first));
        fact("last node done after", format!("{:.2} s", self.t_last));
        fact("no distribution is faster than", format!("{:.2} s", self.bound));
        fact("last node / that bound", format!("{:.2}", self.t_last_over_bound));
        fact("without Shoal, the registry alone: at least", format!("{:.2} s", self.client_server));
        let copies = format!("{} = {:.2} copies", mebibytes(Some(self.origin_bytes)), self.origin_copies);
        fact("sent by the registry", copies);
        let peers: Option<u64> = self.nodes.iter().map(|node| node.peer_bytes).sum();
        fact("sent by peers", mebibytes(peers));
        table
    }
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "not told".to_owned(), |bytes| format!("{:.1} MiB", float(bytes) / float(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_the_documented_keys() {
        let network = Network { nodes: 2, origin_up: 100.0, node_up: 100.0, node_down: 100.0 };
        let node = |name: &str, seconds| NodeFigures {
            name: name.into(),
            seconds,
            peer_bytes: Some(400),
            origin_bytes: Some(515),
        };
        let times = Times::new(vec![10.0, 12.0]).unwrap();
        let report = Report::new(&network, 1000, &times, 1030, vec![node("a", 10.0), node("b", 12.0)]);
        let json = serde_json::to_value(&report).unwrap();
        for (key, value) in [
            ("t_last", 12.0),
            ("bound", 10.0),
            ("t_last_over_bound", 1.2),
            ("origin_copies", 1.03),
            ("max_over_p50", 1.091),
            ("client_server", 20.0),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        assert_eq!(json["nodes"][1]["seconds"], 12.0);
        assert!(report.table().contains("last node / that bound                     1.20\n"), "{}", report.table());
    }
}
