//! What it takes to read a private repository, handed to the node that fetches one of its blobs for all.
//!
//! State: none. It is kept in memory only, on both sides, and its owner decides for how long.
//! Invariants: the secret shows in no debug print; it is asked for by name, and comes over mutual TLS or not at all.
//! Absent on purpose: where it comes from ([`crate::OriginResolver::pull_secret`]), and for which host it is used: the node's client of
//! that registry.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Credentials are asked for anew after this time: when a Swarm's are changed or taken back, nodes follow.
pub(crate) const MAX_HOLDS: Duration = Duration::from_secs(300);

/// What lets its bearer read a repository, and for how long it may be used.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// It itself.
    pub kind: SecretKind,
    /// For how long: five minutes at most.
    pub holds: Duration,
}

/// The kinds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// A token that its registry gave for pulling from this repository alone.
    Token(String),
    /// The registry gives no tokens: a user's name and password.
    Password(String, String),
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:?}", self.kind, self.holds)
    }
}

impl fmt::Debug for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "a token",
            Self::Password(..) => "a password",
        })
    }
}

/// As it is sent.
#[derive(Serialize, Deserialize)]
pub(crate) struct PullSecretBody {
    secret: SecretKind,
    holds_millis: u64,
}

impl From<PullSecret> for PullSecretBody {
    fn from(secret: PullSecret) -> Self {
        let holds = secret.holds.min(MAX_HOLDS);
        Self { secret: secret.kind, holds_millis: u64::try_from(holds.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl From<PullSecretBody> for PullSecret {
    fn from(body: PullSecretBody) -> Self {
        Self { kind: body.secret, holds: Duration::from_millis(body.holds_millis).min(MAX_HOLDS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_way_and_shows_nowhere_else() {
        for kind in [SecretKind::Token("geheim".into()), SecretKind::Password("ann".into(), "geheim".into())] {
            let secret = PullSecret { kind, holds: MAX_HOLDS * 2 };
            assert!(!format!("{secret:?}").contains("geheim"));
            let sent = serde_json::to_vec(&PullSecretBody::from(secret.clone())).unwrap();
            let got: PullSecret = serde_json::from_slice::<PullSecretBody>(&sent).unwrap().into();
            assert_eq!(got, PullSecret { holds: MAX_HOLDS, ..secret });
        }
    }
}
