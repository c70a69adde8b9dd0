//! The exchange as it is seen from outside: its bytes among the metrics, its state as JSON.
//!
//! State: the last look at the exchange. Invariant: whoever reads the page costs the exchange nothing.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exchange::Exchange;

/// How old the JSON may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The exchange's bytes, and whom it refuses.
pub(super) struct ExchangeBytes(pub(super) Exchange);

impl std::fmt::Debug for ExchangeBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExchangeBytes")
    }
}

impl Collector for ExchangeBytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let traffic = self.0.traffic();
        let counters = [
            ("exchange_received_bytes", "Bytes of chunks from peers", traffic.from_peers),
            ("exchange_sent_bytes", "Bytes of chunks to peers", traffic.to_peers),
            ("exchange_origin_bytes", "Bytes of chunks fetched from origins as the lead", traffic.from_origin),
        ];
        for (name, help, bytes) in counters {
            let counter = ConstCounter::new(bytes);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "For how long chunks were fetched from origins as the lead, all blobs together";
        let seconds = ConstCounter::new(traffic.origin_millis as f64 / 1_000.0);
        seconds.encode(encoder.encode_descriptor("exchange_origin_seconds", help, None, MetricType::Counter)?)?;
        let banned = ConstGauge::new(i64::try_from(self.0.banned().len()).unwrap_or(i64::MAX));
        let help = "Nodes refused for good, because they sent what was proven false";
        banned.encode(encoder.encode_descriptor("exchange_banned_nodes", help, None, MetricType::Gauge)?)
    }
}

/// Looks at the exchange until the stop.
pub(super) async fn look(exchange: Exchange, seen: watch::Sender<Value>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let Some(snapshot) = exchange.snapshot().await else { return };
        // Nothing in it has keys other than strings.
        seen.send_replace(serde_json::to_value(snapshot).unwrap_or_default());
    }
}
