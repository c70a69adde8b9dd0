//! What nodes report, and what each is given by its labels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_tracker_server::client::Reporter;
use shoal_tracker_server::{
    Admitted, ArtifactReport, ArtifactState, Identity, JoinRequest, JoinTokens, Labels, MAX_REPORT_BYTES, Refused,
    Report, SwarmSource,
};
use shoal_wire::Contact;
use tokio::time::timeout;

use crate::harness::{Bare, Cluster, LONG, Running, digest};

fn report(done_bytes: u64) -> Report {
    let artifact = ArtifactReport {
        swarm: "default".to_owned(),
        name: "model".to_owned(),
        digest: digest(7),
        state: ArtifactState::Fetching,
        done_bytes,
        total_bytes: 100,
        from_peers: done_bytes,
        from_origin: 0,
    };
    Report { artifacts: vec![artifact], ..Report::default() }
}

fn last(tracker: &Running) -> Vec<(String, Report)> {
    let reports = tracker.handle.reports().into_iter();
    reports.map(|report| (report.node.to_string(), (*report.report).clone())).collect()
}

#[tokio::test]
async fn the_last_report_of_each_node_is_kept_and_a_restarted_tracker_hears_it_again() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let (address, nodes) = (tracker.address, [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await]);
    let [mut of_a, mut of_b] = [Reporter::default(), Reporter::default()];
    nodes[0].client.report(&mut of_a, &report(1)).await;
    nodes[1].client.report(&mut of_b, &report(2)).await;
    nodes[0].client.report(&mut of_a, &report(3)).await;
    nodes[0].client.report(&mut of_a, &report(3)).await;
    let expected = vec![("a".to_owned(), report(3)), ("b".to_owned(), report(2))];
    let by_name = |mut reports: Vec<(String, Report)>| {
        reports.sort_by(|one, other| one.0.cmp(&other.0));
        reports
    };
    assert_eq!(by_name(last(&tracker)), expected);
    assert!(tracker.metrics().contains("route=\"/v1/report\",status=\"204\"} 3"), "{}", tracker.metrics());
    tracker.stop().await;
    let tracker = cluster.replica("t0", address, Vec::new()).await;
    let told = async {
        while last(&tracker).len() < 2 {
            nodes[0].client.report(&mut of_a, &report(3)).await;
            nodes[1].client.report(&mut of_b, &report(2)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, told).await.expect("it is told again");
    assert_eq!(by_name(last(&tracker)), expected);
    for node in nodes {
        node.stop().await;
    }
    tracker.stop().await;
}

#[tokio::test]
async fn what_is_malformed_oversized_or_foreign_changes_nothing() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    node.client.report(&mut Reporter::default(), &report(1)).await;
    let bare = Bare::as_node(tracker.address, &*node.identity().await).await;
    let traffic = r#""traffic":{"from_peers":0,"to_peers":0,"from_origin":0},"artifacts":[]"#;
    let good = format!(r#"{{"node":"a",{traffic}}}"#);
    let foreign = format!(r#"{{"node":"b",{traffic}}}"#);
    let long = format!("{good}{}", " ".repeat(MAX_REPORT_BYTES));
    for (body, status) in [("".to_owned(), 400), ("[]".to_owned(), 400), (foreign, 403), (long, 413)] {
        assert_eq!(bare.ask("POST", "/v1/report", body).await.unwrap().0, status);
    }
    assert_eq!(last(&tracker), [("a".to_owned(), report(1))]);
    let stranger = Bare::connect(tracker.address, cluster.authority.trust(), None).await;
    assert_eq!(stranger.ask("POST", "/v1/report", good.clone()).await.unwrap().0, 401);
    assert_eq!(bare.ask("GET", "/v1/report", "").await.unwrap().0, 405);
    assert_eq!(bare.ask("POST", "/v1/report", good).await.unwrap().0, 204);
    assert_eq!(last(&tracker), [("a".to_owned(), Report::default())]);
    node.stop().await;
    tracker.stop().await;
}

/// Join tokens, with labels besides, once they are known.
struct Labelling {
    tokens: JoinTokens,
    knows: AtomicBool,
}

impl Identity for Labelling {
    fn admit<'a>(
        &'a self,
        token: &'a str,
        request: &'a JoinRequest,
        source: std::net::IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        self.tokens.admit(token, request, source)
    }

    fn renew<'a>(
        &'a self,
        present: &'a Contact,
        request: &'a JoinRequest,
        source: std::net::IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        self.tokens.renew(present, request, source)
    }

    fn labels<'a>(&'a self, present: &'a Contact) -> BoxFuture<'a, Result<Option<Labels>, Refused>> {
        let labels = Labels::from([("name".to_owned(), present.name().to_string())]);
        let known = self.knows.load(Ordering::Relaxed);
        std::future::ready(known.then_some(Some(labels)).ok_or(Refused::Unavailable("starting".to_owned()))).boxed()
    }
}

#[tokio::test]
async fn a_document_is_its_readers_by_the_labels_of_the_identity_provider() {
    let cluster = Cluster::new();
    let identity = Labelling { tokens: JoinTokens::fixed([cluster.token.clone()]), knows: AtomicBool::new(false) };
    let identity = Arc::new(identity);
    let tracker = cluster.replica_with(Arc::clone(&identity) as _).await;
    let write =
        |labels: Option<&Labels>| labels.map_or_else(|| "all".to_owned(), |labels| format!("for {}", labels["name"]));
    tracker.handle.set_swarm(SwarmSource::new(move |labels| Bytes::from(write(labels)))).await.unwrap();
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    assert!(a.client.swarm(None).await.is_err(), "nobody knows yet what is for it");
    identity.knows.store(true, Ordering::Relaxed);
    let [for_a, for_b] = [a.client.swarm(None).await, b.client.swarm(None).await].map(|got| got.unwrap().unwrap());
    assert_eq!((&for_a.bytes[..], &for_b.bytes[..]), (&b"for a"[..], &b"for b"[..]));
    assert_ne!(for_a.version, for_b.version);
    assert_eq!(a.client.swarm(Some(&for_a.version)).await.unwrap(), None);
    assert!(a.client.swarm(Some(&for_b.version)).await.unwrap().is_some());
    a.stop().await;
    b.stop().await;
    tracker.stop().await;
}
