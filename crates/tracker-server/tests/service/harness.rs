//! A tracker on loopback, clients of it, and a bare connection for what no client does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shoal_tracker::ReplicaName;
use shoal_tracker_server::client::{ClientConfig, Event, EventStream, NodeIdentity, TrackerClient};
use shoal_tracker_server::{
    Anonymous, Authority, Handle, Identity, ImageName, JoinToken, JoinTokens, Metrics, OriginResolver, PullSecret,
    Replica, ResolveError, Resolved, SecretKind, Server, ServerConfig, ServerLimits, TrackerAddress, Trust,
};
use shoal_types::{Digest, Zone};
use shoal_wire::{Announce, AnnounceEvent, LeaseGrant, LeaseRequest, LeaseState};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A directory that goes with its owner.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shoal-tracker-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An origin that says one thing, when the gate lets it.
pub(crate) struct Origin {
    pub(crate) asked: AtomicUsize,
    pub(crate) gate: Semaphore,
    pub(crate) says: Mutex<Result<Resolved, ResolveError>>,
}

impl Origin {
    fn new() -> Arc<Self> {
        let resolved = Resolved {
            digest: digest(1),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            size_bytes: 1_000,
            anonymous: Anonymous::Readable,
        };
        let (asked, gate) = (AtomicUsize::new(0), Semaphore::new(1_000));
        Arc::new(Self { asked, gate, says: Mutex::new(Ok(resolved)) })
    }
}

impl OriginResolver for Origin {
    fn resolve<'a>(&'a self, _name: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            self.says.lock().unwrap().clone()
        }
        .boxed()
    }

    fn pull_secret<'a>(&'a self, name: &'a ImageName) -> BoxFuture<'a, Result<Option<PullSecret>, ResolveError>> {
        let secret = PullSecret { kind: SecretKind::Token("geheim".into()), holds: Duration::from_secs(60) };
        async move {
            match name.registry() {
                "open.example" => Ok(None),
                "down.example" => Err(ResolveError::Unreachable("it is down".to_owned())),
                _ => Ok(Some(secret)),
            }
        }
        .boxed()
    }
}

/// What a test's trackers have in common.
pub(crate) struct Cluster {
    pub(crate) dir: Dir,
    pub(crate) authority: Arc<Authority>,
    pub(crate) token: JoinToken,
    pub(crate) admin: JoinToken,
    pub(crate) limits: ServerLimits,
    pub(crate) tracker: shoal_tracker::Config,
}

/// A tracker that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) origin: Arc<Origin>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) registry: Registry,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(LONG, self.task).await.expect("a tracker stops").unwrap();
    }

    pub(crate) async fn ended(self) {
        timeout(LONG, self.task).await.expect("a tracker stops").unwrap();
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) client: TrackerClient,
    pub(crate) events: EventStream,
    shutdown: CancellationToken,
}

impl Node {
    pub(crate) async fn identity(&self) -> Arc<NodeIdentity> {
        let mut identity = self.client.identity();
        let got = timeout(LONG, identity.wait_for(Option::is_some)).await.expect("a node joins").unwrap().clone();
        got.unwrap()
    }

    /// Announces a blob that nobody has, and gets its lease.
    pub(crate) async fn leads(&self, digest: Digest) -> LeaseGrant {
        let answered = self.client.announce(&[started(digest)]).await.remove(0).unwrap();
        let LeaseState::Granted(grant) = answered.reply.lease else { panic!("{:?}", answered.reply.lease) };
        grant
    }

    /// Waits until a tracker counts it as connected.
    pub(crate) async fn connected(&mut self) {
        if !self.client.has_tracker() {
            self.event(|event| *event == Event::TrackersFound).await;
        }
    }

