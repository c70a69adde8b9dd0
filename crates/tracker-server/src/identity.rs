//! Who may join, and as whom.
//!
//! State: what an identity provider keeps; [`JoinTokens`] keeps nothing but where the tokens are.
//! Invariants: what a node says about itself (its [`JoinRequest`]) is a wish; what it is, is the provider's word ([`Admitted`]).
//! Absent on purpose: certificates. Who is admitted gets one; how is `authority.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use shoal_types::Zone;
use shoal_wire::{Contact, NodeName};
use subtle::ConstantTimeEq as _;

use crate::document::Labels;
use crate::secret_file;
use crate::trust::{Fingerprint, FingerprintError, hex};

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Its name.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
    /// Its address, if it is another one than the one from which it speaks.
    pub peer_ip: Option<IpAddr>,
    /// The port at which it takes peers' connections.
    pub peer_port: u16,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its name.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
    /// Where it takes peers' connections.
    pub address: SocketAddr,
    /// What else the provider knows about it, for those who choose nodes by labels.
    pub labels: Labels,
}

impl Admitted {
    /// As others hear of it.
    #[must_use]
    pub fn contact(&self) -> Contact {
        Contact::new(self.name.clone(), self.zone.clone(), self.address)
    }
}

/// Why a node isn't admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token is unknown or no longer valid.
    #[error("the token isn't valid")]
    Token,
    /// The token is good, the wish isn't granted.
    #[error("{0}")]
    NotAllowed(String),
    /// The provider can't tell now.
    #[error("the identity provider can't tell: {0}")]
    Unavailable(String),
}

/// Decides who may join. Its futures must be cancel-safe: a node that goes away takes its request along.
pub trait Identity: Send + Sync + 'static {
    /// Whether the holder of the token, which speaks from `source`, may join, and as whom.
    fn admit<'a>(
        &'a self,
        token: &'a str,
        request: &'a JoinRequest,
        source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>>;

    /// Whether a node that shows a valid certificate gets the next one. Its name stays what it is.
    fn renew<'a>(
        &'a self,
        present: &'a Contact,
        request: &'a JoinRequest,
        source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>>;

    /// A node's labels as they are now; none if this provider doesn't follow them. Then those hold that it gave with the node's last certificate
    /// here, and where there are none (after a restart too) the node selects by what it knows of itself.
    fn labels<'a>(&'a self, _present: &'a Contact) -> BoxFuture<'a, Result<Option<Labels>, Refused>> {
        std::future::ready(Ok(None)).boxed()
    }
}

/// Join tokens: whoever holds one may join under any name. For hosts without Kubernetes.
#[derive(Clone, Debug)]
pub struct JoinTokens {
    tokens: Tokens,
    believes_addresses: bool,
}

#[derive(Clone)]
enum Tokens {
    Fixed(Vec<Secret>),
    File(PathBuf),
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => write!(f, "{} tokens", tokens.len()),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl JoinTokens {
    /// These tokens.
    #[must_use]
    pub fn fixed(tokens: impl IntoIterator<Item = JoinToken>) -> Self {
        Self {
            tokens: Tokens::Fixed(tokens.into_iter().map(|token| token.secret).collect()),
            believes_addresses: false,
        }
    }

    /// The tokens of a file: one a line, `#` starts a comment. It is read at every join, so that tokens come and go without a restart;
    /// with an old and a new one in it, hosts can be moved from one to the other.
    ///
    /// # Errors
    /// If it can't be read, has no token, or something else in it.
    pub fn file(path: &Path) -> Result<Self, TokenError> {
        read_tokens(path)?;
        Ok(Self { tokens: Tokens::File(path.to_owned()), believes_addresses: false })
    }

    /// Takes the address that a node says to have instead of the one from which it speaks: where there is a NAT or a proxy between
    /// nodes and tracker. A node that lies is not reached itself: whoever connects wants to see its certificate.
    #[must_use]
    pub const fn believing_addresses(mut self) -> Self {
        self.believes_addresses = true;
        self
    }

    fn place(&self, name: &NodeName, request: &JoinRequest, source: IpAddr) -> Result<Admitted, Refused> {
        let ip = match request.peer_ip {
            Some(ip) if ip != source && !self.believes_addresses => {
                return Err(Refused::NotAllowed(format!(
                    "{name} speaks from {source} and says to have the address {ip}"
                )));
            }
            Some(ip) => ip,
            None => source,
        };
        if ip.is_unspecified() || ip.is_multicast() || request.peer_port == 0 {
            return Err(Refused::NotAllowed(format!("nobody can connect to {ip} port {}", request.peer_port)));
        }
        let address = SocketAddr::new(ip, request.peer_port);
        Ok(Admitted { name: name.clone(), zone: request.zone.clone(), address, labels: BTreeMap::new() })
    }
}

impl Identity for JoinTokens {
    fn admit<'a>(
        &'a self,
        token: &'a str,
        request: &'a JoinRequest,
        source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        async move {
            let shown = Secret::of(token);
            let known = match &self.tokens {
                Tokens::Fixed(tokens) => shown.is_among(tokens),
                Tokens::File(path) => {
                    let path = path.clone();
                    let read = tokio::task::spawn_blocking(move || read_tokens(&path)).await;
                    let tokens = match read {
                        Ok(Ok(tokens)) => tokens,
                        Ok(Err(error)) => return Err(Refused::Unavailable(error.to_string())),
                        Err(_) => return Err(Refused::Unavailable("shutting down".to_owned())),
                    };
                    shown.is_among(&tokens)
                }
            };
            if known { self.place(&request.name, request, source) } else { Err(Refused::Token) }
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        present: &'a Contact,
        request: &'a JoinRequest,
        source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        async move { self.place(present.name(), request, source) }.boxed()
    }
}

/// A join token: a secret, and the fingerprint of the CA that its holder is to trust. Written `secret:fingerprint`; a secret alone
/// is for those who have the CA's certificate.
#[derive(Clone)]
pub struct JoinToken {
    text: String,
    secret: Secret,
    ca: Option<Fingerprint>,
}

impl JoinToken {
    /// Fewer characters could be guessed.
    const MIN_CHARS: usize = 16;
    /// Room for any secret, and it fits a header.
    const MAX_CHARS: usize = 256;

