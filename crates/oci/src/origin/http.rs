//! One request to a registry, with its redirects: the guard at every hop, time limits, bodies with a bound.
//!
//! Two clients: one for the registry's own endpoint and the hosts that the configuration names, one for everywhere else, whose resolver
//! refuses the guard's addresses. The connection goes to the very addresses that were checked.
//!
//! State: the connections kept alive in both.
//! Invariants: Authorization leaves with the first hop and stays while the authority is the same; once a redirect has left it, it isn't
//! sent again, not even if a later redirect comes back. There are no cookies. Only HTTP/1.1 is spoken: ranges in flight are to
//! be connections of their own.
//! Absent on purpose: retries, and any knowledge of tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci_client::errors::OciEnvelope;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, NoProxy, Proxy, redirect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use url::Url;

use super::busy;
use super::config::{ConfigError, RegistryConfig, Timeouts};
use super::error::{Cause, OriginError, one_line};
use crate::guard::{self, Door, Guard, Hop, MAX_REDIRECTS, Reason, Refused};
use crate::names::{Registry, Repository};

/// How much of an error's body is read: for its message, and so that the connection can be used again.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// For how long connections are kept. Servers close idle ones after 60 s and more.
const KEPT: Duration = Duration::from_secs(50);

/// How many are kept per host: two blobs' worth of ranges at the default. Others are opened when they are needed.
const KEPT_PER_HOST: usize = 8;

/// The HTTP side of one registry.
pub(super) struct Http {
    registry: Registry,
    trusted: Client,
    guarded: Client,
    guard: Guard,
    timeouts: Timeouts,
    pub(super) gate: busy::Gate,
}

/// What to ask for.
#[derive(Clone)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) hop: Hop,
    pub(super) headers: HeaderMap,
    pub(super) repository: Option<&'a Repository>,
}

/// An answer whose body hasn't been read.
pub(super) struct Answer {
    response: reqwest::Response,
    /// Where it came from, after redirects.
    pub(super) hop: Hop,
    /// Whether that is another host than the one asked.
    pub(super) moved: bool,
    registry: Registry,
    repository: Option<Repository>,
    idle: Duration,
}

impl Http {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, ConfigError> {
        let endpoint = &config.endpoint;
        let well_formed = matches!((endpoint.scheme(), config.plain_http), ("https", _) | ("http", true))
            && endpoint.has_host()
            && endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if !well_formed {
            return Err(ConfigError::Endpoint { registry: config.registry.clone() });
        }
        let guard = Guard::new(endpoint.clone(), &config.allowed_hosts).with_proxies(config.proxy.urls());
        let proxies = config.proxy.urls().filter_map(|url| url.host_str().map(str::to_owned)).collect();
        let tls = tls(config)?;
        let trusted = client_builder(config, tls.clone())?.build()?;
        let guarded = client_builder(config, tls)?.dns_resolver(GuardedResolver { proxies }).build()?;
        let gate = busy::Gate::default();
        Ok(Self { registry: config.registry.clone(), trusted, guarded, guard, timeouts: config.timeouts, gate })
    }

