//! What no honest node does.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shoal_wire::Announce;
use shoal_wire::codec::{decode_outcomes, encode_announces};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::announce::{links, report};
use crate::harness::{Bare, Cluster, LONG, Running, digest, started};

#[test]
fn garbage_is_refused_and_leaves_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut cluster = Cluster::new();
    (cluster.limits.questions_per_second, cluster.limits.question_burst) = (1_000_000, 1_000_000);
    cluster.limits.joins_per_second = 1_000_000;
    let tracker = runtime.block_on(cluster.tracker());
    let node = runtime.block_on(cluster.node("a", &tracker));
    let identity = runtime.block_on(node.identity());
    let good = encode_announces([(1, &started(digest(1)))]).unwrap().to_vec();
    let damaged = (0..good.len(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut bytes = good.clone();
        bytes[at] ^= byte | 1;
        bytes
    });
    let garbage = proptest::collection::vec(any::<u8>(), 0..400);
    let bodies = prop_oneof![garbage, damaged, "[{\"a-z:0-9,}\\]]{0,60}".prop_map(String::into_bytes)];
    let paths = prop_oneof![
        Just("POST /v1/announce".to_owned()),
        Just("POST /v1/resolve".to_owned()),
        Just("POST /v1/pull-secret".to_owned()),
        Just("POST /v1/join".to_owned()),
        "[a-z0-9&=%]{0,40}".prop_map(|query| format!("GET /v1/contacts?{query}")),
        "[a-z0-9&=%]{0,40}".prop_map(|query| format!("GET /v1/keys?node={query}")),
        "[a-z0-9&=%-]{0,40}".prop_map(|query| format!("GET /v1/members?want={query}")),
    ];
    let bare = runtime.block_on(Bare::as_node(tracker.address, &identity));
    TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(300) })
        .run(&(paths, bodies), |(path, body)| {
            let (method, path) = path.split_once(' ').unwrap();
            let (status, _) = runtime.block_on(bare.ask(method, path, body)).unwrap();
            prop_assert!(status < 500, "{path}: {status}");
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        assert!(node.client.announce(&[started(digest(2))]).await[0].is_ok(), "the tracker goes on");
        node.stop().await;
        tracker.stop().await;
    });
}

/// What a tracker knows of blobs and who has them, and of whom it thinks badly.
async fn known(tracker: &Running) -> String {
    let status = tracker.handle.snapshot(100, 0).await.unwrap();
    let blobs = status.blobs.iter().map(|blob| (blob.key, blob.members, blob.seeds, blob.lead, blob.epoch, blob.chain));
    format!("{:?}", (status.memberships, blobs.collect::<Vec<_>>(), &status.banned, status.counters.leases_granted))
}

/// How many announces were refused, with those whose links are forged.
async fn refused(tracker: &Running) -> u64 {
    let refused = tracker.handle.snapshot(0, 0).await.unwrap().counters.refused;
    refused.values().sum::<u64>() + counted(tracker, "shoal_tracker_forged_links_total", "")
}

/// How many requests with announces were answered so.
fn answered(tracker: &Running, status: u16) -> u64 {
    counted(tracker, "shoal_tracker_requests_total{route=\"/v1/announce\"", &format!("status=\"{status}\""))
}

