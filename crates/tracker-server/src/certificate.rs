//! What a certificate of our own CA says: which node it is of, where that node listens, or that its holder is a tracker.
//!
//! A node's certificate carries, beside the name, its zone and address as the identity provider admitted them. So a tracker that
//! was restarted, or one that the node never joined, knows them from the connection itself and stores nothing.
//!
//! State: none.
//! Invariants: a [`NodeCertificate`] has exactly one `shoal://node/` name, an Ed25519 key and a contact.
//! Absent on purpose: trust. Whoever parses has had the chain verified, by rustls or by [`crate::Trust`].

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ring::signature::{ED25519, UnparsedPublicKey};
use shoal_chain::Signature;
use shoal_types::{NodeId, Zone};
use shoal_wire::{Contact, NodeName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a node's name in a certificate starts with.
pub(crate) const NODE_URI: &str = "shoal://node/";
/// What a tracker's name in a certificate starts with. No node's has it: it is what makes records believable.
pub(crate) const TRACKER_URI: &str = "shoal://tracker/";
/// The extension with zone and address: a number under 2.25, the arc that takes no registration. Not critical: other parts ignore it.
pub(crate) const PLACE_OID: [u64; 3] = [2, 25, 5_236_871_094_412_736_117];

const OID_ED25519: &str = "1.3.101.112";
const UTF8_STRING: u8 = 0x0c;

/// A node's Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey([u8; 32]);

impl NodeKey {
    /// The key of these bytes. Bytes that are no key verify nothing.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key's owner signed these bytes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, &signature.0).is_ok()
    }
}

/// What a node's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The node, its zone and where it listens.
    pub contact: Contact,
    /// Its key.
    pub key: NodeKey,
    /// From when on the certificate is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl NodeCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// If it isn't a node's.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let name = single_name(&certificate, NODE_URI)?;
        let name = NodeName::new(name).map_err(|_| CertificateError("a node's name in it is none"))?;
        let (zone, address) = place(&certificate)?;
        let [not_before, not_after] = validity(&certificate);
        Ok(Self { contact: Contact::new(name, zone, address), key: key(&certificate)?, not_before, not_after })
    }

    /// Who.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.contact.node()
    }

    /// When to renew it: at two thirds of its life, so that eight of 24 hours are left for trying.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        self.not_before + self.not_after.duration_since(self.not_before).unwrap_or_default() / 3 * 2
    }
}

/// A tracker's certificate, as far as records need it.
#[derive(Clone, Debug)]
pub(crate) struct TrackerCertificate {
    pub(crate) key: NodeKey,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl TrackerCertificate {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        single_name(&certificate, TRACKER_URI)?;
        let [not_before, not_after] = validity(&certificate);
        Ok(Self { key: key(&certificate)?, not_before, not_after })
    }
}

/// A certificate isn't what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate is unusable: {0}")]
pub struct CertificateError(&'static str);

/// The extension's content: a DER string of zone and address.
pub(crate) fn encode_place(zone: &Zone, address: SocketAddr) -> Vec<u8> {
    let text = format!("{zone}|{address}");
    // A zone has 63 characters at most and an address 58 (an IPv6 address with its scope, and the port): DER's short form does.
    let length = u8::try_from(text.len()).expect("zone and address are short");
    assert!(length < 0x80, "zone and address are short");
    [&[UTF8_STRING, length], text.as_bytes()].concat()
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError("it isn't one")),
    }
}

/// The rest of the one URI that starts with `scheme`; there may be no second one, and none of the other kind.
fn single_name<'a>(certificate: &'a X509Certificate<'_>, scheme: &str) -> Result<&'a str, CertificateError> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError("its names are malformed"))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("shoal://") => Some(*uri),
        _ => None,
    });
    match (uris.next().and_then(|uri| uri.strip_prefix(scheme)), uris.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(CertificateError("it hasn't the one name that it should have")),
    }
}

fn place(certificate: &X509Certificate<'_>) -> Result<(Zone, SocketAddr), CertificateError> {
    let malformed = CertificateError("zone and address are malformed");
    let oid = x509_parser::oid_registry::Oid::from(&PLACE_OID).map_err(|_| malformed)?;
    let extension = certificate.get_extension_unique(&oid).map_err(|_| malformed)?;
    let content = extension.ok_or(CertificateError("it lacks zone and address"))?.value;
    let text = match content {
        [UTF8_STRING, length, text @ ..] if usize::from(*length) == text.len() => text,
        _ => return Err(malformed),
    };
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    let (zone, address) = text.split_once('|').ok_or(malformed)?;
    Ok((Zone::new(zone).map_err(|_| malformed)?, address.parse().map_err(|_| malformed)?))
}

fn key(certificate: &X509Certificate<'_>) -> Result<NodeKey, CertificateError> {
    let info = certificate.public_key();
    let bytes: Result<[u8; 32], _> = info.subject_public_key.data.as_ref().try_into();
    match bytes {
        Ok(bytes) if info.algorithm.algorithm.to_id_string() == OID_ED25519 => Ok(NodeKey(bytes)),
        _ => Err(CertificateError("its key isn't an Ed25519 key")),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> [SystemTime; 2] {
    let validity = certificate.validity();
    [validity.not_before, validity.not_after].map(|at| {
        let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_is_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(NodeCertificate::parse(&bytes).is_err());
        }
    }

    #[test]
    fn the_longest_place_fits_the_short_form() {
        let address = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535".parse().unwrap();
        assert!(encode_place(&Zone::new(&"z".repeat(63)).unwrap(), address).len() < 0x82);
    }
}
