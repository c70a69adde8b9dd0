//! A small CA: one Ed25519 root that signs nodes' and trackers' certificates, and any number of further roots that are trusted.
//!
//! Roots are changed in three steps, a certificate's life (24 h) apart each, so that at every moment both sides trust what the other
//! one shows: trust the new root too ([`Authority::trusting`]); sign with it and trust both; drop the old one.
//!
//! State: a key and certificates, in memory; in a file if it was loaded from one.
//! Invariants: the signing certificate is a CA's and its key is the one that is held. What a node's request asks for beside its key
//! is ignored: names, uses and times are the CA's own.
//! Absent on purpose: revocation. A certificate lives for 24 hours, and a ban is heard of sooner than a list of revocations is read.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shoal_tracker::ReplicaName;
use shoal_wire::Contact;

use crate::certificate::{NODE_URI, PLACE_OID, TRACKER_URI, encode_place};
use crate::secret_file;
use crate::trust::{Fingerprint, Trust, TrustError};

/// A node's or tracker's certificate is valid for so long.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Certificates are valid from a little before they are made: nodes' clocks differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
const FILE: &str = "ca.pem";

/// The CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    trust: Arc<Trust>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, with a new key, for ten years.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        Self::generate_for(ROOT_LIFE)
    }

    /// A new one, with a new key, for so long: where somebody changes roots in time.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate_for(life: Duration) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(AuthorityError::Crypto)?;
        let mut params = params(SystemTime::now(), life)?;
        params.distinguished_name = common_name("Shoal CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).map_err(AuthorityError::Crypto)?.der().clone();
        Self::new(key, root, Vec::new())
    }

    /// The one of this text: a private key and certificates. The one that the key belongs to signs, the others are trusted too.
    ///
    /// # Errors
    /// If there isn't one Ed25519 key, with its CA certificate.
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| AuthorityError::NoKey)?;
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ED25519).map_err(|_| AuthorityError::NoKey)?;
        let mut roots = crate::trust::certificates(text)?;
        let own = roots.iter().position(|root| is_of(root, &key)).ok_or(AuthorityError::NoCertificate)?;
        let root = roots.remove(own);
        Self::new(key, root, roots)
    }

    /// The one that is kept in this directory; a new one, if none is.
    ///
    /// # Errors
    /// If what is there is unusable, or the directory can't be written to.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let file = |source| AuthorityError::File { path: dir.join(FILE), source };
        secret_file::create_dir(dir).map_err(file)?;
        let path = dir.join(FILE);
        if let Some(text) = secret_file::read(&path).map_err(file)? {
            return Self::from_pem(&text);
        }
        let new = Self::generate()?;
        if secret_file::create(&path, new.to_pem().as_bytes()).map_err(file)? {
            return Ok(new);
        }
        let text = secret_file::read(&path).map_err(file)?.ok_or(AuthorityError::NoKey)?;
        Self::from_pem(&text)
    }

    /// The same, trusting these certificates too.
    ///
    /// # Errors
    /// If they are none.
    pub fn trusting(self, certificates: &str) -> Result<Self, AuthorityError> {
        let Self { issuer, root, trust } = self;
        let others = trust.certificates().iter().filter(|other| **other != root).cloned();
        let roots: Vec<_> = others.chain(crate::trust::certificates(certificates)?).collect();
        let trust = Arc::new(Trust::new(std::iter::once(root.clone()).chain(roots))?);
        Ok(Self { issuer, root, trust })
    }

    /// Key and certificates, as [`Self::from_pem`] reads them: a secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.issuer.key().serialize_pem() + &self.trust.to_pem()
    }

    /// The signing certificate alone, as PEM, for others to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        crate::trust::to_pem("CERTIFICATE", &self.root)
    }

    /// When the signing certificate ends, and with it whatever it signed.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let seconds =
            X509Certificate::from_der(&self.root).map_or(0, |(_, root)| root.validity().not_after.timestamp());
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// What its certificates are verified against.
    #[must_use]
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The signing certificate's fingerprint: what a join token pins.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.root)
    }

    /// A certificate for a node that was admitted, for the key of its request.
    pub(crate) fn certify_node(
        &self,
        contact: &Contact,
        request: &str,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, RequestError> {
        let request = CertificateSigningRequestParams::from_pem(request).map_err(|_| RequestError)?;
        if *request.public_key.algorithm() != PKCS_ED25519 {
            return Err(RequestError);
        }
        let certify = || -> Result<_, AuthorityError> {
            let mut params = params(now, CERTIFICATE_LIFE)?;
            params.distinguished_name = common_name("Shoal node");
            params.subject_alt_names = vec![uri(NODE_URI, contact.name().as_str())?];
            // Between two nodes either one may be the TLS server.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            let place = encode_place(contact.zone(), contact.address());
            params.custom_extensions = vec![CustomExtension::from_oid_content(&PLACE_OID, place)];
            let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(AuthorityError::Crypto)?;
            Ok(certificate.der().clone())
        };
        certify().map_err(|_| RequestError)
    }

    /// A key and a certificate for a tracker that is reached under these names.
    pub(crate) fn certify_tracker(
        &self,
        replica: &ReplicaName,
        names: &[String],
        now: SystemTime,
    ) -> Result<TrackerIdentity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(AuthorityError::Crypto)?;
        let mut params = params(now, CERTIFICATE_LIFE)?;
        params.distinguished_name = common_name("Shoal tracker");
        params.subject_alt_names = vec![uri(TRACKER_URI, replica.as_str())?];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(AuthorityError::Crypto)?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Crypto)?;
        // The root goes with it, for those who know only its fingerprint.
        Ok(TrackerIdentity {
            key: key.serialize_der(),
            chain: vec![certificate.der().clone(), self.root.clone()],
            made_at: now,
        })
    }

    fn new(
        key: KeyPair,
        root: CertificateDer<'static>,
        others: Vec<CertificateDer<'static>>,
    ) -> Result<Self, AuthorityError> {
        let trust = Arc::new(Trust::new(std::iter::once(root.clone()).chain(others))?);
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(AuthorityError::Crypto)?;
        Ok(Self { issuer, root, trust })
    }
}

/// A tracker's key in PKCS#8, and its certificate with the root.
pub(crate) struct TrackerIdentity {
    pub(crate) key: Vec<u8>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) made_at: SystemTime,
}

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No private key, or not an Ed25519 one.
    #[error("the CA's PEM has no Ed25519 private key")]
    NoKey,
    /// None of the certificates is the key's, or that one may not sign.
    #[error("the CA's PEM has no CA certificate of its key")]
    NoCertificate,
    /// A certificate can't be trusted.
    #[error("the CA's certificates are unusable")]
    Trust(#[from] TrustError),
    /// A key or certificate can't be made.
    #[error("a key or certificate can't be made")]
    Crypto(#[source] rcgen::Error),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Random,
    /// The file can't be read or written.
    #[error("{}: the CA's file can't be used", path.display())]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A signing request that is none, is not signed by its own key, or has another key than an Ed25519 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing request is not one of an Ed25519 key")]
pub struct RequestError;

fn params(now: SystemTime, life: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // A serial number is positive.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn uri(scheme: &str, name: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(format!("{scheme}{name}").try_into().map_err(AuthorityError::Crypto)?))
}

fn is_of(root: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    X509Certificate::from_der(root).is_ok_and(|(_, root)| {
        root.is_ca() && root.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
    })
}
