//! Ranges: containerd reopens with them what was cut, and fetches in parallel with them.

use crate::fixture::{Fixture, bytes};

const SIZE: usize = 300_000;

#[tokio::test]
async fn one_range_is_answered_with_exactly_its_bytes() {
    let fixture = Fixture::start().await;
    let blob = bytes(SIZE);
    let target = fixture.blob(&blob);
    let mut client = fixture.client().await;
    let cases = [
        ("first byte", "bytes=0-0", 0..1),
        ("last byte", "bytes=299999-299999", SIZE - 1..SIZE),
        ("open-ended", "bytes=12345-", 12345..SIZE),
        ("all of it, open-ended", "bytes=0-", 0..SIZE),
        ("suffix", "bytes=-7", SIZE - 7..SIZE),
        ("a suffix longer than the blob", "bytes=-999999", 0..SIZE),
        ("beyond the end on one side", "bytes=299990-400000", SIZE - 10..SIZE),
        ("in the middle", "bytes=1000-262999", 1000..263_000),
    ];
    for (what, range, expected) in cases {
        let (head, body) = client.exchange("GET", &target, &[&format!("Range: {range}")]).await;
        let content_range = format!("bytes {}-{}/{SIZE}", expected.start, expected.end - 1);
        assert_eq!((head.status, head.header("content-range")), (206, content_range.as_str()), "{what}");
        assert!(target.contains(head.header("docker-content-digest")));
        assert!(body == blob[expected], "{what}");
    }
}

#[tokio::test]
async fn a_range_that_can_not_be_served_is_416_and_names_the_size() {
    let fixture = Fixture::start().await;
    let target = fixture.blob(&bytes(SIZE));
    let empty = fixture.blob(b"");
    let mut client = fixture.client().await;
    let cases = [
        ("beyond the end", &target, "bytes=300000-", "range_beyond_end"),
        ("an empty suffix", &target, "bytes=-0", "range_beyond_end"),
        ("of nothing", &empty, "bytes=0-", "range_beyond_end"),
        ("several", &target, "bytes=0-0,5-9", "several_ranges"),
        ("backwards", &target, "bytes=9-5", "range_malformed"),
        ("absurd", &target, "bytes=one-two", "range_malformed"),
        ("beyond all numbers", &target, "bytes=99999999999999999999999-", "range_beyond_end"),
    ];
    for (what, target, range, cause) in cases {
        let sample = format!("mirror_refusals_total{{cause=\"{cause}\"}}");
        let before = fixture.count(&sample);
        let (head, body) = client.exchange("GET", target, &[&format!("Range: {range}")]).await;
        assert_eq!(head.status, 416, "{what}");
        let size = if target == &empty { 0 } else { SIZE };
        assert_eq!(head.header("content-range"), format!("bytes */{size}"), "{what}");
        assert!(String::from_utf8(body).unwrap().contains("RANGE_INVALID"), "{what}");
        assert_eq!(fixture.count(&sample), before + 1, "{what}");
    }
}

#[tokio::test]
async fn a_range_is_ignored_where_the_rfc_says_so() {
    let fixture = Fixture::start().await;
    let blob = bytes(SIZE);
    let target = fixture.blob(&blob);
    let mut client = fixture.client().await;
    for headers in [&["Range: pages=1-2"][..], &["Range: bytes=5-9", "If-Range: \"some-etag\""]] {
        let (head, body) = client.exchange("GET", &target, headers).await;
        assert_eq!((head.status, head.header("content-range")), (200, ""));
        assert!(body == blob);
    }
    // HEAD knows no ranges.
    let (head, _) = client.exchange("HEAD", &target, &["Range: bytes=5-9"]).await;
    assert_eq!((head.status, head.length()), (200, SIZE));
}
