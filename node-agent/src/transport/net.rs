//! The connections of one agent to its peers: what the driver holds.
//!
//! State: the listener's task and one task for each connection, standing or on its way.
//! Invariants: all tasks are children of one token and are waited for; connections, handshakes and the queue of events are bounded.
//! Absent on purpose: whom to connect to, and when to try again.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use shoal_types::{BlobKey, ChunkIndex, NodeId, Zone};
use shoal_wire::codec::{EncodeError, encode_frame};
use shoal_wire::{CloseReason, Contact, Hello, NodeName, PeerFrame, Versions, node_id};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Shared};
use super::counters::{Counters, CountersSnapshot};
use super::event::{ConnectError, Connected, Event, PeerId};
use super::handshake::{self, Greeted};
use super::identity::{Identity, NodeCertificate};
use super::outgoing::{Outgoing, WaitingChunk};
use super::rate::Rate;
use super::registry::{Candidate, Registry};
use super::secure::Secure;
use super::settings::Settings;
use super::store::ChunkStore;

/// Events that wait for the driver. Each has at most one frame of 512 KiB, so hostile peers can make them 32 MiB; usual ones have
/// less than a KiB. The driver takes them much faster than they come, and while it doesn't, nothing more is read.
const EVENTS: usize = 64;

/// After an error of accept, which is a lack of file descriptors or memory, the next try comes so much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// With a limit on what comes, the kernel keeps what arrives in 50 ms, and not the megabytes that it would let senders send early;
/// at least what a round trip of 64 KiB needs.
const RECEIVE_BUFFER_PER_SECOND: u64 = 20;
const MIN_RECEIVE_BUFFER: u64 = 128 << 10;

/// Who an agent is on its links.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its name. With certificates it must be theirs.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
}

/// How peers prove who they are.
#[derive(Clone, Debug)]
pub enum Security {
    /// With certificates, over TLS. A new identity holds for connections made from then on.
    Tls(watch::Receiver<Arc<Identity>>),
    /// Not at all: whoever reaches an agent can say that it is any node, and read and change what is sent. Only for a cluster that
    /// has chosen plain peer links.
    Plain,
}

/// The driver's hold on the connections. Clones are the same.
pub struct PeerNet<S: ChunkStore> {
    inner: Arc<Inner<S>>,
}

impl<S: ChunkStore> Clone for PeerNet<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: ChunkStore> fmt::Debug for PeerNet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNet").field("local", &self.inner.local).finish_non_exhaustive()
    }
}

/// What happens on the connections. Without someone who takes events nothing goes on.
#[derive(Debug)]
pub struct Events<C> {
    receiver: mpsc::Receiver<Event<C>>,
}

impl<C> Events<C> {
    /// The next event; none once everything is shut down. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event<C>> {
        self.receiver.recv().await
    }
}

struct Inner<S: ChunkStore> {
    shared: Arc<Shared<S>>,
    registry: Registry<S::Outgoing>,
    local: Local,
    address: SocketAddr,
    incarnation: u64,
    security: Security,
    tasks: TaskTracker,
    /// Frames are encoded here once, for all whom they go to.
    scratch: Mutex<BytesMut>,
    /// Handshakes under way by address.
    crowd: Mutex<BTreeMap<IpAddr, usize>>,
}

