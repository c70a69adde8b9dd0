//! One request to the mirror, and its answer.
//!
//! A connection per request: a pull makes about ten, on loopback, and a connection whose body was cut couldn't be used again anyway.
//!
//! State: a connection as long as its answer is read. Invariants: nothing is waited for without a bound.
//! Absent on purpose: redirects. A mirror answers itself.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use oci_client::errors::OciEnvelope;
use shoal_oci::Registry;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::error::PullError;

/// On loopback or a link away a connection stands within milliseconds; one lost SYN is sent again after a second, a second one after three.
const CONNECT: Duration = Duration::from_secs(5);

/// For how long nothing may come: a little more than the 120 s that the mirror itself waits for its source before it ends an answer.
const SILENCE: Duration = Duration::from_secs(150);

/// How much of an error's body is read: for its message.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Where a mirror listens: `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorUrl(Authority);

impl TryFrom<SocketAddr> for MirrorUrl {
    type Error = &'static str;

    fn try_from(address: SocketAddr) -> Result<Self, Self::Error> {
        format!("http://{address}").parse()
    }
}

impl fmt::Display for MirrorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for MirrorUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "write http://HOST:PORT, as in http://127.0.0.1:9395";
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let parts = uri.into_parts();
        let bare = parts.path_and_query.is_none_or(|path| path == "/");
        match (parts.scheme, parts.authority) {
            (Some(scheme), Some(authority))
                if scheme.as_str() == "http" && bare && !authority.as_str().contains('@') =>
            {
                Ok(Self(authority))
            }
            _ => Err(SHAPE),
        }
    }
}

/// What is asked for.
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// In words, for errors.
    pub(super) what: String,
}

/// An answer, its body not read yet.
pub(super) struct Answer {
    head: response::Parts,
    body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl MirrorUrl {
    /// Whether this is the registry itself.
    pub(super) fn is(&self, registry: &Registry) -> bool {
        self.0.as_str() == registry.as_str()
    }

    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, PullError> {
        let no_answer = |why: String| PullError::NoAnswer { what: ask.what.clone(), why };
        let (host, port) = (self.0.host().trim_matches(['[', ']']), self.0.port_u16().unwrap_or(80));
        let stream = timeout(CONNECT, TcpStream::connect((host, port)))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|source| PullError::Unreachable { mirror: self.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| no_answer(error.to_string()))?;
        // Its error is also the answer's.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.target.parse().map_err(|_| no_answer(format!("{} can't be asked for", ask.target)))?;
        *request.headers_mut() = ask.headers.clone();
        let host = HeaderValue::from_str(self.0.as_str()).map_err(|error| no_answer(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let (head, body) = timeout(SILENCE, sender.send_request(request))
            .await
            .map_err(|_| no_answer(format!("nothing for {} s", SILENCE.as_secs())))?
            .map_err(|error| no_answer(error.to_string()))?
            .into_parts();
        Ok(Answer { head, body, _connection: connection })
    }
}

impl Answer {
    pub(super) const fn status(&self) -> StatusCode {
        self.head.status
    }

    /// A header's text, if it is there and is text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body, none at its end; else why it was cut.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| format!("nothing for {} s", SILENCE.as_secs()))?;
            let Some(frame) = frame.transpose().map_err(|error| innermost(&error))? else { return Ok(None) };
            // Trailers have none.
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }

    /// The whole body, or none if it is longer than `most`; else why it was cut.
    pub(super) async fn whole(&mut self, most: usize) -> Result<Option<Bytes>, String> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > most {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.into()))
    }

    /// The error that this is: what the registry says in its error's body.
    pub(super) async fn refusal(mut self, what: &str) -> PullError {
        let body = self.whole(MAX_ERROR_BYTES).await.ok().flatten().unwrap_or_default();
        let envelope = serde_json::from_slice::<OciEnvelope>(&body).ok();
        let first = envelope.and_then(|envelope| envelope.errors.into_iter().next());
        // One line, whatever the other side wrote.
        let message =
            first.map_or_else(String::new, |error| error.message.chars().take(200).flat_map(printable).collect());
        PullError::Refused { what: what.to_owned(), status: self.head.status, message }
    }
}

fn printable(c: char) -> Option<char> {
    (!c.is_control()).then_some(c)
}

/// hyper's own text says "error reading a body from connection", its source what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_plain_address() {
        for (text, expected) in [
            ("http://127.0.0.1:9395", Some("http://127.0.0.1:9395")),
            ("http://[::1]:9395/", Some("http://[::1]:9395")),
            ("http://node", Some("http://node")),
            ("https://127.0.0.1:9395", None),
            ("127.0.0.1:9395", None),
            ("http://a@b:1", None),
            ("http://127.0.0.1:9395/v2/", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<MirrorUrl>().ok().map(|mirror| mirror.to_string()).as_deref(), expected, "{text}");
        }
    }
}
