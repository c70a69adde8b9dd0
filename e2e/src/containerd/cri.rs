//! CRI's image service, as much of it as a pull takes: what the kubelet calls.
//!
//! ```text
//!   PullImageRequest { image: ImageSpec { image: string = 1 } = 1, auth: AuthConfig { username: string = 1, password: string = 2 } = 2 }
//!   ListImagesRequest {}
//! ```
//!
//! State: a connection. Absent on purpose: a protobuf compiler and its messages, for one nested string, and the answers' contents: what was pulled
//! is looked at on the disk.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

/// A connection to a runtime.
pub(super) struct ImageService {
    requests: SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

impl ImageService {
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).await.with_context(|| format!("{} doesn't answer", socket.display()))?;
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // What ends a connection shows in its requests.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, _connection: AbortOnDropHandle::new(connection) })
    }

    pub(super) async fn list(&mut self) -> Result<()> {
        self.call("ListImages", Bytes::new()).await
    }

    /// Pulls, with a user's name and password, if there are some: for whichever host asks for them, as the kubelet sends them.
    pub(super) async fn pull(&mut self, image: &str, user: Option<(&str, &str)>) -> Result<()> {
        let spec = field(1, image.as_bytes())?;
        let mut request = BytesMut::from(&field(1, &spec)?[..]);
        if let Some((user, password)) = user {
            let auth = [field(1, user.as_bytes())?, field(2, password.as_bytes())?].concat();
            request.put(field(2, &auth)?);
        }
        self.call("PullImage", request.freeze()).await
    }

    /// A call whose answer is of no interest.
    async fn call(&mut self, method: &str, message: Bytes) -> Result<()> {
        let mut body = BytesMut::with_capacity(5 + message.len());
        body.put_u8(0); // not compressed
        body.put_u32(u32::try_from(message.len())?);
        body.put(message);
        let request = Request::post(format!("http://localhost/runtime.v1.ImageService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        if response.status() != StatusCode::OK {
            bail!("{method}: {}", response.status());
        }
        // An answer that is nothing but an error has its trailers in its head.
        let head = response.headers().clone();
        let answer = response.into_body().collect().await?;
        status(answer.trailers().unwrap_or(&head)).with_context(|| method.to_owned())
    }
}

/// A field of a message: a string, or a message.
fn field(number: u8, value: &[u8]) -> Result<Bytes> {
    const OF_A_LENGTH: u8 = 2;
    let mut field = BytesMut::from(&[number << 3 | OF_A_LENGTH][..]);
    let mut length = value.len();
    while length >= 0x80 {
        field.put_u8(u8::try_from(length & 0x7f)? | 0x80);
        length >>= 7;
    }
    field.put_u8(u8::try_from(length)?);
    field.put(value);
    Ok(field.freeze())
}

fn status(trailers: &HeaderMap) -> Result<()> {
    let text =
        |name| trailers.get(name).map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into());
    match &*text("grpc-status") {
        "0" => Ok(()),
        "" => bail!("the answer was cut off"),
        code => bail!("{} (code {code})", percent_decoded(&text("grpc-message"))),
    }
}

/// gRPC encodes what isn't visible ASCII in a message.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => (decoded.push(value), at += 3).1,
            None => (decoded.push(*byte), at += 1).1,
        }
    }
    String::from_utf8_lossy(&decoded).replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_name_in_a_message() {
        let spec = field(1, b"r.io/a:1").unwrap();
        assert_eq!(&field(1, &spec).unwrap()[..], b"\x0a\x0a\x0a\x08r.io/a:1");
        let long = field(1, &[b'x'; 300]).unwrap();
        assert_eq!((&long[..3], long.len()), (&b"\x0a\xac\x02"[..], 303));
    }

    #[test]
    fn a_failure_is_the_runtimes_own_word() {
        let trailers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
        };
        assert!(status(&trailers(&[("grpc-status", "0")])).is_ok());
        let failed = status(&trailers(&[("grpc-status", "5"), ("grpc-message", "not%20found%0a100%")]));
        assert_eq!(failed.unwrap_err().to_string(), "not found; 100% (code 5)");
        assert_eq!(status(&HeaderMap::new()).unwrap_err().to_string(), "the answer was cut off");
    }
}
