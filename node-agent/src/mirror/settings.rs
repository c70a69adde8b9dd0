//! What an operator may set about the mirror, and who decides which registries it answers for.
//!
//! State: none.
//! Invariants: the defaults are derived, each beside its field.
//! Absent on purpose: the address. Who binds the listener decides that it is loopback.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use shoal_oci::Registry;
use subtle::ConstantTimeEq;

/// The mirror's limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many connections are served at once; a quarter as many more are told 503.
    ///
    /// 256 are 64 pulls at once, at containerd's three layers and one manifest each. Were all their readers stuck, each on a piece of its own,
    /// the mirror would hold 256 × (256 KiB + 2 × 16 KiB) = 72 MiB; readers that take their bytes hold next to nothing, and readers of one
    /// blob share a piece.
    pub connections: NonZeroU16,
    /// How long a connection may take to send a request's head, and to be idle before it.
    ///
    /// 45 s: containerd closes its own idle connections after 30 s, so it never reuses one that is being closed here.
    pub idle: Duration,
    /// How long a client may take nothing of what is being sent.
    ///
    /// 60 s: a runtime stalls while its disk does. It is cut cleanly, so one that wakes later goes on at the origin.
    pub reader_patience: Duration,
    /// How long the core may give nothing: before an answer, and between two pieces of a body.
    ///
    /// 120 s: the core falls over within seconds on its own, except where it holds a stream until the chain has closed. The runtime
    /// cancels a pull without progress after 300 s.
    pub source_patience: Duration,
    /// How long answers may go on after the stop.
    ///
    /// 10 s: a third of the time that a pod is given to end.
    pub drain: Duration,
    /// The registry of requests that name none, if there is one.
    pub default_registry: Option<Registry>,
    /// What every request has to carry, if anything: containerd sends it out of its hosts.toml.
    pub token: Option<Token>,
}

impl Settings {
    /// The header that carries the token.
    pub const TOKEN_HEADER: &'static str = "x-shoal-token";
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: const { NonZeroU16::new(256).unwrap() },
            idle: Duration::from_secs(45),
            reader_patience: Duration::from_secs(60),
            source_patience: Duration::from_secs(120),
            drain: Duration::from_secs(10),
            default_registry: None,
            token: None,
        }
    }
}

/// A secret that the mirror and its runtime share. It never shows in a log.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 16 to 256 bytes, visible ASCII only")]
pub struct TokenError;

impl Token {
    /// A token.
    ///
    /// # Errors
    /// Outside of 16 to 256 bytes (less can be guessed, more is a mistake), or with bytes that a header doesn't carry unchanged.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits = (16..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.as_bytes().into())).ok_or(TokenError)
    }

    /// Whether this is it, in a time that doesn't depend on how much of it is right.
    pub(super) fn matches(&self, candidate: &[u8]) -> bool {
        self.0.ct_eq(candidate).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Which registries the mirror answers for. Asked for each request, so that a policy may change.
pub trait Registries: Send + Sync + 'static {
    /// Whether this one is configured.
    fn allows(&self, registry: &Registry) -> bool;
}

impl Registries for BTreeSet<Registry> {
    fn allows(&self, registry: &Registry) -> bool {
        self.contains(registry)
    }
}

impl<F: Fn(&Registry) -> bool + Send + Sync + 'static> Registries for F {
    fn allows(&self, registry: &Registry) -> bool {
        self(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches_and_it_is_not_printed() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!token.matches(wrong));
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn tokens_that_a_header_would_change_are_refused() {
        for text in ["", "short", "with a space in the middle", "ünïcödé-0123456789", &"x".repeat(257)] {
            assert_eq!(Token::new(text).err(), Some(TokenError), "{text}");
        }
    }
}
