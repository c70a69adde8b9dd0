//! Keepalive and rate limits, over a pipe in memory with a paused clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use shoal_types::{ChunkIndex, NodeId};
use shoal_wire::codec::{Decoded, decode_frame};
use shoal_wire::{CloseReason, PeerFrame};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::transport::connection::{Connection, Shared};
use crate::transport::counters::Counters;
use crate::transport::outgoing::{Outgoing, WaitingChunk};
use crate::transport::rate::Rate;
use crate::transport::*;

struct End {
    outgoing: Arc<Outgoing<bytes::Bytes>>,
    events: mpsc::Receiver<Event<Received>>,
}

impl End {
    fn start(stream: DuplexStream, settings: Settings) -> Self {
        let (sender, events) = mpsc::channel(64);
        let outgoing = Arc::new(Outgoing::new(1 << 20, 99, CancellationToken::new()));
        let shared = Shared {
            store: Memory,
            upload: Rate::new(settings.upload_limit),
            download: Rate::new(settings.download_limit),
            settings,
            counters: Counters::default(),
            events: sender,
            stop: CancellationToken::new(),
        };
        let peer = PeerId(1);
        let contact = shoal_wire::Contact::new(hello("b").name, zone(), ([127, 0, 0, 1], 1).into());
        let connection = Connection { shared: shared.into(), outgoing: outgoing.clone(), peer, node: NodeId::new(1) };
        let connected = Connected { peer, contact, certificate: None, version: 1, dialled: true };
        tokio::spawn(async move { connection.run(connected, stream, BytesMut::new(), || ()).await });
        Self { outgoing, events }
    }

    async fn next(&mut self) -> Event<Received> {
        self.events.recv().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_pinged_and_then_given_up() {
    let (stream, mut other) = tokio::io::duplex(1 << 10);
    let start = Instant::now();
    let mut end = End::start(stream, Settings::default());
    assert!(matches!(end.next().await, Event::Connected(_)));
    assert!(matches!(end.next().await, Event::Closed { cause: CloseCause::Silent, .. }));
    let after = start.elapsed();
    assert!((Duration::from_secs(10)..=Duration::from_secs(11)).contains(&after), "{after:?}");
    let mut buffer = BytesMut::new();
    other.read_buf(&mut buffer).await.unwrap();
    assert!(matches!(decode_frame(&mut buffer), Ok(Some(Decoded::Known(PeerFrame::Ping(_))))));
    assert!(buffer.is_empty(), "one ping is enough");
}

#[tokio::test(start_paused = true)]
async fn connections_of_which_both_ends_live_stand_without_traffic() {
    let (one, other) = tokio::io::duplex(1 << 10);
    let (mut one, mut other) = (End::start(one, Settings::default()), End::start(other, Settings::default()));
    assert!(matches!(one.next().await, Event::Connected(_)));
    assert!(matches!(other.next().await, Event::Connected(_)));
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, one.next()).await.is_err());
    other.outgoing.end(CloseReason::Leaving);
    let last = one.next().await;
    assert!(matches!(last, Event::Closed { cause: CloseCause::Remote(CloseReason::Leaving), .. }), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_but_takes_nothing_is_cut() {
    let (stream, other) = tokio::io::duplex(16 << 10);
    let (_unread, mut write) = tokio::io::split(other);
    tokio::spawn(async move {
        loop {
            write_frame(&mut write, &numbered(1)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut end = End::start(stream, Settings::default());
    let chunk = WaitingChunk { key: KEY, chunk: ChunkIndex::new(0), length: 1 << 20, source: content(1 << 20) };
    end.outgoing.push_chunk(chunk);
    let start = Instant::now();
    let cause = loop {
        if let Event::Closed { cause, .. } = end.next().await {
            break cause;
        }
    };
    assert!(matches!(cause, CloseCause::Local(CloseReason::TooSlow)), "{cause:?}");
    assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&start.elapsed()));
}

/// How long it takes until 4 MiB have arrived.
async fn transfer(sender: Settings, receiver: Settings) -> Duration {
    let (one, other) = tokio::io::duplex(64 << 10);
    let (one, mut other) = (End::start(one, sender), End::start(other, receiver));
    let start = Instant::now();
    let chunk = WaitingChunk { key: KEY, chunk: ChunkIndex::new(0), length: 4 << 20, source: content(4 << 20) };
    one.outgoing.push_chunk(chunk);
    // Messages wait for nobody.
    let mut ping = BytesMut::new();
    shoal_wire::codec::encode_frame(&PeerFrame::Ping(1), &mut ping).unwrap();
    one.outgoing.push_frames(&ping);
    loop {
        if let Event::Chunk { received, .. } = other.next().await {
            assert!(received.0 == content(4 << 20));
            return start.elapsed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limits_hold_in_both_directions() {
    let limited = |upload_limit, download_limit| Settings { upload_limit, download_limit, ..Settings::default() };
    let none = || limited(None, None);
    let rate = Some(1 << 20);
    for (sender, receiver) in [(limited(rate, None), none()), (none(), limited(None, rate))] {
        let took = transfer(sender, receiver).await;
        // A pipe, a piece and a burst don't wait: 80 KiB.
        assert!((Duration::from_millis(3_850)..Duration::from_millis(4_100)).contains(&took), "{took:?}");
    }
    assert!(transfer(none(), none()).await < Duration::from_millis(10));
}
