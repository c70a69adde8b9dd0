//! What a name resolved to, signed by the tracker that asked the origin, so that agents can keep it and nobody else can make one up.
//!
//! State: none.
//! Invariants: a [`VerifiedRecord`] was signed by a tracker whose certificate a trusted root vouches for, at the time when it was
//! signed. That time is past when the record is read again after a restart: records outlive certificates.
//! Absent on purpose: whether the record is still fresh. [`Record::expires_at`] says; what to do later is the reader's policy.

use std::time::{Duration, SystemTime};

use ring::signature::Ed25519KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use shoal_chain::Signature;
use shoal_types::Digest;

use crate::authority::TrackerIdentity;
use crate::resolve::ImageName;
use crate::trust::{Trust, UntrustedCertificate, hex, to_pem, unhex};

/// Whether somebody without credentials may read a manifest at its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Yes.
    Readable,
    /// No.
    Denied,
    /// Nobody tried.
    Unknown,
}

/// What a name resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name.
    pub name: ImageName,
    /// The manifest's digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size.
    pub size_bytes: u64,
    /// Who may read it.
    pub anonymous: Anonymous,
    /// When the origin was asked. With an origin that is down, this can be long before the record was issued.
    pub resolved_at: SystemTime,
    /// When the record was signed.
    pub issued_at: SystemTime,
    /// Until when it needs no new question.
    pub expires_at: SystemTime,
}

/// A record as it comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    record: Record,
    certificate: CertificateDer<'static>,
    signature: Signature,
}

/// A record that a tracker signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRecord(SignedRecord);

impl SignedRecord {
    /// Reads what [`VerifiedRecord::to_json`] wrote, or a tracker sent.
    ///
    /// # Errors
    /// If it isn't that.
    pub fn from_json(json: &[u8]) -> Result<Self, RecordError> {
        let text: RecordText = serde_json::from_slice(json)?;
        let time = |seconds: u64| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(RecordError::Malformed)
        };
        let record = Record {
            name: ImageName::new(&text.registry, &text.repository, &text.reference)
                .map_err(|_| RecordError::Malformed)?,
            digest: text.digest.parse().map_err(|_| RecordError::Malformed)?,
            media_type: text.media_type,
            size_bytes: text.size,
            anonymous: text.anonymous,
            resolved_at: time(text.resolved_at)?,
            issued_at: time(text.issued_at)?,
            expires_at: time(text.expires_at)?,
        };
        let certificate =
            CertificateDer::from_pem_slice(text.certificate.as_bytes()).map_err(|_| RecordError::Malformed)?;
        let signature = Signature(unhex(&text.signature).ok_or(RecordError::Malformed)?);
        Ok(Self { record, certificate, signature })
    }

    /// The record, if a tracker signed it.
    ///
    /// # Errors
    /// If none did that these roots vouch for.
    pub fn verify(self, trust: &Trust) -> Result<VerifiedRecord, RecordError> {
        let signer = trust.verify_tracker(&self.certificate, self.record.issued_at)?;
        // The roots' check covers the lifetime; said again here because it is what makes old records believable.
        if self.record.issued_at < signer.not_before || self.record.issued_at > signer.not_after {
            return Err(RecordError::Forged);
        }
        if signer.key.verifies(&self.record.signed_bytes(), &self.signature) {
            Ok(VerifiedRecord(self))
        } else {
            Err(RecordError::Forged)
        }
    }

    fn to_json(&self) -> Vec<u8> {
        let record = &self.record;
        let text = RecordText {
            registry: record.name.registry().to_owned(),
            repository: record.name.repository().to_owned(),
            reference: record.name.reference().to_owned(),
            digest: record.digest.to_string(),
            media_type: record.media_type.clone(),
            size: record.size_bytes,
            anonymous: record.anonymous,
            resolved_at: seconds(record.resolved_at),
            issued_at: seconds(record.issued_at),
            expires_at: seconds(record.expires_at),
            certificate: to_pem("CERTIFICATE", &self.certificate),
            signature: hex(&self.signature.0),
        };
        serde_json::to_vec(&text).expect("a record has no maps")
    }
}

impl VerifiedRecord {
    /// The record.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.0.record
    }

    /// With its signature, to be kept.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.0.to_json()
    }
}

impl Record {
    /// A domain separator, then every field with its length where it has one.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"shoal record v1\0".to_vec();
        let digest = self.digest.to_string();
        for text in [self.name.registry(), self.name.repository(), self.name.reference(), &digest, &self.media_type] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.push(match self.anonymous {
            Anonymous::Readable => 1,
            Anonymous::Denied => 2,
            Anonymous::Unknown => 3,
        });
        let times = [self.resolved_at, self.issued_at, self.expires_at].map(seconds);
        for number in [self.size_bytes].into_iter().chain(times) {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }
}

