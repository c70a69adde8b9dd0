//! TLS 1.3 between nodes, mutual, with the nodes' own certificates.
//!
//! State: none.
//! Invariants: both sides' chains lead to the cluster's CA and name a node. Sessions aren't resumed: a resumed one would take the
//! certificate of an earlier handshake for granted, and connections stand for hours, so a handshake saved is nothing.
//! Absent on purpose: host names. A node is found at an address and proves its name; who dialled compares it with whom it wanted.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::{IdentityError, Roots, Usage};

/// The protocol's name in the handshake.
const ALPN: &[u8] = b"shoal/1";

/// ring, with the cipher first that is fastest where the processor helps with AES.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

/// How a node dials and how it takes connections.
pub(super) fn configs(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<Roots>,
    chain: &[CertificateDer<'static>],
    key: &Arc<dyn SigningKey>,
) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), Error> {
    let verifier = Arc::new(Verifier(roots.clone()));
    let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain.to_vec(), key.clone())));
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(certified.clone());
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certified);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok((client.into(), server.into()))
}

/// Whether both sides have agreed on the protocol.
pub(super) fn is_ours(alpn: Option<&[u8]>) -> bool {
    alpn == Some(ALPN)
}

/// Lets in whose chain leads to a root and names a node.
#[derive(Debug)]
struct Verifier(Arc<Roots>);

impl Verifier {
    fn verify(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain = std::iter::once(own).chain(between).map(|der| der.clone().into_owned()).collect();
        self.0.verify(chain, usage, now).map(drop).map_err(certificate_error)
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        self.0.algorithms()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not offered".to_owned())
}

/// As the alert that tells the other side the most.
fn certificate_error(error: IdentityError) -> Error {
    use webpki::Error as E;
    match error {
        IdentityError::Certificate(E::CertExpired { .. }) => CertificateError::Expired.into(),
        IdentityError::Certificate(E::CertNotValidYet { .. }) => CertificateError::NotValidYet.into(),
        IdentityError::Certificate(E::UnknownIssuer) => CertificateError::UnknownIssuer.into(),
        IdentityError::Tls(error) => error,
        other => CertificateError::Other(rustls::OtherError(Arc::new(Refused(other)))).into(),
    }
}

#[derive(Debug)]
struct Refused(IdentityError);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)
    }
}
