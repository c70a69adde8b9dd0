//! One connection to one tracker: requests, and the stream of events.
//!
//! State: an HTTP/2 connection, in a task of its own.
//! Invariants: every wait has an end; every answer has a longest length.
//! Absent on purpose: trying again. That is for who knows what was lost.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{AUTHORIZATION, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ClientError, Shared};
use crate::event::StreamEvent;
use crate::protocol::{ErrorBody, MAX_JSON_BYTES, TrackerAddress};
use crate::tracked::Tracked;

/// A look-up, or a dial with its handshake: several round trips in the worst of networks.
const CONNECT: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried: more replicas than anybody has use for.
const MAX_PLACES: usize = 8;
/// An answer. The longest wait is for an origin: the tracker gives up on one after 20 s.
const ANSWER: Duration = Duration::from_secs(25);
/// A tracker says something every 2 s: four of these missed are a broken connection.
const SILENCE: Duration = Duration::from_secs(8);
const PING: Duration = Duration::from_secs(2);

/// The connection. A clone uses the same.
#[derive(Clone, Debug)]
pub(super) struct Link {
    requests: SendRequest<Full<Bytes>>,
    address: TrackerAddress,
    number: u64,
}

impl Link {
    pub(super) async fn connect(
        shared: &Shared,
        address: &TrackerAddress,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, ClientError> {
        let stream = dial(address, shared.config.local_ip, tls).await;
        let stream = stream.map_err(|source| ClientError::Connect { address: address.clone(), source })?;
        let (requests, connection) = http2::Builder::new(Tracked(shared.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING * 2)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(2 << 20)
            .max_header_list_size(16 << 10)
            .handshake(TokioIo::new(stream))
            .await?;
        let shutdown = shared.shutdown.clone();
        shared.tasks.spawn(async move {
            // It ends with an error when the tracker goes: those who wait for answers hear of it.
            let _ = shutdown.run_until_cancelled(connection).await;
        });
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { requests, address: address.clone(), number })
    }

    /// Another one for each connection of this process.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn ask(&self, request: Ask<'_>, limit: usize) -> Result<(http::HeaderMap, Bytes), ClientError> {
        let asked = async {
            let response = self.send(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(ClientError::Body)?.to_bytes();
            if head.status.is_success() {
                Ok((head.headers, body))
            } else {
                Err(refusal(head.status, &head.headers, &body))
            }
        };
        timeout(ANSWER, asked).await.unwrap_or(Err(ClientError::Timeout))
    }

    pub(super) async fn ask_json<T: DeserializeOwned>(&self, request: Ask<'_>) -> Result<T, ClientError> {
        let (_, body) = self.ask(request, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Opens the stream of events.
    pub(super) async fn events(&self, path: &str) -> Result<EventReader, ClientError> {
        let opened = async {
            let response = self.send(Ask::get(path)).await?;
            if response.status().is_success() {
                return Ok(EventReader { body: response.into_body(), buffer: BytesMut::new() });
            }
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_JSON_BYTES).collect().await.map_err(ClientError::Body)?.to_bytes();
            Err(refusal(head.status, &head.headers, &body))
        };
        timeout(SILENCE, opened).await.unwrap_or(Err(ClientError::Timeout))
    }

    async fn send(&self, ask: Ask<'_>) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(ask.method).uri(format!("https://{}{}", self.address, ask.path));
        if let Some(token) = ask.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(ask.body)).map_err(|error| ClientError::Malformed(error.to_string()))?;
        Ok(self.requests.clone().send_request(request).await?)
    }
}

/// A name may stand for several replicas, as a headless Service's does: the first one that shakes hands is it. One whose host has died
/// doesn't keep the others from being tried.
async fn dial(
    address: &TrackerAddress,
    from: Option<IpAddr>,
    tls: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let found = timeout(CONNECT, lookup_host(address.to_string())).await.unwrap_or_else(|_| Err(timed_out()))?;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for place in found.take(MAX_PLACES) {
        let shaken = async {
            let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if let Some(from) = from {
                socket.bind((from, 0).into())?;
            }
            let stream = socket.connect(place).await?;
            let _ = stream.set_nodelay(true);
            TlsConnector::from(Arc::clone(&tls)).connect(address.host().clone(), stream).await
        };
        match timeout(CONNECT, shaken).await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    token: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub(super) const fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: Bytes::new(), token: None }
    }

    pub(super) const fn post(path: &'a str, body: Bytes) -> Self {
        Self { method: Method::POST, path, body, token: None }
    }

    pub(super) fn with_token(self, token: Option<&'a str>) -> Self {
        Self { token, ..self }
    }
}

/// The stream of events, as it is read.
#[derive(Debug)]
pub(super) struct EventReader {
    body: Incoming,
    buffer: BytesMut,
}

impl EventReader {
    /// The next event; none, when the tracker has ended the stream. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<StreamEvent>, ClientError> {
        loop {
            if let Some(event) = StreamEvent::decode(&mut self.buffer)? {
                return Ok(Some(event));
            }
            match timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(ClientError::Timeout),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => {
                    if let Ok(data) = frame?.into_data() {
                        // A frame's length is checked before its body is waited for, so the buffer is bounded.
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn refusal(status: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> ClientError {
    let body = serde_json::from_slice::<ErrorBody>(body);
    let (error, message) = body.map(|body| (body.error, body.message)).unwrap_or_default();
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    ClientError::Refused { status: status.as_u16(), error, message, retry_after: seconds.map(Duration::from_secs) }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
