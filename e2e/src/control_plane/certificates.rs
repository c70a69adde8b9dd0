//! The control plane's own CA, and the key that signs service accounts' tokens.
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

pub(super) const CA: &str = "ca.crt";
pub(super) const SERVER_CERTIFICATE: &str = "apiserver.crt";
pub(super) const SERVER_KEY: &str = "apiserver.key";
/// Signs tokens.
pub(super) const TOKEN_KEY: &str = "tokens.key";
/// Its public half: the API server finds none in a key that is written as PKCS#8.
pub(super) const TOKEN_PUBLIC_KEY: &str = "tokens.pub";

/// Signs for the API server and for its users.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key, both as PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// A new one; what the API server reads is in the directory afterwards.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let mut params = params("Shoal test cluster", &[], &["ca"])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, new_key()?).context("a CA can't be made")?;
        let authority = Self { pem: issuer.pem(), issuer };
        let tokens = new_key()?;
        let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let server = authority.sign(params_of_server(&names)?)?;
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

    pub(super) fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// A user's: the API server takes the name and the groups from it.
    pub(super) fn client(&self, name: &str, groups: &[&str]) -> Result<Identity> {
        let mut params = params(name, groups, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Identity> {
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).context("a certificate can't be signed")?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params_of_server(names: &[&str]) -> Result<CertificateParams> {
    let mut params = params("kube-apiserver", &[], names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
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