impl<S: ChunkStore> PeerNet<S> {
    /// Takes connections from then on.
    ///
    /// # Errors
    /// If the certificate is another node's, or the listener is none.
    pub fn start(
        local: Local,
        listener: TcpListener,
        security: Security,
        settings: Settings,
        store: S,
    ) -> io::Result<(Self, Events<S::Incoming>)> {
        if let Security::Tls(identity) = &security
            && *identity.borrow().certificate().name() != local.name
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the certificate is another node's"));
        }
        if let Some(bytes) = receive_buffer(&settings) {
            // Connections that are accepted have their listener's.
            SockRef::from(&listener).set_recv_buffer_size(bytes)?;
        }
        let address = listener.local_addr()?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let (upload, download) = (Rate::new(settings.upload_limit), Rate::new(settings.download_limit));
        let registry = Registry::new(node_id(&local.name), settings.max_connections);
        let stop = CancellationToken::new();
        let shared = Shared { store, settings, upload, download, counters: Counters::default(), events, stop };
        // No two runs start in the same nanosecond.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let inner = Arc::new(Inner {
            shared: Arc::new(shared),
            registry,
            local,
            address,
            incarnation: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            security,
            tasks: TaskTracker::new(),
            scratch: Mutex::new(BytesMut::new()),
            crowd: Mutex::new(BTreeMap::new()),
        });
        inner.tasks.spawn(inner.clone().listen(listener));
        Ok((Self { inner }, Events { receiver }))
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// Connects to a node. What comes of it is an event: `Connected` or `ConnectFailed`, and nothing if the node is connected, or is
    /// being dialled already.
    pub fn connect(&self, contact: Contact) {
        if self.inner.registry.start_dialling(contact.node()) {
            self.inner.tasks.spawn(self.inner.clone().dial(contact));
        }
    }

    /// Sends a frame to each of these peers, after everything sent to it before. Never waits: a peer for which too much waits
    /// already is closed. For peers that are gone nothing happens.
    ///
    /// # Errors
    /// If the frame is longer than a frame may be. Nobody got it.
    pub fn send(&self, to: &[PeerId], frame: &PeerFrame) -> Result<(), EncodeError> {
        let mut scratch = self.inner.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        scratch.clear();
        encode_frame(frame, &mut scratch)?;
        for outgoing in to.iter().filter_map(|peer| self.inner.registry.outgoing(*peer)) {
            outgoing.push_frames(&scratch);
        }
        Ok(())
    }

    /// Sends a chunk of `length` bytes to a peer, after everything sent to it before; an event says when it has left. Never waits.
    pub fn send_chunk(&self, to: PeerId, key: BlobKey, chunk: ChunkIndex, length: u32, source: S::Outgoing) {
        if let Some(outgoing) = self.inner.registry.outgoing(to) {
            outgoing.push_chunk(WaitingChunk { key, chunk, length, source });
        }
    }

    /// Ends a connection. What waits for the peer is dropped; `Closed` follows.
    pub fn close(&self, peer: PeerId, reason: CloseReason) {
        if let Some(outgoing) = self.inner.registry.outgoing(peer) {
            outgoing.end(reason);
        }
    }

    /// How many nodes are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.registry.len()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        self.inner.shared.counters.snapshot()
    }

    /// Ends everything and waits for it: about a second, while peers are told. Events that find no place meanwhile are dropped.
    pub async fn shutdown(&self) {
        self.inner.tasks.close();
        self.inner.shared.stop.cancel();
        self.inner.tasks.wait().await;
    }
}

