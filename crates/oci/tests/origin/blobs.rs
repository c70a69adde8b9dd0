//! Blobs: ranges in flight, resumed, in order, and never a byte that wasn't asked for.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use shoal_oci::origin::{Cause, Lie, Origin};
use shoal_oci::testing::{Content, Fault, Registry, Trouble};
use shoal_types::Digest;

use super::{app, impatient, origin, origin_with, read, registry};

const SIZE: u64 = 5_000_000;

/// A registry with a blob of [`SIZE`] bytes.
async fn with_blob() -> (Registry, Digest, Bytes) {
    let registry = registry().await;
    let content = Content::random(9, SIZE);
    let bytes = content.to_bytes();
    let digest = registry.push_blob(&app(), content);
    (registry, digest, bytes)
}

fn slice(bytes: &Bytes, range: std::ops::Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

async fn whole(origin: &Origin, digest: Digest) -> (Bytes, Option<shoal_oci::origin::OriginError>) {
    read(origin.blob(&app(), digest, SIZE, 0..SIZE)).await
}

#[tokio::test]
async fn a_blob_comes_in_ranges_over_several_connections_and_once() {
    let (registry, digest, bytes) = with_blob().await;
    let origin = origin(&registry);
    assert_eq!(origin.blob_size(&app(), &digest).await.unwrap(), SIZE);
    let (read, error) = whole(&origin, digest).await;
    assert!(error.is_none() && read == bytes);
    let traffic = registry.blob_traffic();
    assert!(traffic.ranged > 3, "{traffic:?}");
    assert_eq!(traffic.body_bytes, SIZE);
    assert!((2..=5).contains(&registry.connections()), "{}", registry.connections());
}

#[tokio::test]
async fn a_near_registry_is_asked_for_the_first_part_and_for_all_the_rest() {
    let (registry, digest, bytes) = with_blob().await;
    let origin = origin_with(&registry, |config| config.near = Duration::MAX);
    let (read, error) = whole(&origin, digest).await;
    assert!(error.is_none() && read == bytes);
    let traffic = registry.blob_traffic();
    assert_eq!((traffic.ranged, traffic.body_bytes), (2, SIZE), "{traffic:?}");
}

#[tokio::test]
async fn every_range_has_its_bytes() {
    let (registry, digest, bytes) = with_blob().await;
    for connections in [1, 3] {
        let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::new(connections).unwrap());
        for range in [0..SIZE, 0..1, SIZE - 1..SIZE, 1..SIZE - 1, 262_144..2_000_001, 7..7, SIZE..SIZE] {
            let (read, error) = read(origin.blob(&app(), digest, SIZE, range.clone())).await;
            assert!(error.is_none(), "{error:?}");
            assert!(read == slice(&bytes, range.clone()), "{range:?}");
        }
    }
}

#[tokio::test]
async fn one_connection_asks_once_and_without_a_range() {
    let (registry, digest, bytes) = with_blob().await;
    let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::MIN);
    assert!(whole(&origin, digest).await.0 == bytes);
    let traffic = registry.blob_traffic();
    assert_eq!((traffic.requests, traffic.ranged), (1, 0));
}

