//! How a registry is satisfied that we may read: challenges, tokens, and what of them is kept.
//!
//! State: the registry's last challenge and a token per repository.
//! Invariants: a password goes to the token server that the registry names, and to the registry itself only if that asks for Basic; a token
//! goes to the registry only. One token per repository is fetched at a time, whoever waits for it. Secrets are never in an error or a
//! debug print.
//! Absent on purpose: refresh tokens and the POST form of the token request (pulling needs neither), scopes other than one repository's pull.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::config::Credentials;
use super::error::{Cause, OriginError};
use super::http::{Ask, Http};
use crate::guard::Hop;
use crate::names::{Registry, Repository};

/// Tokens kept: repositories that one node pulls from within a token's life, with much room.
const MAX_TOKENS: usize = 1024;

/// The largest answer of a token server. Tokens have 1 to 4 KiB.
const MAX_TOKEN_ANSWER_BYTES: usize = 64 << 10;

/// What the token specification assumes where the answer doesn't say.
const DEFAULT_LIFE_S: u64 = 60;

/// No token is used for longer without asking again.
const LONGEST_LIFE_S: u64 = 24 * 3600;

/// A token that lets its bearer read one repository.
#[derive(Clone)]
pub struct PullToken {
    header: HeaderValue,
    expires: Instant,
}

impl PullToken {
    /// A token that somebody else fetched, and for how long it holds.
    ///
    /// # Errors
    /// If it can't be a token: it is empty or has characters that no header may have.
    pub fn new(secret: &str, holds: Duration) -> Result<Self, NoToken> {
        if secret.is_empty() {
            return Err(NoToken);
        }
        let mut header = HeaderValue::try_from(format!("Bearer {secret}")).map_err(|_| NoToken)?;
        header.set_sensitive(true);
        Ok(Self { header, expires: Instant::now() + holds.min(Duration::from_secs(LONGEST_LIFE_S)) })
    }

    /// The secret itself.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
    }

    /// For how long it still holds.
    #[must_use]
    pub fn holds(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for PullToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullToken(holds {:?})", self.holds())
    }
}

/// A text that can't be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is a word of visible ASCII characters")]
pub struct NoToken;

/// How the registry wants to be satisfied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

type Fetching = Shared<BoxFuture<'static, Result<PullToken, OriginError>>>;

/// The authorization of one registry's requests.
pub(super) struct Auth {
    http: Arc<Http>,
    registry: Registry,
    home: Hop,
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: BTreeMap<Repository, Fetching>,
}

impl Auth {
    pub(super) fn new(http: Arc<Http>, registry: Registry, home: Hop, credentials: Credentials) -> Self {
        Self { http, registry, home, credentials, state: Mutex::default() }
    }

    /// What to send along, as far as it is known: after the first challenge, a token is fetched before it is asked for.
    pub(super) async fn authorization(
        &self,
        repository: Option<&Repository>,
    ) -> Result<Option<HeaderValue>, OriginError> {
        if let Credentials::Bearer(secret) = &self.credentials {
            let token = PullToken::new(secret, Duration::MAX);
            let token = token.map_err(|_| self.fail(repository, Cause::Protocol("the configured token isn't one")))?;
            return Ok(Some(token.header));
        }
        let challenge = self.state().challenge.clone();
        match (repository, challenge) {
            (Some(repository), None) => Ok(self.known(repository).map(|token| token.header)),
            (Some(repository), Some(Challenge::Bearer { .. })) => Ok(Some(self.token(repository).await?.header)),
            (_, Some(Challenge::Basic)) => Ok(self.basic()),
            (None, _) => Ok(None),
        }
    }

