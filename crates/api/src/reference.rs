//! What an artifact is called: registry, repository, and a tag or a digest.
//!
//! State: none. Absent on purpose: the shorthand of `docker pull` (no registry, no tag). What a Swarm pushes is written in full, so that nobody has to
//! know what is assumed.

use std::fmt;
use std::str::FromStr;

use shoal_types::Digest;

use crate::RegistryHost;

/// `registry/repository:tag`, `registry/repository@digest`, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: RegistryHost,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry.
    #[must_use]
    pub const fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. With a digest beside it, it is a remark.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains("://") {
            return Err(ReferenceError::Host(crate::HostError::Scheme));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        // A tag's colon is behind the last slash; one before it is a port's.
        let slash = name.rfind('/').ok_or(ReferenceError::NoRegistry)?;
        let (name, tag) = match name[slash..].find(':') {
            Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
            None => (name, None),
        };
        let (host, repository) = name.split_once('/').ok_or(ReferenceError::NoRegistry)?;
        // The rule by which every runtime tells a registry from a user of Docker Hub.
        if !host.contains(['.', ':', ']']) && host != "localhost" {
            return Err(ReferenceError::NoRegistry);
        }
        let host: RegistryHost = host.parse()?;
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(ReferenceError::Repository);
        }
        if host.as_str() == "docker.io" && !repository.contains('/') {
            return Err(ReferenceError::DockerLibrary);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag);
        }
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::NoTag);
        }
        Ok(Self { host, repository: repository.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A part of a repository by the OCI distribution specification: runs of letters and digits between `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let at_ends = part.bytes().next().is_some_and(is_word) && part.bytes().last().is_some_and(is_word);
    at_ends && separators.all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

/// A tag by the OCI distribution specification.
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

/// Why a text doesn't name an artifact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No registry in front.
    #[error("no registry: write registry/repository:tag, for Docker Hub docker.io/library/nginx:1.29")]
    NoRegistry,
    /// Not a host.
    #[error(transparent)]
    Host(#[from] crate::HostError),
    /// Not a repository.
    #[error("a repository's parts have lower-case letters and digits, with single . _ - between them")]
    Repository,
    /// Docker Hub without a namespace.
    #[error("a repository of Docker Hub has a namespace: write docker.io/library/nginx for the official ones")]
    DockerLibrary,
    /// Not a tag.
    #[error("a tag has up to 128 letters, digits and _.- and begins with a letter, a digit or _")]
    Tag,
    /// Neither tag nor digest.
    #[error("neither tag nor digest: add :tag or @sha256:…")]
    NoTag,
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] shoal_types::DigestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cases = [
            ("registry.example.com:5000/ml/pytorch:2.9".to_owned(), None),
            ("localhost/a:b".to_owned(), None),
            (format!("docker.io/library/nginx@{digest}"), None),
            (format!("[::1]:5000/a__b/c--d:1@{digest}"), None),
            ("nginx:1".to_owned(), Some(ReferenceError::NoRegistry)),
            ("library/nginx:1".to_owned(), Some(ReferenceError::NoRegistry)),
            ("docker.io/nginx:1".to_owned(), Some(ReferenceError::DockerLibrary)),
            ("r.io/a".to_owned(), Some(ReferenceError::NoTag)),
            ("r.io:5000/a".to_owned(), Some(ReferenceError::NoTag)),
            ("r.io/a:".to_owned(), Some(ReferenceError::Tag)),
            ("r.io/a:-x".to_owned(), Some(ReferenceError::Tag)),
            ("r.io/A:1".to_owned(), Some(ReferenceError::Repository)),
            ("r.io/a..b:1".to_owned(), Some(ReferenceError::Repository)),
            ("r.io//a:1".to_owned(), Some(ReferenceError::Repository)),
            ("r.io/a-:1".to_owned(), Some(ReferenceError::Repository)),
            ("r.io/a@md5:00".to_owned(), Some(ReferenceError::Digest(shoal_types::DigestError::UnknownAlgorithm))),
            ("https://r.io/a:1".to_owned(), Some(ReferenceError::Host(crate::HostError::Scheme))),
        ];
        for (text, error) in cases {
            match (text.parse::<Reference>(), error) {
                (Ok(reference), None) => assert_eq!(reference.to_string(), text),
                (Err(found), Some(expected)) => assert_eq!(found, expected, "{text}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }
}
