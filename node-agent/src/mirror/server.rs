//! Connections: taken up to a limit, served by hyper, ended without a reset, drained at the stop.
//!
//! ```text
//! accepted ──> a place is free ─────────────> served ──────> closing ──> gone
//!         ├──> no place, few are refused ───> told 503 ──┘
//!         └──> no place, many are refused ──> dropped
//! ```
//!
//! A connection is in exactly one of these.
//!
//! State: the tasks of the connections, and how many places are taken.
//! Invariants: every task is joined before [`Mirror::serve`] returns; at most 1.25 × [`Settings::connections`] exist; after the stop each ends
//! within the drain deadline and a second.
//! Absent on purpose: TLS and HTTP/2. The mirror listens on loopback, and no runtime speaks HTTP/2 without TLS.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::content::Content;
use super::cut::{Cut, CutSwitch};
use super::metrics::Metrics;
use super::service::{Admission, Service};
use super::settings::{Registries, Settings};
use super::socket::Socket;

/// The most of a request's head: a path of 600 bytes, a query of 2 KiB and a dozen headers take 4 KiB, so four times that. hyper's buffer for
/// writing has the same limit, above which it takes no further piece of a body.
const HEAD_BYTES: usize = 16 << 10;

/// As many headers as any runtime sends, five times over.
const HEADERS: usize = 64;

/// How long a refused client may take to send its request: it is on the same host.
const REFUSED_IDLE: Duration = Duration::from_secs(1);

/// A pause after an accept that failed, for instance for want of a file descriptor: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The registry mirror.
pub struct Mirror<C> {
    service: Arc<Service<C>>,
}

impl<C: Content> Mirror<C> {
    /// A mirror of this content, for these registries.
    pub fn new(content: Arc<C>, registries: impl Registries, settings: Settings, metrics: Metrics) -> Self {
        Self { service: Arc::new(Service::new(content, Box::new(registries), settings, metrics)) }
    }

    /// Serves the listener until the stop, then lets answers finish until the drain deadline and cuts the rest.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let connections = usize::from(self.service.settings().connections.get());
        let places = Arc::new(Semaphore::new(connections));
        let refusals = Arc::new(Semaphore::new(connections / 4));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Some((place, admission)) = self.admit(&places, &refusals) {
                            connections.spawn(connection(self.service.clone(), stream, place, admission, stop.clone()));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the mirror was not accepted");
                        stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
                    }
                },
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }

    fn admit(&self, places: &Arc<Semaphore>, refusals: &Arc<Semaphore>) -> Option<(OwnedSemaphorePermit, Admission)> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some((place, Admission::Served));
        }
        self.service.metrics().connection_refused();
        refusals.clone().try_acquire_owned().ok().map(|place| (place, Admission::Refused))
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "serving a connection panicked");
    }
}

async fn connection<C: Content>(
    service: Arc<Service<C>>,
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    admission: Admission,
    stop: CancellationToken,
) {
    let metrics = service.metrics().clone();
    let _connected = metrics.connected();
    // A small answer must not wait for the client's acknowledgement of the one before. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let Settings { idle, drain, reader_patience, .. } = *service.settings();
    let idle = match admission {
        Admission::Served => idle,
        Admission::Refused => REFUSED_IDLE,
    };
    let cut = CutSwitch::default();
    let socket = Socket::new(stream, cut.clone(), reader_patience);
    let switch = cut.clone();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(
            socket,
            service_fn(move |request: Request<Incoming>| {
                let (service, cut) = (service.clone(), switch.clone());
                let (asked, _no_body) = request.into_parts();
                let span = tracing::info_span!("request", method = %asked.method, path = asked.uri.path());
                Box::pin(
                    async move { Ok::<_, Infallible>(service.answer(asked, admission, cut).await) }.instrument(span),
                )
            }),
        );
    {
        let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
        if let Some(outcome) = stop.run_until_cancelled(served).await {
            log_end(outcome, &cut);
        } else {
            Pin::new(&mut connection).graceful_shutdown();
            let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
            match tokio::time::timeout(drain, served).await {
                Ok(outcome) => log_end(outcome, &cut),
                Err(_) => cut.turn(Cut::Stopping),
            }
        }
    }
    if let Some(cut) = cut.get() {
        metrics.cut(cut);
    }
    connection.into_parts().io.close().await;
}

/// Clients that break off are everyday life; what was cut has been logged or counted where it was.
fn log_end(outcome: hyper::Result<()>, cut: &CutSwitch) {
    if let (Err(error), None) = (outcome, cut.get()) {
        tracing::debug!(%error, "a client's connection ended in an error");
    }
}
