//! A process's telemetry as one thing: made from settings, installed once, flushed at the end.
//!
//! State: what has to be flushed. Invariant: it is installed at most once in a process; binaries do it, libraries never.

use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{LogFormat, LogLevel, logs};

/// What a process says of itself, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The process, as traces call it: `shoal-agent`.
    pub service: &'static str,
    /// Its release.
    pub version: &'static str,
    /// Which of several: the node's name.
    pub instance: Option<String>,
    /// From which level on it logs.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// The collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` names it: `http://collector:4318`. `None` or empty: no traces.
    pub otlp_endpoint: Option<String>,
}

/// Installed telemetry. To be shut down last.
#[derive(Debug)]
#[must_use = "spans that are still queued are lost without a shutdown"]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    traces: Option<crate::otlp::Traces>,
}

/// Installs logs, and traces where there is a collector, for the whole process. Called on a tokio runtime, which then sends the traces.
///
/// # Errors
/// If the collector's address isn't one, or something else was installed before.
pub fn init(settings: &Settings) -> Result<Telemetry, TelemetryError> {
    let (telemetry, subscriber) = build(settings, std::io::stderr)?;
    subscriber.try_init().map_err(|_| TelemetryError::Installed)?;
    Ok(telemetry)
}

/// The subscriber, not installed.
fn build<W>(
    settings: &Settings,
    writer: W,
) -> Result<(Telemetry, impl tracing::Subscriber + Send + Sync + use<W>), TelemetryError>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let endpoint = settings.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let subscriber = tracing_subscriber::registry().with(logs::lines(settings.level, settings.format, writer));
    #[cfg(feature = "otlp")]
    {
        let traces = endpoint.map(|endpoint| crate::otlp::Traces::new(endpoint, settings)).transpose()?;
        let layer = traces.as_ref().map(|traces| traces.layer(settings.level));
        Ok((Telemetry { traces }, subscriber.with(layer)))
    }
    #[cfg(not(feature = "otlp"))]
    match endpoint {
        None => Ok((Telemetry {}, subscriber)),
        Some(endpoint) => Err(TelemetryError::Endpoint {
            endpoint: endpoint.to_owned(),
            reason: "this build has no traces".to_owned(),
        }),
    }
}

impl Telemetry {
    /// Sends the traces that are queued, for at most so long.
    ///
    /// # Errors
    /// If that fails or takes longer. The process ends all the same.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), TelemetryError> {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            return traces.shutdown(deadline).await;
        }
        let _ = deadline;
        Ok(())
    }
}

/// Why telemetry isn't there.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Not a collector's address.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: {reason}: write http://host:4318, or leave it out")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Twice in a process.
    #[error("telemetry was installed before in this process")]
    Installed,
    /// Traces may be lost.
    #[error("the last traces weren't sent: {reason}")]
    Flush {
        /// What went wrong.
        reason: String,
    },
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    fn settings(endpoint: &str) -> Settings {
        Settings {
            service: "shoal-test",
            version: "1.2.3",
            instance: Some("node-a".to_owned()),
            level: LogLevel::Error,
            format: LogFormat::Json,
            otlp_endpoint: Some(endpoint.to_owned()),
        }
    }

    /// A collector that hands over what it is sent, and its address.
    async fn collector() -> (String, mpsc::Receiver<(http::request::Parts, Bytes)>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, received) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        sender.send((parts, body)).await.unwrap();
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { connection.await.unwrap() });
            }
        });
        (endpoint, received)
    }

    fn trace_a_pull(subscriber: impl tracing::Subscriber + Send + Sync) {
        tracing::subscriber::with_default(subscriber, || {
            let pull = tracing::info_span!(target: "shoal_agent", "mirror.blob", bytes = 5);
            pull.in_scope(|| {
                tracing::info_span!(target: "shoal_agent", "origin.fetch").in_scope(|| {});
                tracing::info_span!(target: "hyper", "noise").in_scope(|| {});
            });
        });
    }

    #[tokio::test]
    async fn traces_reach_the_collector_before_shutdown_returns() {
        let (endpoint, mut received) = collector().await;
        let (telemetry, subscriber) = build(&settings(&endpoint), io::sink).unwrap();
        trace_a_pull(subscriber);
        telemetry.shutdown(Duration::from_secs(20)).await.unwrap();
        let (parts, body) = received.try_recv().unwrap();
        assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
        assert_eq!(parts.headers["content-type"], "application/x-protobuf");
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        for text in ["shoal-test", "1.2.3", "node-a", "mirror.blob", "origin.fetch"] {
            assert!(has(text), "{text}");
        }
        assert!(!has("noise"));
    }

    #[tokio::test]
    async fn a_collector_that_never_answers_costs_the_deadline_and_no_more() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (telemetry, subscriber) = build(&settings(&endpoint), io::sink).unwrap();
        trace_a_pull(subscriber);
        let error = telemetry.shutdown(Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, TelemetryError::Flush { .. }), "{error}");
    }

    #[tokio::test]
    async fn endpoints() {
        for endpoint in ["collector:4318", "ftp://collector", "http://", "http://a b"] {
            let error = build(&settings(endpoint), io::sink).map(|_| ()).unwrap_err().to_string();
            let expected = format!("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}: ");
            assert!(error.starts_with(&expected) && !error.contains('\n'), "{error}");
        }
        let (telemetry, _) = build(&settings(""), io::sink).unwrap();
        telemetry.shutdown(Duration::ZERO).await.unwrap();
    }
}
