//! From a fresh connection to one whose other end is known and admitted.
//!
//! ```text
//!   who dials:    TCP ─> TLS ─> its greeting ───────────────────────────> a greeting: admitted there, and here if there is a place
//!   who accepts:  TCP ─> TLS ─> a greeting ─> a place? its greeting <──
//! ```
//!
//! State: none beyond the connection's.
//! Invariants: over TLS the certificate says who the other end is, and the greeting must agree; who dialled speaks on only with the
//! node that it wanted. Until the other end is known no more than a greeting's bytes are kept.
//! Absent on purpose: time limits, which hold for a handshake as a whole (`net`).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use shoal_wire::codec::{Decoded, decode_frame, encode_frame};
use shoal_wire::{CloseReason, Contact, Hello, NodeName, PeerFrame, Versions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::event::{ConnectError, Malformed};
use super::identity::{Identity, NodeCertificate, Usage};
use super::secure::Secure;
use super::tls;

/// The longest greeting has 340 bytes; a later release's may have a few more fields.
const MAX_GREETING: usize = 4 << 10;

/// A connection whose other end has greeted.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) hello: Hello,
    pub(crate) version: u16,
    /// What came after the greeting.
    pub(crate) rest: BytesMut,
}

/// Dials under TLS; who is there.
pub(crate) async fn secure_dial(
    identity: &Identity,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(Secure, Arc<NodeCertificate>), ConnectError> {
    // The name isn't sent and not compared: the certificate's is, with the node's.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = Secure::connect(identity.client.clone(), name, stream).await?;
    let certificate = certificate_of(identity, &stream, Usage::Server)?;
    Ok((stream, certificate))
}

/// Accepts under TLS; who is there.
pub(crate) async fn secure_accept(
    identity: &Identity,
    stream: TcpStream,
) -> Result<(Secure, Arc<NodeCertificate>), ConnectError> {
    let stream = Secure::accept(identity.server.clone(), stream).await?;
    let certificate = certificate_of(identity, &stream, Usage::Client)?;
    Ok((stream, certificate))
}

/// Sends the greeting.
pub(crate) async fn greet(stream: &mut (impl AsyncWrite + Unpin), hello: Hello) -> Result<(), ConnectError> {
    send(stream, &PeerFrame::Hello(hello)).await
}

/// Tells the other side why there will be no connection, as far as it still listens.
pub(crate) async fn refuse(stream: &mut (impl AsyncWrite + Unpin), reason: CloseReason) -> Result<(), ConnectError> {
    send(stream, &PeerFrame::Close(reason)).await?;
    Ok(stream.shutdown().await?)
}

/// Waits for the other end's greeting. With a certificate it must be the certificate's node that greets.
pub(crate) async fn await_greeting(
    stream: &mut (impl AsyncRead + Unpin),
    certificate: Option<&NodeCertificate>,
) -> Result<Greeted, ConnectError> {
    let mut rest = BytesMut::with_capacity(MAX_GREETING);
    let hello = loop {
        match decode_frame(&mut rest).map_err(Malformed::Frame)? {
            Some(Decoded::Known(PeerFrame::Hello(hello))) => break hello,
            Some(Decoded::Known(PeerFrame::Close(reason))) => return Err(ConnectError::Refused(reason)),
            Some(_) => return Err(Malformed::Greeting.into()),
            None if rest.len() >= MAX_GREETING => return Err(Malformed::Greeting.into()),
            None => {}
        }
        if stream.read_buf(&mut rest).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    };
    if let Some(certificate) = certificate {
        expect(certificate.name(), &hello.name)?;
    }
    let version = Versions::CURRENT.common(hello.versions).ok_or(ConnectError::Rejected(CloseReason::Version))?;
    Ok(Greeted { hello, version, rest })
}

/// Whether it is that node.
pub(crate) fn expect(wanted: &NodeName, found: &NodeName) -> Result<(), ConnectError> {
    if wanted == found {
        return Ok(());
    }
    Err(ConnectError::WrongNode { wanted: wanted.clone(), found: found.clone() })
}

/// Where a node that dialled is found: at the address from which it speaks, at the port that it names.
pub(crate) fn contact_of(hello: &Hello, from: SocketAddr) -> Contact {
    let address = SocketAddr::new(from.ip().to_canonical(), hello.port);
    Contact::new(hello.name.clone(), hello.zone.clone(), address)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &PeerFrame) -> Result<(), ConnectError> {
    let mut bytes = BytesMut::new();
    encode_frame(frame, &mut bytes).map_err(std::io::Error::other)?;
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

/// The other end's certificate. TLS has checked it in the handshake; here it is read.
fn certificate_of(identity: &Identity, stream: &Secure, usage: Usage) -> Result<Arc<NodeCertificate>, ConnectError> {
    let session = stream.session();
    if !tls::is_ours(session.alpn_protocol()) {
        return Err(ConnectError::Protocol);
    }
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    Ok(Arc::new(identity.verify(chain, usage)?))
}
