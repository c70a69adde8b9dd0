//! Traces to an OpenTelemetry collector, as protobuf over HTTP.
//!
//! State: the exporter's queue, which has the SDK's bound of 2,048 spans; what doesn't fit is dropped there. The SDK exports on a thread of its own, without
//! tokio; [`Client`] carries each request over to the runtime. Invariants: a collector that is slow or gone costs spans and nothing else; its failure is
//! logged when it begins and when it ends, not for each batch. Absent on purpose: gRPC, which would bring a second HTTP stack into the tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::logs::{LogLevel, targets};
use crate::{Settings, TelemetryError};

/// A collector in the same cluster answers in milliseconds; a batch that waits longer keeps the next one waiting.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The protocol's answer is a few bytes; an error has a page at most.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Where traces go.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    pub(crate) fn new(endpoint: &str, settings: &Settings) -> Result<Self, TelemetryError> {
        let refused = |reason: String| TelemetryError::Endpoint { endpoint: endpoint.to_owned(), reason };
        let uri = endpoint.trim_end_matches('/').to_owned() + "/v1/traces";
        let parsed: Uri = uri.parse().map_err(|error: http::uri::InvalidUri| refused(error.to_string()))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
            return Err(refused("it has no scheme or no host".to_owned()));
        }
        let client = Client::new().map_err(|error| refused(error.to_string()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(uri)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let mut resource = Resource::builder().with_service_name(settings.service);
        resource = resource.with_attribute(KeyValue::new("service.version", settings.version));
        if let Some(instance) = &settings.instance {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", instance.clone()));
        }
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
    }

    /// The layer that turns spans into traces: our own ones, from `info` on or from the log's level.
    pub(crate) fn layer<S>(&self, level: LogLevel) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let level = if matches!(level, LogLevel::Debug | LogLevel::Trace) { level } else { LogLevel::Info };
        let own = targets(level).with_default(tracing::level_filters::LevelFilter::OFF);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("shoal")).with_filter(own).boxed()
    }

    /// Sends what is queued.
    pub(crate) async fn shutdown(self, deadline: Duration) -> Result<(), TelemetryError> {
        let flush = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(deadline));
        let failed = |reason: String| TelemetryError::Flush { reason };
        match tokio::time::timeout(deadline, flush).await {
            Ok(Ok(result)) => result.map_err(|error| failed(error.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("not done after {deadline:?}"))),
        }
    }
}

/// The exporter's HTTP client: its requests run on the runtime that made it.
#[derive(Clone, Debug)]
struct Client {
    runtime: Handle,
    client: reqwest::Client,
    failing: Arc<AtomicBool>,
}

impl Client {
    fn new() -> Result<Self, HttpError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(EXPORT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { runtime: Handle::try_current()?, client, failing: Arc::default() })
    }

    async fn send(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut response = client.execute(request.try_into()?).await?;
        let mut answer = Response::new(());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err("the collector's answer has no end".into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer.map(|()| body.into()))
    }

    fn note(&self, result: &Result<Response<Bytes>, HttpError>) {
        let problem = match result {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (problem, self.failing.load(Ordering::Relaxed)) {
            (Some(problem), false) => {
                tracing::warn!(problem, "the collector takes no traces; they are dropped until it does")
            }
            (None, true) => tracing::info!("the collector takes traces again"),
            (problem, _) => return tracing::trace!(?problem, "traces were sent"),
        }
        self.failing.fetch_not(Ordering::Relaxed);
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Its end wakes the exporter's thread, whatever that waits with.
        let sent = self.runtime.spawn(Self::send(self.client.clone(), request)).await;
        let result = sent.unwrap_or_else(|error| Err(error.into()));
        self.note(&result);
        result
    }
}
