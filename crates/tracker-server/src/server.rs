//! The server: accepts connections, shakes hands, and hands requests to the routes.
//!
//! State: the listener; what all connections share; the tasks.
//! Invariants: every connection has a place, a deadline and a task that is waited for. A node's connection ends with its
//! certificate, a stranger's after a short time.
//! Absent on purpose: HTTP/1 (nothing that speaks it is a client), redirects, compression.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use shoal_tracker::{ReplicaName, Tracker, TrackerStatus};
use shoal_wire::NodeName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::certificate::NodeCertificate;
use crate::core_figures::LOOK_EVERY;
use crate::credentials::{Credentials, CredentialsError};
use crate::directory::{Directory, NodeEntry};
use crate::document::SwarmSource;
use crate::driver::{Command, Commands, Driver, Stopping, first_epoch};
use crate::event::Hello;
use crate::identity::{Identity, JoinToken};
use crate::limits::{Bucket, NodeBudget, ServerLimits, Stranger, Strangers};
use crate::metrics::Metrics;
use crate::protocol::{Replica, TrackerAddress, TrackerAddressError};
use crate::report::{NodeReport, Reports};
use crate::resolve::{ImageName, OriginResolver, ResolveError, Resolved, Resolver};
use crate::routes;
use crate::tracked::Tracked;

/// What a server is to be.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// This replica's name.
    pub replica: ReplicaName,
    /// DNS names and addresses under which it is reached: those of its certificate. Without any it is the address at which it listens.
    pub names: Vec<String>,
    /// All ready replicas to start with. If none is given: this one alone, under its first name and the port that it got.
    pub replicas: Vec<Replica>,
    /// The Swarm's document, as agents get it.
    pub swarm: SwarmSource,
    /// Who signs certificates.
    pub authority: Arc<Authority>,
    /// The tracker's settings. `first_epoch` is set by the server.
    pub tracker: shoal_tracker::Config,
    /// The server's limits.
    pub limits: ServerLimits,
    /// Who shows this token may read `/v1/status`. Without one nobody may.
    pub admin_token: Option<JoinToken>,
    /// Where to count.
    pub metrics: Metrics,
}

/// A server that listens. [`Self::run`] serves.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    handle: Handle,
    driver: Driver,
    tasks: Tasks,
}

/// What the embedder tells a running server, and asks it. A clone is for the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) limits: ServerLimits,
    pub(crate) identity: Arc<dyn Identity>,
    pub(crate) resolver: Resolver,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) commands: Commands,
    pub(crate) metrics: Metrics,
    pub(crate) replicas: watch::Sender<Arc<[Replica]>>,
    pub(crate) swarm: watch::Sender<SwarmSource>,
    pub(crate) reports: Reports,
    pub(crate) admin_token: Option<JoinToken>,
    pub(crate) joins: Bucket,
    /// Permits are KiB.
    pub(crate) body_memory: Arc<Semaphore>,
    pub(crate) next_stream: AtomicU64,
    pub(crate) draining: AtomicBool,
    strangers: Strangers,
    connections: Arc<Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// On whose behalf a request is made.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) source: IpAddr,
    /// None for a stranger.
    pub(crate) node: Option<Arc<NodePeer>>,
}

/// A node that has shown its certificate.
#[derive(Debug)]
pub(crate) struct NodePeer {
    pub(crate) certificate: NodeCertificate,
    pub(crate) budget: Arc<NodeBudget>,
}

#[derive(Debug)]
struct Tasks {
    /// Connections and what they spawn: drained.
    connections: TaskTracker,
    /// Questions to origins.
    questions: TaskTracker,
    stop: CancellationToken,
}

