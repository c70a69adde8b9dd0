//! Whether the control plane knows users and service accounts as a cluster does: the tests of the operator's identities stand on it.

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

#[tokio::test]
async fn tokens_are_reviewed_and_permissions_asked_for() {
    let Some(plane) = super::control_plane().await else { return };
    let admin = plane.admin().unwrap().client().await.unwrap();
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent"}});
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    accounts.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();

    let spec = TokenRequestSpec { audiences: vec!["shoal".to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request("agent", &PostParams::default(), &request).await.unwrap();
    let token = answer.status.unwrap().token;
    for (token, audience, user) in [
        (token.as_str(), "shoal", Some("system:serviceaccount:default:agent")),
        (token.as_str(), "other", None),
        ("forged", "shoal", None),
    ] {
        assert_eq!(review(&admin, token, audience).await.as_deref(), user, "for {audience}");
    }

    let agent = plane.service_account("default", "agent").await.unwrap().client().await.unwrap();
    let user = plane.user("jane", &["developers"]).unwrap().client().await.unwrap();
    for client in [agent, user] {
        let namespaces: Api<Namespace> = Api::all(client);
        let kube::Error::Api(refused) = namespaces.list(&ListParams::default()).await.unwrap_err() else {
            panic!("not an answer")
        };
        // Known, and not allowed.
        assert_eq!(refused.code, 403, "{refused:?}");
    }
    plane.stop().await;
}

/// The user that the API server knows the token's bearer as.
async fn review(client: &Client, token: &str, audience: &str) -> Option<String> {
    let spec = TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.to_owned()) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    let status = answer.status.unwrap();
    status.user.filter(|_| status.authenticated == Some(true)).and_then(|user| user.username)
}
