//! Registries by their host, and where they are.
//!
//! State: none. Invariants: a host is lower case; what Docker Hub is called elsewhere is `docker.io` here, as the runtimes' `ns` has it.
//! Absent on purpose: name resolution, and paths of endpoints: a registry's API is at the root of its host.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A registry as image names have it: `docker.io`, `registry.example.com:5000`, `[::1]:5000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(String);

/// Docker Hub's name in images.
const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub's API is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// What else it is called.
const DOCKER_HUB_ALIASES: [&str; 2] = [DOCKER_HUB_API, "index.docker.io"];

impl RegistryHost {
    /// Host and port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it is, unless somebody says otherwise: `https://` and the host.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let authority = if self.0 == DOCKER_HUB { DOCKER_HUB_API } else { &self.0 };
        Endpoint { plain_http: false, authority: authority.to_owned() }
    }
}

impl FromStr for RegistryHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let host = authority(text)?;
        Ok(Self(if DOCKER_HUB_ALIASES.contains(&host.as_str()) { DOCKER_HUB.to_owned() } else { host }))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which registries are meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This one.
    Exactly(RegistryHost),
    /// All that nobody names: `*`.
    Rest,
}

impl HostPattern {
    /// Whether this host is meant.
    #[must_use]
    pub fn matches(&self, host: &RegistryHost) -> bool {
        match self {
            Self::Exactly(own) => own == host,
            Self::Rest => true,
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Rest);
        }
        text.parse().map(Self::Exactly)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(host) => host.fmt(f),
            Self::Rest => "*".fmt(f),
        }
    }
}

/// Where a registry's API is: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    plain_http: bool,
    authority: String,
}

impl Endpoint {
    /// Whether it is spoken to without TLS.
    #[must_use]
    pub const fn is_plain_http(&self) -> bool {
        self.plain_http
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (plain_http, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (true, rest)
        } else {
            return Err(EndpointError::Scheme);
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(EndpointError::Credentials);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(EndpointError::Path);
        }
        Ok(Self { plain_http, authority: authority(rest)? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.plain_http { "http" } else { "https" }, self.authority)
    }
}

/// Host and port in lower case, if they are well-formed.
fn authority(text: &str) -> Result<String, HostError> {
    if text.contains("://") {
        return Err(HostError::Scheme);
    }
    if text.contains('/') {
        return Err(HostError::Path);
    }
    let (name, port) = match text.rfind(':') {
        // The colons of an address in brackets aren't a port's.
        Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    if let Some(port) = port {
        // Digits only: `u16` would parse a sign as well.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
            return Err(HostError::Port);
        }
    }
    let valid = match name.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => name.len() <= 253 && name.split('.').all(is_label),
    };
    if valid { Ok(text.to_ascii_lowercase()) } else { Err(HostError::Name) }
}

/// A part of a DNS name.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Why a text is not a registry's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A scheme in front.
    #[error("a registry's host has no scheme: write host or host:port, and the scheme in endpoint")]
    Scheme,
    /// A path behind.
    #[error("a registry's host has no path: write host or host:port, and repositories in rules")]
    Path,
    /// Not a port.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Not a name.
    #[error(
        "not a host: write a DNS name, an IPv4 address or an IPv6 address in brackets, each with :port if it has one"
    )]
    Name,
}

/// Why a text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme that is known.
    #[error("an endpoint begins with https://, or with http:// where the registry has no TLS")]
    Scheme,
    /// A user's name in front of the host.
    #[error("an endpoint has no credentials: name a Secret in secretRef")]
    Credentials,
    /// A path behind.
    #[error("an endpoint has no path: write scheme, host and port alone")]
    Path,
    /// A host that isn't one.
    #[error(transparent)]
    Host(#[from] HostError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts() {
        let long = "a".repeat(64);
        let cases = [
            ("docker.io", Ok("docker.io")),
            ("index.docker.io", Ok("docker.io")),
            ("registry-1.docker.io", Ok("docker.io")),
            ("Registry.Example.COM:5000", Ok("registry.example.com:5000")),
            ("localhost", Ok("localhost")),
            ("10.0.0.1:443", Ok("10.0.0.1:443")),
            ("[::1]:5000", Ok("[::1]:5000")),
            ("[fe80::1]", Ok("[fe80::1]")),
            ("", Err(HostError::Name)),
            (":5000", Err(HostError::Name)),
            ("a..b", Err(HostError::Name)),
            ("-a", Err(HostError::Name)),
            ("a_b", Err(HostError::Name)),
            ("::1", Err(HostError::Name)),
            ("[::1", Err(HostError::Name)),
            ("[x]:1", Err(HostError::Name)),
            ("*.example.com", Err(HostError::Name)),
            (long.as_str(), Err(HostError::Name)),
            ("a:0", Err(HostError::Port)),
            ("a:65536", Err(HostError::Port)),
            ("a:+5", Err(HostError::Port)),
            ("a:", Err(HostError::Port)),
            ("https://a", Err(HostError::Scheme)),
            ("a/b", Err(HostError::Path)),
            ("user@a", Err(HostError::Name)),
        ];
        for (text, expected) in cases {
            let host = text.parse::<RegistryHost>();
            assert_eq!(host.as_ref().map(RegistryHost::as_str).map_err(|error| *error), expected, "{text}");
        }
        assert_eq!("*".parse(), Ok(HostPattern::Rest));
    }

    #[test]
    fn endpoints() {
        let cases = [
            ("https://a.example", Ok("https://a.example")),
            ("https://a.example:5000/", Ok("https://a.example:5000")),
            ("http://127.0.0.1:5000", Ok("http://127.0.0.1:5000")),
            ("https://registry-1.docker.io", Ok("https://registry-1.docker.io")),
            ("a.example", Err(EndpointError::Scheme)),
            ("ftp://a.example", Err(EndpointError::Scheme)),
            ("https://u:p@a.example", Err(EndpointError::Credentials)),
            ("https://a.example/v2", Err(EndpointError::Path)),
            ("https://a.example?x", Err(EndpointError::Path)),
            ("https://", Err(EndpointError::Host(HostError::Name))),
        ];
        for (text, expected) in cases {
            let endpoint = text.parse::<Endpoint>();
            assert_eq!(endpoint.map(|endpoint| endpoint.to_string()), expected.map(str::to_owned), "{text}");
        }
        assert_eq!("docker.io".parse::<RegistryHost>().unwrap().endpoint().to_string(), "https://registry-1.docker.io");
        assert!("http://a:1".parse::<Endpoint>().unwrap().is_plain_http());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_printed_parses_back(text in "[a-c:\\[\\]./@é0-9-]{0,12}") {
            if let Ok(host) = text.parse::<RegistryHost>() {
                prop_assert_eq!(host.to_string().parse(), Ok(host));
            }
            let _ = text.parse::<Endpoint>();
        }
    }
}
