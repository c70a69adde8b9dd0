//! The names of the distribution API: registries, repositories, tags, references.
//!
//! State: none.
//! Invariants: a name that exists follows its grammar and its length; a registry has one spelling (lower case, the shortest form of an IPv6
//! address, docker.io for all of Docker Hub's hosts).
//! Absent on purpose: names in Unicode (a runtime sends punycode), and addresses of a registry other than its name (that is
//! configuration: [`crate::origin::RegistryConfig`]).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use shoal_types::{Digest, DigestError};

/// The longest registry and the longest repository name: the limit of DNS names, and of runtimes and registries.
const MAX_NAME_BYTES: usize = 255;

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A registry's host, with a port where there is one: `docker.io`, `registry.example:5000`, `[2001:db8::1]:5000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registry(Arc<str>);

impl Registry {
    /// The name as written: host and port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port of its API. The same, except for docker.io.
    #[must_use]
    pub fn api_authority(&self) -> &str {
        if self.as_str() == DOCKER_HUB { DOCKER_HUB_API } else { self.as_str() }
    }

    /// Whether a reference's first part is a registry and not the beginning of a repository, by the rule of Docker's references: it has a dot
    /// or a colon, or is `localhost`.
    #[must_use]
    pub fn is_first_part(part: &str) -> bool {
        part == "localhost" || part.contains(['.', ':'])
    }
}

impl FromStr for Registry {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { what: "registry", bytes: text.len() });
        }
        let invalid = || NameError::Registry { name: text.escape_debug().to_string() };
        // An IPv6 literal has colons of its own, so its closing bracket decides where the port begins.
        let (host, port) = match text.rfind(']') {
            Some(end) => (
                &text[..=end],
                text[end + 1..].strip_prefix(':').map_or((text.len() == end + 1).then_some(None), |p| Some(Some(p))),
            ),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(Some(port))),
                None => (text, Some(None)),
            },
        };
        let port = port.ok_or_else(invalid)?.map(|port| parse_port(port).ok_or_else(invalid)).transpose()?;
        let host = parse_host(host).ok_or_else(invalid)?;
        let name = match port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        Ok(match name.as_str() {
            "index.docker.io" | DOCKER_HUB_API => Self(DOCKER_HUB.into()),
            _ => Self(name.into()),
        })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|port| *port != 0)
}

fn parse_host(host: &str) -> Option<String> {
    if let Some(literal) = host.strip_prefix('[') {
        let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(label) {
        return None;
    }
    // A last label that begins with a digit makes URL parsers read the whole as an address in octal, hex or with parts left out. Only the
    // form that has one meaning passes.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|first: char| first.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().ok().map(|address| address.to_string());
    }
    Some(host.to_ascii_lowercase())
}

/// A repository's name within its registry: `library/alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Arc<str>);

impl Repository {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong { what: "repository", bytes: text.len() });
        }
        if !text.split('/').all(is_path_component) {
            return Err(NameError::Repository { name: text.escape_debug().to_string() });
        }
        Ok(Self(text.into()))
    }
}

/// The distribution specification's `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = (1..=128).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
        if valid { Ok(Self(text.into())) } else { Err(NameError::Tag { name: shortened(text) }) }
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A name that the registry may point elsewhere tomorrow.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // A tag has no colon, a digest has one.
        if text.contains(':') { parse_digest(text).map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

/// A digest as it stands in a path. A well-formed one of an unknown algorithm is told apart: it isn't wrong, only not ours to serve.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, NameError> {
    text.parse().map_err(|source| match source {
        DigestError::UnknownAlgorithm if is_foreign_digest(text) => {
            NameError::ForeignDigest { digest: shortened(text) }
        }
        source => NameError::Digest { digest: shortened(text), source },
    })
}

/// The specification's grammar of digests: `[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+`.
fn is_foreign_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    algorithm.split(['+', '.', '_', '-']).all(part)
        && !encoded.is_empty()
        && encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
}

/// A text from outside for an error's line: escaped, and no longer than a digest needs.
fn shortened(text: &str) -> String {
    text.chars().take(140).flat_map(char::escape_debug).collect()
}

/// A full image name as users write it: `alpine`, `ghcr.example/team/app:1.2`, `docker.io/library/alpine@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// The registry; docker.io where the text names none.
    pub registry: Registry,
    /// The repository; `library/…` for Docker Hub's own.
    pub repository: Repository,
    /// The digest where the text has one, else the tag; `latest` where it has neither.
    pub reference: Reference,
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed: oci_client::Reference =
            text.parse().map_err(|source| NameError::Image { name: shortened(text), source: Arc::new(source) })?;
        let reference = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Reference::Digest(parse_digest(digest)?),
            (None, tag) => Reference::Tag(tag.unwrap_or("latest").parse()?),
        };
        Ok(Self { registry: parsed.registry().parse()?, repository: parsed.repository().parse()?, reference })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.reference)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

macro_rules! text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text! { Registry Repository Tag }