#[tokio::test]
async fn a_broken_transfer_goes_on_at_the_byte_it_reached() {
    for trouble in
        [Trouble::Cut { after: 100_000 }, Trouble::Short { after: 100_000 }, Trouble::Stall { after: 100_000 }]
    {
        let (registry, digest, bytes) = with_blob().await;
        registry.inject(Fault { times: 3, ..Fault::once("/blobs/", trouble.clone()) });
        let origin = origin_with(&registry, impatient);
        let (read, error) = whole(&origin, digest).await;
        assert!(error.is_none(), "{trouble:?}: {error:?}");
        assert!(read == bytes, "{trouble:?}");
        // What a broken connection took with it is sent again: little, because what was read counts.
        assert!(registry.blob_traffic().body_bytes < SIZE + 100_000, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_on_and_on_without_progress_ends() {
    let (registry, digest, bytes) = with_blob().await;
    registry.inject(Fault::always("/blobs/", Trouble::Cut { after: 1000 }));
    let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::MIN);
    let (read, error) = whole(&origin, digest).await;
    let error = error.unwrap();
    assert!(matches!(error.cause(), Cause::Broken(_)), "{error}");
    assert!(read == bytes[..4000], "each attempt's bytes: {}", read.len());
    assert_eq!(registry.blob_traffic().requests, 1 + 3);
}

#[tokio::test]
async fn the_bytes_before_an_error_come_before_it() {
    let (registry, digest, bytes) = with_blob().await;
    let origin = origin(&registry);
    let gone = Trouble::Status { status: 404, headers: Vec::new(), body: String::new() };
    // The first request is answered, the ones after it aren't.
    let mut blob = origin.blob(&app(), digest, SIZE, 0..SIZE);
    let first = blob.next().await.unwrap().unwrap();
    registry.inject(Fault::always("/blobs/", gone));
    let (rest, error) = read(blob).await;
    let got = [first, rest].concat();
    assert!(matches!(error.unwrap().cause(), Cause::NotFound { .. }));
    assert!(got.len() >= 256 << 10 && got == bytes[..got.len()]);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_through() {
    let (registry, digest, bytes) = with_blob().await;
    registry.inject(Fault::always("/blobs/", Trouble::IgnoreRange));
    let origin = origin(&registry);
    assert!(whole(&origin, digest).await.0 == bytes);
    assert_eq!(registry.blob_traffic().requests, 1);

    let (read_, error) = read(origin.blob(&app(), digest, SIZE, 1_000_000..3_000_000)).await;
    assert!(error.is_none() && read_ == slice(&bytes, 1_000_000..3_000_000));

    // Broken in the middle, all of it has to be sent again; nothing of it comes out twice.
    registry.inject(Fault::once("/blobs/", Trouble::Cut { after: 2_000_000 }));
    let (read_, error) = whole(&origin, digest).await;
    assert!(error.is_none() && read_ == bytes);
}

#[tokio::test]
async fn a_blob_of_another_size_than_its_descriptor_is_an_error() {
    let (registry, digest, bytes) = with_blob().await;
    for connections in [1, 4] {
        let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::new(connections).unwrap());
        for described in [SIZE - 1, SIZE + 1, 300_000, 10 * SIZE] {
            let (read, error) = read(origin.blob(&app(), digest, described, 0..described)).await;
            let error = error.unwrap();
            let lied =
                matches!(error.cause(), Cause::Lied(Lie::Size { expected, found: SIZE }) if *expected == described);
            assert!(lied, "{described}: {error}");
            assert!(read.is_empty());
        }
    }
    // A server that says nothing of lengths.
    for (trouble, connections) in
        [(Trouble::Long { by: 1 }, 1), (Trouble::Long { by: 70_000 }, 1), (Trouble::Long { by: 1 }, 4)]
    {
        let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::new(connections).unwrap());
        registry.inject(Fault::once("/blobs/", trouble.clone()));
        let (read, error) = whole(&origin, digest).await;
        assert!(matches!(error.unwrap().cause(), Cause::Lied(Lie::Long { .. })), "{trouble:?}");
        assert!(read == bytes[..read.len()], "nothing beyond the end comes out");
    }
    let origin = origin_with(&registry, |config| config.connections = NonZeroUsize::MIN);
    registry.inject(Fault::always("/blobs/", Trouble::Short { after: 10 }));
    let (_, error) = whole(&origin, digest).await;
    assert!(matches!(error.unwrap().cause(), Cause::Lied(Lie::Short { .. })));
}

#[tokio::test]
async fn a_range_that_wasnt_asked_for_is_refused() {
    let (registry, digest, _) = with_blob().await;
    let origin = origin(&registry);
    for value in [
        "bytes 1-262144/5000000",
        "bytes 0-999999/5000000",
        "bytes 0-262143/4999999",
        "rubbish",
        "bytes 262143-0/5000000",
    ] {
        registry.inject(Fault::once("/blobs/", Trouble::Header { name: "content-range", value: Some(value.into()) }));
        let (read, error) = whole(&origin, digest).await;
        let error = error.unwrap();
        assert!(matches!(error.cause(), Cause::Lied(Lie::ContentRange { .. } | Lie::Size { .. })), "{value}: {error}");
        assert!(read.is_empty());
    }
    registry.inject(Fault::once("/blobs/", Trouble::Header { name: "content-range", value: None }));
    assert!(whole(&origin, digest).await.1.is_some());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_requests() {
    let (registry, digest, _) = with_blob().await;
    // Without an end of theirs they would be on their way for good.
    registry.inject(Fault::always("/blobs/", Trouble::Stall { after: 1000 }));
    let mut blob = origin(&registry).blob(&app(), digest, SIZE, 0..SIZE);
    assert!(blob.next().await.unwrap().is_ok());
    drop(blob);
    tokio::time::timeout(Duration::from_secs(5), registry.idle()).await.unwrap();
}

#[tokio::test]
async fn an_absent_blob_is_not_found() {
    let (registry, _, _) = with_blob().await;
    let origin = origin(&registry);
    let absent = Content::random(1, 1).digest();
    assert!(matches!(origin.blob_size(&app(), &absent).await.unwrap_err().cause(), Cause::NotFound { .. }));
    assert!(matches!(read(origin.blob(&app(), absent, 5, 0..5)).await.1.unwrap().cause(), Cause::NotFound { .. }));
    let (registry, digest, _) = with_blob().await;
    registry.inject(Fault::once("/blobs/", Trouble::Header { name: "content-length", value: None }).on(Method::HEAD));
    let error = self::origin(&registry).blob_size(&app(), &digest).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Protocol(_)), "{error}");
}
