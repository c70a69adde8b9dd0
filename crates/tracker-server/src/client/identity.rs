//! A node's key and certificate, and the roots that it trusts: in memory, and in one file.
//!
//! State: key, certificate, roots.
//! Invariants: the certificate is the key's. The file has all three or isn't there, so that they always fit each other.
//! Absent on purpose: who else gets the key. It is made here and is in no message.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_chain::Signature;
use shoal_types::NodeId;

use super::ClientError;
use crate::certificate::{NodeCertificate, NodeKey};
use crate::protocol::JoinReply;
use crate::secret_file;
use crate::trust::{self, Trust};

const FILE: &str = "identity.pem";

/// What a node shows, signs and trusts with.
pub struct NodeIdentity {
    certificate: NodeCertificate,
    der: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    signing: Ed25519KeyPair,
    trust: Arc<Trust>,
}

impl NodeIdentity {
    /// What its certificate says.
    #[must_use]
    pub const fn certificate(&self) -> &NodeCertificate {
        &self.certificate
    }

    /// Who it is.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.certificate.node()
    }

    /// The chain that it shows, for rustls.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.der.clone()]
    }

    /// Its key, for rustls.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// The roots against which others' certificates are verified.
    #[must_use]
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Signs: links, that is.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        let signature = self.signing.sign(bytes);
        Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    pub(super) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let Some(text) = secret_file::read(&dir.join(FILE))? else { return Ok(None) };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not a key, its certificate and the CA's");
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())? else {
            return Err(malformed());
        };
        let mut certificates = trust::certificates(&text).map_err(|_| malformed())?.into_iter();
        let der = certificates.next().ok_or_else(malformed)?;
        let trust = Trust::new(certificates).map_err(|_| malformed())?;
        Self::new(key, der, Arc::new(trust)).map(Some).map_err(|_| malformed())
    }

    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let key = trust::to_pem("PRIVATE KEY", self.key.secret_pkcs8_der());
        let text = key + &trust::to_pem("CERTIFICATE", &self.der) + &self.trust.to_pem();
        secret_file::replace(&dir.join(FILE), text.as_bytes())
    }

    pub(super) fn is_valid_at(&self, at: SystemTime) -> bool {
        at < self.certificate.not_after
    }

    fn new(
        key: PrivatePkcs8KeyDer<'static>,
        der: CertificateDer<'static>,
        trust: Arc<Trust>,
    ) -> Result<Self, ClientError> {
        let signing = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
            .map_err(|_| ClientError::Malformed("the key isn't an Ed25519 key".to_owned()))?;
        let certificate = NodeCertificate::parse(&der).map_err(|error| ClientError::Malformed(error.to_string()))?;
        if signing.public_key().as_ref() != NodeKey::as_bytes(&certificate.key) {
            return Err(ClientError::Malformed("the certificate is of another key".to_owned()));
        }
        Ok(Self { certificate, der, key, signing, trust })
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A new key, before it has a certificate.
pub(super) struct NewKey {
    key: KeyPair,
}

impl NewKey {
    pub(super) fn generate() -> Result<Self, ClientError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|_| ClientError::Random)?;
        Ok(Self { key })
    }

    /// The signing request. It asks for nothing but the key's certificate: the rest is the CA's word.
    pub(super) fn request(&self) -> Result<String, ClientError> {
        let request = CertificateParams::default().serialize_request(&self.key).and_then(|request| request.pem());
        request.map_err(|_| ClientError::Random)
    }

    pub(super) fn certified(self, reply: &JoinReply) -> Result<NodeIdentity, ClientError> {
        let malformed = |error: &dyn fmt::Display| ClientError::Malformed(error.to_string());
        let der = CertificateDer::from_pem_slice(reply.certificate.as_bytes()).map_err(|error| malformed(&error))?;
        let trust = Trust::from_pem(&reply.trust).map_err(|error| malformed(&error))?;
        trust.verify_node(&der, SystemTime::now()).map_err(|error| malformed(&error))?;
        NodeIdentity::new(PrivatePkcs8KeyDer::from(self.key.serialize_der()), der, Arc::new(trust))
    }
}
