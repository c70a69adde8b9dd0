//! Several replicas: who owns what, and what happens when one goes, or comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use shoal_tracker::{ReplicaName, rendezvous};
use shoal_tracker_server::Replica;
use shoal_tracker_server::client::Event;
use shoal_types::Digest;
use shoal_wire::Announce;

use crate::harness::{Cluster, digest, start, started};

fn replica(name: &str, address: SocketAddr) -> Replica {
    Replica { name: ReplicaName::new(name).unwrap(), address: address.into() }
}

fn is_changed(event: &Event) -> bool {
    matches!(event, Event::TrackerChanged { .. })
}

#[tokio::test]
async fn digests_go_to_their_owner_and_to_the_next_one_when_it_is_gone() {
    let cluster = Cluster::new();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let [t0, t1] = [cluster.replica("t0", any, Vec::new()).await, cluster.replica("t1", any, Vec::new()).await];
    let all = vec![replica("t0", t0.address), replica("t1", t1.address)];
    for tracker in [&t0, &t1] {
        tracker.handle.set_replicas(all.clone()).await.unwrap();
    }
    // It knows one and hears of the other.
    let mut node = start(cluster.config("a", &[t0.address])).await;
    node.connected().await;
    let names: Vec<ReplicaName> = all.iter().map(|replica| replica.name.clone()).collect();
    let owned_by = |at: usize, digest: &Digest| rendezvous(digest, &names)[0] == at;
    let digests: Vec<Digest> = (0..40).map(digest).collect();
    let of_1: BTreeSet<Digest> = digests.iter().filter(|digest| owned_by(1, digest)).copied().collect();
    let first = *of_1.first().unwrap();
    while node.client.tracker_of(&first).is_none_or(|owner| owner != names[1]) {
        tokio::task::yield_now().await;
    }

    let batch: Vec<Announce> = digests.iter().copied().map(started).collect();
    assert!(node.client.announce(&batch).await.iter().all(Result::is_ok));
    let count = async |tracker: &crate::harness::Running| tracker.handle.snapshot(0, 0).await.unwrap().blobs_known;
    assert_eq!((count(&t0).await, count(&t1).await), (digests.len() - of_1.len(), of_1.len()));

    let address = t1.address;
    t1.stop().await;
    let Event::TrackerChanged { digests: moved } = node.event(is_changed).await else { unreachable!("waited for") };
    assert_eq!(moved.iter().copied().collect::<BTreeSet<_>>(), of_1);
    let again: Vec<Announce> = moved.into_iter().map(started).collect();
    assert!(node.client.announce(&again).await.iter().all(Result::is_ok));
    assert_eq!(count(&t0).await, digests.len());

    // It comes back, with no memory, and its digests go back to it.
    let t1 = cluster.replica("t1", address, all.clone()).await;
    let Event::TrackerChanged { digests: moved } = node.event(is_changed).await else { unreachable!("waited for") };
    assert_eq!(moved.iter().copied().collect::<BTreeSet<_>>(), of_1);
    assert!(node.client.announce(&again).await.iter().all(Result::is_ok));
    assert_eq!(count(&t1).await, of_1.len());

    // Taken off the list: its stream is left, and the digests move at once.
    t0.handle.set_replicas(all[..1].to_vec()).await.unwrap();
    node.event(is_changed).await;
    assert_eq!(node.client.tracker_of(&first), Some(names[0].clone()));
    node.stop().await;
    t0.stop().await;
    t1.stop().await;
}

#[tokio::test]
async fn without_any_tracker_a_node_says_so_and_goes_on_when_one_is_back() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let mut node = cluster.node("a", &tracker).await;
    let other = cluster.node("b", &tracker).await;
    node.client.announce(&[started(digest(3))]).await.remove(0).unwrap();
    node.client.members(10).await.unwrap();
    let known = other.identity().await.certificate().contact.clone();
    other.stop().await;

    let address = tracker.address;
    tracker.stop().await;
    node.event(|event| *event == Event::TrackersLost).await;
    assert!(!node.client.has_tracker());
    assert!(node.client.announce(&[started(digest(3))]).await[0].is_err());
    assert!(node.client.members(10).await.is_err());
    assert_eq!(node.client.known_contacts(), std::slice::from_ref(&known), "whom it knew it knows");
    node.stop().await;

    // A restart changes nothing about that, and the identity is there at once.
    let mut node = start(cluster.config("a", &[address])).await;
    assert!(node.client.identity().borrow().is_some());
    assert_eq!(node.client.known_contacts(), [known]);

    let tracker = cluster.replica("t0", address, Vec::new()).await;
    node.event(|event| *event == Event::TrackersFound).await;
    node.client.announce(&[started(digest(3))]).await.remove(0).unwrap();

    // The same process, another incarnation of the tracker: what it was told is gone.
    tracker.stop().await;
    node.event(|event| *event == Event::TrackersLost).await;
    let tracker = cluster.replica("t0", address, Vec::new()).await;
    node.event(|event| *event == Event::TrackersFound).await;
    assert_eq!(node.event(is_changed).await, Event::TrackerChanged { digests: vec![digest(3)] });
    node.stop().await;
    tracker.stop().await;
}

#[tokio::test]
async fn a_cluster_that_was_set_up_anew_is_joined_with_the_new_token() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker().await;
    let address = tracker.address;
    let node = cluster.node("a", &tracker).await;
    node.stop().await;
    tracker.stop().await;

    let anew = Cluster::new();
    let tracker = anew.replica("t0", address, Vec::new()).await;
    let mut config = anew.config("a", &[address]);
    config.state_dir = cluster.dir.path().join("a");
    let mut node = start(config).await;
    node.connected().await;
    assert!(node.client.announce(&[started(digest(1))]).await[0].is_ok());
    node.stop().await;
    tracker.stop().await;
}