fn counted(tracker: &Running, metric: &str, label: &str) -> u64 {
    let metrics = tracker.metrics();
    let samples = metrics.lines().filter(|line| line.starts_with(metric) && line.contains(label));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn an_announce_that_nobody_may_make_is_refused_and_counted_and_changes_nothing() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let [lead, other] = [a.identity().await, b.identity().await];
    let grant = a.leads(digest(7)).await;
    let genuine = report(grant.epoch, vec![links(&lead, grant.epoch)]);
    assert!(a.client.announce(std::slice::from_ref(&genuine)).await[0].is_ok());
    assert!(b.client.announce(&[started(digest(7))]).await[0].is_ok());
    let before = known(&tracker).await;
    let bare = Bare::as_node(tracker.address, &other).await;
    let body = |announce: &Announce| encode_announces([(1, announce)]).unwrap().to_vec();

    // Malformed and oversized requests: of a blob that would be news.
    let good = body(&started(digest(2)));
    let mut longer = good.clone();
    longer.push(0);
    let many = encode_announces((0..4_097).map(|id| (id, &genuine))).unwrap().to_vec();
    for (what, bytes, status) in [
        ("nothing", Vec::new(), 400),
        ("cut off", good[..good.len() - 1].to_vec(), 400),
        ("more behind it", longer, 400),
        ("another format", b"{\"digest\": \"sha256:00\"}".to_vec(), 400),
        ("too many", many, 400),
        ("too long", vec![0; (8 << 20) + 1], 413),
    ] {
        let counted = answered(&tracker, status);
        assert_eq!(bare.ask("POST", "/v1/announce", bytes).await.unwrap().0, status, "{what}");
        assert_eq!(answered(&tracker, status), counted + 1, "{what}");
        assert_eq!(known(&tracker).await, before, "{what}");
    }

    // Well-formed ones that can't be, or that are another node's: what the lead has announced, sent again by somebody else, and the like.
    let huge = Announce { size_bytes: u64::MAX, ..started(digest(2)) };
    let resized = Announce { size_bytes: 1, ..started(digest(7)) };
    let never_held = report(grant.epoch, vec![links(&other, grant.epoch)]);
    for (what, announce) in
        [("huge", huge), ("replayed", genuine.clone()), ("never held", never_held), ("resized", resized)]
    {
        let counted = refused(&tracker).await;
        let (status, answer) = bare.ask("POST", "/v1/announce", body(&announce)).await.unwrap();
        let outcome = decode_outcomes(&answer).unwrap().remove(0).1;
        assert!(status == 200 && outcome.is_err(), "{what}: {status} {outcome:?}");
        assert_eq!(refused(&tracker).await, counted + 1, "{what}");
        assert_eq!(known(&tracker).await, before, "{what}");
    }
    // Its own sender may say the same again, and nothing comes of it.
    assert!(a.client.announce(&[genuine]).await[0].is_ok());
    assert_eq!(known(&tracker).await, before);

    // A stranger's, and one with the certificate of another cluster.
    let stranger = Bare::connect(tracker.address, cluster.authority.trust(), None).await;
    assert_eq!(stranger.ask("POST", "/v1/announce", good.clone()).await.unwrap().0, 401);
    assert_eq!(answered(&tracker, 401), 1);
    let elsewhere = Cluster::new();
    let its_tracker = elsewhere.tracker().await;
    let foreigner = elsewhere.node("a", &its_tracker).await;
    let its = foreigner.identity().await;
    let bare = Bare::connect(tracker.address, cluster.authority.trust(), Some((its.chain(), its.key()))).await;
    assert!(bare.ask("POST", "/v1/announce", good).await.is_err(), "there is no handshake");
    assert!(tracker.metrics().contains(r#"connections_refused_total{reason="handshake"} 1"#), "{}", tracker.metrics());
    assert_eq!(known(&tracker).await, before);
    for node in [a, b, foreigner] {
        node.stop().await;
    }
    its_tracker.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn who_sends_nothing_is_let_go() {
    let mut cluster = Cluster::new();
    cluster.limits.handshake = Duration::from_millis(50);
    cluster.limits.body = Duration::from_millis(50);
    cluster.limits.stranger_life = Duration::from_millis(200);
    cluster.limits.drain = Duration::from_millis(50);
    let tracker = cluster.tracker().await;
    let mut silent = TcpStream::connect(tracker.address).await.unwrap();
    let ended = timeout(LONG, silent.read(&mut [0; 16])).await.expect("the tracker closes it");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(tracker.metrics().contains(r#"reason="handshake""#));

    // A stranger that has shaken hands and stays.
    let bare = Bare::connect(tracker.address, cluster.authority.trust(), None).await;
    let stays = async { while bare.ask("GET", "/healthz", "").await.is_ok() {} };
    timeout(LONG, stays).await.expect("its time ends");
    tracker.stop().await;
}

#[tokio::test]
async fn strangers_take_no_place_of_the_nodes() {
    let mut cluster = Cluster::new();
    cluster.limits.strangers_per_address = 3;
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let mut silent = Vec::new();
    while !tracker.metrics().contains(r#"reason="strangers""#) {
        silent.push(TcpStream::connect(tracker.address).await.unwrap());
        tokio::task::yield_now().await;
    }
    assert!(node.client.announce(&[started(digest(1))]).await[0].is_ok());
    drop(silent);
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_newer_stream_ends_the_older_one_and_who_doesnt_read_loses_its_own() {
    let mut cluster = Cluster::new();
    cluster.limits.event_bytes = 2_048;
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let identity = node.identity().await;
    node.stop().await;
    let bare = Bare::as_node(tracker.address, &identity).await;
    let events = || Request::get("https://127.0.0.1/v1/events?instance=1").body(Full::default()).unwrap();
    let older = bare.open(events()).await.unwrap();
    let newer = bare.open(events()).await.unwrap();
    timeout(LONG, older.into_body().collect()).await.expect("the older one ends").unwrap();

    // The newer one isn't read: its window of 4 KiB fills, then its queue.
    let mut version = 0_u32;
    while !tracker.metrics().contains("slow_streams_total 1") {
        version += 1;
        tracker.handle.set_swarm(Bytes::from(version.to_string())).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(version > 20, "{version} told at least");
    assert_eq!(tracker.handle.snapshot(0, 0).await.unwrap().nodes_connected, 0);
    timeout(LONG, newer.into_body().collect()).await.expect("what was queued comes, then the end").unwrap();
    tracker.stop().await;
}
