//! Bad input: the right status, an OCI error, a counter, and nothing else.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::client::Client;
use crate::fixture::{Fixture, bytes};

#[tokio::test]
async fn every_kind_of_bad_request_is_refused_with_its_status_and_counted() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let zeros = "0".repeat(64);
    let long_ns = format!("/v2/team/app/manifests/x?ns={}", "a".repeat(500));
    let long_name = format!("/v2/{}/manifests/x?ns=registry.example:5000", "a/".repeat(200));
    let long_query = format!("/v2/team/app/manifests/x?ns=registry.example:5000&x={}", "a".repeat(5000));
    let of = |path: &str| format!("/v2/{path}?ns=registry.example:5000");
    let cases = [
        (of("team/app/blobs/sha256:00"), 400, "DIGEST_INVALID", "digest"),
        (of("team/app/blobs/latest"), 400, "DIGEST_INVALID", "digest"),
        (of(&format!("team/app/manifests/sha256:{}g", &zeros[1..])), 400, "DIGEST_INVALID", "digest"),
        (of(&format!("team/app/blobs/md5:{zeros}")), 404, "UNSUPPORTED", "foreign_digest"),
        (of("team/app/manifests/.hidden"), 404, "MANIFEST_UNKNOWN", "tag"),
        (of("Team/App/manifests/x"), 400, "NAME_INVALID", "repository"),
        (of("team/%2e%2e/app/manifests/x"), 400, "NAME_INVALID", "repository"),
        (of("_catalog"), 404, "NOT_FOUND", "path"),
        (of("team/app/blobs/uploads/"), 404, "NOT_FOUND", "path"),
        ("/".into(), 404, "NOT_FOUND", "path"),
        ("/v1/search".into(), 404, "NOT_FOUND", "path"),
        ("/v2/team/app/manifests/x?ns=not_a_host".into(), 400, "NAME_INVALID", "registry"),
        ("/v2/team/app/manifests/x?ns=169.254.169.254".into(), 404, "NAME_UNKNOWN", "not_served"),
        ("/v2/team/app/manifests/x?ns=a.example&ns=b.example".into(), 400, "NAME_INVALID", "two_registries"),
        ("/v2/team/app/manifests/x".into(), 404, "NAME_UNKNOWN", "no_registry"),
        (long_ns, 400, "NAME_INVALID", "too_long"),
        (long_name, 400, "NAME_INVALID", "too_long"),
        (long_query, 400, "NAME_INVALID", "too_long"),
    ];
    for (target, status, code, cause) in cases {
        let sample = format!("mirror_refusals_total{{cause=\"{cause}\"}}");
        let before = fixture.count(&sample);
        let (head, body) = client.get(&target).await;
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((head.status, json["errors"][0]["code"].as_str()), (status, Some(code)), "{target}");
        assert_eq!(head.header("content-type"), "application/json");
        assert_eq!(fixture.count(&sample), before + 1, "{target}");
    }
}

#[tokio::test]
async fn a_mirror_is_only_read() {
    let fixture = Fixture::start().await;
    let target = fixture.blob(b"some");
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let mut client = fixture.client().await;
        client.ask(method, &target, &["Content-Length: 5"]).await;
        client.send("hello").await;
        let (head, body) = client.answer(method).await;
        assert_eq!((head.status, head.header("allow")), (405, "GET, HEAD"));
        assert!(String::from_utf8(body).unwrap().contains("UNSUPPORTED"));
        assert_eq!(client.get(&target).await.1, b"some", "the body was read away");
    }
    assert_eq!(fixture.count("mirror_refusals_total{cause=\"method\"}"), 7);
}

#[tokio::test]
async fn what_is_not_http_is_refused_with_a_clean_end() {
    let fixture = Fixture::start().await;
    let long_head = format!("GET /v2/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    let many_headers = format!("GET /v2/ HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    let cases = [("\u{16}\u{3}\u{1} a TLS client\r\n\r\n", "400"), (&long_head, "431"), (&many_headers, "431")];
    for (text, status) in cases {
        let mut client = fixture.client().await;
        client.send(text).await;
        let rest = String::from_utf8(client.rest().await.unwrap()).unwrap();
        assert!(rest.starts_with(&format!("HTTP/1.1 {status}")), "{rest}");
    }
    // HTTP/2 with prior knowledge is not spoken.
    let mut client = fixture.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let rest = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
}

/// Requests that are right but for some part of them, and some that are right.
fn requests() -> impl Strategy<Value = (String, String, String)> {
    let method = prop_oneof![6 => Just("GET"), 2 => Just("HEAD"), 1 => Just("POST")].prop_map(str::to_owned);
    let name = prop_oneof![4 => Just("team/app".to_owned()), 4 => "[a-zA-Z0-9._/%:@-]{0,40}", 1 => "(a/){100,300}"];
    let kind = prop_oneof![
        Just("manifests".to_owned()),
        Just("blobs".to_owned()),
        Just("referrers".to_owned()),
        Just("tags".to_owned()),
        "[a-z_]{0,9}"
    ];
    let reference = prop_oneof![
        Just("v1.0".to_owned()),
        Just("list".to_owned()),
        "sha256:[0-9a-f]{64}",
        "[a-z0-9+._-]{1,9}:[a-zA-Z0-9=_-]{0,80}",
        "[!-~&&[^#? ]]{0,40}"
    ];
    let query = prop_oneof![
        4 => Just("?ns=registry.example:5000".to_owned()),
        1 => Just(String::new()),
        2 => "\\?ns=[!-~&&[^# ]]{0,60}",
        1 => "\\?(n|last|ns|artifactType)=[!-~&&[^# ]]{0,600}"
    ];
    let range = prop_oneof![2 => Just(String::new()), 2 => "bytes=[0-9,-]{0,30}", 1 => "[!-~]{1,30}"];
    (method, name, kind, reference, query, range).prop_map(|(method, name, kind, reference, query, range)| {
        let range = if range.is_empty() { range } else { format!("Range: {range}\r\n") };
        (method, format!("/v2/{name}/{kind}/{reference}{query}"), range)
    })
}

#[test]
fn a_thousand_odd_requests_never_make_the_mirror_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(Fixture::start());
    fixture.blob(&bytes(1000));
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&requests(), |(method, target, range)| {
        runtime.block_on(async {
            let mut client = Client::connect(fixture.address).await;
            let request = format!("{method} {target} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n{range}\r\n");
            client.send(&request).await;
            let (head, body) = client.answer(&method).await;
            prop_assert!(matches!(head.status, 200 | 206 | 400 | 404 | 405 | 416), "{}", head.status);
            // Without a body hyper itself said that this is no HTTP.
            if head.status >= 400 && !body.is_empty() {
                let json: Value = serde_json::from_slice(&body).unwrap();
                prop_assert!(json["errors"][0]["code"].is_string());
            }
            prop_assert!(client.rest().await.unwrap().is_empty());
            Ok(())
        })
    });
    outcome.unwrap();
}
