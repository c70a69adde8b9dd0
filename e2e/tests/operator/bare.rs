//! A bare HTTP/2 connection to a tracker, for what no client of ours does.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use shoal_tracker_server::Trust;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::world::LONG;

/// A certificate's chain, and its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(crate) struct Bare {
    requests: SendRequest<Full<Bytes>>,
}

impl Bare {
    /// With this certificate, or as a stranger. An error of the handshake may show only at the first request.
    pub(crate) async fn connect(tracker: SocketAddr, trust: &Trust, shown: Option<Shown>) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = builder.with_root_certificates(Arc::clone(trust.roots()));
        let mut config = match shown {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(tracker).await?;
        let name = ServerName::from(tracker.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// The answer's status and the beginning of its body.
    pub(crate) async fn ask(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: String,
    ) -> anyhow::Result<(u16, String)> {
        let mut request = Request::builder().method(method).uri(format!("https://tracker{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = timeout(LONG, self.requests.clone().send_request(request)).await??;
        let status = answer.status().as_u16();
        // A stream of events has no end.
        let frame = timeout(LONG, answer.into_body().frame()).await?;
        let text = frame.transpose()?.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}
