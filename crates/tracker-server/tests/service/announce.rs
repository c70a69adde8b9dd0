//! Announces, leases, directives, links.

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use shoal_chain::{Link, LinkBatch, LinkRun, SignedLinks};
use shoal_tracker_server::client::{AnnounceFailure, Event, NodeIdentity};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Geometry};
use shoal_wire::codec::{decode_outcomes, encode_announces};
use shoal_wire::{Announce, AnnounceEvent, Directive, LeaseRequest, LeaseState, Notice};

use crate::harness::{Bare, Cluster, digest, started};

pub(crate) fn links(identity: &NodeIdentity, epoch: u64) -> SignedLinks {
    let announce = started(digest(7));
    let geometry = Geometry::new(announce.size_bytes, ChunkSize::for_blob(announce.size_bytes)).unwrap();
    let run = LinkRun::single(ChunkIndex::new(0), Link::initial(Algorithm::Sha256));
    let batch = LinkBatch { blob: BlobInfo { digest: announce.digest, geometry }, epoch, run };
    let signature = identity.sign(&batch.signed_bytes());
    SignedLinks { batch, publisher: identity.node(), signature }
}

pub(crate) fn report(epoch: u64, links: Vec<SignedLinks>) -> Announce {
    let lease = LeaseRequest::Holding { epoch, frontier: ChunkIndex::new(1), backlog: 0 };
    Announce { event: AnnounceEvent::Progress, lease, links, ..started(digest(7)) }
}

#[tokio::test]
async fn the_first_gets_the_lease_and_when_it_goes_the_next_one_is_told() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let [a, mut b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let grant = a.leads(digest(7)).await;

    let waiting = b.client.announce(&[started(digest(7))]).await.remove(0).unwrap();
    let lead = a.identity().await;
    assert_eq!(waiting.reply.lease, LeaseState::HeldBy(lead.node()));
    assert_eq!(waiting.contacts, [lead.certificate().contact.clone()], "whoever is named can be found");
    assert_eq!(b.client.known_contact(lead.node()), Some(lead.certificate().contact.clone()));
    assert_eq!(b.client.contacts(&[lead.node()]).await.unwrap(), waiting.contacts);
    assert_eq!(b.client.members(10).await.unwrap(), waiting.contacts);
    assert_eq!(b.client.keys(&[lead.node()]).await.unwrap()[&lead.node()], [lead.certificate().key]);

    a.stop().await;
    let is_lease = |event: &Event| matches!(event, Event::Notice(Notice { directive: Directive::Lease { .. }, .. }));
    let Event::Notice(Notice { directive: Directive::Lease { grant: next, .. }, .. }) = b.event(is_lease).await else {
        unreachable!("that is what was waited for");
    };
    assert!(next.epoch > grant.epoch);
    b.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn links_are_taken_from_who_signed_them() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let [lead, other] = [a.identity().await, b.identity().await];
    let grant = a.leads(digest(7)).await;

    let mut unsigned = links(&lead, grant.epoch);
    unsigned.signature = links(&other, grant.epoch).signature;
    for wrong in [unsigned, links(&other, grant.epoch)] {
        let refused = a.client.announce(&[report(grant.epoch, vec![wrong])]).await.remove(0).unwrap_err();
        let AnnounceFailure::Refused(refusal) = refused else { panic!("{refused:?}") };
        assert!(refusal.reason().contains("signature"), "{}", refusal.reason());
    }
    let forged = LeaseRequest::Holding { epoch: grant.epoch, frontier: ChunkIndex::new(1), backlog: 0 };
    let as_lead = Announce { lease: forged, links: vec![links(&lead, grant.epoch)], ..started(digest(7)) };
    assert!(b.client.announce(&[as_lead]).await[0].is_err(), "nobody announces what another one signed");
    assert!(tracker.metrics().contains("shoal_tracker_forged_links_total 3"), "{}", tracker.metrics());

    a.client.announce(&[report(grant.epoch, vec![links(&lead, grant.epoch)])]).await.remove(0).unwrap();
    let newcomer = b.client.announce(&[started(digest(7))]).await.remove(0).unwrap();
    assert_eq!(newcomer.reply.links, [links(&lead, grant.epoch)]);
    let keys = b.client.keys(&[lead.node()]).await.unwrap();
    let signed = &newcomer.reply.links[0];
    assert!(keys[&lead.node()].iter().any(|key| key.verifies(&signed.batch.signed_bytes(), &signed.signature)));
    a.stop().await;
    b.stop().await;
    tracker.stop().await;
}

/// Opens a stream and reads its hello, so that nothing waits in it.
async fn stream(bare: &Bare, instance: u32) -> Incoming {
    let request = hyper::Request::get(format!("https://127.0.0.1/v1/events?instance={instance}"));
    let response = bare.open(request.body(Default::default()).unwrap()).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.expect("a hello comes").unwrap();
    body
}

