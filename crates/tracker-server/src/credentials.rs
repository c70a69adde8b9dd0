//! The server's own certificate, and what it is made from: changed while the server runs.
//!
//! State: the authority, the TLS configuration for the next connection, the signer for the next record.
//! Invariants: all three belong together; readers see the old three or the new three.
//! Absent on purpose: the connections that stand: they go on with what they were made with, until the node's certificate ends.

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_tracker::ReplicaName;

use crate::authority::{Authority, AuthorityError, CERTIFICATE_LIFE, TrackerIdentity};
use crate::record::RecordSigner;

struct Current {
    authority: Arc<Authority>,
    tls: Arc<ServerConfig>,
    signer: Arc<RecordSigner>,
    made_at: SystemTime,
}

/// What the server shows of itself.
pub(crate) struct Credentials {
    replica: ReplicaName,
    names: Vec<String>,
    current: RwLock<Current>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn new(
        authority: Arc<Authority>,
        replica: ReplicaName,
        names: Vec<String>,
    ) -> Result<Self, CredentialsError> {
        let current = RwLock::new(make(authority, &replica, &names)?);
        Ok(Self { replica, names, current })
    }

    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.read().authority)
    }

    pub(crate) fn tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.read().tls)
    }

    pub(crate) fn signer(&self) -> Arc<RecordSigner> {
        Arc::clone(&self.read().signer)
    }

    /// Takes another authority, with a certificate from it.
    pub(crate) fn set_authority(&self, authority: Arc<Authority>) -> Result<(), CredentialsError> {
        let next = make(authority, &self.replica, &self.names)?;
        *self.current.write().expect("no code panics with the credentials in hand") = next;
        Ok(())
    }

    /// Takes a new certificate, if half the old one's life is over.
    pub(crate) fn renew(&self, now: SystemTime) -> Result<(), CredentialsError> {
        let (authority, made_at) = {
            let current = self.read();
            (Arc::clone(&current.authority), current.made_at)
        };
        let age = now.duration_since(made_at).unwrap_or_default();
        if age < CERTIFICATE_LIFE / 2 { Ok(()) } else { self.set_authority(authority) }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().expect("no code panics with the credentials in hand")
    }
}

/// Why the server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The CA gives none.
    #[error("the CA gives the tracker no certificate")]
    Authority(#[from] AuthorityError),
    /// rustls can't use it.
    #[error("the tracker's certificate can't be used")]
    Tls(#[from] rustls::Error),
    /// The CA's roots can't verify clients.
    #[error("the CA's certificates can't verify nodes")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn make(authority: Arc<Authority>, replica: &ReplicaName, names: &[String]) -> Result<Current, CredentialsError> {
    let identity = authority.certify_tracker(replica, names, SystemTime::now())?;
    let signer = RecordSigner::new(&identity).expect("an Ed25519 key that was just made can sign");
    let TrackerIdentity { key, chain, made_at } = identity;
    let provider = Arc::new(default_provider());
    // A node without a certificate may connect: to join. What else it may do is for the routes to say.
    let roots = Arc::clone(authority.trust().roots());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).allow_unauthenticated().build()?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would go on with a certificate that has expired since, and connections are made to stay.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Current { authority, tls: Arc::new(tls), signer: Arc::new(signer), made_at })
}
