//! A CA, nodes, and a store in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use shoal_types::{BlobKey, ChunkIndex, ChunkSize, Digest, NodeId, Zone};
use shoal_wire::codec::encode_frame;
use shoal_wire::{Contact, Hello, NodeName, PeerFrame, PeerMessage, Versions};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::transport::*;

pub(super) const KEY: BlobKey = BlobKey { digest: Digest::Sha256([7; 32]), chunk_size: ChunkSize::MAX };

const HOUR: Duration = Duration::from_secs(3600);

/// Keeps what comes in memory.
pub(super) struct Memory;

#[derive(Debug, Default)]
pub(super) struct Received(pub(super) Vec<u8>);

impl ChunkStore for Memory {
    type Incoming = Received;
    type Outgoing = Bytes;

    fn receive(&self, _from: NodeId, _key: BlobKey, _chunk: ChunkIndex, _length: u32) -> Received {
        Received::default()
    }
}

impl IncomingChunk for Received {
    async fn put(&mut self, bytes: BytesMut) {
        self.0.extend_from_slice(&bytes);
    }
}

/// A cluster's CA.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) root: CertificateDer<'static>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// A certificate with these URIs, from an hour ago until so many hours after now, and its key.
    pub(super) fn issue(&self, uris: &[&str], hours: i64) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI(Ia5String::try_from(*uri).unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - 48 * HOUR).into();
        params.not_after = match u32::try_from(hours) {
            Ok(hours) => (now + hours * HOUR).into(),
            Err(_) => (now - u32::try_from(-hours).unwrap() * HOUR).into(),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, key.into())
    }

    pub(super) fn identity(&self, name: &str) -> Arc<Identity> {
        self.identity_among(name, &[])
    }

    /// An identity that trusts other CAs beside its own.
    pub(super) fn identity_among(&self, name: &str, others: &[&Self]) -> Arc<Identity> {
        let (certificate, key) = self.issue(&[&format!("shoal://node/{name}")], 24);
        let roots: Vec<_> = others.iter().copied().chain([self]).map(|ca| ca.root.clone()).collect();
        Identity::new(vec![certificate], &key, &roots).unwrap().into()
    }

    /// An identity whose certificate has been invalid for an hour.
    pub(super) fn expired(&self, name: &str) -> Arc<Identity> {
        let (certificate, key) = self.issue(&[&format!("shoal://node/{name}")], -1);
        let then = UnixTime::since_unix_epoch(UnixTime::now().as_secs_duration() - 24 * HOUR);
        Identity::new_at(vec![certificate], &key, std::slice::from_ref(&self.root), then).unwrap().into()
    }
}

trait AsDuration {
    fn as_secs_duration(&self) -> Duration;
}

impl AsDuration for UnixTime {
    fn as_secs_duration(&self) -> Duration {
        Duration::from_secs(self.as_secs())
    }
}

/// An agent's transport and what happens on it.
pub(super) struct Node {
    pub(super) net: PeerNet<Memory>,
    pub(super) events: Events<Received>,
    pub(super) identity: Option<watch::Sender<Arc<Identity>>>,
    name: NodeName,
}

impl Node {
    pub(super) async fn secure(identity: Arc<Identity>) -> Self {
        Self::secure_with(identity, Settings::default()).await
    }

    pub(super) async fn secure_with(identity: Arc<Identity>, settings: Settings) -> Self {
        let name = identity.certificate().name().clone();
        let (sender, receiver) = watch::channel(identity);
        Self { identity: Some(sender), ..Self::bind(name, Security::Tls(receiver), settings).await }
    }

    pub(super) async fn plain(name: &str, settings: Settings) -> Self {
        Self::bind(NodeName::new(name).unwrap(), Security::Plain, settings).await
    }

    async fn bind(name: NodeName, security: Security, settings: Settings) -> Self {
        let local = Local { name: name.clone(), zone: zone() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (net, events) = PeerNet::start(local, listener, security, settings, Memory).unwrap();
        Self { net, events, identity: None, name }
    }

    pub(super) fn contact(&self) -> Contact {
        self.contact_as(self.name.as_str())
    }

    /// Its address, with another name.
    pub(super) fn contact_as(&self, name: &str) -> Contact {
        Contact::new(NodeName::new(name).unwrap(), zone(), self.net.local_addr())
    }

    pub(super) async fn event(&mut self) -> Event<Received> {
        soon(self.events.next()).await.expect("the transport runs")
    }

    pub(super) async fn connected(&mut self) -> Connected {
        match self.event().await {
            Event::Connected(connected) => connected,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn connect_failed(&mut self) -> ConnectError {
        match self.event().await {
            Event::ConnectFailed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn closed(&mut self) -> CloseCause {
        match self.event().await {
            Event::Closed { cause, .. } => cause,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a counter, which nothing announces, is what it should be.
    pub(super) async fn counts(&self, holds: impl Fn(&CountersSnapshot) -> bool) {
        let reached = async {
            while !holds(&self.net.counters()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = timeout(Duration::from_secs(20), reached).await;
        assert!(in_time.is_ok(), "{:?}", self.net.counters());
    }
}

pub(super) fn zone() -> Zone {
    Zone::new("z").unwrap()
}

/// What must happen without a long wait. The limit is only there to end a test that hangs.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("it happens soon")
}

pub(super) fn content(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from((at * 31 + at / 253) % 251).unwrap()).collect()
}

/// A message that can be told from others.
pub(super) fn numbered(number: u8) -> PeerFrame {
    PeerFrame::Message(PeerMessage::Hungry { sources: number })
}

pub(super) fn hello(name: &str) -> Hello {
    Hello { versions: Versions::CURRENT, name: NodeName::new(name).unwrap(), zone: zone(), port: 1, incarnation: 1 }
}

pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &PeerFrame) {
    let mut bytes = BytesMut::new();
    encode_frame(frame, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
}

pub(super) fn loopback(address: SocketAddr) -> SocketAddr {
    assert!(address.ip().is_loopback());
    address
}
