//! What somebody makes who holds keys that an attacker doesn't have, or has only its own: each forgery is right but for one thing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ED25519, SanType,
    SigningKey as _,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use shoal_tracker_server::client::NodeIdentity;

use crate::bare::Shown;

/// A token with other claims, signed by the API server's key, or another one.
pub(crate) fn token(genuine: &str, key_of: &Path, change: impl FnOnce(&mut Value)) -> String {
    let key = KeyPair::from_pem(&std::fs::read_to_string(key_of.join("tokens.key")).unwrap()).unwrap();
    signed(genuine, &key, change)
}

/// The same, by a key that nobody knows.
pub(crate) fn token_by_a_stranger(genuine: &str) -> String {
    signed(genuine, &KeyPair::generate().unwrap(), |_| {})
}

fn signed(genuine: &str, key: &KeyPair, change: impl FnOnce(&mut Value)) -> String {
    let claims = genuine.split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    change(&mut claims);
    web_token(&json!({"alg": "ES256", "typ": "JWT"}), &claims, key)
}

/// A web token that this key of P-256 signs.
pub(crate) fn web_token(header: &Value, claims: &Value, key: &KeyPair) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed(&signature)))
}

/// An ECDSA signature as web tokens have it: both numbers in 32 bytes each, instead of as ASN.1.
fn fixed(der: &[u8]) -> [u8; 64] {
    let mut fixed = [0; 64];
    let mut rest = &der[2..];
    for half in fixed.chunks_exact_mut(32) {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        half[32 - number.len()..].copy_from_slice(number);
        rest = &rest[2 + length..];
    }
    fixed
}

/// Who signs a certificate.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// What whoever verifies needs beside the roots.
    chain: Vec<CertificateDer<'static>>,
}

impl Signer {
    /// A CA, by its key and certificate.
    pub(crate) fn of_pem(pem: &str) -> Self {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        Self::new(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), &key, Vec::new())
    }

    /// A node, that takes itself for a CA.
    pub(crate) fn of_node(node: &NodeIdentity) -> Self {
        Self::new(&node.chain()[0], &node.key(), node.chain())
    }

    fn new(
        certificate: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        let key = KeyPair::from_der_and_sign_algo(key, &PKCS_ED25519).unwrap();
        Self { issuer: Issuer::from_ca_cert_der(certificate, key).unwrap(), chain }
    }

    /// A certificate as this node has one, with another name and another end.
    pub(crate) fn certificate(&self, like: &NodeIdentity, name: &str, not_after: SystemTime) -> Shown {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("shoal://node/{name}").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.custom_extensions = vec![place_of(like)];
        params.not_before = (SystemTime::now() - Duration::from_secs(2 * 24 * 3_600)).into();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let chain = std::iter::once(certificate).chain(self.chain.iter().cloned()).collect();
        (chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

/// The extension that says where the node is: the one that no standard knows.
fn place_of(node: &NodeIdentity) -> CustomExtension {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let der = &node.chain()[0];
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let place = certificate.extensions().iter().find(|extension| extension.oid.to_id_string().starts_with("2.25."));
    let place = place.unwrap();
    let oid: Vec<u64> = place.oid.iter().unwrap().collect();
    CustomExtension::from_oid_content(&oid, place.value.to_vec())
}
