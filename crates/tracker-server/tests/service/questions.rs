//! Names, the Swarm's document, and stopping while somebody asks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use shoal_tracker_server::client::{ClientError, Event};
use shoal_tracker_server::{ImageName, ResolveError, SecretKind, SignedRecord};
use shoal_wire::LeaseState;
use tokio::time::timeout;

use crate::harness::{Cluster, LONG, Node, digest, started};

fn name() -> ImageName {
    ImageName::new("docker.io", "library/app", "latest").unwrap()
}

#[tokio::test]
async fn a_hundred_nodes_questions_are_one_at_the_origin() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let name = name();
    let asked = (0..100).map(|at| if at % 2 == 0 { a.client.resolve(&name) } else { b.client.resolve(&name) });
    let records: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert!(records.iter().all(|record| *record == records[0]));
    assert_eq!(records[0].record().digest, digest(1));
    assert_eq!(tracker.origin.asked.load(Ordering::Relaxed), 1);

    // What a node keeps it can check again, and another cluster's isn't believed.
    let kept = records[0].to_json();
    let trust = a.identity().await.trust().clone();
    assert_eq!(SignedRecord::from_json(&kept).unwrap().verify(&trust).unwrap(), records[0]);
    let other = Cluster::new();
    assert!(SignedRecord::from_json(&kept).unwrap().verify(other.authority.trust()).is_err());
    a.stop().await;
    b.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn what_the_origin_refuses_arrives_as_that() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let busy = ResolveError::Busy { retry_after: Duration::from_secs(30) };
    for (at, error) in [
        ResolveError::NotFound("manifest unknown".to_owned()),
        ResolveError::Denied("log in first".to_owned()),
        ResolveError::NotAllowed("it isn't configured".to_owned()),
        ResolveError::Unreachable("connection refused".to_owned()),
        busy,
    ]
    .into_iter()
    .enumerate()
    {
        *tracker.origin.says.lock().unwrap() = Err(error.clone());
        let name = ImageName::new("docker.io", "library/app", &format!("v{at}")).unwrap();
        let Err(ClientError::Resolve(refused)) = node.client.resolve(&name).await else { panic!("{error}") };
        match refused {
            ResolveError::Busy { retry_after } => assert!(retry_after > Duration::from_secs(20), "{retry_after:?}"),
            refused => assert_eq!(refused, error),
        }
    }
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn only_a_blobs_lead_gets_what_it_takes_to_pull() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let [lead, other] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let blob = digest(7);
    let ask = |node: &Node, registry: &'static str| {
        let client = node.client.clone();
        async move { client.pull_secret(registry, "team/app", &blob).await }
    };
    let no_lease = |error: ClientError| matches!(&error, ClientError::Refused { error, .. } if error == "no_lease");
    assert!(no_lease(ask(&lead, "private.example").await.unwrap_err()), "nobody leads yet");
    let granted = lead.client.announce(&[started(blob)]).await.remove(0).unwrap();
    assert!(matches!(granted.reply.lease, LeaseState::Granted(_)), "{granted:?}");
    other.client.announce(&[started(blob)]).await.remove(0).unwrap();
    let secret = ask(&lead, "private.example").await.unwrap().expect("there are credentials");
    assert_eq!(secret.kind, SecretKind::Token("geheim".to_owned()));
    assert!(no_lease(ask(&other, "private.example").await.unwrap_err()));
    assert_eq!(ask(&lead, "open.example").await.unwrap(), None);
    assert!(matches!(ask(&lead, "down.example").await, Err(ClientError::Resolve(ResolveError::Unreachable(_)))));
    assert!(!tracker.metrics().contains("geheim"));
    lead.stop().await;
    other.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_new_document_is_told_once_and_fetched() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let mut told = node.client.swarm_told();
    timeout(LONG, told.wait_for(|told| *told == 1)).await.expect("a tracker was reached").unwrap();
    let first = node.client.swarm(None).await.unwrap().unwrap();
    assert_eq!(first.bytes, "kind: Swarm");
    assert_eq!(node.client.swarm(Some(&first.version)).await.unwrap(), None, "it is here");

    tracker.handle.set_swarm(Bytes::from_static(b"kind: Swarm")).await.unwrap();
    tracker.handle.set_swarm(Bytes::from_static(b"kind: Swarm # another")).await.unwrap();
    timeout(LONG, told.wait_for(|told| *told == 2)).await.expect("it is told").unwrap();
    let second = node.client.swarm(Some(&first.version)).await.unwrap().unwrap();
    assert_eq!(second.bytes, "kind: Swarm # another");
    assert_eq!(*told.borrow(), 2, "the same one isn't told");
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_tracker_that_stops_ends_what_it_began() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let mut node = cluster.node("a", &tracker).await;
    tracker.origin.gate.forget_permits(1_000);
    let (client, name) = (node.client.clone(), name());
    let asking = tokio::spawn(async move { client.resolve(&name).await });
    while tracker.origin.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let origin = tracker.origin.clone();
    tracker.shutdown.cancel();
    node.event(|event| *event == Event::TrackersLost).await;
    origin.gate.add_permits(1);
    assert_eq!(asking.await.unwrap().unwrap().record().digest, digest(1), "the question was answered");
    tracker.ended().await;
    node.stop().await;
}
