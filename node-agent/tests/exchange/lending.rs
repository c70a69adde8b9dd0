//! Blobs that a node has by other ways than the exchange: in its runtime's content store, or in its own store without links.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use shoal_agent::exchange::Offered;
use shoal_chain::ChainBuilder;
use shoal_store::containerd::ContentStore;
use shoal_store::{DiskStore, Limits, Percent, Store as _};
use shoal_types::{BlobInfo, ChunkSize, Digest, Geometry};
use tokio::time::{Instant, timeout};

use crate::cluster::{Cluster, Dir, LONG, Node};

const MIB: usize = 1 << 20;

/// A content store with this blob, as containerd leaves it.
fn content(dir: &Dir, digest: Digest, bytes: &[u8]) -> ContentStore {
    let blobs = dir.path().join("io.containerd.content.v1.content/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(digest.to_string().trim_start_matches("sha256:")), bytes).unwrap();
    ContentStore::open(dir.path()).unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Another node reads the blob, and nothing of it comes from the origin.
async fn read_by_another(cluster: &Cluster, digest: Digest, bytes: &Bytes) {
    let before = cluster.origin.sent();
    let other = cluster.node("other").await;
    assert_eq!(other.read(digest, bytes.len()).await, *bytes);
    assert_eq!(cluster.origin.sent(), before, "bytes from the origin");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_copy_goes_when_the_runtime_has_one_that_is_right() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(40, 4 * MIB);
    let node = cluster.node("a").await;
    timeout(LONG, node.want(digest, bytes.len()).await.completed()).await.unwrap().unwrap();
    assert_eq!(node.own_files(), 1);
    let dir = Dir::new();
    let content = content(&dir, digest, &bytes);
    assert_eq!(node.exchange.offer(&content, digest, bytes.len() as u64, false).await.unwrap(), Offered::Ours);
    until("our own copy goes", || node.own_files() == 0).await;
    cluster.has_members(1).await;
    assert_eq!(node.read(digest, bytes.len()).await, bytes);
    read_by_another(&cluster, digest, &bytes).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_runtime_has_is_lent_until_it_is_gone() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(41, 4 * MIB);
    let node = cluster.node("a").await;
    let dir = Dir::new();
    let content = content(&dir, digest, &bytes);
    assert_eq!(node.exchange.offer(&content, digest, bytes.len() as u64, false).await.unwrap(), Offered::Lent);
    cluster.has_members(1).await;
    read_by_another(&cluster, digest, &bytes).await;
    assert_eq!((node.own_files(), node.read(digest, bytes.len()).await == bytes), (0, true));
    node.exchange.retract(digest).await.unwrap();
    until("nothing is claimed", || node.exchange.stored(&digest).is_none()).await;
    // It can be had again, and is our own then.
    assert_eq!(node.read(digest, bytes.len()).await, bytes);
    assert_eq!(node.own_files(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_has_the_blobs_name_is_served_to_nobody() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(42, 2 * MIB);
    let node = cluster.node("a").await;
    let dir = Dir::new();
    let mut wrong = bytes.to_vec();
    wrong[MIB] ^= 1;
    let content = content(&dir, digest, &wrong);
    assert_eq!(node.exchange.offer(&content, digest, bytes.len() as u64, false).await.unwrap(), Offered::Lent);
    let gone = async || node.exchange.snapshot().await.unwrap().blobs.is_empty();
    let limit = Instant::now() + LONG;
    while !gone().await {
        assert!(Instant::now() < limit, "it is found out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.read(digest, bytes.len()).await, bytes, "from the origin");
    node.stop().await;
}

/// Puts a whole blob into a node's store without any links, as a crash at the right moment leaves it.
fn store_without_links(dir: &Path, digest: Digest, bytes: &[u8]) {
    let limits = Limits { keep_free: Percent::ZERO, ..Limits::new(1 << 30) };
    let store = DiskStore::open(&dir.join("store"), limits).unwrap();
    let size = bytes.len() as u64;
    let blob = BlobInfo { digest, geometry: Geometry::new(size, ChunkSize::for_blob(size)).unwrap() };
    store.begin(blob).unwrap();
    let mut proofs = Vec::new();
    let mut builder = ChainBuilder::new(blob);
    builder.push(bytes, |proof| proofs.push(proof)).unwrap();
    proofs.push(builder.finish().unwrap());
    for proof in proofs {
        let range = blob.geometry.byte_range(proof.chunk()).unwrap();
        let start = usize::try_from(range.start).unwrap();
        store.keep(&proof, &bytes[start..start + range.len as usize]).unwrap();
    }
    store.seal(&blob.key()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_blob_whose_links_were_lost_is_linked_again() {
    let cluster = Cluster::new().await;
    let (digest, bytes) = cluster.origin.add(43, 4 * MIB);
    let dir = Dir::new();
    store_without_links(dir.path(), digest, &bytes);
    let node: Node = cluster.node_again("a", dir).await;
    assert_eq!(node.read(digest, bytes.len()).await, bytes);
    cluster.has_members(1).await;
    read_by_another(&cluster, digest, &bytes).await;
    node.stop().await;
}