    pub(super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends a request and follows its redirects. Any status but a redirect's or a busy registry's is an answer.
    pub(super) async fn send(&self, ask: &Ask<'_>, authorization: Option<&HeaderValue>) -> Result<Answer, OriginError> {
        let fail = |hop: &Hop, cause| {
            let host = (hop.door() != Door::Registry).then(|| guard::authority(hop.url()));
            OriginError::at(&self.registry, ask.repository, host, cause)
        };
        if let Some((status, retry_after)) = self.gate.closed() {
            return Err(fail(&ask.hop, Cause::Busy { status, retry_after }));
        }
        let mut hop = ask.hop.clone();
        let mut authorization = authorization;
        let mut moved = false;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.one(ask, &hop, authorization).await.map_err(|cause| fail(&hop, cause))?;
            let status = response.status();
            if let Some(retry_after) = busy::asked(status.as_u16(), response.headers(), SystemTime::now()) {
                self.gate.close(status.as_u16(), retry_after);
                return Err(fail(&hop, Cause::Busy { status: status.as_u16(), retry_after }));
            }
            let location = match status.as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(header::LOCATION).cloned(),
                _ => None,
            };
            let Some(location) = location else {
                return Ok(Answer {
                    response,
                    hop,
                    moved,
                    registry: self.registry.clone(),
                    repository: ask.repository.cloned(),
                    idle: self.timeouts.idle,
                });
            };
            let target =
                location.to_str().map_err(|_| fail(&hop, Cause::Protocol("a redirect to what isn't a URL")))?;
            let next = self.guard.follow(hop.url(), target).map_err(|refused| fail(&hop, Cause::Refused(refused)))?;
            drain(response, self.timeouts.idle).await;
            if !guard::same_authority(next.url(), hop.url()) {
                moved = true;
                authorization = None;
            }
            hop = next;
        }
        let host = guard::authority(hop.url());
        Err(fail(&hop, Cause::Refused(Refused { host, reason: Reason::TooMany })))
    }

    async fn one(
        &self,
        ask: &Ask<'_>,
        hop: &Hop,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, Cause> {
        let client = match hop.door() {
            Door::Registry | Door::Allowed => &self.trusted,
            Door::Elsewhere => &self.guarded,
        };
        let mut request = client.request(ask.method.clone(), hop.url().clone()).headers(ask.headers.clone());
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        // The connection's own limit is the client's; a warm one needs none of it.
        let limit = self.timeouts.connect + self.timeouts.first_byte;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(sending_failed(error, self.timeouts.connect)),
            Err(_) => Err(Cause::TimedOut { what: "answer", limit }),
        }
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The announced length, of a HEAD's answer too.
    pub(super) fn length(&self) -> Option<u64> {
        self.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The next piece of the body.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.fail(Cause::Broken(error.without_url()))),
            Err(_) => Err(self.fail(Cause::TimedOut { what: "byte", limit: self.idle })),
        }
    }

    /// The whole body, if it isn't longer than `limit`.
    pub(super) async fn body(mut self, what: &'static str, limit: usize) -> Result<Bytes, OriginError> {
        let too_large = |this: &Self| this.fail(Cause::TooLarge { what, limit });
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large(&self));
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(too_large(&self));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// The error that an answer without success is.
    pub(super) async fn into_error(self) -> OriginError {
        let status = self.status().as_u16();
        let (registry, repository, host) = (self.registry.clone(), self.repository.clone(), self.host());
        let says = match self.body("an error", MAX_ERROR_BYTES).await {
            Ok(body) => message(&body),
            Err(_) => String::new(),
        };
        let says = if says.is_empty() { "without a message".to_owned() } else { says };
        let cause = match status {
            401 | 403 => Cause::Unauthorized { status, says },
            404 | 410 => Cause::NotFound { says },
            _ => Cause::Status { status, says },
        };
        OriginError::at(&registry, repository.as_ref(), host, cause)
    }

    /// Reads the rest of a short body, so that the connection can be used again.
    pub(super) async fn drain(self) {
        drain(self.response, self.idle).await;
    }

    pub(super) fn fail(&self, cause: Cause) -> OriginError {
        OriginError::at(&self.registry, self.repository.as_ref(), self.host(), cause)
    }

    fn host(&self) -> Option<String> {
        (self.hop.door() != Door::Registry).then(|| guard::authority(self.hop.url()))
    }
}

async fn drain(mut response: reqwest::Response, limit: Duration) {
    let mut read = 0;
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > MAX_ERROR_BYTES {
                break;
            }
        }
    };
    // Not having read it costs a connection, nothing else.
    let _ = tokio::time::timeout(limit, reading).await;
}

/// The messages of an error's body: the API's form, or the beginning of a short text.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<OciEnvelope>(body) {
        Ok(envelope) => {
            let messages = envelope.errors.into_iter().map(|error| {
                let code = serde_json::to_value(&error.code).ok();
                let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
                format!("{code} {}", error.message)
            });
            messages.collect::<Vec<_>>().join("; ")
        }
        // A page in HTML says nothing.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    one_line(text.trim())
}

