//! A client that shows what is on the wire: it sees how a connection ends, and it sends what no library would.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// What the status line says behind it.
    pub(crate) phrase: String,
    headers: BTreeMap<String, String>,
}

impl Head {
    /// A header's value, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn length(&self) -> usize {
        self.header("content-length").parse().unwrap()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a request with these header lines.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, headers: &[&str]) {
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: mirror\r\n{headers}\r\n")).await;
    }

    /// Reads an answer's head.
    pub(crate) async fn head(&mut self) -> Head {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let text = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                let mut lines = text.trim_end().split("\r\n");
                let (_, line) = lines.next().unwrap().split_once(' ').unwrap();
                let (status, phrase) = line.split_once(' ').unwrap();
                let (status, phrase) = (status.parse().unwrap(), phrase.to_owned());
                let header = |line: &str| {
                    let (name, value) = line.split_once(": ").unwrap();
                    (name.to_ascii_lowercase(), value.to_owned())
                };
                return Head { status, phrase, headers: lines.map(header).collect() };
            }
            assert_ne!(self.more().await.unwrap(), 0, "the connection ended before an answer");
        }
    }

    /// Reads so many bytes of a body.
    pub(crate) async fn body(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffer.len() < bytes {
            assert_ne!(self.more().await.unwrap(), 0, "the connection ended within a body");
        }
        self.buffer.drain(..bytes).collect()
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn exchange(&mut self, method: &str, target: &str, headers: &[&str]) -> (Head, Vec<u8>) {
        self.ask(method, target, headers).await;
        self.answer(method).await
    }

    /// Reads a whole answer.
    pub(crate) async fn answer(&mut self, method: &str) -> (Head, Vec<u8>) {
        let head = self.head().await;
        let body = if method == "HEAD" { Vec::new() } else { self.body(head.length()).await };
        (head, body)
    }

    pub(crate) async fn get(&mut self, target: &str) -> (Head, Vec<u8>) {
        self.exchange("GET", target, &[]).await
    }

    /// Reads until the connection ends. A reset is an error.
    pub(crate) async fn rest(mut self) -> io::Result<Vec<u8>> {
        while self.more().await? > 0 {}
        Ok(self.buffer)
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}
