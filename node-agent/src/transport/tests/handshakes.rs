//! Who may connect, and which connection is kept.

use std::time::Duration;

use bytes::BytesMut;
use rustls_pki_types::UnixTime;
use shoal_chain::Signature;
use shoal_wire::codec::{Decoded, decode_frame};
use shoal_wire::{CloseReason, PeerFrame, Versions, node_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;
use crate::transport::handshake;
use crate::transport::*;

#[tokio::test]
async fn nodes_of_one_ca_connect_and_know_each_other() {
    let ca = Ca::new();
    let (mut a, mut b) = (Node::secure(ca.identity("a")).await, Node::secure(ca.identity("b")).await);
    a.net.connect(b.contact());
    let (at_a, at_b) = (a.connected().await, b.connected().await);
    assert_eq!((at_a.contact.clone(), at_b.contact.clone()), (b.contact(), a.contact()));
    assert!(at_a.dialled && !at_b.dialled);
    assert_eq!(at_a.version, 1);
    assert_eq!(at_b.certificate.unwrap().node(), a.contact().node());
    assert_eq!(node_id(at_a.contact.name()), at_a.contact.node());

    // Connecting again changes nothing.
    a.net.connect(b.contact());
    b.net.connect(a.contact());
    a.net.send(&[at_a.peer], &numbered(3)).unwrap();
    let Event::Frame { frame, .. } = b.event().await else { panic!("a frame is next") };
    assert_eq!(frame, numbered(3));

    a.net.close(at_a.peer, CloseReason::Banned);
    assert!(matches!(a.closed().await, CloseCause::Local(CloseReason::Banned)));
    assert!(matches!(b.closed().await, CloseCause::Remote(CloseReason::Banned)));
    assert_eq!((a.net.connections(), b.net.connections()), (0, 0));

    // And after that it is possible again.
    b.net.connect(a.contact());
    let _ = (a.connected().await, b.connected().await);
    a.net.shutdown().await;
    assert!(matches!(b.closed().await, CloseCause::Remote(CloseReason::Leaving)));
}

#[tokio::test]
async fn certificates_that_prove_nothing_are_refused_in_both_directions() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut a = Node::secure(ca.identity("a")).await;
    let strangers = [other.identity_among("b", &[&ca]), ca.expired("b")];
    for identity in strangers {
        let mut b = Node::secure(identity).await;
        a.net.connect(b.contact());
        assert!(matches!(a.connect_failed().await, ConnectError::Io(_)));
        b.counts(|counters| counters.failed.get("io") == Some(&1)).await;
        // Who dials learns of the refusal only when it reads: TLS 1.3 has no answer to a client's certificate.
        b.net.connect(a.contact());
        assert!(matches!(b.connect_failed().await, ConnectError::Io(_)));
    }
    a.counts(|counters| counters.failed.get("io") == Some(&4) && counters.opened == 0).await;
}

#[tokio::test]
async fn who_dials_speaks_only_with_whom_it_wanted() {
    let ca = Ca::new();
    let (mut a, b) = (Node::secure(ca.identity("a")).await, Node::secure(ca.identity("b")).await);
    a.net.connect(b.contact_as("c"));
    match a.connect_failed().await {
        ConnectError::WrongNode { wanted, found } => assert_eq!((wanted.as_str(), found.as_str()), ("c", "b")),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.net.connections(), 0);
    // On plain links the greeting says who it is.
    let (mut a, b) = (Node::plain("a", Settings::default()).await, Node::plain("b", Settings::default()).await);
    a.net.connect(b.contact_as("c"));
    assert!(matches!(a.connect_failed().await, ConnectError::WrongNode { .. }));
}

#[tokio::test]
async fn a_greeting_must_agree_with_the_certificate() {
    let ca = Ca::new();
    let a = Node::secure(ca.identity("a")).await;
    let stream = TcpStream::connect(loopback(a.net.local_addr())).await.unwrap();
    let (mut stream, certificate) =
        handshake::secure_dial(&ca.identity("b"), stream, a.net.local_addr()).await.unwrap();
    assert_eq!(certificate.name().as_str(), "a");
    handshake::greet(&mut stream, hello("c")).await.unwrap();
    let refused = handshake::await_greeting(&mut stream, None).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused(CloseReason::Identity)), "{refused:?}");
    a.counts(|counters| counters.failed.get("wrong_node") == Some(&1)).await;
}

