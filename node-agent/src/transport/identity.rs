//! Who a node is, and how it proves it: certificates and keys.
//!
//! State: none. An identity is a value; a new certificate makes a new identity.
//! Invariants: an identity's certificate leads to one of its own roots when it is made, and names exactly one node; a
//! [`NodeCertificate`] exists only if its chain led to a root.
//! Absent on purpose: getting and renewing certificates (the tracker's client), and files.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use shoal_chain::Signature;
use shoal_types::NodeId;
use shoal_wire::{NodeName, node_id};
use webpki::{EndEntityCert, KeyUsage};

use super::tls;

/// In front of the node's name in its certificate's URI.
const URI_PREFIX: &str = "shoal://node/";

/// A node's own certificate, its key, and whom it trusts.
#[derive(Clone)]
pub struct Identity {
    certificate: Arc<NodeCertificate>,
    key: Arc<dyn rustls::sign::SigningKey>,
    roots: Arc<Roots>,
    pub(super) client: Arc<rustls::ClientConfig>,
    pub(super) server: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// The identity of this chain, the node's own certificate first, with the Ed25519 key in it; peers must lead to one of `roots`.
    ///
    /// # Errors
    /// If the parts don't belong together, or nobody who trusts these roots would believe it now.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        roots: &[CertificateDer<'_>],
    ) -> Result<Self, IdentityError> {
        Self::new_at(chain, key, roots, UnixTime::now())
    }

    /// As [`Self::new`], if now were that time.
    pub(super) fn new_at(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        roots: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Self, IdentityError> {
        let provider = tls::provider();
        let roots = Arc::new(Roots::new(roots, &provider)?);
        let certificate = Arc::new(roots.verify(chain, Usage::Any, now)?);
        let key = provider.key_provider.load_private_key(key.clone_key()).map_err(|_| IdentityError::Key)?;
        let public = key.public_key().ok_or(IdentityError::Key)?;
        if public.as_ref() != EndEntityCert::try_from(certificate.own())?.subject_public_key_info().as_ref() {
            return Err(IdentityError::Key);
        }
        if key.choose_scheme(&[SignatureScheme::ED25519]).is_none() {
            return Err(IdentityError::Key);
        }
        let (client, server) = tls::configs(&provider, &roots, &certificate.chain, &key)?;
        Ok(Self { certificate, key, roots, client, server })
    }

    /// The node's own certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Arc<NodeCertificate> {
        &self.certificate
    }

    /// The node's signature over these bytes.
    ///
    /// # Errors
    /// If the key can't sign.
    pub fn sign(&self, bytes: &[u8]) -> Result<Signature, IdentityError> {
        let signer = self.key.choose_scheme(&[SignatureScheme::ED25519]).ok_or(IdentityError::Key)?;
        let signature = signer.sign(bytes).map_err(|_| IdentityError::Key)?;
        Ok(Signature(signature.try_into().map_err(|_| IdentityError::Key)?))
    }

    /// The node of a chain that came from elsewhere, its own certificate first.
    ///
    /// # Errors
    /// If it doesn't lead to a root, doesn't hold at that time, or doesn't name a node.
    pub fn verify_chain(&self, chain: &[Bytes], at: UnixTime) -> Result<NodeCertificate, IdentityError> {
        let chain = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        self.roots.verify(chain, Usage::Any, at)
    }
}

impl Identity {
    /// The node of a chain that the other end of a connection has shown just now.
    pub(super) fn verify(
        &self,
        chain: Vec<CertificateDer<'static>>,
        usage: Usage,
    ) -> Result<NodeCertificate, IdentityError> {
        self.roots.verify(chain, usage, UnixTime::now())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.certificate.name).finish()
    }
}

/// A node's certificate that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    name: NodeName,
    node: NodeId,
    chain: Vec<CertificateDer<'static>>,
}

impl NodeCertificate {
    /// Whose it is.
    #[must_use]
    pub const fn name(&self) -> &NodeName {
        &self.name
    }

    /// Whose it is.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The chain in DER, the node's own certificate first: what a `Certificate` frame carries.
    #[must_use]
    pub fn chain(&self) -> Vec<Bytes> {
        self.chain.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect()
    }

    /// Whether the node's key made this signature.
    #[must_use]
    pub fn has_signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        EndEntityCert::try_from(self.own())
            .is_ok_and(|own| own.verify_signature(webpki::ring::ED25519, bytes, &signature.0).is_ok())
    }

    fn own(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }
}

/// What a certificate must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Client,
    Server,
    /// Links are signed with it, whoever opens connections.
    Any,
}

/// Whom a node trusts.
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl Roots {
    fn new(roots: &[CertificateDer<'_>], provider: &CryptoProvider) -> Result<Self, IdentityError> {
        let anchor = |root| webpki::anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
        let anchors = roots.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { anchors, algorithms: provider.signature_verification_algorithms })
    }

    pub(super) const fn algorithms(&self) -> &rustls::crypto::WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    pub(super) fn verify(
        &self,
        chain: Vec<CertificateDer<'static>>,
        usage: Usage,
        at: UnixTime,
    ) -> Result<NodeCertificate, IdentityError> {
        let (own, between) = chain.split_first().ok_or(IdentityError::Empty)?;
        let certificate = EndEntityCert::try_from(own)?;
        let usages = match usage {
            Usage::Client | Usage::Any => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        certificate.verify_for_usage(self.algorithms.all, &self.anchors, between, at, usages, None, None)?;
        let name = name_in(&certificate)?;
        Ok(NodeCertificate { node: node_id(&name), name, chain })
    }
}

/// The one node that the certificate names.
fn name_in(certificate: &EndEntityCert<'_>) -> Result<NodeName, IdentityError> {
    let mut names = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(URI_PREFIX));
    match (names.next(), names.next()) {
        (Some(name), None) => NodeName::new(name).map_err(|_| IdentityError::Name),
        _ => Err(IdentityError::Name),
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("anchors", &self.anchors.len()).finish()
    }
}

/// Why a certificate proves nothing, or can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no certificate.
    #[error("no certificate")]
    Empty,
    /// It doesn't lead to a root, or doesn't hold now.
    #[error("the certificate isn't valid")]
    Certificate(#[from] webpki::Error),
    /// It doesn't name exactly one node.
    #[error("the certificate's names aren't one shoal://node/<name>")]
    Name,
    /// It isn't an Ed25519 key, or not the certificate's.
    #[error("the key isn't the certificate's Ed25519 key")]
    Key,
    /// TLS refuses them.
    #[error("the certificate can't be used")]
    Tls(#[from] rustls::Error),
}
