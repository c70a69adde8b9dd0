//! What no honest node does.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shoal_wire::codec::encode_announces;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Bare, Cluster, LONG, digest, started};

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