#[tokio::test]
async fn a_new_identity_holds_for_the_next_connection() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut a = Node::secure(ca.identity("a")).await;
    let mut b = Node::secure(other.identity_among("b", &[&ca])).await;
    a.net.connect(b.contact());
    assert!(matches!(a.connect_failed().await, ConnectError::Io(_)));
    b.identity.as_ref().unwrap().send(ca.identity("b")).unwrap();
    a.net.connect(b.contact());
    let _ = (a.connected().await, b.connected().await);
}

#[tokio::test]
async fn when_both_dial_at_once_one_connection_is_kept() {
    let ca = Ca::new();
    for _ in 0..10 {
        let (mut a, mut b) = (Node::secure(ca.identity("a")).await, Node::secure(ca.identity("b")).await);
        a.net.connect(b.contact());
        b.net.connect(a.contact());
        let (mut at_a, mut at_b) = (None, None);
        // A message goes each way on what counts as the connection there, until both have got one from the other.
        let (mut heard_a, mut heard_b) = (false, false);
        while !(heard_a && heard_b) {
            let (event, node, standing, heard) = tokio::select! {
                event = a.event() => (event, &a, &mut at_a, &mut heard_a),
                event = b.event() => (event, &b, &mut at_b, &mut heard_b),
            };
            match event {
                Event::Connected(connected) => {
                    assert!(standing.replace(connected.peer).is_none(), "one at a time");
                    node.net.send(&[connected.peer], &numbered(1)).unwrap();
                }
                Event::Closed { peer, .. } => assert_eq!(standing.take(), Some(peer)),
                Event::Frame { peer, .. } => {
                    assert_eq!(*standing, Some(peer));
                    *heard = true;
                }
                Event::ConnectFailed { error, .. } => {
                    let duplicate = matches!(
                        error,
                        ConnectError::Refused(CloseReason::Duplicate) | ConnectError::Rejected(CloseReason::Duplicate)
                    );
                    assert!(duplicate, "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((a.net.connections(), b.net.connections()), (1, 1));
    }
}

/// Reads what the other side says until it closes.
async fn last_words(stream: &mut TcpStream) -> Vec<PeerFrame> {
    let mut buffer = BytesMut::new();
    while soon(stream.read_buf(&mut buffer)).await.is_ok_and(|read| read > 0) {}
    std::iter::from_fn(|| match decode_frame(&mut buffer) {
        Ok(Some(Decoded::Known(frame))) => Some(frame),
        _ => None,
    })
    .collect()
}

#[tokio::test]
async fn garbage_instead_of_tls_is_closed_and_counted() {
    let a = Node::secure(Ca::new().identity("a")).await;
    for garbage in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 5_000], &[22, 3, 1, 0, 4, 1, 2, 3, 4]] {
        let before = a.net.counters().failed.get("io").copied().unwrap_or_default();
        let mut stream = TcpStream::connect(a.net.local_addr()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        last_words(&mut stream).await;
        a.counts(|counters| counters.failed.get("io") == Some(&(before + 1))).await;
    }
}

#[tokio::test]
async fn garbage_instead_of_a_greeting_is_closed_and_counted() {
    let a = Node::plain("a", Settings::default()).await;
    let cases: [(&[u8], u64); 4] =
        [(&[0, 0, 0, 0], 1), (b"GET / HTTP/1.1\r\n\r\n", 2), (&[0, 0, 0, 1, 22], 3), (&[0, 0, 0, 1, 200], 4)];
    for (garbage, count) in cases {
        let mut stream = TcpStream::connect(a.net.local_addr()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        assert_eq!(last_words(&mut stream).await, [PeerFrame::Close(CloseReason::Violation)]);
        a.counts(|counters| counters.failed.get("malformed") == Some(&count)).await;
    }
    // A greeting that claims to be long isn't waited for.
    let mut stream = TcpStream::connect(a.net.local_addr()).await.unwrap();
    stream.write_all(&[0, 1, 0, 0, 1]).await.unwrap();
    stream.write_all(&[0; 5_000]).await.unwrap();
    last_words(&mut stream).await;
    a.counts(|counters| counters.failed.get("malformed") == Some(&5)).await;
}

#[tokio::test]
async fn a_release_too_new_to_be_understood_is_told_so() {
    let a = Node::plain("a", Settings::default()).await;
    let mut stream = TcpStream::connect(a.net.local_addr()).await.unwrap();
    let later = Versions { newest: 9, oldest: 8 };
    let greeting = shoal_wire::Hello { versions: later, ..hello("b") };
    write_frame(&mut stream, &PeerFrame::Hello(greeting)).await;
    assert_eq!(last_words(&mut stream).await, [PeerFrame::Close(CloseReason::Version)]);
}

#[tokio::test]
async fn handshakes_are_bounded_in_time_and_number() {
    let settings =
        Settings { handshake_within: Duration::from_millis(200), max_handshakes_per_address: 2, ..Settings::default() };
    let a = Node::plain("a", settings).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(a.net.local_addr()).await.unwrap());
    }
    a.counts(|counters| counters.failed.get("crowded") == Some(&1)).await;
    a.counts(|counters| counters.failed.get("timeout") == Some(&2)).await;
    for mut stream in idle {
        assert!(last_words(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn there_is_a_place_for_so_many_and_no_more() {
    let settings = Settings { max_connections: 1, ..Settings::default() };
    let mut a = Node::plain("a", settings).await;
    let (mut b, mut c) = (Node::plain("b", Settings::default()).await, Node::plain("c", Settings::default()).await);
    b.net.connect(a.contact());
    let _ = (a.connected().await, b.connected().await);
    c.net.connect(a.contact());
    assert!(matches!(c.connect_failed().await, ConnectError::Refused(CloseReason::Full)));
    a.net.connect(c.contact());
    assert!(matches!(a.connect_failed().await, ConnectError::Rejected(CloseReason::Full)));
}

#[test]
fn an_identity_is_made_only_of_parts_that_belong_together() {
    let (ca, other) = (Ca::new(), Ca::new());
    let roots = [ca.root.clone()];
    let (certificate, key) = ca.issue(&["shoal://node/a"], 24);
    let (_, other_key) = ca.issue(&["shoal://node/a"], 24);
    assert!(Identity::new(vec![certificate.clone()], &key, &roots).is_ok());
    assert!(matches!(Identity::new(vec![], &key, &roots), Err(IdentityError::Empty)));
    assert!(matches!(Identity::new(vec![certificate.clone()], &other_key, &roots), Err(IdentityError::Key)));
    let foreign = Identity::new(vec![certificate], &key, std::slice::from_ref(&other.root));
    assert!(matches!(foreign, Err(IdentityError::Certificate(_))));
    let names: [&[&str]; 4] = [&[], &["shoal://node/"], &["https://node/a"], &["shoal://node/a", "shoal://node/b"]];
    for uris in names {
        let (certificate, key) = ca.issue(uris, 24);
        assert!(matches!(Identity::new(vec![certificate], &key, &roots), Err(IdentityError::Name)), "{uris:?}");
    }
}

#[test]
fn a_signature_is_known_by_the_certificate_that_came_with_it() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (a, b) = (ca.identity("a"), ca.identity("b"));
    let signature = a.sign(b"links").unwrap();
    let now = UnixTime::now();
    let certificate = b.verify_chain(&a.certificate().chain(), now).unwrap();
    assert_eq!(certificate, **a.certificate());
    assert!(certificate.has_signed(b"links", &signature));
    assert!(!certificate.has_signed(b"other", &signature) && !b.certificate().has_signed(b"links", &signature));
    assert!(!certificate.has_signed(b"links", &Signature([0; 64])));
    assert!(other.identity("c").verify_chain(&a.certificate().chain(), now).is_err());
    assert!(b.verify_chain(&[], now).is_err() && b.verify_chain(&[vec![0; 9].into()], now).is_err());
    let late = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 48 * 3600));
    assert!(b.verify_chain(&a.certificate().chain(), late).is_err());
}
