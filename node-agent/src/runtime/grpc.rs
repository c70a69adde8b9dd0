//! Calls of one request and one answer over gRPC, on a unix socket: as much of it as containerd's API takes.
//!
//! State: one HTTP/2 connection and the task that drives it.
//! Invariants: a call ends within [`ANSWER_WITHIN`], or the time that its caller gives it; an answer takes no more than [`MAX_ANSWER_BYTES`]. The task ends with the connection's
//! last handle.
//! Absent on purpose: streams, compression, TLS (the socket's permissions are what protects it), and connecting again.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// On a host that is busy pulling, containerd may wait for its own disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Hundreds of plugins or ingests, a few hundred bytes each.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The status of what isn't there.
const NOT_FOUND: u32 = 5;

/// A connection. A clone is the same one.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    sender: SendRequest<Full<Bytes>>,
    driver: std::sync::Arc<AbortOnDropHandle<()>>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody listens, or it isn't ours to ask.
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what speaks there isn't HTTP/2.
    #[error("the connection fails: {0}")]
    Connection(#[from] hyper::Error),
    /// It takes too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It says no.
    #[error("status {code}: {message}")]
    Status {
        /// gRPC's number for it.
        code: u32,
        /// Its words.
        message: String,
    },
    /// Its answer can't be read.
    #[error("an answer that isn't one: {0}")]
    Malformed(String),
}

impl CallError {
    pub(super) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: NOT_FOUND, .. })
    }

    /// Whether the other side is there and has answered.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. })
    }
}

impl Channel {
    pub(super) async fn connect(socket: &Path) -> Result<Self, CallError> {
        let connecting = async {
            let stream = UnixStream::connect(socket).await.map_err(CallError::Connect)?;
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(CallError::Connection)
        };
        let (sender, connection) =
            timeout(ANSWER_WITHIN, connecting).await.map_err(|_| CallError::Late(ANSWER_WITHIN))??;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the runtime ends");
            }
        });
        Ok(Self { sender, driver: std::sync::Arc::new(AbortOnDropHandle::new(driver)) })
    }

    /// Whether the other side has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.is_finished() || self.sender.is_closed()
    }

    /// Calls a method, `/package.Service/Method`.
    pub(super) async fn call<Answer: Message + Default>(
        &self,
        method: &'static str,
        headers: &HeaderMap,
        request: &impl Message,
    ) -> Result<Answer, CallError> {
        self.call_within(ANSWER_WITHIN, method, headers, request).await
    }

    /// The same, of a method that takes its time.
    pub(super) async fn call_within<Answer: Message + Default>(
        &self,
        limit: Duration,
        method: &'static str,
        headers: &HeaderMap,
        request: &impl Message,
    ) -> Result<Answer, CallError> {
        timeout(limit, self.answer(method, headers, request)).await.map_err(|_| CallError::Late(limit))?
    }

    async fn answer<Answer: Message + Default>(
        &self,
        method: &'static str,
        headers: &HeaderMap,
        request: &impl Message,
    ) -> Result<Answer, CallError> {
        let mut http = Request::post(format!("http://localhost{method}"))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(header::TE, HeaderValue::from_static("trailers"))
            .body(Full::new(framed(request)))
            .map_err(|error| CallError::Malformed(error.to_string()))?;
        http.headers_mut().extend(headers.clone());
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let response = sender.send_request(http).await?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(CallError::Malformed(format!("HTTP status {}", parts.status)));
        }
        let collected = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let collected = collected.map_err(|error| CallError::Malformed(error.to_string()))?;
        // A call that fails at once has its status among the headers.
        check_status(
            collected.trailers().filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(&parts.headers),
        )?;
        unframed(collected.to_bytes())
    }
}

/// One message: not compressed, its length, itself.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("a request names one thing"));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn unframed<Answer: Message + Default>(mut bytes: Bytes) -> Result<Answer, CallError> {
    let malformed = |why: &str| CallError::Malformed(why.to_owned());
    if bytes.remaining() < 5 {
        return Err(malformed("it is cut off"));
    }
    let (compressed, length) = (bytes.get_u8(), bytes.get_u32() as usize);
    if compressed != 0 || bytes.remaining() != length {
        return Err(malformed("it isn't one plain message"));
    }
    Answer::decode(bytes).map_err(|error| CallError::Malformed(error.to_string()))
}

fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status").parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(CallError::Status { code, message: text("grpc-message").to_owned() }),
        Err(_) => Err(CallError::Malformed("it has no status".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_and_unframed() {
        let text = "k8s.io/layer".to_owned();
        assert_eq!(unframed::<String>(framed(&text)).unwrap(), text);
        assert_eq!(unframed::<()>(framed(&())).unwrap(), ());
        for wrong in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 1], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 0]] {
            assert!(unframed::<String>(Bytes::copy_from_slice(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_status_is_a_number() {
        let headers = |status: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))])
        };
        check_status(&headers("0")).unwrap();
        assert!(check_status(&headers("5")).unwrap_err().is_not_found());
        assert!(matches!(check_status(&headers("ok")), Err(CallError::Malformed(_))));
        assert!(matches!(check_status(&HeaderMap::new()), Err(CallError::Malformed(_))));
    }
}