/// A connection's place: counted while it is open.
struct Place {
    _connection: OwnedSemaphorePermit,
    stranger: Option<Stranger>,
    metrics: Metrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// If the address is taken, or the CA gives no certificate for these names.
    pub async fn bind(
        config: ServerConfig,
        identity: Arc<dyn Identity>,
        origin: Arc<dyn OriginResolver>,
    ) -> Result<Self, ServerError> {
        let ServerConfig { listen, replica, names, replicas, swarm, authority, tracker, limits, admin_token, metrics } =
            config;
        let listener =
            TcpListener::bind(listen).await.map_err(|source| ServerError::Listen { address: listen, source })?;
        let address = listener.local_addr().map_err(|source| ServerError::Listen { address: listen, source })?;
        let names = match names {
            names if !names.is_empty() => names,
            _ if address.ip().is_unspecified() => return Err(ServerError::NoName),
            _ => vec![address.ip().to_string()],
        };
        let replicas = if replicas.is_empty() {
            vec![Replica { name: replica.clone(), address: TrackerAddress::new(&names[0], address.port())? }]
        } else {
            replicas
        };
        let credentials = Arc::new(Credentials::new(authority, replica, names)?);
        let incarnation = first_epoch(SystemTime::now());
        let max_nodes = tracker.limits.nodes;
        let seed = u64::from_be_bytes(random()?);
        let tracker = Tracker::new(shoal_tracker::Config { first_epoch: incarnation, ..tracker }, seed);
        let directory = Arc::new(Directory::new(limits.clone(), max_nodes));
        let hello =
            Hello { incarnation, resumed: false, swarm: swarm.version().to_owned(), replicas: replicas.clone() };
        let (driver, commands) =
            Driver::new(tracker, hello, Arc::clone(&directory), metrics.clone(), limits.connections);
        let tasks =
            Tasks { connections: TaskTracker::new(), questions: TaskTracker::new(), stop: CancellationToken::new() };
        let (questions, stop) = (tasks.questions.clone(), tasks.stop.clone());
        let shared = Arc::new(Shared {
            identity,
            resolver: Resolver::new(origin, Arc::clone(&credentials), metrics.clone(), questions, stop),
            credentials,
            directory,
            commands,
            metrics,
            replicas: watch::Sender::new(replicas.into()),
            swarm: watch::Sender::new(swarm),
            reports: Reports::new(limits.report_bytes),
            admin_token,
            joins: Bucket::new(limits.joins_per_second, limits.joins_per_second),
            body_memory: Arc::new(Semaphore::new(limits.body_bytes / 1_024)),
            next_stream: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            strangers: Strangers::new(&limits),
            connections: Arc::new(Semaphore::new(limits.connections)),
            limits,
        });
        Ok(Self { listener, address, handle: Handle { shared: Arc::clone(&shared) }, shared, driver, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// To talk to it while it runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown`; then takes no more connections, ends the streams of events, and waits for the requests in flight
    /// as long as [`ServerLimits::drain`] says.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, shared, driver, tasks, .. } = self;
        let mut driver = tokio::spawn(driver.run(shutdown.clone(), tasks.stop.clone()));
        let mut renewal = tokio::time::interval(Duration::from_secs(600));
        tasks.questions.spawn(look_at_core(Arc::clone(&shared), shutdown.clone()));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Without the core there is no tracker. It ends before its time only by a panic.
                ended = &mut driver => return passed_on(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => accept(&shared, &tasks.connections, &shutdown, stream, from.ip().to_canonical()),
                    Err(error) => {
                        // Out of file descriptors, mostly: closing connections will cure it, trying at once won't.
                        tracing::warn!(%error, "a connection can't be accepted");
                        sleep(Duration::from_millis(50)).await;
                    }
                },
                _ = renewal.tick() => {
                    if let Err(error) = shared.credentials.renew(SystemTime::now()) {
                        tracing::error!(%error, "the tracker's certificate can't be renewed");
                    }
                }
            }
        }
        drop(listener);
        shared.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        tasks.connections.close();
        if timeout(shared.limits.drain, tasks.connections.wait()).await.is_err() {
            tracing::warn!(left = tasks.connections.len(), "requests were cut off");
        }
        tasks.stop.cancel();
        tasks.connections.wait().await;
        tasks.questions.close();
        tasks.questions.wait().await;
        passed_on(driver.await);
    }
}

impl Handle {
    /// Other replicas are ready: all nodes are told.
    ///
    /// # Errors
    /// If the server is stopping.
    pub async fn set_replicas(&self, replicas: Vec<Replica>) -> Result<(), Stopping> {
        self.shared.replicas.send_replace(replicas.clone().into());
        self.shared.commands.send(Command::Replicas(replicas)).await
    }

    /// The Swarm's document has changed: all nodes are told.
    ///
    /// # Errors
    /// If the server is stopping.
    pub async fn set_swarm(&self, source: impl Into<SwarmSource>) -> Result<(), Stopping> {
        let source = source.into();
        let version = source.version().to_owned();
        let before = self.shared.swarm.send_replace(source);
        if before.version() == version {
            return Ok(());
        }
        self.shared.commands.send(Command::Policy { version }).await
    }

    /// What a name means now, by the origin's own word, which is what nodes are told from then on. While the origin is down or busy it is what
    /// nodes are told.
    ///
    /// # Errors
    /// [`ResolveError`], with the origin's words where it has any.
    pub async fn resolve(&self, name: &ImageName) -> Result<Resolved, ResolveError> {
        self.shared.resolver.ask_afresh(name).await
    }

    /// The last report of each node that is there.
    #[must_use]
    pub fn reports(&self) -> Vec<NodeReport> {
        self.shared.reports.of_the_live()
    }

    /// Counts changes of what nodes report.
    #[must_use]
    pub fn report_changes(&self) -> watch::Receiver<u64> {
        self.shared.reports.changes()
    }

    /// The nodes that have a stream of events from here now: their agents run.
    ///
    /// # Errors
    /// If the server is stopping.
    pub async fn connected(&self) -> Result<Vec<NodeName>, Stopping> {
        let nodes = self.shared.commands.ask(|answer| Command::Connected { answer }).await?;
        let contacts = self.shared.directory.contacts(nodes);
        Ok(contacts.into_iter().map(|contact| contact.name().clone()).collect())
    }

    /// Counts changes of who is connected.
    #[must_use]
    pub fn connection_changes(&self) -> watch::Receiver<u64> {
        self.shared.commands.connections()
    }