/// Why a text is not a name.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NameError {
    /// Longer than any name.
    #[error("a {what} name has at most 255 bytes, this one has {bytes}")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Not a registry.
    #[error("\"{name}\" isn't a registry: host or host:port, in lower case, punycode or an address")]
    Registry {
        /// What was found.
        name: String,
    },
    /// Not a repository.
    #[error("\"{name}\" isn't a repository: lower-case letters, digits, and single separators between them")]
    Repository {
        /// What was found.
        name: String,
    },
    /// Not a tag.
    #[error("\"{name}\" isn't a tag: up to 128 letters, digits, '_', '.' and '-'")]
    Tag {
        /// What was found.
        name: String,
    },
    /// Not a digest.
    #[error("\"{digest}\" isn't a digest")]
    Digest {
        /// What was found.
        digest: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A digest whose algorithm Shoal has no chain for: only the origin can serve it.
    #[error("\"{digest}\" is of an algorithm that only the origin can serve")]
    ForeignDigest {
        /// The digest.
        digest: String,
    },
    /// Not an image's name.
    #[error("\"{name}\" isn't an image's name")]
    Image {
        /// What was found.
        name: String,
        /// What is wrong with it.
        source: Arc<oci_client::ParseError>,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn registries_have_one_spelling() {
        let cases = [
            ("docker.io", Some("docker.io")),
            ("registry-1.docker.io", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("Registry.EXAMPLE:5000", Some("registry.example:5000")),
            ("localhost", Some("localhost")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("127.0.0.1:05000", Some("127.0.0.1:5000")),
            ("[2001:DB8:0::1]:5000", Some("[2001:db8::1]:5000")),
            ("[::1]", Some("[::1]")),
            ("", None),
            ("bücher.example", None),
            ("example.", None),
            ("-a.example", None),
            ("a..b", None),
            ("a/b", None),
            ("user@example", None),
            ("example:", None),
            ("example:0", None),
            ("example:65536", None),
            ("example:+80", None),
            ("a:1:2", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[fe80::1%eth0]", None),
            ("127.1", None),
            ("0x7f.1", None),
            ("2130706433", None),
            ("0177.0.0.1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Registry>().ok().as_ref().map(Registry::as_str), expected, "{text}");
        }
        assert!("a".repeat(500).parse::<Registry>().is_err());
        assert!(format!("{}:5000", vec!["a".repeat(49); 5].join(".")).parse::<Registry>().is_ok());
        assert_eq!("docker.io".parse::<Registry>().unwrap().api_authority(), "registry-1.docker.io");
    }

    #[test]
    fn repositories_follow_the_specification() {
        for valid in ["a", "library/alpine", "a/b/c/d", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1"] {
            assert!(valid.parse::<Repository>().is_ok(), "{valid}");
        }
        for invalid in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "a._b", "-a", "a-", ".a", "a b", "a:b", "é", "..",
            "a/../b",
        ] {
            assert!(invalid.parse::<Repository>().is_err(), "{invalid}");
        }
        assert!("a".repeat(255).parse::<Repository>().is_ok());
        assert!("a".repeat(256).parse::<Repository>().is_err());
    }

    #[test]
    fn references_are_tags_or_digests() {
        let sha256 = format!("sha256:{}", "0f".repeat(32));
        assert!(matches!(sha256.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("v1.2-rc_3".parse(), Ok(Reference::Tag(_))));
        assert!(matches!("t".repeat(128).parse(), Ok(Reference::Tag(_))));
        assert!(matches!("t".repeat(129).parse::<Reference>(), Err(NameError::Tag { .. })));
        assert!(matches!("-x".parse::<Reference>(), Err(NameError::Tag { .. })));
        assert!(matches!("sha384:00ff".parse::<Reference>(), Err(NameError::ForeignDigest { .. })));
        assert!(matches!("blake3+b64:Zm9v".parse::<Reference>(), Err(NameError::ForeignDigest { .. })));
        assert!(matches!("SHA256:00".parse::<Reference>(), Err(NameError::Digest { .. })));
        assert!(matches!("sha256:00".parse::<Reference>(), Err(NameError::Digest { .. })));
        assert!(matches!(":".parse::<Reference>(), Err(NameError::Digest { .. })));
    }

    #[test]
    fn image_names_are_completed_as_docker_does() {
        for (text, full) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("registry.example:5000/team/app", "registry.example:5000/team/app:latest"),
            ("localhost/app:2", "localhost/app:2"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().to_string(), full);
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        let both = format!("ghcr.example/a:1@{digest}").parse::<ImageName>().unwrap();
        assert_eq!(both.reference.to_string(), digest);
        assert!("UPPER/case".parse::<ImageName>().is_err());
    }

    proptest! {
        #[test]
        fn a_repository_is_what_the_regular_expression_says(text in "[a-b0._/A-]{0,10}") {
            // The grammar once more, by taking a part's words away from its front.
            let component = |part: &str| {
                let mut rest = part;
                loop {
                    let word = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
                    if word.len() == rest.len() {
                        return false;
                    }
                    let after = ["__", "_", "."].iter().find_map(|separator| word.strip_prefix(separator));
                    match after.unwrap_or_else(|| word.trim_start_matches('-')) {
                        "" => return word.is_empty(),
                        after if after.len() == word.len() => return false,
                        after => rest = after,
                    }
                }
            };
            prop_assert_eq!(text.parse::<Repository>().is_ok(), text.split('/').all(component));
        }

        #[test]
        fn what_parses_is_its_own_spelling(text in "\\PC{0,40}") {
            if let Ok(registry) = text.parse::<Registry>() {
                prop_assert_eq!(registry.as_str().parse::<Registry>().unwrap(), registry);
            }
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
