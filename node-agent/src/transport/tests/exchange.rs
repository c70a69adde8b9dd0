//! Messages and chunks on connections that stand.

use bytes::{Bytes, BytesMut};
use shoal_types::ChunkIndex;
use shoal_wire::codec::{Decoded, decode_frame};
use shoal_wire::{CloseReason, PeerFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;
use crate::transport::*;

async fn pair(secure: bool) -> ((Node, PeerId), (Node, PeerId)) {
    let (mut a, mut b) = if secure {
        let ca = Ca::new();
        (Node::secure(ca.identity("a")).await, Node::secure(ca.identity("b")).await)
    } else {
        (Node::plain("a", Settings::default()).await, Node::plain("b", Settings::default()).await)
    };
    a.net.connect(b.contact());
    let (at_a, at_b) = (a.connected().await.peer, b.connected().await.peer);
    ((a, at_a), (b, at_b))
}

/// Sends messages, chunks of these lengths and messages again, as the script's numbers say.
fn send_all(node: &Node, peer: PeerId, lengths: &[usize]) {
    for (at, length) in (0..).zip(lengths) {
        node.net.send(&[peer], &numbered(at)).unwrap();
        let chunk = ChunkIndex::new(at.into());
        node.net.send_chunk(peer, KEY, chunk, u32::try_from(*length).unwrap(), content(*length));
    }
    node.net.send(&[peer], &numbered(99)).unwrap();
}

/// Takes events until everything of `send_all` has come, in order, and everything sent has left. A message may come before the end of the
/// chunk that was sent before it.
async fn take_all(node: &mut Node, lengths: &[usize]) {
    let mut seen = Vec::new();
    let (mut said, mut sent, mut whole) = (0, 0, 0);
    while said <= lengths.len() || whole < lengths.len() || sent < lengths.len() {
        match node.event().await {
            Event::Frame { frame: PeerFrame::Message(shoal_wire::PeerMessage::Hungry { sources }), .. } => {
                seen.push(format!("m{sources}"));
                said += 1;
            }
            Event::ChunkStarted { chunk, .. } => seen.push(format!("c{chunk}")),
            Event::Chunk { chunk, received, .. } => {
                assert!(received.0 == content(lengths[chunk.as_usize()]), "chunk {chunk} is whole");
                assert_eq!(chunk.as_usize(), whole);
                whole += 1;
            }
            Event::Sent { chunk, .. } => {
                assert_eq!(chunk.as_usize(), sent);
                sent += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let expected = (0..lengths.len()).flat_map(|at| [format!("m{at}"), format!("c{at}")]);
    assert_eq!(seen, expected.chain(["m99".to_owned()]).collect::<Vec<_>>());
}

#[tokio::test]
async fn chunks_and_messages_arrive_whole_and_in_order_in_both_directions() {
    let lengths = [4 << 20, 0, 1, 65_536, 100_003, 262_144, 262_145];
    for secure in [true, false] {
        let ((mut a, to_b), (mut b, to_a)) = pair(secure).await;
        send_all(&a, to_b, &lengths);
        send_all(&b, to_a, &lengths);
        tokio::join!(take_all(&mut a, &lengths), take_all(&mut b, &lengths));
        let total: u64 = lengths.iter().map(|length| *length as u64).sum();
        // Nine bytes for a slice of 16 KiB or more.
        let bytes = total..total + total / 1_000 + 1_000;
        for counters in [a.net.counters(), b.net.counters()] {
            assert!(bytes.contains(&counters.bytes_received), "{counters:?}");
            assert!(bytes.contains(&counters.bytes_sent), "{counters:?}");
        }
    }
}

#[tokio::test]
async fn a_message_goes_ahead_of_the_rest_of_a_chunk() {
    let mut a = Node::plain("a", Settings::default()).await;
    let (mut stream, to_b) = raw_peer(&mut a, "b").await;
    let length = 4 << 20;
    a.net.send_chunk(to_b, KEY, ChunkIndex::new(0), length, content(length as usize));
    let mut buffer = BytesMut::new();
    let mut bytes = BytesMut::new();
    let mut said_at = None;
    while bytes.len() < length as usize {
        let slice = match decode_frame(&mut buffer).unwrap() {
            Some(Decoded::Known(PeerFrame::Slice { length })) => length as usize,
            Some(Decoded::Known(PeerFrame::Message(_))) => {
                said_at = Some(bytes.len());
                continue;
            }
            Some(Decoded::Known(PeerFrame::Chunk { length: all, .. })) => {
                assert_eq!(all, length);
                // It has begun, and no socket's buffers take 4 MiB.
                a.net.send(&[to_b], &numbered(1)).unwrap();
                continue;
            }
            Some(other) => panic!("{other:?}"),
            None => {
                soon(stream.read_buf(&mut buffer)).await.unwrap();
                continue;
            }
        };
        while buffer.len() < slice {
            soon(stream.read_buf(&mut buffer)).await.unwrap();
        }
        bytes.extend_from_slice(&buffer.split_to(slice));
    }
    assert!(bytes == content(length as usize));
    assert!(said_at.is_some_and(|at| at < length as usize), "{said_at:?}");
}

#[tokio::test]
async fn slices_that_belong_to_no_chunk_close_the_connection() {
    let mut a = Node::plain("a", Settings::default()).await;
    let chunk = |length| PeerFrame::Chunk { key: KEY, chunk: ChunkIndex::new(0), length };
    let cases = [
        vec![PeerFrame::Slice { length: 1 }],
        vec![chunk(0), PeerFrame::Slice { length: 1 }],
        vec![chunk(5), PeerFrame::Slice { length: 6 }],
        vec![chunk(5), PeerFrame::Slice { length: 0 }],
        vec![chunk(5), chunk(5)],
    ];
    for frames in cases {
        let (mut stream, _) = raw_peer(&mut a, "b").await;
        for frame in &frames {
            write_frame(&mut stream, frame).await;
        }
        let cause = loop {
            match a.event().await {
                Event::Closed { cause, .. } => break cause,
                Event::ChunkStarted { .. } | Event::Chunk { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(cause, CloseCause::Malformed(Malformed::Slice)), "{frames:?}: {cause:?}");
    }
}

#[tokio::test]
async fn a_chunk_that_cant_be_read_is_reported_and_one_that_ends_early_ends_the_connection() {
    let ((mut a, to_b), (mut b, _)) = pair(false).await;
    a.net.send_chunk(to_b, KEY, ChunkIndex::new(1), 5, Bytes::new());
    assert!(matches!(a.event().await, Event::SendFailed { chunk, .. } if chunk == ChunkIndex::new(1)));
    a.net.send(&[to_b], &numbered(1)).unwrap();
    assert!(matches!(b.event().await, Event::Frame { .. }));
    a.net.send_chunk(to_b, KEY, ChunkIndex::new(2), 5, Bytes::from_static(b"abc"));
    assert!(matches!(a.closed().await, CloseCause::Source(_)));
    assert!(matches!(b.event().await, Event::ChunkStarted { .. }));
    assert!(matches!(b.closed().await, CloseCause::Gone(_)));
}

/// A peer without our code behind it, connected on a plain link.
async fn raw_peer(to: &mut Node, name: &str) -> (TcpStream, PeerId) {
    let mut stream = TcpStream::connect(to.net.local_addr()).await.unwrap();
    write_frame(&mut stream, &PeerFrame::Hello(hello(name))).await;
    let peer = to.connected().await.peer;
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = decode_frame(&mut buffer).unwrap() {
            assert!(matches!(frame, Decoded::Known(PeerFrame::Hello(_))));
            return (stream, peer);
        }
        soon(stream.read_buf(&mut buffer)).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_cut_and_others_arent_affected() {
    let settings = Settings { queued_bytes: 64 << 10, ..Settings::default() };
    let mut a = Node::plain("a", settings).await;
    let (_silent, slow) = raw_peer(&mut a, "slow").await;
    let mut b = Node::plain("b", Settings::default()).await;
    b.net.connect(a.contact());
    let to_b = a.connected().await.peer;
    b.connected().await;
    // More than any socket's buffers take.
    let chunk = content(4 << 20);
    for at in 0..16 {
        a.net.send_chunk(slow, KEY, ChunkIndex::new(at), 4 << 20, chunk.clone());
    }
    let lengths = [4 << 20, 4 << 20];
    send_all(&a, to_b, &lengths);
    let receive = async {
        let mut whole = 0;
        while whole < 2 {
            if let Event::Chunk { received, .. } = b.event().await {
                assert!(received.0 == chunk);
                whole += 1;
            }
        }
    };
    let send = async {
        let (mut sent, mut cut) = (0, false);
        while sent < 2 || !cut {
            match a.event().await {
                Event::Sent { peer, .. } if peer == to_b => sent += 1,
                Event::Sent { .. } => {}
                Event::Closed { peer, cause } => {
                    assert_eq!(peer, slow);
                    assert!(matches!(cause, CloseCause::Local(CloseReason::TooSlow)), "{cause:?}");
                    cut = true;
                }
                other => panic!("{other:?}"),
            }
            // 64 KiB of messages pile up behind the chunk.
            if sent == 2 && !cut {
                (0..8_000).for_each(|_| a.net.send(&[slow], &PeerFrame::Ping(1)).unwrap());
            }
        }
    };
    tokio::join!(receive, send);
    assert_eq!(a.net.counters().closed.get("too_slow"), Some(&1));
    assert_eq!(a.net.connections(), 1);
}

#[tokio::test]
async fn garbage_frames_close_the_connection_and_are_counted() {
    let mut a = Node::plain("a", Settings::default()).await;
    let mut greeting = BytesMut::new();
    shoal_wire::codec::encode_frame(&PeerFrame::Hello(hello("b")), &mut greeting).unwrap();
    let cases: [&[u8]; 4] = [&[0, 0, 0, 0], &[255; 9], &[0, 0, 0, 2, 17, 1], &greeting];
    for (count, garbage) in (1..).zip(cases) {
        let (mut stream, _) = raw_peer(&mut a, "b").await;
        stream.write_all(garbage).await.unwrap();
        assert!(matches!(a.closed().await, CloseCause::Malformed(_)));
        assert_eq!(a.net.counters().closed.get("malformed"), Some(&count));
        let mut last = BytesMut::new();
        while soon(stream.read_buf(&mut last)).await.unwrap() > 0 {}
        let told = decode_frame(&mut last).unwrap();
        assert_eq!(told, Some(Decoded::Known(PeerFrame::Close(CloseReason::Violation))));
    }
}

#[tokio::test]
async fn what_a_later_release_says_is_skipped_and_counted() {
    let mut a = Node::plain("a", Settings::default()).await;
    let (mut stream, _) = raw_peer(&mut a, "b").await;
    stream.write_all(&[0, 0, 0, 3, 200, 1, 2]).await.unwrap();
    write_frame(&mut stream, &numbered(4)).await;
    assert!(matches!(a.event().await, Event::Frame { frame, .. } if frame == numbered(4)));
    assert_eq!(a.net.counters().frames_unknown, 1);
    drop(stream);
    assert!(matches!(a.closed().await, CloseCause::Gone(_)));
}

#[tokio::test]
async fn a_node_that_starts_anew_replaces_its_dead_connection() {
    let mut a = Node::plain("a", Settings::default()).await;
    let (_dead, first) = raw_peer(&mut a, "b").await;
    let mut stream = TcpStream::connect(a.net.local_addr()).await.unwrap();
    let again = shoal_wire::Hello { incarnation: 2, ..hello("b") };
    write_frame(&mut stream, &PeerFrame::Hello(again)).await;
    assert!(matches!(a.event().await, Event::Closed { peer, .. } if peer == first));
    assert_ne!(a.connected().await.peer, first);
    assert_eq!(a.net.connections(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_even_if_nobody_takes_events() {
    let ((a, to_b), (b, to_a)) = pair(true).await;
    for _ in 0..200 {
        a.net.send(&[to_b], &numbered(1)).unwrap();
        b.net.send(&[to_a], &numbered(1)).unwrap();
    }
    soon(async { tokio::join!(a.net.shutdown(), b.net.shutdown()) }).await;
}
