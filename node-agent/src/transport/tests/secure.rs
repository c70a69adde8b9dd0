//! TLS on buffers of our own, against itself and against rustls' own stream, which earlier releases used.

use std::io::{self, IoSlice};
use std::pin::Pin;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::*;
use crate::transport::Identity;
use crate::transport::secure::Secure;

/// More than all buffers on the way.
const MUCH: usize = 5_000_000;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
}

async fn dial(identity: &Identity, stream: TcpStream) -> io::Result<Secure> {
    Secure::connect(identity.client.clone(), name(), stream).await
}

async fn accept(identity: &Identity, stream: TcpStream) -> io::Result<Secure> {
    Secure::accept(identity.server.clone(), stream).await
}

async fn pair() -> (Secure, Secure) {
    let ca = Ca::new();
    let (a, b) = (ca.identity("a"), ca.identity("b"));
    let (dialled, accepted) = sockets().await;
    let (dialled, accepted) = tokio::join!(dial(&a, dialled), accept(&b, accepted));
    (dialled.unwrap(), accepted.unwrap())
}

/// Sends in pieces of all sizes, reads in pieces of other sizes, and closes.
async fn exchange(stream: impl AsyncRead + AsyncWrite, sent: &[u8], expected: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = async {
        let mut left = sent;
        for size in [1, 3, 100, 16_384, 17_000, 65_536, 65_537, 300_000].into_iter().cycle() {
            let (piece, rest) = left.split_at(left.len().min(size));
            write.write_all(piece).await.unwrap();
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        write.flush().await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reading = async {
        let mut all = Vec::new();
        for size in [1, 70_000, 5, 4_096, 16_384, 20_000].into_iter().cycle() {
            let mut piece = vec![0; size];
            match read.read(&mut piece).await.unwrap() {
                0 => break,
                length => all.extend_from_slice(&piece[..length]),
            }
        }
        assert!(all == expected, "{} bytes of {}", all.len(), expected.len());
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn both_directions_at_once_bring_what_was_sent() {
    let (a, b) = pair().await;
    let (to_b, to_a) = (content(MUCH), content(MUCH / 2));
    soon(async { tokio::join!(exchange(a, &to_b, &to_a), exchange(b, &to_a, &to_b)) }).await;
}

#[tokio::test]
async fn an_earlier_release_is_understood_and_understands() {
    let ca = Ca::new();
    let (a, b) = (ca.identity("a"), ca.identity("b"));
    let (to_b, to_a) = (content(MUCH), content(MUCH / 2));
    let (ours, theirs) = sockets().await;
    let acceptor = TlsAcceptor::from(b.server.clone());
    let (ours, theirs) = tokio::join!(dial(&a, ours), acceptor.accept(theirs));
    soon(async { tokio::join!(exchange(ours.unwrap(), &to_b, &to_a), exchange(theirs.unwrap(), &to_a, &to_b)) }).await;

    let (theirs, ours) = sockets().await;
    let connector = TlsConnector::from(a.client.clone());
    let (theirs, ours) = tokio::join!(connector.connect(name(), theirs), accept(&b, ours));
    soon(async { tokio::join!(exchange(ours.unwrap(), &to_b, &to_a), exchange(theirs.unwrap(), &to_a, &to_b)) }).await;
}

#[tokio::test]
async fn a_change_of_keys_is_followed_and_answered() {
    let ca = Ca::new();
    let (a, b) = (ca.identity("a"), ca.identity("b"));
    let (ours, theirs) = sockets().await;
    let acceptor = TlsAcceptor::from(b.server.clone());
    let (ours, theirs) = tokio::join!(dial(&a, ours), acceptor.accept(theirs));
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    for round in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        let mut byte = [0];
        theirs.write_all(&[round]).await.unwrap();
        theirs.flush().await.unwrap();
        soon(ours.read_exact(&mut byte)).await.unwrap();
        assert_eq!(byte, [round]);
        // Here the keys change, too.
        ours.write_all(&[round]).await.unwrap();
        ours.flush().await.unwrap();
        soon(theirs.read_exact(&mut byte)).await.unwrap();
        assert_eq!(byte, [round]);
    }
}

#[tokio::test]
async fn pieces_that_are_written_together_leave_in_order() {
    let (mut a, mut b) = pair().await;
    let pieces = [content(100), content(0), content(60_000), content(9_000)];
    let all: Vec<u8> = pieces.iter().flatten().copied().collect();
    let slices = pieces.each_ref().map(|piece| IoSlice::new(piece));
    let taken = std::future::poll_fn(|context| Pin::new(&mut a).poll_write_vectored(context, &slices)).await.unwrap();
    assert_eq!(taken, 64 << 10, "no more than is encrypted at once");
    let mut read = vec![0; taken];
    soon(async { tokio::try_join!(a.flush(), b.read_exact(&mut read)) }).await.unwrap();
    assert!(read == all[..taken]);
}

#[tokio::test]
async fn a_message_is_not_held_up_by_the_chunk_before_it() {
    let (mut a, mut b) = pair().await;
    for round in 0..20 {
        let chunk = content(16_000 + round);
        let mut read = vec![0; chunk.len()];
        a.write_all(&chunk).await.unwrap();
        soon(async { tokio::try_join!(a.flush(), b.read_exact(&mut read)) }).await.unwrap();
        a.write_all(b"have").await.unwrap();
        a.flush().await.unwrap();
        let mut message = [0; 4];
        soon(b.read_exact(&mut message)).await.unwrap();
        assert_eq!(&message, b"have");
    }
}

#[tokio::test]
async fn an_end_that_nobody_announced_is_an_error() {
    let (a, mut b) = pair().await;
    drop(a);
    let error = soon(b.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let (mut a, mut b) = pair().await;
    a.shutdown().await.unwrap();
    for _ in 0..2 {
        assert_eq!(soon(b.read(&mut [0; 10])).await.unwrap(), 0);
    }
    // The other direction goes on until it is closed as well.
    b.write_all(b"bye").await.unwrap();
    b.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(a.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"bye");
}

#[tokio::test]
async fn what_is_no_tls_is_refused_at_once_and_the_other_side_is_told() {
    let ca = Ca::new();
    let identity = ca.identity("a");
    for nonsense in [&b"GET / HTTP/1.1\r\n"[..], &[22, 3, 1, 255, 255, 1], &[23, 3, 3, 0, 1, 7], &[0; 5]] {
        let (mut stranger, ours) = sockets().await;
        stranger.write_all(nonsense).await.unwrap();
        let error = soon(accept(&identity, ours)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{nonsense:?}: {error}");
        let mut told = Vec::new();
        // Where bytes were left unread the kernel may reset instead.
        let _ = soon(stranger.read_to_end(&mut told)).await;
        assert!(told.is_empty() || told[0] == 21, "an alert or nothing: {told:?}");
    }
    let (stranger, ours) = sockets().await;
    drop(stranger);
    assert_eq!(soon(accept(&identity, ours)).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn records_that_were_changed_on_the_way_end_it() {
    let ca = Ca::new();
    let (a, b) = (ca.identity("a"), ca.identity("b"));
    let (dialled, mut before) = sockets().await;
    let (mut behind, accepted) = sockets().await;
    let between = tokio::spawn(async move {
        let (mut up, mut down) = (before.split(), behind.split());
        let back = tokio::io::copy(&mut down.0, &mut up.1);
        let forth = async {
            let (mut passed, mut piece) = (0, [0; 4096]);
            loop {
                let length = up.0.read(&mut piece).await?;
                if length == 0 {
                    return io::Result::Ok(());
                }
                passed += length;
                if passed > 100_000 {
                    piece[length / 2] ^= 1;
                }
                down.1.write_all(&piece[..length]).await?;
            }
        };
        let _ = tokio::join!(back, forth);
    });
    let (dialled, accepted) = tokio::join!(dial(&a, dialled), accept(&b, accepted));
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    let sent = content(200_000);
    let (_, read) = soon(async {
        let mut all = Vec::new();
        let reading = async {
            let result = accepted.read_to_end(&mut all).await;
            drop(accepted);
            result.map(|_| ())
        };
        let result = tokio::join!(dialled.write_all(&sent), reading);
        assert!(sent.starts_with(&all) && all.len() < sent.len());
        result
    })
    .await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    drop(dialled);
    soon(between).await.unwrap();
}
