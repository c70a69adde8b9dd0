//! The "Pull" category of the OCI distribution specification's conformance suite, its cases under its names, and what runtimes want beyond it.

use std::time::Duration;

use http::HeaderValue;
use serde_json::Value;
use shoal_agent::mirror::{Failure, Faults, Manifest, OriginAnswer, Reason, Settings};

use crate::fixture::{Fixture, MANIFEST, MANIFEST_TYPE, TAG, bytes};

/// SHA-256 of "hello world", which the suite takes for what doesn't exist.
const DUMMY_DIGEST: &str = "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
/// The suite's.
const NONEXISTENT_MANIFEST: &str = ".INVALID_MANIFEST_NAME";

/// The first error's code.
fn code(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap();
    json["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn head_and_get_of_a_nonexistent_blob_result_in_404() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let target = Fixture::target("blobs", DUMMY_DIGEST);
    let (head, _) = client.exchange("HEAD", &target, &[]).await;
    assert_eq!(head.status, 404);
    let (head, body) = client.get(&target).await;
    assert_eq!((head.status, head.header("content-type")), (404, "application/json"));
    assert_eq!(code(&body), "BLOB_UNKNOWN");
}

#[tokio::test]
async fn head_and_get_of_an_existing_blob_yield_200() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for size in [0, 1, 70_000, 3 << 20] {
        let blob = bytes(size);
        let target = fixture.blob(&blob);
        for method in ["HEAD", "GET"] {
            let (head, body) = client.exchange(method, &target, &["Accept-Encoding: zstd,gzip,deflate"]).await;
            assert_eq!((head.status, head.length()), (200, size));
            assert!(target.contains(head.header("docker-content-digest")));
            assert_eq!(head.header("accept-ranges"), "bytes");
            assert_eq!(head.header("content-type"), "application/octet-stream");
            assert_eq!(head.header("content-encoding"), "");
            assert!(method == "HEAD" || body == blob);
        }
    }
    assert_eq!(fixture.count("mirror_body_bytes_total"), 1 + 70_000 + (3 << 20));
    assert_eq!(fixture.count("mirror_left_early_total"), 0);
}

#[tokio::test]
async fn head_and_get_of_a_nonexistent_manifest_return_404() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for reference in [NONEXISTENT_MANIFEST, "no-such-tag", DUMMY_DIGEST] {
        let target = Fixture::target("manifests", reference);
        let (head, _) = client.exchange("HEAD", &target, &[]).await;
        assert_eq!(head.status, 404, "{reference}");
        let (head, body) = client.get(&target).await;
        assert_eq!((head.status, code(&body).as_str()), (404, "MANIFEST_UNKNOWN"), "{reference}");
    }
}

#[tokio::test]
async fn head_and_get_of_a_manifest_yield_200_by_tag_and_by_digest() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let digest = fixture.manifest.to_string();
    for reference in [TAG, &digest] {
        let target = Fixture::target("manifests", reference);
        for method in ["HEAD", "GET"] {
            // Types are never filtered: a client that can read another type only gets this one all the same.
            let (head, body) = client.exchange(method, &target, &["Accept: text/plain"]).await;
            assert_eq!((head.status, head.length()), (200, MANIFEST.len()));
            assert_eq!(head.header("docker-content-digest"), digest);
            assert_eq!(head.header("content-type"), MANIFEST_TYPE);
            assert!(method == "HEAD" || body == MANIFEST.as_bytes());
        }
    }
}

#[tokio::test]
async fn a_400_response_body_contains_an_oci_conforming_json_message() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let (head, body) = client.get(&Fixture::target("manifests", "sha256:totallywrong")).await;
    assert_eq!((head.status, code(&body).as_str()), (400, "DIGEST_INVALID"));
}

#[tokio::test]
async fn the_base_says_that_this_is_a_registry() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    for method in ["HEAD", "GET"] {
        let (head, body) = client.exchange(method, "/v2/", &[]).await;
        assert_eq!((head.status, head.length()), (200, 2));
        assert_eq!(head.header("docker-distribution-api-version"), "registry/2.0");
        assert!(method == "HEAD" || body == b"{}");
    }
}

