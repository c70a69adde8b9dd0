//! The server that shows a process to people, probes and scrapers.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text |
//! | `/healthz` | 200 while the process answers |
//! | `/readyz` | 200 if all conditions hold, else 503 and a line for each that doesn't |
//! | `/debug/swarms` | JSON of the caller's making |
//!
//! State: the open connections. Invariants: at most [`MAX_CONNECTIONS`] of them, each for one request and for [`CONNECTION_LIFE`] at most, so that a client that
//! dawdles costs a place for seconds. Absent on purpose: TLS and authentication: it listens on loopback, unless somebody says otherwise for metrics alone.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::{OPENMETRICS, encode};
use crate::{Missing, Readiness};

/// Where it listens if nobody says otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Two probes, a few scrapers and a few people at a time, twice over.
const MAX_CONNECTIONS: usize = 32;
/// A scraper's own limit is ten seconds by default.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
/// A request's head is a hundred bytes from the same node.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Descriptors come back when connections end; asking sooner would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Swarms = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What is shown. What isn't given is answered with 404.
#[derive(Clone, Default)]
pub struct Admin {
    metrics: Option<Arc<Registry>>,
    readiness: Option<Readiness>,
    swarms: Option<Swarms>,
}

impl Admin {
    /// `/healthz` alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `/metrics`.
    #[must_use]
    pub fn metrics(mut self, registry: Arc<Registry>) -> Self {
        self.metrics = Some(registry);
        self
    }

    /// Adds `/readyz`.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// Adds `/debug/swarms`. The closure runs on the server's task, so it only copies what somebody else keeps ready.
    #[must_use]
    pub fn swarms(mut self, swarms: impl Fn() -> serde_json::Value + Send + Sync + 'static) -> Self {
        self.swarms = Some(Arc::new(swarms));
        self
    }

    /// Listens. Nothing is answered before [`AdminServer::serve`].
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn bind(self, address: SocketAddr) -> Result<AdminServer, AdminError> {
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(AdminServer { admin: Arc::new(self), listener, local_addr })
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let page = match path {
            "/healthz" => Some(text(StatusCode::OK, "ok\n")),
            "/readyz" => self.readiness.as_ref().map(|readiness| ready(&readiness.missing())),
            "/metrics" => self.metrics.as_ref().map(|registry| page(StatusCode::OK, OPENMETRICS, encode(registry))),
            "/debug/swarms" => {
                self.swarms.as_ref().map(|swarms| page(StatusCode::OK, "application/json", format!("{:#}\n", swarms())))
            }
            _ => None,
        };
        match page {
            None => text(StatusCode::NOT_FOUND, "no such page: see /healthz, /readyz, /metrics and /debug/swarms\n"),
            // hyper leaves the body of an answer to HEAD out.
            Some(page) if method == Method::GET || method == Method::HEAD => page,
            Some(_) => {
                let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "pages are read with GET or HEAD\n");
                refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                refusal
            }
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metrics, readiness, swarms } = self;
        write!(f, "Admin({}, {readiness:?}, {})", metrics.is_some(), swarms.is_some())
    }
}

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the admin server can't listen on {address} ({source}): choose another address or port")]
pub struct AdminError {
    address: SocketAddr,
    source: io::Error,
}

/// A server that listens.
#[derive(Debug)]
pub struct AdminServer {
    admin: Arc<Admin>,
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl AdminServer {
    /// Where it listens, with the port that it was given.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until the token is cancelled, then ends what is open, which takes ten seconds at most.
    pub async fn serve(self, cancelled: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            // Without a place nobody is accepted: more clients wait in the kernel's queue, which is bounded as well.
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            tokio::select! {
                () = cancelled.cancelled() => break,
                Some(_) = connections.join_next() => {}
                (place, accepted) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let (admin, cancelled) = (Arc::clone(&self.admin), cancelled.clone());
                        connections.spawn(async move {
                            let _place = place;
                            connection(stream, admin, cancelled).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the admin server wasn't accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

async fn connection(stream: TcpStream, admin: Arc<Admin>, cancelled: CancellationToken) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let answer = admin.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let whole = async {
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = cancelled.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        // A client that leaves or writes nonsense concerns nobody else.
        if let Err(error) = result {
            tracing::debug!(%error, "a connection to the admin server ended early");
        }
    };
    if tokio::time::timeout(CONNECTION_LIFE, whole).await.is_err() {
        tracing::debug!("a connection to the admin server took too long");
    }
}

fn ready(missing: &[Missing]) -> Response<Full<Bytes>> {
    if missing.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, missing.iter().map(|missing| format!("{missing}\n")).collect::<String>())
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", text)
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Running {
        address: SocketAddr,
        cancelled: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        ready: crate::Condition,
    }

    async fn run() -> Running {
        let readiness = Readiness::new();
        let ready = readiness.condition("store");
        let admin = Admin::new()
            .metrics(Arc::new(crate::registry()))
            .readiness(readiness)
            .swarms(|| serde_json::json!({"swarms": []}));
        let server = admin.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let (address, cancelled) = (server.local_addr(), CancellationToken::new());
        let task = tokio::spawn(server.serve(cancelled.clone()));
        Running { address, cancelled, task, ready }
    }

    /// The whole answer, as text.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    #[tokio::test]
    async fn pages() {
        let running = run().await;
        let address = running.address;
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains(OPENMETRICS) && metrics.ends_with("# EOF\n"), "{metrics}");
        let waiting = get(address, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503 ") && waiting.ends_with("\r\n\r\nstore: not yet\n"), "{waiting}");
        running.ready.holds();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        let swarms = get(address, "/debug/swarms").await;
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(swarms.split("\r\n\r\n").nth(1).unwrap()).unwrap(),
            serde_json::json!({"swarms": []})
        );
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        assert!(get(address, "/metrics?x=1").await.starts_with("HTTP/1.1 200 "));
        let post = ask(address, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        running.cancelled.cancel();
        running.task.await.unwrap();
    }

    #[tokio::test]
    async fn what_isnt_given_isnt_shown() {
        let server = Admin::new().bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let (address, cancelled) = (server.local_addr(), CancellationToken::new());
        let taken = Admin::new().bind(address).await.unwrap_err().to_string();
        assert!(taken.contains(&address.to_string()) && taken.contains("choose another"), "{taken}");
        let task = tokio::spawn(server.serve(cancelled.clone()));
        for path in ["/metrics", "/readyz", "/debug/swarms"] {
            assert!(get(address, path).await.starts_with("HTTP/1.1 404 "), "{path}");
        }
        cancelled.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn clients_that_say_nothing_are_bounded_and_end_with_the_server() {
        tokio::time::pause();
        let running = run().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(running.address).await.unwrap());
        }
        // The next one is answered when a silent one has been given up.
        assert!(get(running.address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        running.cancelled.cancel();
        running.task.await.unwrap();
        for mut stream in silent {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
        }
        assert!(TcpStream::connect(running.address).await.is_err());
    }
}