fn sending_failed(error: reqwest::Error, connect: Duration) -> Cause {
    let error = error.without_url();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return Cause::Refused(refused.clone());
        }
        source = inner.source();
    }
    if error.is_timeout() {
        Cause::TimedOut { what: "connection", limit: connect }
    } else if error.is_connect() {
        Cause::Unreachable(error)
    } else {
        Cause::Broken(error)
    }
}

fn client_builder(config: &RegistryConfig, tls: rustls::ClientConfig) -> Result<reqwest::ClientBuilder, ConfigError> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        // What a registry sends is what it is: no decoding, whatever features another crate switches on.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        // Not the environment's.
        .no_proxy()
        .user_agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(KEPT)
        .pool_max_idle_per_host(KEPT_PER_HOST.max(config.connections.get()));
    let direct = || NoProxy::from_string(&config.proxy.no_proxy);
    if let Some(url) = &config.proxy.http {
        builder = builder.proxy(Proxy::http(url.clone())?.no_proxy(direct()));
    }
    if let Some(url) = &config.proxy.https {
        builder = builder.proxy(Proxy::https(url.clone())?.no_proxy(direct()));
    }
    Ok(builder)
}

fn tls(config: &RegistryConfig) -> Result<rustls::ClientConfig, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    // A host without certificates of authorities can still use a registry of a private one, or over plain http. With none at all every
    // handshake fails and says why.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(bundle) = &config.ca_bundle {
        let failed = |source| ConfigError::CaBundle { registry: config.registry.clone(), source };
        let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect();
        let certificates = certificates.map_err(|error| failed(Some(error)))?;
        let (added, ignored) = roots.add_parsable_certificates(certificates);
        if added == 0 || ignored > 0 {
            return Err(failed(None));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // 1.2 too: a registry isn't ours.
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Resolves a name that a registry sent us to, and refuses it if any of its addresses is forbidden.
struct GuardedResolver {
    /// The proxies' names are configured and may lie anywhere.
    proxies: Vec<String>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.proxies.iter().any(|proxy| proxy == name.as_str());
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !trusted {
                for address in &addresses {
                    guard::check_address(address.ip())
                        .map_err(|reason| Refused { host: name.as_str().to_owned(), reason })?;
                }
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A URL of the registry's API.
pub(super) fn api_url(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    let base = endpoint.path().trim_end_matches('/');
    url.set_path(&format!("{base}/v2/{path}"));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_message_fits_a_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\nentry"},{"code":"X_Y","message":"z"}]}"#;
        assert_eq!(message(body), "DENIED no entry; X_Y z");
        assert_eq!(message(b"  too many\r\nrequests "), "too many  requests");
        assert_eq!(message(b"<html>gateway"), "");
        assert_eq!(message(&[b'x'; 1000]).len(), 200);
    }

    #[test]
    fn the_api_may_lie_below_a_path() {
        let url = |endpoint: &str| api_url(&endpoint.parse().unwrap(), "a/tags/list").to_string();
        assert_eq!(url("https://registry.example"), "https://registry.example/v2/a/tags/list");
        assert_eq!(url("https://registry.example/docker/"), "https://registry.example/docker/v2/a/tags/list");
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_host_is_refused_when_it_is_resolved() {
        let resolver = GuardedResolver { proxies: vec!["ip6-localhost".into()] };
        // The only name that needs no network to resolve.
        let error = resolver.resolve("localhost".parse().unwrap()).await.err().expect("loopback is refused");
        assert_eq!(error.downcast_ref::<Refused>().map(|refused| refused.reason), Some(Reason::Loopback));
        let resolver = GuardedResolver { proxies: vec!["localhost".into()] };
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn the_client_for_everywhere_else_connects_to_no_forbidden_address() {
        let config = RegistryConfig::new("registry.example".parse().unwrap()).unwrap();
        let http = Http::new(&config).unwrap();
        let hop = Hop::elsewhere("https://localhost:9/".parse().unwrap());
        let ask = Ask { method: Method::GET, hop, headers: HeaderMap::new(), repository: None };
        let error = http.send(&ask, None).await.err().expect("loopback is refused");
        assert!(matches!(error.cause(), Cause::Refused(refused) if refused.reason == Reason::Loopback), "{error}");
    }
}
