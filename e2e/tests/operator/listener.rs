//! An HTTP server that answers as a test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A request's head is cut off here, and as much of its body is read at most.
const MAX_HEAD: usize = 64 << 10;

/// A request's head, in lower case but for the first line and the headers' values.
#[derive(Clone, Debug)]
pub(crate) struct Head(String);

impl Head {
    /// `GET /path?query`
    pub(crate) fn request(&self) -> &str {
        self.0.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        self.0.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then_some(value.trim())
        })
    }
}

/// What is answered: a status, further headers, a body.
pub(crate) type Answer = (&'static str, String, String);

pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    pub(crate) async fn start(
        address: SocketAddr,
        answer: impl Fn(&Head) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A request and an answer each, which end by themselves.
                tokio::spawn(exchange(stream, answer.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, heads, _task: AbortOnDropHandle::new(task) }
    }

    /// What it was asked so far.
    pub(crate) fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

async fn exchange(mut stream: TcpStream, answer: impl Fn(&Head) -> Answer, heads: Arc<Mutex<Vec<Head>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = Head(String::from_utf8_lossy(&head).into_owned());
    // What isn't read before the end is an end with a reset, which may take the answer along.
    let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; MAX_HEAD.min(length)];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    heads.lock().unwrap().push(head.clone());
    let (status, headers, body) = answer(&head);
    let body = if head.request().starts_with("HEAD ") { String::new() } else { body };
    let answer =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    // Who has gone doesn't read it.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
