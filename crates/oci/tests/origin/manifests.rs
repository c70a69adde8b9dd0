//! Manifests: by tag and by digest, and every way in which a registry can get them wrong.

use bytes::Bytes;
use http::Method;
use shoal_oci::origin::{Cause, Lie};
use shoal_oci::testing::{Fault, Registry, Trouble};
use shoal_oci::{Reference, manifest};

use super::{app, origin, registry};

fn tag(tag: &str) -> Reference {
    tag.parse().unwrap()
}

#[tokio::test]
async fn a_manifest_comes_by_tag_and_by_digest() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[5000, 3000], 1);
    let origin = origin(&registry);
    for reference in [tag("v1"), Reference::Digest(image.digest)] {
        let head = origin.head_manifest(&app(), &reference).await.unwrap();
        assert_eq!((head.digest, head.size_bytes), (image.digest, image.manifest.len() as u64));
        let fetched = origin.manifest(&app(), &reference).await.unwrap();
        assert_eq!((fetched.digest, fetched.body), (head.digest, image.manifest.clone()));
        assert_eq!(fetched.media_type, image.media_type);
    }
    let read = manifest::Manifest::parse(&image.manifest).unwrap();
    let blobs: Vec<_> = read.blobs().cloned().collect();
    assert_eq!(blobs.len(), 3);
    assert_eq!(blobs[0], image.config);
    assert_eq!(blobs[1..], image.layers);
}

#[tokio::test]
async fn an_incomplete_head_is_made_up_for_by_a_get() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[100], 1);
    let origin = origin(&registry);
    let header = |name| Trouble::Header { name, value: None };
    let not_allowed = Trouble::Status { status: 405, headers: Vec::new(), body: String::new() };
    for trouble in [header("docker-content-digest"), header("content-length"), header("content-type"), not_allowed] {
        registry.inject(Fault::once("/manifests/", trouble.clone()).on(Method::HEAD));
        let head = origin.head_manifest(&app(), &tag("v1")).await.unwrap();
        assert_eq!((head.digest, head.media_type.as_str()), (image.digest, image.media_type), "{trouble:?}");
        assert_eq!(head.size_bytes, image.manifest.len() as u64);
    }
    // Eight requests: each HEAD and its GET.
    assert_eq!(registry.traffic(|path| path.contains("/manifests/")).requests, 8);
}

#[tokio::test]
async fn content_that_isnt_what_was_asked_for_is_refused() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[100], 1);
    let other = registry.push_image(&app(), "v2", &[100], 2);
    let origin = origin(&registry);

    let wrong = Trouble::Header { name: "docker-content-digest", value: Some(other.digest.to_string()) };
    registry.inject(Fault::once("/manifests/v1", wrong.clone()));
    let error = origin.manifest(&app(), &tag("v1")).await.unwrap_err();
    assert!(
        matches!(error.cause(), Cause::Lied(Lie::Digest { expected, found }) if *expected == other.digest && *found == image.digest)
    );

    registry.inject(Fault::once("/manifests/", wrong).on(Method::HEAD));
    let error = origin.head_manifest(&app(), &Reference::Digest(image.digest)).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Lied(Lie::Digest { .. })));

    for reference in [tag("v1"), Reference::Digest(image.digest)] {
        registry.inject(Fault::once("/manifests/", Trouble::FlipBit { at: 3 }));
        let error = origin.manifest(&app(), &reference).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::Lied(Lie::Digest { .. })), "{error}");
    }

    let nonsense = Trouble::Header { name: "docker-content-digest", value: Some("sha256:nonsense".into()) };
    registry.inject(Fault::once("/manifests/", nonsense));
    assert!(matches!(origin.manifest(&app(), &tag("v1")).await.unwrap_err().cause(), Cause::Protocol(_)));
}

#[tokio::test]
async fn a_manifest_above_the_limit_is_refused_announced_or_not() {
    let registry = registry().await;
    let largest = push(&registry, manifest::MAX_BYTES);
    let origin = origin(&registry);
    assert_eq!(origin.manifest(&app(), &largest).await.unwrap().body.len(), manifest::MAX_BYTES);

    let larger = push(&registry, manifest::MAX_BYTES + 1);
    registry.inject(Fault::once("/manifests/", Trouble::Long { by: 0 }).on(Method::GET));
    for _ in 0..2 {
        let error = origin.manifest(&app(), &larger).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::TooLarge { .. }), "{error}");
    }
    assert!(matches!(origin.head_manifest(&app(), &larger).await.unwrap_err().cause(), Cause::TooLarge { .. }));
}

fn push(registry: &Registry, bytes: usize) -> Reference {
    Reference::Digest(registry.push_manifest(&app(), None, "application/x", Bytes::from(vec![b' '; bytes])))
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_and_the_rest_is_not() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[100], 1);
    let origin = origin(&registry);
    let status = |status, body: &str| Trouble::Status { status, headers: Vec::new(), body: body.into() };

    registry.inject(Fault { times: 2, ..Fault::once("/manifests/", status(502, "")) });
    registry.inject(Fault::once("/manifests/", Trouble::Cut { after: 10 }).on(Method::GET));
    assert_eq!(origin.manifest(&app(), &tag("v1")).await.unwrap().digest, image.digest);

    // As often as configured, and the first time.
    registry.inject(Fault::always("/manifests/bad", status(500, "out of order")));
    let error = origin.manifest(&app(), &tag("bad")).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Status { status: 500, .. }));
    assert_eq!(registry.traffic(|path| path.ends_with("/bad")).requests, 1 + 3);
    assert_eq!(error.to_string(), format!("{}/team/app: status 500: out of order", registry.name()));

    let error = origin.manifest(&app(), &tag("none")).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::NotFound { .. }));
    assert_eq!(registry.traffic(|path| path.ends_with("/none")).requests, 1);
    let line = error.to_string();
    assert!(line.contains("team/app: status 404, not found: MANIFEST_UNKNOWN"), "{line}");

    registry.inject(Fault::once(
        "/manifests/",
        status(403, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\nway\"}]}"),
    ));
    let error = origin.manifest(&app(), &tag("v1")).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unauthorized { status: 403, .. }));
    assert!(error.to_string().ends_with("status 403, access denied: DENIED no way"), "{error}");
}
