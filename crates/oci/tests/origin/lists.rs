//! Tags and referrers, passed on as they come.

use bytes::Bytes;
use http::header;
use serde_json::json;
use shoal_oci::origin::Cause;
use shoal_oci::paths::Page;
use shoal_oci::testing::{Fault, Trouble};

use super::{app, origin, registry};

#[tokio::test]
async fn tags_come_in_pages() {
    let registry = registry().await;
    for tag in ["a", "b", "c"] {
        registry.push_image(&app(), tag, &[10], 1);
    }
    let origin = origin(&registry);
    let all = origin.tags(&app(), &Page::default()).await.unwrap();
    assert_eq!(all.body, json!({"name": "team/app", "tags": ["a", "b", "c"]}).to_string());
    assert!(all.headers.get(header::LINK).is_none());
    let page = origin.tags(&app(), &Page { limit: Some(1), after: Some("a".into()) }).await.unwrap();
    assert!(page.body.ends_with(b"[\"b\"]}"));
    assert_eq!(page.headers[header::LINK], "</v2/team/app/tags/list?n=1&last=b>; rel=\"next\"");
}

#[tokio::test]
async fn referrers_come_filtered_and_a_registry_may_know_none() {
    let registry = registry().await;
    let image = registry.push_image(&app(), "v1", &[10], 1);
    let kinds = ["application/signature", "application/sbom"];
    for kind in kinds {
        let manifest = json!({"artifactType": kind, "subject": {"digest": image.digest.to_string()}});
        registry.push_manifest(&app(), None, "application/x", Bytes::from(manifest.to_string()));
    }
    let origin = origin(&registry);
    let all = origin.referrers(&app(), &image.digest, None).await.unwrap();
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    assert!(kinds.iter().all(|kind| text.contains(kind)));
    let one = origin.referrers(&app(), &image.digest, Some(kinds[0])).await.unwrap();
    assert!(!String::from_utf8(one.body.to_vec()).unwrap().contains(kinds[1]));
    assert_eq!(one.headers["oci-filters-applied"], "artifactType");

    registry
        .inject(Fault::once("/referrers/", Trouble::Status { status: 404, headers: Vec::new(), body: "page".into() }));
    let error = origin.referrers(&app(), &image.digest, None).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::NotFound { .. }));
}
