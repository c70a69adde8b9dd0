//! What is seen of a process from outside: logs, metrics, traces, and the server that shows them.
//!
//! State: the subscriber that a process installs once ([`init`]), and the exporter's queue behind it. Metrics are a registry that is handed in: each
//! feature registers its own. Invariants: every queue and every connection count is bounded; nothing here waits for a collector or a scraper.
//! Absent on purpose: metrics as globals, and labels without a closed set of values.

mod admin;
mod causes;
mod logs;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod readiness;
mod telemetry;

pub use admin::{Admin, AdminError, AdminServer, DEFAULT_ADDRESS};
pub use causes::with_causes;
pub use logs::{LogFormat, LogLevel, UnknownSetting};
pub use metrics::{OPENMETRICS, encode, registry};
pub use readiness::{Condition, Missing, Readiness};
pub use telemetry::{Settings, Telemetry, TelemetryError, init};
