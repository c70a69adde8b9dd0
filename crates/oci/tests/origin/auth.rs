//! Challenges, tokens, passwords; and what a busy registry says.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use shoal_oci::origin::{Cause, Origin, PullToken};
use shoal_oci::testing::{Access, Fault, Options, Registry, Trouble};
use shoal_oci::{Credentials, Reference, Repository};

use super::{app, origin, origin_with, read};

const HOUR: Duration = Duration::from_secs(3600);

async fn with_access(access: Access) -> Registry {
    let registry = Registry::start(Options { access, ..Options::default() }).await.unwrap();
    registry.push_image(&app(), "v1", &[3_000_000], 1);
    registry
}

fn user() -> Option<(String, String)> {
    Some(("ann".into(), "geheim".into()))
}

fn as_ann(registry: &Registry) -> Origin {
    origin_with(registry, |config| config.credentials = Credentials::Basic("ann".into(), "geheim".into()))
}

fn v1() -> Reference {
    "v1".parse().unwrap()
}

fn token_requests(registry: &Registry) -> u64 {
    registry.traffic(|path| path == "/token").requests
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_who_wait_and_used_until_it_expires() {
    let registry = with_access(Access::Token { user: None, holds: HOUR }).await;
    let origin = origin(&registry);
    let got = join_all((0..8).map(|_| async { origin.manifest(&app(), &v1()).await })).await;
    assert!(got.iter().all(Result::is_ok));
    assert_eq!(token_requests(&registry), 1);

    // A big blob's parts use it too.
    let image = registry.push_image(&app(), "v1", &[3_000_000], 1);
    let layer = &image.layers[0];
    let (bytes, error) = read(origin.blob(&app(), layer.digest, layer.size_bytes, 0..layer.size_bytes)).await;
    assert!(error.is_none() && bytes.len() as u64 == layer.size_bytes);
    assert_eq!(token_requests(&registry), 1);

    // Another repository is another scope; its token is fetched ahead of any challenge.
    let other: Repository = "team/other".parse().unwrap();
    registry.push_image(&other, "v1", &[100], 2);
    origin.manifest(&other, &v1()).await.unwrap();
    assert_eq!(token_requests(&registry), 2);
    assert_eq!(registry.traffic(|path| path.contains("/team/other/")).requests, 1);

    // A token that the registry no longer takes is replaced.
    registry.revoke_tokens();
    origin.manifest(&app(), &v1()).await.unwrap();
    assert_eq!(token_requests(&registry), 3);
}

#[tokio::test]
async fn an_expired_token_is_fetched_again() {
    let registry = with_access(Access::Token { user: None, holds: Duration::from_secs(1) }).await;
    let origin = origin(&registry);
    let token = origin.pull_token(&app()).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while !token.holds().is_zero() {
            tokio::time::sleep(token.holds()).await;
        }
    })
    .await
    .unwrap();
    origin.manifest(&app(), &v1()).await.unwrap();
    assert_eq!(token_requests(&registry), 2);
}

#[tokio::test]
async fn a_password_goes_to_the_token_server_only() {
    let registry = with_access(Access::Token { user: user(), holds: HOUR }).await;
    as_ann(&registry).manifest(&app(), &v1()).await.unwrap();
    assert_eq!(registry.traffic(|path| path == "/token").authorized, 1);

    let error = origin(&registry).manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unauthorized { status: 401, .. }), "{error}");
    let wrong = origin_with(&registry, |config| config.credentials = Credentials::Basic("ann".into(), "?".into()));
    let error = wrong.manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unauthorized { .. }));
    assert!(error.to_string().contains("who are you?"), "{error}");
}

#[tokio::test]
async fn basic_is_answered_where_it_is_asked_for_and_configured() {
    let registry = with_access(Access::Basic { user: "ann".into(), password: "geheim".into() }).await;
    let origin_ = as_ann(&registry);
    origin_.manifest(&app(), &v1()).await.unwrap();
    let before = registry.traffic(|_| true);
    assert_eq!((before.requests, before.authorized), (2, 1), "the password waits for the challenge");
    origin_.manifest(&app(), &v1()).await.unwrap();
    assert_eq!(registry.traffic(|_| true).requests, 3, "and then it goes along");
    assert!(origin_.pull_token(&app()).await.unwrap().is_none());

    let error = origin(&registry).manifest(&app(), &v1()).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Unauthorized { .. }));
    assert_eq!(registry.traffic(|_| true).authorized, before.authorized + 1, "nothing to send, nothing sent");
}