    /// The next event that is wanted; the others are dropped.
    pub(crate) async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let next = async {
            loop {
                let event = self.events.next().await.expect("the client runs");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(LONG, next).await.expect("the event comes")
    }

    pub(crate) async fn problem(&self) -> String {
        let mut problem = self.client.problem();
        let problem =
            timeout(LONG, problem.wait_for(Option::is_some)).await.expect("there is a problem").unwrap().clone();
        problem.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(LONG, self.client.stopped()).await.expect("a client stops");
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let authority = Arc::new(Authority::generate().unwrap());
        let [token, admin] = std::array::from_fn(|_| JoinToken::generate(authority.fingerprint()).unwrap());
        let (limits, tracker) = (ServerLimits::default(), shoal_tracker::Config::default());
        Self { dir: Dir::new(), authority, token, admin, limits, tracker }
    }

    pub(crate) async fn tracker(&self) -> Running {
        self.replica("t0", SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new()).await
    }

    pub(crate) async fn replica(&self, name: &str, listen: SocketAddr, replicas: Vec<Replica>) -> Running {
        let tokens = Arc::new(JoinTokens::fixed([self.token.clone()]));
        self.run(name, listen, replicas, tokens).await
    }

    /// A tracker with another identity provider.
    pub(crate) async fn replica_with(&self, identity: Arc<dyn Identity>) -> Running {
        self.run("t0", SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new(), identity).await
    }

    async fn run(
        &self,
        name: &str,
        listen: SocketAddr,
        replicas: Vec<Replica>,
        identity: Arc<dyn Identity>,
    ) -> Running {
        let (origin, metrics, mut registry) = (Origin::new(), Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let config = ServerConfig {
            listen,
            replica: ReplicaName::new(name).unwrap(),
            names: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            replicas,
            swarm: Bytes::from_static(b"kind: Swarm").into(),
            authority: Arc::clone(&self.authority),
            tracker: self.tracker.clone(),
            limits: self.limits.clone(),
            admin_token: Some(self.admin.clone()),
            metrics,
        };
        let server = Server::bind(config, identity, Arc::clone(&origin) as _).await.unwrap();
        let (address, handle, shutdown) = (server.local_addr(), server.handle(), CancellationToken::new());
        let task = tokio::spawn(server.run(shutdown.clone()));
        Running { address, handle, origin, shutdown, registry, task }
    }

    /// A node's configuration, with the good token in a file.
    pub(crate) fn config(&self, name: &str, trackers: &[SocketAddr]) -> ClientConfig {
        let token_file = self.dir.path().join("token");
        std::fs::write(&token_file, format!("# for tests\n{}\n", self.token.reveal())).unwrap();
        ClientConfig {
            trackers: trackers.iter().copied().map(TrackerAddress::from).collect(),
            name: name.parse().unwrap(),
            zone: Zone::new("zone-1").unwrap(),
            peer_ip: None,
            local_ip: None,
            peer_port: 7_001,
            token_file,
            ca_file: None,
            state_dir: self.dir.path().join(name),
        }
    }

    pub(crate) async fn node(&self, name: &str, tracker: &Running) -> Node {
        let mut node = start(self.config(name, &[tracker.address])).await;
        node.connected().await;
        node
    }
}

pub(crate) async fn start(config: ClientConfig) -> Node {
    let shutdown = CancellationToken::new();
    let (client, events) = TrackerClient::start(config, shutdown.clone()).await.unwrap();
    Node { client, events, shutdown }
}

/// A bare HTTP/2 connection.
pub(crate) struct Bare {
    requests: SendRequest<Full<Bytes>>,
}

impl Bare {
    /// With this certificate, or as a stranger. An error of the handshake may show only at the first request.
    pub(crate) async fn connect(
        tracker: SocketAddr,
        trust: &Trust,
        certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_root_certificates(Arc::clone(trust.roots()));
        let mut config = match certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(tracker).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4_096)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { requests }
    }

    pub(crate) async fn as_node(tracker: SocketAddr, node: &NodeIdentity) -> Self {
        Self::connect(tracker, node.trust(), Some((node.chain(), node.key()))).await
    }

    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.requests.clone().send_request(request).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> hyper::Result<(u16, Bytes)> {
        let request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        self.request(request.body(Full::new(body.into())).unwrap()).await
    }

    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> hyper::Result<(u16, Bytes)> {
        let response = timeout(LONG, self.open(request)).await.expect("there is an answer")?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::Sha256([byte; 32])
}

/// A node wants a blob of 64 chunks.
pub(crate) fn started(digest: Digest) -> Announce {
    Announce {
        digest,
        size_bytes: 64 * 64 * 1_024,
        chunk_size: None,
        event: AnnounceEvent::Started,
        have: None,
        want_peers: 50,
        lease: LeaseRequest::Willing,
        links: Vec::new(),
        false_chain: None,
        corrupt_lead: None,
        accused: Vec::new(),
        bytes_from_peers: 0,
        bytes_from_origin: 0,
    }
}
