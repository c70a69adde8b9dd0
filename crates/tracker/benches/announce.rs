//! Announces per second on one core, with 10,000 peers and 100 blobs: every peer is a member of every blob.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shoal_tracker::{Config, Tracker};
use shoal_types::{ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Rng, Time, Zone};
use shoal_wire::{Announce, AnnounceEvent, LeaseRequest};

const PEERS: usize = 10_000;
const BLOBS: u8 = 100;
const SIZE_BYTES: u64 = 1 << 30;

fn announce(digest: Digest, event: AnnounceEvent, have: Option<Arc<ChunkSet>>, want_peers: u16) -> Announce {
    Announce {
        digest,
        size_bytes: SIZE_BYTES,
        chunk_size: None,
        event,
        have,
        want_peers,
        lease: LeaseRequest::Willing,
        links: Vec::new(),
        false_chain: None,
        corrupt_lead: None,
        accused: Vec::new(),
        bytes_from_peers: 0,
        bytes_from_origin: 0,
    }
}

/// A tracker with all memberships in place, and the announces in a random order.
fn filled(zones: u16) -> (Tracker, Vec<(NodeId, Digest)>) {
    let mut rng = Rng::new(1);
    let mut tracker = Tracker::new(Config::default(), 1);
    let geometry = Geometry::new(SIZE_BYTES, ChunkSize::for_blob(SIZE_BYTES)).unwrap();
    let chunks: Vec<ChunkIndex> = geometry.chunks().collect();
    let nodes: Vec<NodeId> =
        (0..PEERS).map(|_| NodeId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()))).collect();
    let digests: Vec<Digest> = (0..BLOBS).map(|blob| Digest::Sha256([blob; 32])).collect();
    for (at, node) in nodes.iter().enumerate() {
        let zone = Zone::new(&format!("zone-{}", at % usize::from(zones))).unwrap();
        tracker.handle_connected(Time::ZERO, *node, zone);
    }
    for digest in &digests {
        for node in &nodes {
            let mut have = ChunkSet::empty_of(geometry);
            for _ in 0..64 {
                have.insert(*rng.choose(&chunks).unwrap());
            }
            let started = announce(*digest, AnnounceEvent::Started, Some(Arc::new(have)), 0);
            tracker.handle_announce(Time::ZERO, *node, &started).unwrap();
        }
    }
    while tracker.poll_directive().is_some() {}
    let mut pairs: Vec<(NodeId, Digest)> =
        digests.iter().flat_map(|digest| nodes.iter().map(|node| (*node, *digest))).collect();
    rng.shuffle(&mut pairs);
    (tracker, pairs)
}

fn announces(c: &mut Criterion) {
    let mut group = c.benchmark_group("announce");
    group.throughput(Throughput::Elements(1));
    for zones in [1, 3] {
        for (name, want_peers) in [("steady", 0), ("50_peers", 50)] {
            let (mut tracker, pairs) = filled(zones);
            let mut next = 0;
            let mut now = Time::ZERO;
            group.bench_function(format!("{name}/{zones}_zones"), |b| {
                b.iter(|| {
                    let (node, digest) = pairs[next];
                    next = (next + 1) % pairs.len();
                    // A microsecond between two: leads fall silent and are succeeded, as they would.
                    now += std::time::Duration::from_micros(1);
                    tracker.handle_timeout(now);
                    while tracker.poll_directive().is_some() {}
                    tracker.handle_announce(now, node, &announce(digest, AnnounceEvent::Progress, None, want_peers))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, announces);
criterion_main!(benches);