#[tokio::test]
async fn a_lead_uses_the_token_that_it_was_handed() {
    let registry = with_access(Access::Token { user: user(), holds: HOUR }).await;
    let token = as_ann(&registry).pull_token(&app()).await.unwrap().unwrap();
    let handed = PullToken::new(token.secret(), token.holds()).unwrap();

    let lead = origin(&registry);
    lead.adopt_token(&app(), handed);
    lead.manifest(&app(), &v1()).await.unwrap();
    assert_eq!(token_requests(&registry), 1);
    let other = lead.manifest(&"team/other".parse().unwrap(), &v1()).await.unwrap_err();
    assert!(matches!(other.cause(), Cause::Unauthorized { .. }), "it is for one repository");

    let configured = origin_with(&registry, |config| config.credentials = Credentials::Bearer(token.secret().into()));
    configured.manifest(&app(), &v1()).await.unwrap();
}

#[tokio::test]
async fn a_realm_that_leads_astray_is_refused() {
    let registry = with_access(Access::Token { user: user(), holds: HOUR }).await;
    for realm in [
        "http://169.254.169.254/token",
        "https://169.254.169.254/token",
        "http://elsewhere.example/token",
        "file:///etc/passwd",
        "https://[::1]/token",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        let trouble = Trouble::Header { name: "www-authenticate", value: Some(challenge) };
        registry.inject(Fault::once("/manifests/", trouble));
        let error = as_ann(&registry).manifest(&app(), &v1()).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::Refused(_)), "{realm}: {error}");
    }
    assert_eq!(token_requests(&registry), 0);
}

#[tokio::test]
async fn a_token_servers_nonsense_is_an_error() {
    let registry = with_access(Access::Token { user: None, holds: HOUR }).await;
    for body in ["", "{}", "{\"token\":\"\"}", "{\"token\":\"a\\nb\"}", "[]"] {
        registry.inject(Fault::once("/token", Trouble::Status { status: 200, headers: Vec::new(), body: body.into() }));
        let error = origin(&registry).manifest(&app(), &v1()).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::Protocol(_)), "{body}: {error}");
    }
    let body = format!("{{\"token\":\"{}\"}}", "x".repeat(100_000));
    registry.inject(Fault::once("/token", Trouble::Status { status: 200, headers: Vec::new(), body }));
    assert!(matches!(origin(&registry).manifest(&app(), &v1()).await.unwrap_err().cause(), Cause::TooLarge { .. }));
}

#[tokio::test]
async fn a_busy_registry_is_left_alone_for_as_long_as_it_says() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1000));
    for (status, retry_after, at_least, path) in
        [(429, "120", 119, "/manifests/"), (503, date.as_str(), 990, "/manifests/"), (429, "7", 6, "/token")]
    {
        let registry = with_access(Access::Token { user: None, holds: HOUR }).await;
        let origin = origin(&registry);
        let busy = Trouble::Status { status, headers: vec![("retry-after", retry_after.into())], body: String::new() };
        registry.inject(Fault::once(path, busy));
        let error = origin.manifest(&app(), &v1()).await.unwrap_err();
        assert!(error.retry_after().unwrap() >= Duration::from_secs(at_least), "{error}");

        // From then on without a request, for everything of this registry.
        let before = registry.traffic(|_| true).requests;
        let image = registry.push_image(&app(), "v1", &[100], 1);
        let error = read(origin.blob(&app(), image.config.digest, image.config.size_bytes, 0..1)).await.1.unwrap();
        assert!(matches!(error.cause(), Cause::Busy { status: said, .. } if *said == status));
        assert!(error.to_string().contains(&format!("status {status}, busy for another")), "{error}");
        assert_eq!(registry.traffic(|_| true).requests, before);
    }
}
