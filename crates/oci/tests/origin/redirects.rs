//! Redirects: to storage and back, never with our credentials, never where the guard says no.

use std::time::Duration;

use shoal_oci::Credentials;
use shoal_oci::guard::Reason;
use shoal_oci::origin::{Cause, Origin};
use shoal_oci::testing::{Access, Content, Fault, Options, Registry, Trouble};
use shoal_types::Digest;

use super::{app, origin_with, read, registry};

const SIZE: u64 = 3_000_000;

/// A registry with tokens, and its storage, which is open; both have the blob.
async fn with_storage() -> (Registry, Registry, Digest) {
    let access = Access::Token { user: None, holds: Duration::from_secs(60) };
    let registry = Registry::start(Options { access, ..Options::default() }).await.unwrap();
    let storage = super::registry().await;
    let digest = registry.push_blob(&app(), Content::random(1, SIZE));
    storage.push_blob(&app(), Content::random(1, SIZE));
    (registry, storage, digest)
}

fn to(storage: &Registry) -> Trouble {
    Trouble::Redirect { to: format!("http://{}{{path}}?signature=secret", storage.address()) }
}

fn allowing(registry: &Registry, storage: &Registry) -> Origin {
    origin_with(registry, |config| config.allowed_hosts = vec![storage.name().clone()])
}

#[tokio::test]
async fn later_parts_ask_the_storage_directly_and_without_the_token() {
    let (registry, storage, digest) = with_storage().await;
    registry.inject(Fault::always("/blobs/", to(&storage)));
    let origin = allowing(&registry, &storage);
    let (bytes, error) = read(origin.blob(&app(), digest, SIZE, 0..SIZE)).await;
    assert!(error.is_none(), "{error:?}");
    assert!(bytes == Content::random(1, SIZE).to_bytes());
    assert!(registry.blob_traffic().requests <= 2, "the challenge and the redirect");
    let stored = storage.blob_traffic();
    assert!(stored.requests > 3);
    assert_eq!((stored.authorized, stored.body_bytes), (0, SIZE));
}

#[tokio::test]
async fn a_signature_that_expires_is_renewed_at_the_registry() {
    let (registry, storage, digest) = with_storage().await;
    registry.inject(Fault::always("/blobs/", to(&storage)));
    let origin = allowing(&registry, &storage);
    let mut blob = origin.blob(&app(), digest, SIZE, 0..SIZE);
    let first = blob.next().await.unwrap().unwrap();
    let expired = Trouble::Status { status: 403, headers: Vec::new(), body: "expired".into() };
    storage.inject(Fault::once("/blobs/", expired));
    let (rest, error) = read(blob).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((first.len() + rest.len()) as u64, SIZE);
}

#[tokio::test]
async fn an_error_at_the_storage_names_it_and_keeps_its_signature_secret() {
    let (registry, storage, digest) = with_storage().await;
    registry.inject(Fault::always("/blobs/", to(&storage)));
    storage.inject(Fault::always("/blobs/", Trouble::Status { status: 403, headers: Vec::new(), body: "no".into() }));
    let error = read(allowing(&registry, &storage).blob(&app(), digest, SIZE, 0..SIZE)).await.1.unwrap();
    let line = error.to_string();
    assert_eq!(line, format!("{}/team/app: status 403, access denied: no (at {})", registry.name(), storage.address()));
    drop(storage);
    let (registry, storage, digest) = with_storage().await;
    registry.inject(Fault::always("/blobs/", to(&storage)));
    let origin = allowing(&registry, &storage);
    let address = storage.address();
    drop(storage);
    let line = read(origin.blob(&app(), digest, SIZE, 0..SIZE)).await.1.unwrap().to_string();
    assert!(line.contains("unreachable") && line.contains(&format!("(at {address})")), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn a_password_stays_with_its_registry() {
    let access = Access::Basic { user: "ann".into(), password: "geheim".into() };
    let registry = Registry::start(Options { access, ..Options::default() }).await.unwrap();
    let storage = super::registry().await;
    let digest = storage.push_blob(&app(), Content::random(1, 1000));
    registry.inject(Fault::always("/blobs/", to(&storage)));
    // The storage sends us back: still without it.
    storage.inject(Fault::once("/blobs/", Trouble::Redirect { to: format!("http://{}/v2/back", registry.address()) }));
    let origin = origin_with(&registry, |config| {
        config.allowed_hosts = vec![storage.name().clone()];
        config.credentials = Credentials::Basic("ann".into(), "geheim".into());
    });
    registry.inject(Fault::once("/v2/back", Trouble::Redirect { to: format!("http://{}{{path}}", storage.address()) }));
    let _ = read(origin.blob(&app(), digest, 1000, 0..1000)).await;
    assert_eq!(storage.traffic(|_| true).authorized, 0);
    assert_eq!(registry.traffic(|path| path == "/v2/back").authorized, 0);
    assert_eq!(registry.traffic(|path| path == "/v2/back").requests, 1);
}

#[tokio::test]
async fn where_the_guard_says_no_nobody_goes() {
    let registry = registry().await;
    let inner = super::registry().await;
    let digest = registry.push_blob(&app(), Content::random(1, 1000));
    let here = inner.address();
    let cases = [
        (format!("http://{here}/v2/"), Reason::Loopback),
        (format!("https://{here}/v2/"), Reason::Loopback),
        ("https://169.254.169.254/latest/meta-data/".into(), Reason::LinkLocal),
        ("https://metadata.google.internal/".into(), Reason::Name),
        (format!("https://user@{here}/"), Reason::UserInfo),
        ("ftp://files.example/".into(), Reason::Scheme),
        ("https://".into(), Reason::NoUrl),
        (format!("https://files.example/{}", "x".repeat(9000)), Reason::TooLong),
    ];
    let origin = super::origin(&registry);
    for (to, reason) in cases {
        registry.inject(Fault::once("/blobs/", Trouble::Redirect { to: to.clone() }));
        let error = read(origin.blob(&app(), digest, 1000, 0..1000)).await.1.unwrap();
        assert!(matches!(error.cause(), Cause::Refused(refused) if refused.reason == reason), "{to}: {error}");
    }
    assert_eq!(inner.traffic(|_| true).requests, 0);
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn five_redirects_are_enough() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[100], 1);
    let around = Trouble::Redirect { to: format!("http://{}{{path}}", registry.address()) };
    registry.inject(Fault { times: 5, ..Fault::once("/manifests/", around.clone()) });
    let origin = super::origin(&registry);
    let reference = "v1".parse().unwrap();
    assert_eq!(origin.manifest(&app(), &reference).await.unwrap().digest, image.digest);
    registry.inject(Fault::always("/manifests/", around));
    let before = registry.traffic(|_| true).requests;
    let error = origin.manifest(&app(), &reference).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Refused(refused) if refused.reason == Reason::TooMany), "{error}");
    assert_eq!(registry.traffic(|_| true).requests - before, 6);
}
