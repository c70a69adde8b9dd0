//! How an answer ends early: always with FIN, always with every byte before it, never with a byte too many.

use std::time::Duration;

use shoal_agent::mirror::{Ending, Failure, Faults, Reason, Settings};

use crate::fixture::{Fixture, bytes};

/// Long enough not to end a healthy test, short enough to wait for.
const SHORT: Duration = Duration::from_millis(100);

fn ending(after: usize, ending: Ending) -> Faults {
    Faults { ending: Some((after as u64, ending)), ..Faults::default() }
}

fn failing() -> Ending {
    Ending::Failing(Failure::new(Reason::Unavailable))
}

#[tokio::test]
async fn a_source_that_gives_up_means_all_its_bytes_and_then_a_clean_end() {
    let fixture = Fixture::with(Settings { source_patience: SHORT, ..Settings::default() }).await;
    let blob = bytes(8 << 20);
    let ways = [("source_failed", failing()), ("source_ended", Ending::Silent), ("source_stalled", Ending::Hanging)];
    for (cause, way) in ways {
        // Nothing; a byte; less than one piece; several; all but one byte, which no socket buffer holds at once.
        let cuts = [0, 1, 100_000, 700_001, blob.len() - 1];
        for after in cuts {
            let target = fixture.faulty_blob(&blob, &ending(after, way.clone()));
            let mut client = fixture.client().await;
            client.ask("GET", &target, &[]).await;
            // Sent on the same connection and never answered: what lies unread when a socket is closed turns its end into a reset.
            client.ask("GET", &target, &[]).await;
            client.send(&"x".repeat(20_000)).await;
            let head = client.head().await;
            assert_eq!((head.status, head.length()), (200, blob.len()));
            let rest = client.rest().await.unwrap_or_else(|error| panic!("{cause} after {after}: {error}"));
            assert!(rest == blob[..after], "{cause} after {after}: {} bytes", rest.len());
        }
        let sample = format!("mirror_cuts_total{{cause=\"{cause}\"}}");
        assert_eq!(fixture.count(&sample), cuts.len() as u64);
    }
    assert_eq!(fixture.count("mirror_failures_total{reason=\"unavailable\",origin=\"not_asked\"}"), 5);
    assert_eq!(fixture.count("mirror_left_early_total"), 0);
}

#[tokio::test]
async fn a_source_that_never_answers_is_503_in_time() {
    let fixture = Fixture::with(Settings { source_patience: SHORT, ..Settings::default() }).await;
    let target = fixture.faulty_blob(b"some", &Faults { mute: true, ..Faults::default() });
    let mut client = fixture.client().await;
    assert_eq!(client.exchange("HEAD", &target, &[]).await.0.status, 503);
    assert_eq!(client.get(&target).await.0.status, 503);
    assert_eq!(fixture.count("mirror_failures_total{reason=\"stalled\",origin=\"not_asked\"}"), 2);
}

#[tokio::test]
async fn a_range_is_cut_in_the_same_way() {
    let fixture = Fixture::start().await;
    let blob = bytes(1 << 20);
    let target = fixture.faulty_blob(&blob, &ending(1000, failing()));
    let mut client = fixture.client().await;
    client.ask("GET", &target, &["Range: bytes=500000-"]).await;
    assert_eq!(client.head().await.header("content-range"), "bytes 500000-1048575/1048576");
    assert!(client.rest().await.unwrap() == blob[500_000..501_000]);
}

#[tokio::test]
async fn after_a_cut_the_runtime_reopens_and_is_sent_to_the_origin() {
    let fixture = Fixture::start().await;
    let blob = bytes(1 << 20);
    let unavailable = Failure::new(Reason::Unavailable);
    let faults = Faults { reopening_refused: Some(unavailable), ..ending(600_000, failing()) };
    let target = fixture.faulty_blob(&blob, &faults);
    let mut client = fixture.client().await;
    client.ask("GET", &target, &[]).await;
    client.head().await;
    let got = client.rest().await.unwrap().len();
    let mut client = fixture.client().await;
    let (head, body) = client.exchange("GET", &target, &[&format!("Range: bytes={got}-")]).await;
    assert_eq!(head.status, 503);
    assert!(String::from_utf8(body).unwrap().contains("UNAVAILABLE"));
}

