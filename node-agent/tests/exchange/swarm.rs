//! Blobs that come to every node.

use futures_util::future::join_all;
use tokio::time::timeout;

use shoal_agent::exchange::TransferError;
use shoal_tracker::LeaseConfig;

use crate::cluster::{Cluster, Kind, LONG, Node};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_gets_a_blob_from_the_origin() {
    let cluster = Cluster::new().await;
    let node = cluster.node("a").await;
    for size in [0, 1, 64 << 10, (64 << 10) + 1, 3 * MIB] {
        let (digest, bytes) = cluster.origin.add(size as u64, size);
        assert_eq!(node.read(digest, size).await, bytes, "{size} bytes");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_cost_the_origin_one_copy() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(7, 24 * MIB);
    let nodes = join_all(["a", "b", "c", "d", "e"].map(|name| cluster.node(name))).await;
    let read = join_all(nodes.iter().map(|node| node.read(digest, bytes.len()))).await;
    assert!(read.iter().all(|read| *read == bytes));
    let copies = cluster.origin.sent() as f64 / bytes.len() as f64;
    assert!(copies < 1.5, "{copies} copies left the origin");
    for node in nodes {
        let traffic = node.exchange.traffic();
        assert!(traffic.from_peers + traffic.from_origin >= bytes.len() as u64, "{traffic:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_the_next_one_gets_from_it_also_after_a_restart() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(8, 8 * MIB);
    let first = cluster.node("a").await;
    timeout(LONG, first.want(digest, bytes.len()).await.completed()).await.unwrap().unwrap();
    assert_eq!(cluster.origin.sent(), bytes.len() as u64);

    let first = cluster.node_again("a", first.stop().await).await;
    let kept = first.exchange.stored(&digest).expect("it is still here");
    assert_eq!(kept.progress(), (bytes.len() as u64, bytes.len() as u64));
    cluster.has_members(1).await;
    let second = cluster.node("b").await;
    assert_eq!(second.read(digest, bytes.len()).await, bytes);
    // The tracker believes nobody's claim to have everything without seeing it deliver: it may name a lead until then.
    let again = cluster.origin.sent() - bytes.len() as u64;
    assert!(again <= bytes.len() as u64 / 10, "{again} bytes were fetched again");
    assert!(first.exchange.traffic().to_peers >= bytes.len() as u64 * 9 / 10);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tracker_what_neighbours_have_still_comes_from_them() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(9, 8 * MIB);
    let [first, second] = [cluster.node("a").await, cluster.node("b").await];
    // A small blob first, so that the two know each other.
    let (small, small_bytes) = cluster.origin.add(10, 100);
    for node in [&first, &second] {
        assert_eq!(node.read(small, small_bytes.len()).await, small_bytes);
    }
    timeout(LONG, first.want(digest, bytes.len()).await.completed()).await.unwrap().unwrap();
    cluster.kill_tracker().await;
    let before = cluster.origin.sent();
    assert_eq!(second.read(digest, bytes.len()).await, bytes);
    assert_eq!(cluster.origin.sent(), before);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_s_chunks_reach_nobody() {
    // A liar that has led to the end claims to have everything, and nobody gets it there.
    let cluster = Cluster::with_claims_patience(LeaseConfig::default().claims_patience).await;
    let (digest, bytes) = cluster.origin.add(11, 16 * MIB);
    let honest = join_all(["a", "b", "c", "d"].map(|name| cluster.node(name))).await;
    let liars = join_all(["x", "y"].map(|name| cluster.node_that(name, Kind::Liar))).await;
    // Where a liar gets the lease its own links refute what it sends, and the blob is fetched anew: then a pull fails once.
    let wanted = join_all(liars.iter().map(|liar| liar.want(digest, bytes.len()))).await;
    let pulled = join_all(honest.iter().map(|node| pull(node, digest, bytes.len(), true))).await;
    assert!(pulled.iter().all(|(read, _)| *read == bytes));
    drop(wanted);
    for node in honest.into_iter().chain(liars) {
        node.stop().await;
    }
}

/// Reads a blob as a runtime does: a pull that fails is tried again. An eager one reads before all is proven. Also how many failed after they
/// had got something.
async fn pull(node: &Node, digest: shoal_types::Digest, size: usize, eager: bool) -> (Vec<u8>, usize) {
    let mut failures = 0;
    for _ in 0..5 {
        let transfer = node.want(digest, size).await;
        let given = eager && timeout(LONG, transfer.read(0, 1, false)).await.expect("it comes or fails").is_ok();
        let done = timeout(LONG, transfer.completed()).await.expect("it comes or fails");
        match done {
            Ok(()) => {
                let mut all = Vec::with_capacity(size);
                while all.len() < size {
                    all.extend_from_slice(&transfer.read(all.len() as u64, 256 << 10, true).await.unwrap());
                }
                return (all, failures);
            }
            Err(error) => assert_eq!(error, TransferError::ChainFailed),
        }
        failures += usize::from(given);
    }
    panic!("five pulls failed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_of_an_origin_are_kept_by_nobody() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(12, 8 * MIB);
    // It comes first and so it leads: it publishes links that fit its wrong bytes, until the last chunk doesn't give the digest.
    let deceived = cluster.node_that("deceived", Kind::Deceived).await;
    let wanted = deceived.want(digest, bytes.len()).await;
    let honest = join_all(["a", "b", "c", "d"].map(|name| cluster.node(name))).await;
    let mut spoilt: Vec<_> = honest.iter().map(|node| node.exchange.spoilt()).collect();
    let eager = [true, true, false, false];
    let pulls = honest.iter().zip(eager).map(|(node, eager)| pull(node, digest, bytes.len(), eager));
    let pulled = join_all(pulls).await;
    assert!(pulled.iter().all(|(read, _)| *read == bytes));
    // Whoever's pull was cut says of which blob, a runtime's ingests of it are to be aborted; where nothing was given away there is nothing to abort.
    for ((spoilt, (_, failures)), eager) in spoilt.iter_mut().zip(&pulled).zip(eager) {
        let told: Vec<_> = std::iter::from_fn(|| spoilt.try_recv().ok()).collect();
        assert!(told.len() >= *failures && told.iter().all(|of| *of == digest), "{told:?}, {failures} failures");
        assert!(eager || told.is_empty(), "{told:?}");
    }
    for node in &honest {
        assert!(node.exchange.stored(&digest).is_some());
    }
    assert!(!wanted.is_complete() || wanted.read(0, 1, true).await.unwrap()[0] == bytes[0]);
    for node in honest.into_iter().chain([deceived]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tracker_members_stand_in_also_after_a_restart() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(13, 8 * MIB);
    let names = ["a", "b", "c", "d", "e", "f"];
    let nodes = join_all(names.map(|name| cluster.node(name))).await;
    // Everybody hears of everybody.
    let (small, small_bytes) = cluster.origin.add(14, 100);
    join_all(nodes.iter().map(|node| node.read(small, small_bytes.len()))).await;
    for node in &nodes {
        node.knows(names.len() - 1).await;
    }
    for holder in &nodes[..2] {
        timeout(LONG, holder.want(digest, bytes.len()).await.completed()).await.unwrap().unwrap();
    }
    cluster.kill_tracker().await;
    let dirs = join_all(nodes.into_iter().map(Node::stop)).await;
    let before = cluster.origin.sent();
    let again = names.into_iter().zip(dirs).map(|(name, dir)| cluster.node_again(name, dir));
    let nodes = join_all(again).await;
    let read = join_all(nodes[2..].iter().map(|node| node.read(digest, bytes.len()))).await;
    assert!(read.iter().all(|read| *read == bytes));
    let again = cluster.origin.sent() - before;
    assert!(again <= bytes.len() as u64 / 10, "{again} bytes were fetched again");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_in_for_a_node_that_is_cut_off_keeps_its_own_tracker() {
    let cluster = Cluster::new().await;
    let [first, second] = [cluster.node("a").await, cluster.node("b").await];
    second.knows(1).await;
    let second = cluster.cut_off("b", second.stop().await).await;
    // Several, so that one of them falls to the node that has a tracker: all fall to the other one once in 256 runs.
    for seed in 20..28 {
        let (digest, bytes) = cluster.origin.add(seed, 1_000);
        assert_eq!(second.read(digest, bytes.len()).await, bytes);
    }
    let before = cluster.members().await;
    let (digest, bytes) = cluster.origin.add(30, MIB);
    assert_eq!(first.read(digest, bytes.len()).await, bytes);
    cluster.has_members(before + 1).await;
    first.stop().await;
    second.stop().await;
}