#[tokio::test]
async fn a_lead_that_reconnects_keeps_its_lease_and_one_that_was_restarted_doesnt() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let identity = node.identity().await;
    node.stop().await;
    let bare = Bare::as_node(tracker.address, &identity).await;
    let ended = async || tracker.handle.snapshot(0, 0).await.unwrap().counters.leases_ended.len();
    let _first = stream(&bare, 1).await;
    let body = encode_announces([(0, &started(digest(7)))]).unwrap().freeze();
    let (_, answer) = bare.ask("POST", "/v1/announce", body).await.unwrap();
    let granted = decode_outcomes(&answer).unwrap().remove(0).1.unwrap();
    assert!(matches!(granted.reply.lease, LeaseState::Granted(_)));
    let _second = stream(&bare, 1).await;
    assert_eq!(ended().await, 0);
    let _third = stream(&bare, 2).await;
    assert_eq!(ended().await, 1);
    tracker.stop().await;
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_a_refusal_is_one_announces_own() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let node = cluster.node("a", &tracker).await;
    let mut batch: Vec<Announce> = (0..100).map(|byte| started(digest(byte))).collect();
    batch[50].size_bytes = u64::MAX;
    let results = node.client.announce(&batch).await;
    for (at, result) in results.iter().enumerate() {
        match result {
            Ok(accepted) => assert_eq!(accepted.reply.key.digest, batch[at].digest),
            Err(failure) => assert!(at == 50 && matches!(failure, AnnounceFailure::Refused(_)), "{at}: {failure}"),
        }
    }
    assert_eq!(tracker.handle.snapshot(200, 0).await.unwrap().blobs_known, 99);

    // By hand: who has no stream isn't connected; then the limits of a request.
    let identity = node.identity().await;
    node.stop().await;
    let bare = Bare::as_node(tracker.address, &identity).await;
    let one = encode_announces([(9, &started(digest(1)))]).unwrap().freeze();
    let (status, answer) = bare.ask("POST", "/v1/announce", one).await.unwrap();
    assert_eq!(status, 200);
    let outcomes = decode_outcomes(&answer).unwrap();
    assert!(
        outcomes[0].0 == 9 && outcomes[0].1.as_ref().unwrap_err().reason().contains("isn't connected"),
        "{outcomes:?}"
    );
    let many = started(digest(1));
    let many = encode_announces((0..4_097).map(|id| (id, &many))).unwrap().freeze();
    assert_eq!(bare.ask("POST", "/v1/announce", many).await.unwrap().0, 400);
    assert_eq!(bare.ask("POST", "/v1/announce", vec![0; (8 << 20) + 1]).await.unwrap().0, 413);
    assert_eq!(bare.ask("POST", "/v1/announce", "").await.unwrap().0, 400);
    tracker.stop().await;
}

#[tokio::test]
async fn who_announces_too_much_is_told_when_to_come_back() {
    let mut cluster = Cluster::new();
    (cluster.limits.announces_per_second, cluster.limits.announce_burst) = (1, 10);
    let tracker = cluster.tracker().await;
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let batch: Vec<Announce> = (0..10).map(|byte| started(digest(byte))).collect();
    assert!(a.client.announce(&batch).await.iter().all(Result::is_ok));
    let again = a.client.announce(&batch).await;
    let wait = |result: &Result<_, _>| match result {
        Err(AnnounceFailure::TooMany { retry_after }) => Some(retry_after.as_secs()),
        _ => None,
    };
    assert!(again.iter().all(|result| wait(result).is_some_and(|wait| (1..=10).contains(&wait))), "{again:?}");
    assert!(b.client.announce(&batch).await.iter().all(Result::is_ok), "each node has its own measure");
    a.stop().await;
    b.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_node_that_floods_the_tracker_doesnt_stop_another_one() {
    let mut cluster = Cluster::new();
    (cluster.limits.announces_per_second, cluster.limits.announce_burst) = (1_000_000, 1_000_000);
    let tracker = cluster.tracker().await;
    let [a, b] = [cluster.node("a", &tracker).await, cluster.node("b", &tracker).await];
    let identity = a.identity().await;
    let announces: Vec<Announce> = (0..=255).map(|byte| started(digest(byte))).collect();
    let body =
        encode_announces(announces.iter().enumerate().map(|(id, announce)| (u32::try_from(id).unwrap(), announce)));
    let body = body.unwrap().freeze();
    let flood: Vec<_> = (0..16)
        .map(|_| {
            let (identity, body, address) = (identity.clone(), body.clone(), tracker.address);
            tokio::spawn(async move {
                let bare = Bare::as_node(address, &identity).await;
                while bare.ask("POST", "/v1/announce", body.clone()).await.is_ok() {}
            })
        })
        .collect();
    for byte in 0..20 {
        let answer = tokio::time::timeout(crate::harness::LONG, b.client.announce(&[started(digest(byte))])).await;
        assert!(answer.expect("an answer comes").remove(0).is_ok());
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    let metrics = tracker.metrics();
    assert!(metrics.contains(r#"connections_refused_total{reason="connections_per_node"}"#), "{metrics}");
    a.stop().await;
    b.stop().await;
    tracker.stop().await;
}
