//! A token server of a registry, as large registries have one: who proves to be the user gets tokens for what is asked for, everybody else gets
//! tokens that open nothing.
//!
//! State: a key, and what it was asked ([`Listener`]). Invariant: a token opens what it was asked for and nothing else, for pulling.
//! Absent on purpose: OAuth's POST, which is answered as by a server that doesn't know it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use shoal_e2e::registry::TokenIssuer;

use crate::forgery::web_token;
use crate::listener::{Answer, Head, Listener};

const SERVICE: &str = "registry-of-the-test";
const ISSUER: &str = "tokens-of-the-test";
/// Longer than the test takes.
const HOLDS: Duration = Duration::from_secs(1_800);

pub(crate) struct TokenServer {
    listener: Listener,
    certificate_pem: String,
}

/// Somebody wanted a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The program.
    pub(crate) agent: String,
    /// Whether it showed a user's password.
    pub(crate) proven: bool,
    pub(crate) scopes: Vec<String>,
}

impl TokenServer {
    /// One that knows this user.
    pub(crate) async fn start(listen: SocketAddr, user: &str, password: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![ISSUER.to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate_pem = certificate.pem();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(certificate.der())]});
        let shown = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let subject = user.to_owned();
        let sign = std::sync::Arc::new(move |access: serde_json::Value| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let (before, end) = (now.as_secs() - 10, (now + HOLDS).as_secs());
            let claims = json!({
                "iss": ISSUER, "sub": subject, "aud": SERVICE, "iat": before, "nbf": before, "exp": end,
                "jti": now.as_nanos().to_string(), "access": access,
            });
            web_token(&header, &claims, &key)
        });
        let answer = move |head: &Head| -> Answer {
            if !head.request().starts_with("GET ") {
                return ("405 Method Not Allowed", String::new(), String::new());
            }
            let access = match head.authorization() {
                None => json!([]),
                Some(said) if said == shown => scopes(head).iter().map(|scope| access(scope)).collect(),
                Some(_) => return ("401 Unauthorized", String::new(), String::new()),
            };
            let body = json!({"token": sign(access), "expires_in": HOLDS.as_secs()});
            ("200 OK", "content-type: application/json\r\n".to_owned(), body.to_string())
        };
        Self { listener: Listener::start(listen, answer).await, certificate_pem }
    }

    pub(crate) fn issuer(&self) -> TokenIssuer {
        TokenIssuer {
            realm: format!("http://{}/token", self.listener.address),
            issuer: ISSUER.to_owned(),
            service: SERVICE.to_owned(),
            certificate_pem: self.certificate_pem.clone(),
        }
    }

    /// What tokens were wanted so far.
    pub(crate) fn wishes(&self) -> Vec<Wish> {
        let wish = |head: &Head| Wish {
            agent: head.header("user-agent").unwrap_or_default().to_owned(),
            proven: head.authorization().is_some(),
            scopes: scopes(head),
        };
        self.listener.heads().iter().map(wish).collect()
    }
}

/// `GET /token?service=…&scope=repository%3Ateam%2Fapp%3Apull`
fn scopes(head: &Head) -> Vec<String> {
    let query = head.request().split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    pairs.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")).collect()
}

/// What a scope opens: for reading, whatever else is wanted.
fn access(scope: &str) -> serde_json::Value {
    let mut parts = scope.splitn(3, ':');
    let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    json!({"type": kind, "name": name, "actions": ["pull"]})
}
