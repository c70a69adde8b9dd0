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

/// Three seconds: the bucket's first burst (10 ms) then counts for a third of a percent.
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
    let bytes = rate.bytes_per_second() * SECONDS;
    let address = SocketAddr::from((from.address, 5001));
    let before = from.sent_bytes()?;
    let mut sender = Job::start(from, &Worker::Send { listen: address, bytes })?;
    let mut receiver = Job::start(to, &Worker::Receive { from: address })?;
    let seconds: f64 = receiver.line().await?.parse().context("no time came")?;
    sender.line().await?;
    ensure!(seconds > 0.0, "a link without a limit");
    let wire = from.sent_bytes()? - before;
    Ok(Goodput { bytes_per_second: float(bytes) / seconds, wire_per_payload: float(wire) / float(bytes) })
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

/// The receiver's part: prints the seconds that it took.
pub(super) async fn receive(from: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + CONNECT;
    let mut stream = loop {
        match TcpStream::connect(from).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= deadline => return Err(error).context("the sender doesn't listen"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let started = Instant::now();
    let mut piece = vec![0; 64 << 10];
    while stream.read(&mut piece).await? > 0 {}
    println!("{}", started.elapsed().as_secs_f64());
    Ok(())
}