#[tokio::test]
async fn lists_are_passed_through() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let (head, body) = client.get(&Fixture::target("tags", "list")).await;
    assert_eq!(head.status, 200);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["tags"], serde_json::json!([TAG]));
    let (head, _) = client.get(&Fixture::target("referrers", fixture.manifest)).await;
    assert_eq!((head.status, head.header("content-type")), (200, "application/vnd.oci.image.index.v1+json"));
    let (head, body) = client.get("/v2/no/such/tags/list?ns=registry.example:5000").await;
    assert_eq!((head.status, code(&body).as_str()), (404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn a_runtime_that_sends_no_ns_has_the_registry_in_the_path_or_a_default() {
    let by_path = format!("/v2/registry.example:5000/team/app/manifests/{TAG}");
    let by_default = format!("/v2/team/app/manifests/{TAG}");
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    assert_eq!(client.get(&by_path).await.0.status, 200);
    assert_eq!(client.get(&by_default).await.0.status, 404);
    assert_eq!(fixture.count("mirror_refusals_total{cause=\"no_registry\"}"), 1);

    let default_registry = Some("registry.example:5000".parse().unwrap());
    let fixture = Fixture::with(Settings { default_registry, ..Settings::default() }).await;
    let mut client = fixture.client().await;
    assert_eq!(client.get(&by_path).await.0.status, 200);
    assert_eq!(client.get(&by_default).await.0.status, 200);
    // A path that names a registry never means the default's repository of that name.
    assert_eq!(client.get(&format!("/v2/other.example/team/app/manifests/{TAG}")).await.0.status, 404);
    assert_eq!(fixture.count("mirror_refusals_total{cause=\"not_served\"}"), 1);
}

#[tokio::test]
async fn every_failure_leads_the_runtime_to_the_next_host_and_says_what_the_origin_said() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let busy = Reason::OriginBusy { retry_after: Some(Duration::from_millis(1500)) };
    let cases = [
        (Reason::NotFound, Some(404), 404, "BLOB_UNKNOWN"),
        (Reason::Denied, Some(401), 403, "DENIED"),
        (Reason::Withheld, None, 404, "BLOB_UNKNOWN"),
        (Reason::Unsupported, None, 404, "UNSUPPORTED"),
        (Reason::TooLarge, Some(200), 404, "SIZE_INVALID"),
        (Reason::Unavailable, Some(500), 503, "UNAVAILABLE"),
        (Reason::Stalled, None, 503, "UNAVAILABLE"),
        (busy, Some(429), 503, "TOOMANYREQUESTS"),
        (Reason::Corrupt, Some(200), 503, "UNAVAILABLE"),
    ];
    for (reason, origin, status, expected) in cases {
        let mut failure = Failure::new(reason).with_detail("the detail");
        if let Some(origin) = origin {
            failure = failure.with_origin(OriginAnswer::Status(origin));
        }
        let faults = Faults { refused: Some(failure), ..Faults::default() };
        let target = fixture.faulty_blob(b"some", &faults);
        for method in ["HEAD", "GET"] {
            let (head, body) = client.exchange(method, &target, &[]).await;
            assert_eq!(head.status, status, "{reason:?}");
            assert!(head.phrase.contains("the detail"), "{}", head.phrase);
            assert_eq!(head.header("www-authenticate"), "");
            assert_eq!(head.header("retry-after"), if reason == busy { "2" } else { "" });
            if method == "GET" {
                assert_eq!(code(&body), expected, "{reason:?}");
                let text = String::from_utf8(body).unwrap();
                assert!(text.contains("the detail"), "{text}");
                assert!(origin.is_none_or(|origin| text.contains(&origin.to_string())), "{text}");
            }
        }
    }
    assert_eq!(fixture.count("mirror_failures_total{reason=\"denied\",origin=\"401\"}"), 2);
    assert_eq!(fixture.count("mirror_failures_total{reason=\"unavailable\",origin=\"5xx\"}"), 2);
    assert_eq!(fixture.count("mirror_failures_total{reason=\"withheld\",origin=\"not_asked\"}"), 2);
    assert_eq!(fixture.count("mirror_requests_total{target=\"blob\",status=\"503\"}"), 8);
}

#[test]
fn a_manifest_above_the_limit_is_a_failure() {
    let media_type = HeaderValue::from_static(MANIFEST_TYPE);
    let of = |bytes| Manifest::new(DUMMY_DIGEST.parse().unwrap(), media_type.clone(), vec![b' '; bytes].into());
    assert!(of(Manifest::MAX_BYTES).is_ok());
    assert_eq!(of(Manifest::MAX_BYTES + 1).unwrap_err().reason(), Reason::TooLarge);
}
