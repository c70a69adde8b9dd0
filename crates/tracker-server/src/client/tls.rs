//! The client's side of the handshakes: with a certificate, or, to join, knowing the CA only by its fingerprint.
//!
//! State: none.
//! Invariants: there is no handshake without verifying the tracker: its certificate must lead to a root that is trusted or pinned,
//! and have the name by which it was called.
//! Absent on purpose: a switch that turns this off.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::NodeIdentity;
use crate::trust::{Fingerprint, Trust};

/// What the first contact is verified by.
#[derive(Clone, Debug)]
pub(super) enum Anchor {
    Roots(Arc<Trust>),
    Pinned(Fingerprint),
}

/// For those who have no certificate yet.
pub(super) fn stranger(anchor: &Anchor) -> Result<Arc<ClientConfig>, Error> {
    let builder = builder()?;
    let builder = match anchor {
        Anchor::Roots(trust) => builder.with_root_certificates(Arc::clone(trust.roots())),
        Anchor::Pinned(fingerprint) => {
            let verifier = Pinned { fingerprint: *fingerprint, provider: Arc::new(default_provider()) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(finish(builder.with_no_client_auth()))
}

/// For a node.
pub(super) fn node(identity: &NodeIdentity) -> Result<Arc<ClientConfig>, Error> {
    let builder = builder()?.with_root_certificates(Arc::clone(identity.trust().roots()));
    Ok(finish(builder.with_client_auth_cert(identity.chain(), identity.key())?))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(default_provider())).with_protocol_versions(&[&rustls::version::TLS13])
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Trusts the one root of this fingerprint, which the tracker sends along.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = intermediates.iter().find(|shown| Fingerprint::of(shown) == self.fingerprint).ok_or_else(unknown)?;
        let trust = Trust::new([root.clone().into_owned()]).map_err(|_| unknown())?;
        let roots = Arc::clone(trust.roots());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