impl<S: ChunkStore> Inner<S> {
    async fn listen(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(self.shared.settings.max_handshakes));
        loop {
            let accepted = tokio::select! {
                () = self.shared.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can't accept connections of peers");
                    tokio::select! {
                        () = self.shared.stop.cancelled() => return,
                        () = sleep(ACCEPT_PAUSE) => continue,
                    }
                }
            };
            let permit = handshakes.clone().try_acquire_owned();
            match (permit, Crowd::enter(&self, from.ip())) {
                (Ok(permit), Some(crowd)) => {
                    self.tasks.spawn(self.clone().accept(stream, from, (permit, crowd)));
                }
                _ => self.shared.counters.failed("crowded"),
            }
        }
    }

    async fn accept<G>(self: Arc<Self>, stream: TcpStream, from: SocketAddr, guard: G) {
        let result = match self.identity() {
            Some(identity) => {
                let secure = async {
                    self.prepare(&stream)?;
                    handshake::secure_accept(&identity, stream).await
                };
                match self.in_time(secure).await {
                    Ok((stream, certificate)) => self.accept_from(stream, Some(certificate), from, guard).await,
                    Err(error) => Err(error),
                }
            }
            None => match self.prepare(&stream) {
                Ok(()) => self.accept_from(stream, None, from, guard).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = result {
            self.shared.counters.failed(error.label());
            tracing::debug!(%from, error = &error as &dyn std::error::Error, "a connection of a peer failed");
        }
    }

    async fn accept_from<G>(
        self: &Arc<Self>,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        certificate: Option<Arc<NodeCertificate>>,
        from: SocketAddr,
        guard: G,
    ) -> Result<(), ConnectError> {
        let outgoing = self.queue();
        let admitted = self.in_time(async {
            let greeted = match handshake::await_greeting(&mut stream, certificate.as_deref()).await {
                Ok(greeted) => greeted,
                Err(error) => {
                    handshake::refuse(&mut stream, told(&error)).await?;
                    return Err(error);
                }
            };
            let node = node_id(&greeted.hello.name);
            let candidate = Candidate { node, incarnation: greeted.hello.incarnation, dialled: false };
            match self.registry.admit(candidate, &outgoing) {
                Ok(place) => Ok((greeted, node, place)),
                Err(reason) => {
                    handshake::refuse(&mut stream, reason).await?;
                    Err(ConnectError::Rejected(reason))
                }
            }
        });
        let (greeted, node, place) = admitted.await?;
        let leaver = Leaver { inner: self, node, peer: place.peer, gone: place.gone };
        self.in_time(handshake::greet(&mut stream, self.hello())).await?;
        drop(guard);
        let contact = handshake::contact_of(&greeted.hello, from);
        let standing = Standing { contact, certificate, greeted, outgoing, dialled: false };
        self.stand(standing, leaver, place.predecessor, stream).await;
        Ok(())
    }

    async fn dial(self: Arc<Self>, contact: Contact) {
        let node = contact.node();
        let dialling = Dialling { inner: &self, node };
        let result = match self.dial_stream(&contact).await {
            Ok(Dialled::Secure(stream, certificate)) => {
                self.dial_to(stream, Some(certificate), contact, dialling).await
            }
            Ok(Dialled::Plain(stream)) => self.dial_to(stream, None, contact, dialling).await,
            Err(error) => {
                drop(dialling);
                Err(error)
            }
        };
        if let Err(error) = result {
            self.shared.counters.failed(error.label());
            let _ = self.shared.tell(Event::ConnectFailed { node, error }).await;
        }
    }

    async fn dial_stream(&self, contact: &Contact) -> Result<Dialled, ConnectError> {
        if self.registry.len() + self.registry.dialling() > self.shared.settings.max_connections {
            return Err(ConnectError::Rejected(CloseReason::Full));
        }
        self.in_time(async {
            let address = contact.address();
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(bytes) = receive_buffer(&self.shared.settings) {
                SockRef::from(&socket).set_recv_buffer_size(bytes)?;
            }
            let stream = socket.connect(address).await?;
            self.prepare(&stream)?;
            let Some(identity) = self.identity() else { return Ok(Dialled::Plain(stream)) };
            let (stream, certificate) = handshake::secure_dial(&identity, stream, address).await?;
            handshake::expect(contact.name(), certificate.name())?;
            Ok(Dialled::Secure(Box::new(stream), certificate))
        })
        .await
    }

    async fn dial_to(
        self: &Arc<Self>,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        certificate: Option<Arc<NodeCertificate>>,
        contact: Contact,
        dialling: Dialling<'_, S>,
    ) -> Result<(), ConnectError> {
        let greeted = self.in_time(async {
            handshake::greet(&mut stream, self.hello()).await?;
            let greeted = handshake::await_greeting(&mut stream, certificate.as_deref()).await?;
            handshake::expect(contact.name(), &greeted.hello.name)?;
            Ok(greeted)
        });
        let greeted = greeted.await?;
        let outgoing = self.queue();
        let node = contact.node();
        let candidate = Candidate { node, incarnation: greeted.hello.incarnation, dialled: true };
        let place = match self.registry.admit(candidate, &outgoing) {
            Ok(place) => place,
            Err(reason) => {
                self.in_time(handshake::refuse(&mut stream, reason)).await?;
                return Err(ConnectError::Rejected(reason));
            }
        };
        drop(dialling);
        let leaver = Leaver { inner: self, node, peer: place.peer, gone: place.gone };
        // Its zone is what it says now, not what somebody knew.
        let contact = Contact::new(greeted.hello.name.clone(), greeted.hello.zone.clone(), contact.address());
        let standing = Standing { contact, certificate, greeted, outgoing, dialled: true };
        self.stand(standing, leaver, place.predecessor, stream).await;
        Ok(())
    }

    async fn stand(
        self: &Arc<Self>,
        standing: Standing<S>,
        leaver: Leaver<'_, S>,
        predecessor: Option<CancellationToken>,
        stream: impl AsyncRead + AsyncWrite,
    ) {
        if let Some(gone) = predecessor {
            gone.cancelled().await;
        }
        let Standing { contact, certificate, greeted, outgoing, dialled } = standing;
        let Greeted { version, rest, .. } = greeted;
        let connection = Connection { shared: self.shared.clone(), outgoing, peer: leaver.peer, node: leaver.node };
        let connected = Connected { peer: leaver.peer, contact, certificate, version, dialled };
        connection.run(connected, stream, rest, move || leaver.leave()).await;
    }

    async fn in_time<T>(&self, handshake: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        tokio::select! {
            () = self.shared.stop.cancelled() => Err(ConnectError::Rejected(CloseReason::Leaving)),
            result = timeout(self.shared.settings.handshake_within, handshake) => {
                result.unwrap_or(Err(ConnectError::Timeout))
            }
        }
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        match &self.security {
            Security::Tls(identity) => Some(identity.borrow().clone()),
            Security::Plain => None,
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            versions: Versions::CURRENT,
            name: self.local.name.clone(),
            zone: self.local.zone.clone(),
            port: self.address.port(),
            incarnation: self.incarnation,
        }
    }

    fn queue(&self) -> Arc<Outgoing<S::Outgoing>> {
        let Settings { queued_bytes, queued_chunks, .. } = self.shared.settings;
        Arc::new(Outgoing::new(queued_bytes, queued_chunks, self.shared.stop.child_token()))
    }

    fn prepare(&self, stream: &TcpStream) -> Result<(), ConnectError> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        SockRef::from(stream).set_tcp_notsent_lowat(self.shared.settings.unsent_bytes)?;
        Ok(())
    }
}

