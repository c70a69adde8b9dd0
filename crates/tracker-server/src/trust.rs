//! The roots that are trusted, and the fingerprint by which the first contact knows one of them.
//!
//! State: certificates.
//! Invariants: a [`Trust`] has at least one root, each of which can be an anchor.
//! Absent on purpose: the system's roots. Trackers and nodes have certificates of their own CA and of no other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::certificate::{CertificateError, NodeCertificate, TrackerCertificate};

/// More roots than any change of roots needs; each costs a try when a chain is verified.
const MAX_ROOTS: usize = 16;

/// The roots that are trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
}

impl Trust {
    /// The roots of a PEM bundle.
    ///
    /// # Errors
    /// If there are none, or one can't be a root.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        Self::new(certificates(text)?)
    }

    pub(crate) fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
        let mut store = RootCertStore::empty();
        for root in roots {
            if certificates.contains(&root) {
                continue;
            }
            if certificates.len() == MAX_ROOTS {
                return Err(TrustError::TooMany);
            }
            store.add(root.clone()).map_err(TrustError::Root)?;
            certificates.push(root);
        }
        if certificates.is_empty() { Err(TrustError::Empty) } else { Ok(Self { certificates, store: Arc::new(store) }) }
    }

    /// For rustls.
    #[must_use]
    pub const fn roots(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// The bundle as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|root| to_pem("CERTIFICATE", root)).collect()
    }

    /// Reads a node's certificate that came from anywhere, if one of the roots signed it and it is valid at that time.
    ///
    /// # Errors
    /// If it isn't.
    pub fn verify_node(&self, der: &[u8], at: SystemTime) -> Result<NodeCertificate, UntrustedCertificate> {
        self.verify(der, at)?;
        Ok(NodeCertificate::parse(der)?)
    }

    pub(crate) fn verify_tracker(
        &self,
        der: &[u8],
        at: SystemTime,
    ) -> Result<TrackerCertificate, UntrustedCertificate> {
        self.verify(der, at)?;
        Ok(TrackerCertificate::parse(der)?)
    }

    /// The roots' certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    fn verify(&self, der: &[u8], at: SystemTime) -> Result<(), UntrustedCertificate> {
        let der = CertificateDer::from(der);
        let certificate = ParsedCertificate::try_from(&der)?;
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let algorithms = default_provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&certificate, &self.store, &[], at, algorithms)?;
        Ok(())
    }
}

/// Why certificates can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// There are none.
    #[error("no certificate in it")]
    Empty,
    /// There are too many.
    #[error("more than {MAX_ROOTS} certificates")]
    TooMany,
    /// The text is no PEM.
    #[error("it isn't PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// One can't be a root.
    #[error("a certificate in it can't be a root")]
    Root(#[source] rustls::Error),
}

/// Why a single certificate isn't believed.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedCertificate {
    /// No root vouches for it, or not at that time.
    #[error("no trusted root vouches for the certificate")]
    Chain(#[from] rustls::Error),
    /// It is of another kind.
    #[error(transparent)]
    Kind(#[from] CertificateError),
}

/// The SHA-256 of a root certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// A certificate's fingerprint.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        unhex(text).map(Self).ok_or(FingerprintError)
    }
}

/// The text isn't a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CA's fingerprint is 64 hex digits: the SHA-256 of its certificate's DER")]
pub struct FingerprintError;

/// All certificates of a PEM text.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(TrustError::Pem)
}

pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), lines)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    bytes.iter_mut().zip(digits.chunks_exact(2)).for_each(|(byte, pair)| *byte = pair[0] << 4 | pair[1]);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hex_reads_back(bytes in any::<[u8; 16]>()) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}
