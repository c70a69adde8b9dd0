//! A control plane's own CA, and the key that signs service accounts' tokens.
//!
//! State: a key; the files that the API server reads. Invariant: they live as long as the directory. Absent on purpose: expiry within a test: a day is
//! longer than any.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

pub(crate) const CA: &str = "ca.crt";
pub(crate) const SERVER_CERTIFICATE: &str = "apiserver.crt";
pub(crate) const SERVER_KEY: &str = "apiserver.key";
/// Signs tokens.
pub(crate) const TOKEN_KEY: &str = "tokens.key";
/// Its public half: the API server finds none in a key that is written as PKCS#8.
pub(crate) const TOKEN_PUBLIC_KEY: &str = "tokens.pub";

/// Signs for the API server and for its users.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key, both as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one; what the API server reads is in the directory afterwards. It is called by these names too.
    pub(crate) fn new(directory: &Path, names: &[&str]) -> Result<Self> {
        let mut ca = params("Shoal test cluster", &[], &["ca"])?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(ca, new_key()?).context("a CA can't be made")?;
        let authority = Self { pem: issuer.pem(), issuer };
        let tokens = new_key()?;
        let usual = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut server = params("kube-apiserver", &[], &[&usual, names].concat())?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = authority.sign(server)?;
        for (name, text) in [
            (CA, authority.pem.as_str()),
            (SERVER_CERTIFICATE, &server.certificate),
            (SERVER_KEY, &server.key),
            (TOKEN_KEY, &tokens.serialize_pem()),
            (TOKEN_PUBLIC_KEY, &tokens.public_key_pem()),
        ] {
            fs::write(directory.join(name), text).with_context(|| format!("{name} can't be written"))?;
        }
        Ok(authority)
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// A user's: the API server takes the name and the groups from it.
    pub(crate) fn client(&self, name: &str, groups: &[&str]) -> Result<Identity> {
        let mut params = params(name, groups, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A node's: its kubelet's as a client, and as the server that gives logs.
    pub(crate) fn node(&self, name: &str, address: &str) -> Result<Identity> {
        let mut params = params(&format!("system:node:{name}"), &["system:nodes"], &[address, name])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Identity> {
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).context("a certificate can't be signed")?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, groups: &[&str], names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).context("a certificate's names are wrong")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    Ok(params)
}

/// P-256: what Kubernetes' tokens are signed with, besides RSA.
fn new_key() -> Result<KeyPair> {
    KeyPair::generate().context("a key can't be made")
}
