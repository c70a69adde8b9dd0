//! The credentials of registries, in the form in which people keep them: a `dockerconfigjson`.
//!
//! ```text
//!   {"auths": {"registry.example.com:5000": {"username": "ann", "password": "…"}, "https://index.docker.io/v1/": {"auth": "<base64 of user:password>"}}}
//! ```
//!
//! State: the credentials, in memory only.
//! Invariants: credentials are found for the very host that the file names, with its port, and for no other. Neither a debug print nor an
//! error shows a secret.
//! Absent on purpose: credential helpers (they are programs), identity tokens (a client would have to trade them in), patterns of hosts.

use std::collections::BTreeMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use shoal_api::Decision;
use shoal_oci::{Credentials, Registry};

/// Longer than any host's name.
const MAX_SHOWN: usize = 256;

/// Where the credentials of a registry come from: a file, the Secrets that Swarms name.
pub trait CredentialSource: fmt::Debug + Send + Sync + 'static {
    /// Those for a repository of this registry, about which this was decided.
    fn credentials(&self, registry: &Registry, decision: &Decision) -> Option<Credentials>;
}

/// There are none.
#[derive(Clone, Copy, Debug)]
pub struct NoCredentials;

impl CredentialSource for NoCredentials {
    fn credentials(&self, _: &Registry, _: &Decision) -> Option<Credentials> {
        None
    }
}

/// The credentials of a `dockerconfigjson`, by registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DockerConfig(BTreeMap<Registry, Credentials>);

/// Why a text isn't a usable `dockerconfigjson`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// It isn't such JSON. What the parser says could quote a secret, so the place is all that is told.
    #[error(
        "line {line}, column {column}: not a dockerconfigjson: {{\"auths\": {{\"HOST\": {{\"username\": …, \"password\": …}}}}}}"
    )]
    Json {
        /// Where.
        line: usize,
        /// And there.
        column: usize,
    },
    /// A key that names no single host.
    #[error("auths: \"{0}\" isn't a registry's host: write host or host:port, one entry for each")]
    Host(String),
    /// An entry without what it takes.
    #[error("auths: {0}: give username and password, or auth (the base64 of user:password), or registrytoken")]
    Entry(Registry),
    /// Two entries of one host.
    #[error("auths: {0} is there twice: keep one")]
    Twice(Registry),
}

#[derive(Deserialize)]
struct File {
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    registrytoken: String,
}

impl DockerConfig {
    /// Reads one.
    ///
    /// # Errors
    /// If an entry can't be used.
    pub fn parse(text: &[u8]) -> Result<Self, DockerConfigError> {
        let file: File = serde_json::from_slice(text)
            .map_err(|error| DockerConfigError::Json { line: error.line(), column: error.column() })?;
        let mut hosts = BTreeMap::new();
        for (key, entry) in file.auths {
            let registry = host(&key).ok_or_else(|| DockerConfigError::Host(shown(&key)))?;
            let credentials = entry.credentials().ok_or_else(|| DockerConfigError::Entry(registry.clone()))?;
            if hosts.insert(registry.clone(), credentials).is_some() {
                return Err(DockerConfigError::Twice(registry));
            }
        }
        Ok(Self(hosts))
    }

    /// Whether it names no registry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The credentials for this very registry.
    #[must_use]
    pub fn get(&self, registry: &Registry) -> Option<&Credentials> {
        self.0.get(registry)
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys().map(Registry::as_str)).finish()
    }
}

impl Entry {
    fn credentials(self) -> Option<Credentials> {
        let Self { username, password, auth, registrytoken } = self;
        if !registrytoken.is_empty() {
            return Some(Credentials::Bearer(registrytoken));
        }
        let (user, password) = if auth.is_empty() {
            (username, password)
        } else {
            let text = String::from_utf8(BASE64_STANDARD.decode(auth.trim()).ok()?).ok()?;
            text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))?
        };
        (!user.is_empty() && !password.is_empty()).then_some(Credentials::Basic(user, password))
    }
}

/// The registry that a key names: with a scheme and the API's version behind it, as docker writes some.
fn host(key: &str) -> Option<Registry> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = ["/v1", "/v2"].iter().find_map(|version| key.strip_suffix(version)).unwrap_or(key);
    key.parse().ok()
}

/// A key as people are shown it: short, and without what stands before a host in URLs with a password.
fn shown(key: &str) -> String {
    let host = key.rsplit('@').next().unwrap_or_default();
    host.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> Registry {
        name.parse().unwrap()
    }

    #[test]
    fn credentials_are_one_hosts_alone() {
        let auth = BASE64_STANDARD.encode("ann:ge:heim");
        let text = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{auth}", "email": "a@b"}},
                "registry.example:5000": {{"username": "bob", "password": "wort"}},
                "token.example": {{"registrytoken": "abc"}}
            }}, "credsStore": "desktop"}}"#
        );
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        let basic = |user: &str, password: &str| Credentials::Basic(user.to_owned(), password.to_owned());
        assert_eq!(config.get(&registry("docker.io")), Some(&basic("ann", "ge:heim")));
        assert_eq!(config.get(&registry("registry.example:5000")), Some(&basic("bob", "wort")));
        assert_eq!(config.get(&registry("token.example")), Some(&Credentials::Bearer("abc".to_owned())));
        for other in ["registry.example", "registry.example:5001", "example", "evil.token.example", "token.example:443"]
        {
            assert_eq!(config.get(&registry(other)), None, "{other}");
        }
        let shown = format!("{config:?}");
        assert!(!shown.contains("heim") && !shown.contains("wort") && !shown.contains("abc"), "{shown}");
    }

    #[test]
    fn what_cant_be_used_is_said_in_a_line_without_the_secret() {
        for (text, says) in [
            ("geheim", "line 1, column 1: not a dockerconfigjson"),
            (r#"{"auths": {"a.example": "geheim"}}"#, "not a dockerconfigjson"),
            (r#"{"auths": {"*.example": {"auth": "geheim"}}}"#, "\"*.example\" isn't a registry's host"),
            (
                r#"{"auths": {"https://ann:geheim@*.example": {"auth": "geheim"}}}"#,
                "\"*.example\" isn't a registry's host",
            ),
            (r#"{"auths": {"a.example/team": {"auth": "geheim"}}}"#, "isn't a registry's host"),
            (r#"{"auths": {"a.example": {"password": "geheim"}}}"#, "a.example: give username and password"),
            (r#"{"auths": {"a.example": {"auth": "geheim"}}}"#, "a.example: give username and password"),
            (r#"{"auths": {"a.example": {"identitytoken": "geheim"}}}"#, "a.example: give username and password"),
            (
                r#"{"auths": {"a.example": {"registrytoken": "geheim"}, "https://a.example": {"registrytoken": "geheim"}}}"#,
                "a.example is there twice",
            ),
        ] {
            let error = DockerConfig::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("geheim") && !error.contains('\n'), "{error}");
        }
    }
}