#[tokio::test]
async fn a_source_that_goes_on_too_long_is_not_sent_beyond_the_announced_length() {
    let fixture = Fixture::start().await;
    let blob = bytes(100_000);
    let target = fixture.faulty_blob(&blob, &Faults { overrun: true, ..Faults::default() });
    let mut client = fixture.client().await;
    for (range, expected) in [("bytes=0-", 0..100_000), ("bytes=5-9", 5..10)] {
        let (head, body) = client.exchange("GET", &target, &[&format!("Range: {range}")]).await;
        assert_eq!((head.status, body), (206, blob[expected].to_vec()));
    }
    // The connection is in step: the next answer begins where the last one ended.
    assert_eq!(client.get("/v2/").await.1, b"{}");
}

#[tokio::test]
async fn a_source_that_takes_its_time_is_not_cut() {
    let fixture = Fixture::with(Settings { source_patience: SHORT, ..Settings::default() }).await;
    let blob = bytes(40_000);
    let faults = Faults { slow: Some((4000, SHORT / 4)), ..Faults::default() };
    let target = fixture.faulty_blob(&blob, &faults);
    let (head, body) = fixture.client().await.get(&target).await;
    assert_eq!(head.status, 200);
    assert!(body == blob);
}

#[tokio::test]
async fn a_client_that_leaves_lets_go_of_its_stream() {
    let fixture = Fixture::start().await;
    let blob = bytes(1 << 20);
    // A stream that hangs: only the client's end can be what ends it.
    let target = fixture.faulty_blob(&blob, &ending(1000, Ending::Hanging));
    let mut client = fixture.client().await;
    client.ask("GET", &target, &[]).await;
    client.head().await;
    client.body(1000).await;
    drop(client);
    fixture.until_streams_are_dropped().await;
    fixture.until("mirror_left_early_total", 1).await;
    fixture.until("mirror_connections", 0).await;
    // The same in full flow, as containerd's parallel fetch does: it asks for an open range and leaves after its part.
    let target = fixture.blob(&bytes(32 << 20));
    let mut client = fixture.client().await;
    client.ask("GET", &target, &["Range: bytes=1000-"]).await;
    client.head().await;
    client.body(1000).await;
    drop(client);
    fixture.until_streams_are_dropped().await;
    fixture.until("mirror_left_early_total", 2).await;
    assert!(fixture.count("mirror_body_bytes_total") < 32 << 20);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_cleanly() {
    let fixture = Fixture::with(Settings { reader_patience: SHORT, ..Settings::default() }).await;
    // More than the socket buffers of both ends.
    let blob = bytes(64 << 20);
    let target = fixture.blob(&blob);
    let mut client = fixture.client().await;
    client.ask("GET", &target, &[]).await;
    fixture.until_streams_are_dropped().await;
    fixture.until("mirror_cuts_total{cause=\"reader_stalled\"}", 1).await;
    fixture.until("mirror_connections", 0).await;
    // It wakes up and finds a prefix and an end, so it can go on elsewhere.
    assert_eq!(client.head().await.length(), blob.len());
    let rest = client.rest().await.unwrap();
    assert!(!rest.is_empty() && rest.len() < blob.len() && rest == blob[..rest.len()]);
}

#[tokio::test]
async fn the_stop_lets_an_answer_finish() {
    let fixture = Fixture::start().await;
    let blob = bytes(40_000);
    let faults = Faults { slow: Some((4000, SHORT / 4)), ..Faults::default() };
    let target = fixture.faulty_blob(&blob, &faults);
    let mut idle = fixture.client().await;
    idle.get("/v2/").await;
    let mut client = fixture.client().await;
    client.ask("GET", &target, &[]).await;
    client.head().await;
    fixture.stop.cancel();
    assert!(idle.rest().await.unwrap().is_empty(), "an idle connection ends at once");
    assert!(client.rest().await.unwrap() == blob);
    fixture.until("mirror_connections", 0).await;
    assert_eq!(fixture.count("mirror_cuts_total{cause=\"stopping\"}"), 0);
}

#[tokio::test]
async fn the_drain_deadline_cuts_cleanly_and_ends_everything() {
    let mut fixture = Fixture::with(Settings { drain: SHORT, ..Settings::default() }).await;
    let blob = bytes(100_000);
    let target = fixture.faulty_blob(&blob, &ending(50_000, Ending::Hanging));
    let mut client = fixture.client().await;
    client.ask("GET", &target, &[]).await;
    client.head().await;
    client.body(50_000).await;
    fixture.stop.cancel();
    assert!(client.rest().await.unwrap().is_empty());
    (&mut fixture.serving).await.unwrap();
    assert_eq!(fixture.count("mirror_cuts_total{cause=\"stopping\"}"), 1);
    assert_eq!(fixture.count("mirror_connections"), 0);
    assert!(tokio::net::TcpStream::connect(fixture.address).await.is_err(), "nobody listens any more");
}
