//! Connections: used again, limited, pipelined, idle.

use std::time::Duration;

use shoal_agent::mirror::{Settings, Token};

use crate::fixture::{Fixture, MANIFEST, TAG, bytes};

#[tokio::test]
async fn a_connection_is_used_again_after_errors_of_every_kind() {
    let fixture = Fixture::start().await;
    let target = fixture.blob(&bytes(1000));
    let mut client = fixture.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/v2/team/app/manifests/none?ns=registry.example:5000").await.0.status, 404);
        assert_eq!(client.get("/v2/team/app/blobs/sha256:zz?ns=registry.example:5000").await.0.status, 400);
        assert_eq!(client.get("/v2/team/app/manifests/x?ns=other.example").await.0.status, 404);
        assert_eq!(client.exchange("GET", &target, &["Range: bytes=5000-"]).await.0.status, 416);
        assert_eq!(client.exchange("DELETE", &target, &[]).await.0.status, 405);
        assert_eq!(client.get(&target).await.0.status, 200);
    }
    assert_eq!(fixture.count("mirror_connections"), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::start().await;
    let blob = bytes(500_000);
    let target = fixture.blob(&blob);
    let mut client = fixture.client().await;
    for _ in 0..4 {
        client.ask("GET", &target, &["Range: bytes=1-3"]).await;
        client.ask("HEAD", &target, &[]).await;
        client.ask("GET", "/v2/nothing", &[]).await;
        client.ask("GET", &target, &[]).await;
        client.ask("GET", &Fixture::target("manifests", TAG), &[]).await;
    }
    for _ in 0..4 {
        assert!(client.answer("GET").await.1 == blob[1..4]);
        assert_eq!(client.answer("HEAD").await.0.length(), blob.len());
        assert_eq!(client.answer("GET").await.0.status, 404);
        assert!(client.answer("GET").await.1 == blob);
        assert_eq!(client.answer("GET").await.1, MANIFEST.as_bytes());
    }
}

#[tokio::test]
async fn one_connection_too_many_is_sent_away_and_a_place_that_is_free_is_taken() {
    let fixture = Fixture::with(Settings { connections: 4.try_into().unwrap(), ..Settings::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = fixture.client().await;
        assert_eq!(client.get("/v2/").await.0.status, 200);
        clients.push(client);
    }
    let waits = fixture.client().await;
    fixture.until("mirror_connections_refused_total", 1).await;
    // The place for those who are told is taken by one that doesn't ask: the next isn't even told.
    let dropped = fixture.client().await;
    fixture.until("mirror_connections_refused_total", 2).await;
    assert!(dropped.rest().await.unwrap().is_empty());
    drop(waits);
    fixture.until("mirror_connections", 4).await;
    let mut refused = fixture.client().await;
    let (head, body) = refused.get("/v2/").await;
    assert_eq!((head.status, head.header("connection")), (503, "close"));
    assert!(String::from_utf8(body).unwrap().contains("UNAVAILABLE"));
    assert!(refused.rest().await.unwrap().is_empty());

    drop(clients.pop());
    fixture.until("mirror_connections", 3).await;
    assert_eq!(fixture.client().await.get("/v2/").await.0.status, 200);
}

#[tokio::test]
async fn an_idle_connection_and_a_head_that_never_ends_are_closed() {
    let fixture = Fixture::with(Settings { idle: Duration::from_millis(400), ..Settings::default() }).await;
    let never_asks = fixture.client().await;
    let mut stops_asking = fixture.client().await;
    stops_asking.get("/v2/").await;
    let mut never_ends = fixture.client().await;
    never_ends.send("GET /v2/ HTTP/1.1\r\nHost: mir").await;
    for client in [never_asks, stops_asking, never_ends] {
        assert!(client.rest().await.unwrap().is_empty());
    }
    fixture.until("mirror_connections", 0).await;
}

#[tokio::test]
async fn with_a_token_nothing_is_there_for_those_who_lack_it() {
    let token = Some(Token::new("correct-horse-battery").unwrap());
    let fixture = Fixture::with(Settings { token, ..Settings::default() }).await;
    let mut client = fixture.client().await;
    let target = Fixture::target("manifests", TAG);
    for headers in [&[][..], &["X-Shoal-Token: wrong"], &["X-Shoal-Token: correct-horse-batterz"]] {
        for target in ["/v2/", &target] {
            assert_eq!(client.exchange("GET", target, headers).await.0.status, 404);
        }
    }
    assert_eq!(fixture.count("mirror_refusals_total{cause=\"token\"}"), 6);
    let (head, _) = client.exchange("GET", &target, &["X-Shoal-Token: correct-horse-battery"]).await;
    assert_eq!(head.status, 200);
}