/// Why a record isn't believed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It isn't JSON of a record.
    #[error("the record's JSON is malformed")]
    Json(#[from] serde_json::Error),
    /// A field can't be what it is.
    #[error("a field of the record is malformed")]
    Malformed,
    /// Its signer isn't a tracker of this cluster.
    #[error("the record's signer isn't trusted")]
    Signer(#[from] UntrustedCertificate),
    /// The signature isn't the signer's.
    #[error("the record's signature isn't its signer's")]
    Forged,
    /// It is the record of another name.
    #[error("the record is of another name")]
    OtherName,
}

/// The key with which a tracker signs, and the certificate that vouches for it.
pub(crate) struct RecordSigner {
    key: Ed25519KeyPair,
    certificate: CertificateDer<'static>,
}

impl RecordSigner {
    pub(crate) fn new(identity: &TrackerIdentity) -> Option<Self> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&identity.key).ok()?;
        Some(Self { key, certificate: identity.chain.first()?.clone() })
    }

    pub(crate) fn sign(&self, record: Record) -> SignedJson {
        let signature = self.key.sign(&record.signed_bytes());
        let signature = Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"));
        SignedJson(SignedRecord { record, certificate: self.certificate.clone(), signature }.to_json().into())
    }
}

/// A signed record as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedJson(pub(crate) bytes::Bytes);

#[derive(Serialize, Deserialize)]
struct RecordText {
    registry: String,
    repository: String,
    reference: String,
    digest: String,
    media_type: String,
    size: u64,
    anonymous: Anonymous,
    resolved_at: u64,
    issued_at: u64,
    expires_at: u64,
    certificate: String,
    signature: String,
}

/// Whole seconds: what is signed must be what is written.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_tracker::ReplicaName;

    use super::*;
    use crate::authority::{Authority, CERTIFICATE_LIFE};

    fn record(at: SystemTime) -> Record {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(at));
        Record {
            name: ImageName::new("registry.example", "library/app", "v1").unwrap(),
            digest: Digest::Sha256([7; 32]),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            size_bytes: 1_234,
            anonymous: Anonymous::Readable,
            resolved_at: at,
            issued_at: at,
            expires_at: at + Duration::from_secs(60),
        }
    }

    fn signer(authority: &Authority, at: SystemTime) -> RecordSigner {
        let identity = authority.certify_tracker(&ReplicaName::new("t").unwrap(), &[], at).unwrap();
        RecordSigner::new(&identity).unwrap()
    }

    #[test]
    fn a_record_is_believed_long_after_its_signers_certificate_has_expired() {
        let authority = Authority::generate().unwrap();
        let now = SystemTime::now();
        let json = signer(&authority, now).sign(record(now));
        let read = SignedRecord::from_json(&json.0).unwrap().verify(authority.trust()).unwrap();
        assert_eq!(*read.record(), record(now));
        assert_eq!(SignedRecord::from_json(&read.to_json()).unwrap().verify(authority.trust()).unwrap(), read);

        let late = signer(&authority, now).sign(record(now + CERTIFICATE_LIFE * 2));
        assert!(matches!(
            SignedRecord::from_json(&late.0).unwrap().verify(authority.trust()),
            Err(RecordError::Signer(_))
        ));
    }

    #[test]
    fn only_a_tracker_of_this_ca_signs_records() {
        let [ours, theirs] = [Authority::generate().unwrap(), Authority::generate().unwrap()];
        let now = SystemTime::now();
        let foreign = SignedRecord::from_json(&signer(&theirs, now).sign(record(now)).0).unwrap();
        assert!(matches!(foreign.verify(ours.trust()), Err(RecordError::Signer(_))));

        // A node's certificate is of the same CA.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let contact = shoal_wire::Contact::new("n".parse().unwrap(), Default::default(), ([10, 0, 0, 1], 1).into());
        let certificate = ours.certify_node(&contact, &request, now).unwrap();
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.serialize_der()).unwrap();
        let forged = SignedRecord::from_json(&RecordSigner { key, certificate }.sign(record(now)).0).unwrap();
        assert!(matches!(forged.verify(ours.trust()), Err(RecordError::Signer(UntrustedCertificate::Kind(_)))));

        let mut changed = SignedRecord::from_json(&signer(&ours, now).sign(record(now)).0).unwrap();
        changed.record.digest = Digest::Sha256([8; 32]);
        assert!(matches!(changed.verify(ours.trust()), Err(RecordError::Forged)));
    }

    proptest! {
        #[test]
        fn garbage_is_no_record(text in ".{0,200}") {
            prop_assert!(SignedRecord::from_json(text.as_bytes()).is_err());
        }
    }
}