    /// Signs with another authority from now on: a step of changing roots ([`Authority`]).
    ///
    /// # Errors
    /// If it gives no certificate; then everything stays as it is.
    pub fn set_authority(&self, authority: Arc<Authority>) -> Result<(), CredentialsError> {
        self.shared.credentials.set_authority(authority)
    }

    /// The tracker's state, with the most popular blobs and the first bans, so many at most.
    ///
    /// # Errors
    /// If the server is stopping.
    pub async fn snapshot(&self, blobs: usize, banned: usize) -> Result<TrackerStatus, Stopping> {
        self.shared.commands.ask(|answer| Command::Snapshot { blobs, banned, answer }).await
    }

    /// How many nodes have a stream of events from here.
    #[must_use]
    pub fn event_streams(&self) -> usize {
        usize::try_from(self.shared.metrics.streams.get()).unwrap_or_default()
    }

    /// The replicas that nodes were last told of.
    #[must_use]
    pub fn replicas(&self) -> Arc<[Replica]> {
        Arc::clone(&self.shared.replicas.borrow())
    }

    /// All nodes whose certificates haven't expired, connected or not.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeEntry> {
        self.shared.directory.all()
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address can't be listened at.
    #[error("can't listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It has no name, and listens at no address in particular.
    #[error("a tracker that listens at all addresses must be given a name")]
    NoName,
    /// Its first name can't be one.
    #[error(transparent)]
    Name(#[from] TrackerAddressError),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Random,
}

/// A panic of the driver's is the server's.
fn passed_on(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

fn random() -> Result<[u8; 8], ServerError> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| ServerError::Random)?;
    Ok(bytes)
}

fn accept(shared: &Arc<Shared>, tasks: &TaskTracker, shutdown: &CancellationToken, stream: TcpStream, source: IpAddr) {
    let Ok(connection) = Arc::clone(&shared.connections).try_acquire_owned() else {
        shared.metrics.connection_refused("connections");
        return;
    };
    // Until the handshake is over everybody is a stranger.
    let Some(stranger) = shared.strangers.enter(source) else {
        shared.metrics.connection_refused("strangers");
        return;
    };
    shared.metrics.connections.inc();
    let place = Place { _connection: connection, stranger: Some(stranger), metrics: shared.metrics.clone() };
    let (shared, shutdown, spawner) = (Arc::clone(shared), shutdown.clone(), tasks.clone());
    tasks.spawn(async move {
        let _ = stream.set_nodelay(true);
        // Boxed: the handshake's state is large and short-lived.
        let shaken = Box::pin(shake_hands(&shared, stream));
        match shutdown.run_until_cancelled(shaken).await {
            Some(Ok(stream)) => Box::pin(serve(&shared, &spawner, &shutdown, stream, source, place)).await,
            Some(Err(error)) => {
                shared.metrics.connection_refused("handshake");
                tracing::debug!(%source, %error, "a handshake failed");
            }
            None => {}
        }
    });
}

async fn shake_hands(shared: &Shared, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(shared.credentials.tls());
    timeout(shared.limits.handshake, acceptor.accept(stream)).await?
}

async fn serve(
    shared: &Arc<Shared>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    stream: TlsStream<TcpStream>,
    source: IpAddr,
    mut place: Place,
) {
    let now = SystemTime::now();
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let (node, life, _node_place) = match shown.map(|certificate| NodeCertificate::parse(certificate)) {
        None => (None, shared.limits.stranger_life, None),
        Some(Ok(certificate)) => {
            let life = certificate.not_after.duration_since(now).unwrap_or_default();
            let Some(budget) = shared.directory.enter(&certificate, now) else {
                shared.metrics.connection_refused("nodes");
                return;
            };
            let Ok(connection) = Arc::clone(&budget.connections).try_acquire_owned() else {
                shared.metrics.connection_refused("connections_per_node");
                return;
            };
            place.stranger = None;
            (Some(Arc::new(NodePeer { certificate, budget })), life, Some(connection))
        }
        Some(Err(error)) => {
            // Of our CA, and not a node's.
            shared.metrics.connection_refused("certificate");
            tracing::warn!(%source, %error, "a certificate of our CA isn't a node's");
            return;
        }
    };
    let peer = Peer { source, node };
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, peer) = (Arc::clone(shared), peer.clone());
        async move {
            let response: Response<routes::Answer> = Box::pin(routes::answer(&shared, &peer, request)).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let limits = &shared.limits;
    let connection = http2::Builder::new(Tracked(tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(128 << 10)
        .initial_connection_window_size(256 << 10)
        .max_send_buf_size(64 << 10)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.ping_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(life) => {}
        () = shutdown.cancelled() => {}
    }
    // What is in flight gets a chance to end; a stream of events doesn't end by itself, so it isn't waited for.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.drain, connection).await;
}

/// Shows the core's figures until the stop.
async fn look_at_core(shared: Arc<Shared>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        let seen = shared.commands.ask(|answer| Command::Snapshot { blobs: 0, banned: 0, answer }).await;
        let Ok(status) = seen else { return };
        shared.metrics.core.show(status);
    }
}