    /// A new one: 256 random bits.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate(ca: Fingerprint) -> Result<Self, TokenError> {
        let mut bits = [0; 32];
        SystemRandom::new().fill(&mut bits).map_err(|_| TokenError::Random)?;
        let text = hex(&bits);
        Ok(Self { secret: Secret::of(&text), text, ca: Some(ca) })
    }

    /// The CA that it pins.
    #[must_use]
    pub const fn ca(&self) -> Option<Fingerprint> {
        self.ca
    }

    /// Secret and fingerprint, as it is written into files.
    #[must_use]
    pub fn reveal(&self) -> String {
        match self.ca {
            Some(ca) => format!("{}:{ca}", self.text),
            None => self.text.clone(),
        }
    }

    /// Compares in constant time.
    pub(crate) fn is(&self, shown: &str) -> bool {
        Secret::of(shown).is_among(std::slice::from_ref(&self.secret))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (secret, ca) = match text.split_once(':') {
            Some((secret, ca)) => (secret, Some(ca.parse()?)),
            None => (text, None),
        };
        let fits = (Self::MIN_CHARS..=Self::MAX_CHARS).contains(&secret.len());
        if !fits || !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(&byte)) {
            return Err(TokenError::Malformed);
        }
        Ok(Self { text: secret.to_owned(), secret: Secret::of(secret), ca })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It has characters that no token has, or too few.
    #[error("a token has 16 to 256 letters, digits and -_.~+/=, and may be followed by ':' and the CA's fingerprint")]
    Malformed,
    /// What follows the colon isn't a fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// The file can't be read.
    #[error("{}: can't be read", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has none.
    #[error("{}: has no token in it", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A line of the file is none.
    #[error("{}: line {line} is no token", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Random,
}

/// The tokens of a file.
pub(crate) fn read_token_file(path: &Path) -> Result<Vec<JoinToken>, TokenError> {
    let text = secret_file::read(path).and_then(|text| text.ok_or_else(|| std::io::ErrorKind::NotFound.into()));
    let text = text.map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    let mut tokens = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            tokens.push(line.parse().map_err(|_| TokenError::Line { path: path.to_owned(), line: at + 1 })?);
        }
    }
    if tokens.is_empty() { Err(TokenError::Empty { path: path.to_owned() }) } else { Ok(tokens) }
}

fn read_tokens(path: &Path) -> Result<Vec<Secret>, TokenError> {
    Ok(read_token_file(path)?.into_iter().map(|token| token.secret).collect())
}

/// A token's hash. Hashes have one length and say nothing about where two tokens differ.
#[derive(Clone)]
struct Secret([u8; 32]);

impl Secret {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Looks at all of them, whichever it is.
    fn is_among(&self, known: &[Self]) -> bool {
        known.iter().fold(subtle::Choice::from(0), |found, token| found | token.0.ct_eq(&self.0)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn tokens_are_read_and_written() {
        let pinned: JoinToken = format!("0123456789abcdef:{HEX}").parse().unwrap();
        assert_eq!(pinned.ca().unwrap().to_string(), HEX);
        assert_eq!(pinned.reveal(), format!("0123456789abcdef:{HEX}"));
        assert!(pinned.is("0123456789abcdef") && !pinned.is("0123456789abcdeg"));
        assert!("0123456789abcdef".parse::<JoinToken>().unwrap().ca().is_none());
        for text in ["", "short", "0123456789abcdef:ab", "0123456789 bcdef", &"a".repeat(257)] {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
        assert!(!format!("{pinned:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn an_address_is_where_the_node_speaks_from_unless_it_is_believed() {
        let tokens = JoinTokens::fixed([]);
        let [here, there]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let name = NodeName::new("a").unwrap();
        let request =
            |peer_ip, peer_port| JoinRequest { name: name.clone(), zone: Zone::default(), peer_ip, peer_port };
        let place =
            |tokens: &JoinTokens, request: &JoinRequest| tokens.place(&name, request, here).map(|is| is.address);
        assert_eq!(place(&tokens, &request(None, 7)), Ok((here, 7).into()));
        assert_eq!(place(&tokens, &request(Some(here), 7)), Ok((here, 7).into()));
        assert!(place(&tokens, &request(Some(there), 7)).is_err());
        let tokens = tokens.believing_addresses();
        assert_eq!(place(&tokens, &request(Some(there), 7)), Ok((there, 7).into()));
        assert!(place(&tokens, &request(None, 0)).is_err());
        assert!(place(&tokens, &request(Some([0, 0, 0, 0].into()), 7)).is_err());
    }
}
