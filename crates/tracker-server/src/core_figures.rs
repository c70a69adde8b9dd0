//! What the tracker's core counts, among the metrics.
//!
//! State: the last look at the core. Invariant: whoever reads the page costs the core nothing.
//! Absent on purpose: blobs and nodes as labels; those are in the status.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use shoal_tracker::TrackerStatus;

/// How old the figures may be.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The last look. A clone shows the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreFigures(Arc<Mutex<Option<TrackerStatus>>>);

impl CoreFigures {
    pub(crate) fn show(&self, status: TrackerStatus) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
}

impl Collector for CoreFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(status) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        let TrackerStatus { nodes_connected, blobs_known, memberships, bans, counters, .. } = status;
        let gauges = [
            ("nodes", "Connected nodes that aren't banned", nodes_connected),
            ("banned_nodes", "Nodes that are banned", bans),
            ("blobs", "Blobs known", blobs_known),
            ("memberships", "Live members of all blobs together", memberships),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let counts = [
            ("announces", "Announces that were taken in", counters.announces),
            ("joined", "Members that joined a blob's swarm", counters.joined),
            ("expired", "Members that stopped announcing", counters.expired),
            ("leases", "Leases granted to leads", counters.leases_granted),
            ("impatient_leases", "Leases granted beside a lead's", counters.leases_impatient),
            ("chains_closed", "Chains of links that a quorum completed", counters.chains_closed),
            ("chains_withdrawn", "Chains of links that were proven false", counters.chains_quarantined),
        ];
        for (name, help, value) in counts {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let by_reason = [
            ("announces_refused", "Announces that were refused, by reason", &counters.refused),
            (
                "leases_ended",
                "Leads' leases that ended, by how: all but the completed ones have successors",
                &counters.leases_ended,
            ),
        ];
        for (name, help, values) in by_reason {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (reason, value) in values {
                ConstCounter::new(*value).encode(family.encode_family(&[("reason", *reason)])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use shoal_tracker::{Config, Tracker};
    use shoal_types::Time;

    use super::*;

    #[test]
    fn the_page_has_what_the_core_said_last() {
        let mut registry = Registry::default();
        let figures = CoreFigures::default();
        let shoal = registry.sub_registry_with_prefix("shoal_tracker");
        shoal.register_collector(Box::new(figures.clone()));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        assert_eq!(page, "# EOF\n", "nobody has looked");
        let mut status = Tracker::new(Config::default(), 1).snapshot(Time::ZERO, 0, 0);
        status.counters.announces = 7;
        status.counters.leases_ended.insert("silent", 2);
        figures.show(status);
        page.clear();
        encode(&mut page, &registry).unwrap();
        let lines = [
            "shoal_tracker_nodes 0",
            "shoal_tracker_announces_total 7",
            "shoal_tracker_leases_ended_total{reason=\"silent\"} 2",
        ];
        for line in lines {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }
}