enum Dialled {
    Secure(Box<Secure>, Arc<NodeCertificate>),
    Plain(TcpStream),
}

/// A connection that is admitted.
struct Standing<S: ChunkStore> {
    contact: Contact,
    certificate: Option<Arc<NodeCertificate>>,
    greeted: Greeted,
    outgoing: Arc<Outgoing<S::Outgoing>>,
    dialled: bool,
}

/// Gives a connection's place back, and lets its successor go ahead when it is dropped.
struct Leaver<'a, S: ChunkStore> {
    inner: &'a Inner<S>,
    node: NodeId,
    peer: PeerId,
    gone: CancellationToken,
}

impl<S: ChunkStore> Leaver<'_, S> {
    fn leave(self) -> Self {
        self.inner.registry.leave(self.node, self.peer);
        self
    }
}

impl<S: ChunkStore> Drop for Leaver<'_, S> {
    fn drop(&mut self) {
        // Again, for one that never stood.
        self.inner.registry.leave(self.node, self.peer);
        self.gone.cancel();
    }
}

/// A node is being dialled as long as this is held.
struct Dialling<'a, S: ChunkStore> {
    inner: &'a Inner<S>,
    node: NodeId,
}

impl<S: ChunkStore> Drop for Dialling<'_, S> {
    fn drop(&mut self) {
        self.inner.registry.stop_dialling(self.node);
    }
}

/// A handshake's place among those from its address.
struct Crowd<S: ChunkStore> {
    inner: Arc<Inner<S>>,
    address: IpAddr,
}

impl<S: ChunkStore> Crowd<S> {
    fn enter(inner: &Arc<Inner<S>>, address: IpAddr) -> Option<Self> {
        let mut crowd = inner.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        let count = crowd.entry(address).or_default();
        if *count >= inner.shared.settings.max_handshakes_per_address {
            return None;
        }
        *count += 1;
        Some(Self { inner: inner.clone(), address })
    }
}

impl<S: ChunkStore> Drop for Crowd<S> {
    fn drop(&mut self) {
        let mut crowd = self.inner.crowd.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = crowd.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                crowd.remove(&self.address);
            }
        }
    }
}

fn receive_buffer(settings: &Settings) -> Option<usize> {
    let bytes = (settings.download_limit? / RECEIVE_BUFFER_PER_SECOND).max(MIN_RECEIVE_BUFFER);
    usize::try_from(bytes).ok()
}

/// What the other side is told when its greeting is of no use.
const fn told(error: &ConnectError) -> CloseReason {
    match error {
        ConnectError::Rejected(reason) => *reason,
        ConnectError::WrongNode { .. } | ConnectError::Identity(_) => CloseReason::Identity,
        _ => CloseReason::Violation,
    }
}
