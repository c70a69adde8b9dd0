//! What a registry's client is told: plain values, checked once by [`super::Origin::new`].

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use url::Url;

use crate::names::Registry;

/// How we prove ourselves to a registry. No debug print shows what is secret in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    #[default]
    Anonymous,
    /// A user's name and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic(..) => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// A registry and how to reach it. [`RegistryConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// The name in images' names.
    pub registry: Registry,
    /// Where its API is, without `/v2/`.
    pub endpoint: Url,
    /// The endpoint may be plain http.
    pub plain_http: bool,
    /// Certificates of authorities to trust beside the host's, as PEM.
    pub ca_bundle: Option<String>,
    /// How we prove ourselves, to this registry alone and to the token server that it names.
    pub credentials: Credentials,
    /// Hosts (`host` or `host:port`) that its realms and redirects may lead to although [`crate::guard`] would refuse them.
    pub allowed_hosts: Vec<Registry>,
    /// Ranges of one blob in flight.
    pub connections: NonZeroUsize,
    /// A registry that begins to answer within this time is near: a blob comes over one connection, whatever `connections` says.
    pub near: Duration,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// How often in a row a request or a part of a blob is tried again without having come further.
    pub retries: u32,
    /// The proxies.
    pub proxy: ProxyConfig,
    /// The seed of the pauses' jitter. Nodes have different ones.
    pub seed: u64,
}

impl RegistryConfig {
    /// The registry at its usual place, anonymously.
    ///
    /// # Errors
    /// If its name makes no URL.
    pub fn new(registry: Registry) -> Result<Self, ConfigError> {
        let endpoint = format!("https://{}/", registry.api_authority());
        let endpoint = Url::parse(&endpoint).map_err(|source| ConfigError::Url { url: endpoint, source })?;
        Ok(Self {
            registry,
            endpoint,
            plain_http: false,
            ca_bundle: None,
            credentials: Credentials::Anonymous,
            allowed_hosts: Vec::new(),
            // Storage behind registries gives one connection 50 to 100 MB/s: four fill most of a 2.5 Gbit/s uplink.
            connections: NonZeroUsize::MIN.saturating_add(3),
            // What comes over 10 ms with the usual window of 6 MiB fills half of a 10 Gbit/s link, and storage in the same building isn't throttled.
            near: Duration::from_millis(10),
            timeouts: Timeouts::default(),
            retries: 3,
            proxy: ProxyConfig::default(),
            seed: 0,
        })
    }
}

/// How long the parts of a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From then until the answer begins.
    pub first_byte: Duration,
    /// From one piece of the answer to the next.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// Runtimes cancel a pull after minutes without progress, and the lead is waited for by everybody: seconds.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(15), idle: Duration::from_secs(10) }
    }
}

/// Proxies, in the words of the usual environment variables, which a library doesn't read.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// For http URLs (`HTTP_PROXY`).
    pub http: Option<Url>,
    /// For https URLs (`HTTPS_PROXY`).
    pub https: Option<Url>,
    /// Hosts, domains and networks to reach directly, separated by commas (`NO_PROXY`).
    pub no_proxy: String,
}

impl ProxyConfig {
    /// The proxies that are set.
    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.http.iter().chain(&self.https)
    }
}

/// Why a registry can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a URL.
    #[error("\"{url}\" isn't a URL")]
    Url {
        /// What it is.
        url: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// An endpoint that can't be one.
    #[error(
        "the endpoint of {registry} must be https:// and a host, with neither user, query nor fragment (http:// only with plain http allowed)"
    )]
    Endpoint {
        /// The registry.
        registry: Registry,
    },
    /// No certificate in the bundle, or a broken one.
    #[error("the CA bundle of {registry} has no usable certificate")]
    CaBundle {
        /// The registry.
        registry: Registry,
        /// What is wrong with it.
        source: Option<rustls_pki_types::pem::Error>,
    },
    /// The provider has no usable protocol version.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// The client can't be built, because of a proxy for example.
    #[error("the HTTP client can't be set up")]
    Client(#[from] reqwest::Error),
}
