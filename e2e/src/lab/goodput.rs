//! What one flow carries from a place to another: payload a second, and bytes at the token bucket for each of payload.
//!
//! State: none. Absent on purpose: several flows. One is what a link's users share at best.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::workers::{Job, Worker};
use crate::figures::float;
use crate::network::Place;
use crate::units::Rate;

/// So long a flow is measured, once it has sent for a second: the bucket's first burst, 26 ms of a slow link, would make a link seem a
/// hundredth faster than it is.
const SECONDS: u64 = 3;

/// For how long the sender may take to listen.
const CONNECT: Duration = Duration::from_secs(10);

/// A direction, measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goodput {
    /// Payload.
    pub(super) bytes_per_second: f64,
    /// Headers and acknowledgements included, for each byte of payload.
    pub(super) wire_per_payload: f64,
}

/// Measures a direction.
pub(super) async fn measure(from: &Place, to: &Place, rate: Rate) -> Result<Goodput> {
    let unmeasured = rate.bytes_per_second();
    let bytes = unmeasured + rate.bytes_per_second() * SECONDS;
    let address = SocketAddr::from((from.address, 5001));
    let before = from.sent_bytes()?;
    let mut sender = Job::start(from, &Worker::Send { listen: address, bytes })?;
    let mut receiver = Job::start(to, &Worker::Receive { from: address, unmeasured })?;
    let bytes_per_second: f64 = receiver.line().await?.parse().context("no rate came")?;
    sender.line().await?;
    ensure!(bytes_per_second.is_finite(), "a link without a limit");
    let wire = from.sent_bytes()? - before;
    Ok(Goodput { bytes_per_second, wire_per_payload: float(wire) / float(bytes) })
}

/// The sender's part.
pub(super) async fn send(listen: SocketAddr, bytes: u64) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let (mut stream, _) = listener.accept().await?;
    let piece = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        stream.write_all(&piece[..now]).await?;
        left -= now as u64;
    }
    stream.shutdown().await?;
    // Until the receiver has all of it.
    let end = stream.read(&mut [0]).await?;
    ensure!(end == 0, "the receiver talks");
    println!("sent");
    Ok(())
}

/// The receiver's part: prints the bytes a second that came after the unmeasured ones.
pub(super) async fn receive(from: SocketAddr, unmeasured: u64) -> Result<()> {
    let deadline = Instant::now() + CONNECT;
    let mut stream = loop {
        match TcpStream::connect(from).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= deadline => return Err(error).context("the sender doesn't listen"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let mut piece = vec![0; 64 << 10];
    let mut before = 0;
    while before < unmeasured {
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "the sender stops early");
        before += read as u64;
    }
    let started = Instant::now();
    let mut measured = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => break,
            read => measured += read as u64,
        }
    }
    println!("{}", float(measured) / started.elapsed().as_secs_f64());
    Ok(())
}