    /// What to send along after a 401 that came in spite of `sent`; none if we have nothing better.
    pub(super) async fn challenged(
        &self,
        headers: &HeaderMap,
        repository: Option<&Repository>,
        sent: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, OriginError> {
        self.learn(headers);
        if matches!(self.credentials, Credentials::Bearer(_)) {
            return Ok(None);
        }
        if let (Some(repository), Some(sent)) = (repository, sent) {
            self.forget(repository, sent);
        }
        let fresh = self.authorization(repository).await?;
        // A password that was refused is refused again; a token may have expired early.
        Ok(fresh.filter(|fresh| Some(fresh) != sent))
    }

    /// Remembers how the registry wants to be satisfied.
    pub(super) fn learn(&self, headers: &HeaderMap) {
        let values = headers.get_all(header::WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(parse_challenges).collect();
        // Bearer first, where there is a choice: a token shows less than a password.
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        if let Some(challenge) = bearer.or(challenges.first()) {
            self.state().challenge = Some(challenge.clone());
        }
    }

    /// Whether the registry gives tokens.
    pub(super) fn gives_tokens(&self) -> bool {
        matches!(self.state().challenge, Some(Challenge::Bearer { .. }))
    }

    /// Uses a token that somebody else fetched.
    pub(super) fn adopt(&self, repository: &Repository, token: PullToken) {
        keep(&mut self.state(), repository, futures_util::future::ready(Ok(token)).boxed().shared());
    }

    /// A token for a repository, the kept one or a fresh one.
    pub(super) async fn token(&self, repository: &Repository) -> Result<PullToken, OriginError> {
        let fetching = self.fetching(repository)?;
        fetching.await
    }

    fn known(&self, repository: &Repository) -> Option<PullToken> {
        let state = self.state();
        match state.tokens.get(repository)?.peek()? {
            Ok(token) if !token.holds().is_zero() => Some(token.clone()),
            _ => None,
        }
    }

    /// The token that is kept or on its way, or one that is fetched from now on.
    fn fetching(&self, repository: &Repository) -> Result<Fetching, OriginError> {
        let mut state = self.state();
        let usable = |fetching: &&Fetching| match fetching.peek() {
            Some(Ok(token)) => !token.holds().is_zero(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(kept) = state.tokens.get(repository).filter(usable) {
            return Ok(kept.clone());
        }
        let Some(Challenge::Bearer { realm, service, scope }) = state.challenge.clone() else {
            return Err(self.fail(Some(repository), Cause::Protocol("the registry gives no tokens")));
        };
        let refused = |refused| self.fail(Some(repository), Cause::Refused(refused));
        let mut url = self.http.guard().follow(self.home.url(), &realm).map_err(refused)?.url().clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{repository}:pull"));
            // Some registries have scopes of their own and want to see them. Another repository's is not ours to ask for.
            if let Some(scope) = scope.filter(|scope| !scope.starts_with("repository:") && !scope.is_empty()) {
                query.append_pair("scope", &scope);
            }
        }
        let hop = self.http.guard().follow(self.home.url(), url.as_str()).map_err(refused)?;
        let (http, registry, name, basic) =
            (Arc::clone(&self.http), self.registry.clone(), repository.clone(), self.basic());
        let fetching = async move { fetch_token(&http, &registry, &name, hop, basic).await }.boxed().shared();
        keep(&mut state, repository, fetching.clone());
        Ok(fetching)
    }

    /// Drops the token that was refused, unless another one has taken its place.
    fn forget(&self, repository: &Repository, sent: &HeaderValue) {
        let mut state = self.state();
        let refused = |fetching: &Fetching| matches!(fetching.peek(), Some(Ok(token)) if token.header == *sent);
        if state.tokens.get(repository).is_some_and(refused) {
            state.tokens.remove(repository);
        }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Credentials::Basic(user, password) = &self.credentials else { return None };
        let coded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {coded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn fail(&self, repository: Option<&Repository>, cause: Cause) -> OriginError {
        OriginError::new(&self.registry, repository, cause)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(state: &mut State, repository: &Repository, fetching: Fetching) {
    if state.tokens.len() >= MAX_TOKENS && !state.tokens.contains_key(repository) {
        let useless = |fetching: &Fetching| {
            fetching.peek().is_some_and(|got| !got.as_ref().is_ok_and(|token| !token.holds().is_zero()))
        };
        state.tokens.retain(|_, fetching| !useless(fetching));
        if state.tokens.len() >= MAX_TOKENS {
            state.tokens.pop_first();
        }
    }
    state.tokens.insert(repository.clone(), fetching);
}

async fn fetch_token(
    http: &Http,
    registry: &Registry,
    repository: &Repository,
    hop: Hop,
    basic: Option<HeaderValue>,
) -> Result<PullToken, OriginError> {
    #[derive(Deserialize)]
    struct Granted {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }

    let ask = Ask { method: Method::GET, hop, headers: HeaderMap::new(), repository: Some(repository) };
    let answer = http.send(&ask, basic.as_ref()).await?;
    if !answer.status().is_success() {
        return Err(answer.into_error().await);
    }
    let body = answer.body("a token", MAX_TOKEN_ANSWER_BYTES).await?;
    let fail = |cause| OriginError::new(registry, Some(repository), cause);
    let granted: Granted =
        serde_json::from_slice(&body).map_err(|_| fail(Cause::Protocol("the token server's answer isn't a token")))?;
    // A tenth earlier than said, so that it still holds when it arrives.
    let life_s = granted.expires_in.unwrap_or(DEFAULT_LIFE_S).clamp(1, LONGEST_LIFE_S);
    let holds = Duration::from_secs(life_s) * 9 / 10;
    let secret = granted.token.filter(|token| !token.is_empty()).or(granted.access_token).unwrap_or_default();
    PullToken::new(&secret, holds).map_err(|_| fail(Cause::Protocol("the token server's answer has no token")))
}

fn parse_challenges(header: &str) -> Vec<Challenge> {
    // What can't be parsed is no challenge that we could meet.
    let Ok(parsed) = http_auth::parse_challenges(header) else { return Vec::new() };
    let known = parsed.into_iter().filter_map(|challenge| {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            Some(Challenge::Basic)
        } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
            Some(Challenge::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            })
        } else {
            None
        }
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/alpine:pull"),
                )],
            ),
            (r#"bearer REALM="https://a.example/t""#, vec![bearer("https://a.example/t", None, None)]),
            (r#"Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y", None, None)]),
            (r#"Bearer realm="a\"b""#, vec![bearer("a\"b", None, None)]),
            (r#"Negotiate, Basic realm="x""#, vec![Challenge::Basic]),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="unclosed"#, vec![]),
            ("", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse_challenges(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_shows_itself_to_nobody_by_accident() {
        for credentials in [Credentials::Basic("ann".into(), "geheim".into()), Credentials::Bearer("geheim".into())] {
            assert!(!format!("{credentials:?}").contains("geheim"));
        }
        let token = PullToken::new("geheim", Duration::from_secs(60)).unwrap();
        assert_eq!(token.secret(), "geheim");
        assert!(!format!("{token:?}").contains("geheim"));
        for bad in ["", "a\nb", "a\u{0}"] {
            assert_eq!(PullToken::new(bad, Duration::from_secs(1)).unwrap_err(), NoToken);
        }
    }
}
