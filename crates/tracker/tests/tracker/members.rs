//! Coming, going, and who is handed out.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_tracker::{AnnounceError, Config};
use shoal_types::{ChunkSize, Digest};
use shoal_wire::LeaseState;

use crate::harness::*;

#[test]
fn a_member_that_stops_announcing_expires() {
    let mut world = World::with_nodes(3);
    world.join(0..3);
    for _ in 0..6 {
        world.pass(500);
        world.say(&Say::progress(0).holding(1, 0).bytes(0, world.now.as_nanos()));
        world.say(&Say::progress(1));
    }
    world.pass(10);
    assert_eq!(world.status().members, 2);
    assert_eq!(world.say(&Say::progress(1).want(9)).peers.iter().map(|peer| peer.node).collect::<Vec<_>>(), [id(0)]);
    // It comes back with its next announce.
    world.say(&Say::progress(2).have("**"));
    assert_eq!(world.status().members, 3);
}

#[test]
fn a_closed_connection_hides_a_member_and_a_new_one_brings_it_back() {
    let mut world = World::with_nodes(3);
    world.join(0..3);
    world.say(&Say::completed(2));
    world.disconnect(2);
    assert_eq!((world.status().members, world.status().seeds), (2, 0));
    assert_eq!(world.tell(&Say::progress(2)), Err(AnnounceError::NotConnected));
    world.pass(2_000);
    world.connect(2, "");
    assert_eq!((world.status().members, world.status().seeds), (1, 1), "the others expired meanwhile");
    world.disconnect(2);
    world.pass(5_000);
    world.connect(2, "");
    assert_eq!(world.status().members, 0);
}

#[test]
fn who_stops_is_gone() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    let reply = world.say(&Say::stopped(0));
    assert_eq!((reply.lease, reply.peers), (LeaseState::Nobody, vec![]));
    assert_eq!((world.status().members, world.lead()), (1, Some(id(1))));
    // Who isn't a member may say so too, and no blob comes of it.
    world.say(&Say::stopped(0));
    world.say(&Say::stopped(0).of(9));
    assert_eq!(world.tracker.snapshot(world.now, 9, 9).blobs_known, 1);
}

#[test]
fn the_first_announce_fixes_the_chunk_size_for_all() {
    let mut world = World::with_nodes(4);
    let mut first = Say::started(0);
    first.announce.chunk_size = Some(ChunkSize::new(128 << 10).unwrap());
    assert_eq!(world.say(&first).key.chunk_size.bytes(), 128 << 10);
    assert_eq!(world.say(&Say::started(1)).key.chunk_size.bytes(), 128 << 10);
    // Another cut is corrected, and what is had in it doesn't count.
    let mut other = Say::completed(2);
    other.announce.chunk_size = Some(ChunkSize::MIN);
    let other = other.have(&"*".repeat(CHUNKS as usize));
    assert_eq!(world.say(&other).key.chunk_size.bytes(), 128 << 10);
    assert_eq!((world.status().members, world.status().seeds), (3, 0));
    // A bitmap is measured by the announcer's own cut.
    assert_eq!(
        world.tell(&Say::progress(1).have("*")),
        Err(AnnounceError::BitmapLength { expected: CHUNKS / 2, found: CHUNKS })
    );
}

#[test]
fn a_false_size_stops_nobody_but_who_says_two() {
    let mut world = World::with_nodes(3);
    let mut liar = Say::started(0);
    liar.announce.size_bytes += 1;
    world.say(&liar);
    assert_eq!(epoch_of(&world.say(&Say::started(1))), Some(1));
    assert_eq!(world.say(&Say::started(2).want(9)).peers.len(), 1);
    let (first, now) = (liar.announce.size_bytes, blob(0).geometry.size_bytes());
    assert_eq!(world.tell(&Say::started(0)), Err(AnnounceError::SizeContradicts { first, now }));
}

#[test]
fn malformed_announces_are_refused_and_counted_and_change_nothing() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    let before = world.tracker.snapshot(world.now, 9, 9);
    let mut huge = Say::started(0).of(1);
    huge.announce.size_bytes = u64::MAX;
    let cases = [
        (Say::started(7), "not_connected"),
        (huge, "geometry"),
        (Say::completed(0).have("*"), "completed_with_chunks_missing"),
        (Say::progress(0).holding(1, CHUNKS + 1), "frontier_beyond_end"),
        (Say::progress(1).accuses(0..100), "too_many_accused"),
    ];
    for (say, kind) in cases {
        assert_eq!(world.tell(&say).unwrap_err().kind(), kind);
        let mut after = world.tracker.snapshot(world.now, 9, 9);
        assert_eq!(after.counters.refused.remove(kind), Some(1));
        world.tracker.check_invariants();
        after.counters.refused = before.counters.refused.clone();
        assert_eq!(after.blobs, before.blobs);
    }
}

#[test]
fn tables_are_bounded() {
    let mut config = Config::default();
    (config.limits.nodes, config.limits.blobs, config.limits.memberships_per_node) = (2, 3, 2);
    let mut world = World::new(config);
    (0..3).for_each(|node| world.connect(node, ""));
    assert_eq!(world.tell(&Say::started(2)), Err(AnnounceError::NotConnected));
    world.say(&Say::started(0).of(0));
    world.say(&Say::started(0).of(1));
    assert_eq!(world.tell(&Say::started(0).of(2)), Err(AnnounceError::TooManyMemberships { limit: 2 }));
    world.say(&Say::started(1).of(2));
    assert_eq!(world.tell(&Say::started(1).of(3)), Err(AnnounceError::TooManyBlobs { limit: 3 }));
    assert_eq!(world.tracker.snapshot(world.now, 9, 9).counters.nodes_refused, 1);
}

#[test]
fn a_reply_has_up_to_50_random_peers_and_some_of_them_of_other_zones() {
    let mut world = World::new(Config::default());
    (0..300).for_each(|node| world.connect(node, if node < 200 { "a" } else { "b" }));
    world.join(0..300);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let reply = world.say(&Say::progress(0).want(500));
        let nodes: BTreeSet<_> = reply.peers.iter().map(|peer| peer.node).collect();
        assert!(nodes.len() == 50 && !nodes.contains(&id(0)));
        assert_eq!(reply.peers.iter().filter(|peer| peer.zone.name() == "b").count(), 10);
        seen.extend(nodes);
    }
    assert_eq!(seen.len(), 299);
    assert_eq!(world.tracker.members(id(250), 40).iter().filter(|peer| peer.zone.name() == "a").count(), 8);
    assert_eq!(world.tracker.members(id(999), 40), []);
}

#[test]
fn intervals_grow_with_the_load_and_seeds_announce_rarely() {
    let mut config = Config::default();
    config.membership.announces_per_second = 10;
    let mut world = World::new(config);
    (0..50).for_each(|node| world.connect(node, ""));
    world.join(0..5);
    assert_eq!(world.say(&Say::progress(1)).interval, Duration::from_secs(1));
    world.join(5..50);
    assert_eq!(world.say(&Say::progress(1)).interval, Duration::from_secs(5));
    assert_eq!(world.say(&Say::completed(1)).interval, Duration::from_secs(10));
    // The lead's reports are what the others wait for.
    assert_eq!(world.say(&Say::progress(0).holding(1, 0)).interval, Duration::from_millis(250));
}

#[test]
fn popularity_counts_newcomers_and_the_snapshot_is_bounded() {
    let mut world = World::with_nodes(5);
    for number in 0..5 {
        (0..=number).for_each(|node| drop(world.say(&Say::started(node.into()).of(number))));
    }
    (0..100).for_each(|_| drop(world.say(&Say::progress(0).of(0))));
    let status = world.tracker.snapshot(world.now, 2, 0);
    let digests: Vec<Digest> = status.blobs.iter().map(|blob| blob.key.digest).collect();
    assert_eq!(digests, [blob(4).digest, blob(3).digest]);
    assert_eq!((status.nodes_connected, status.blobs_known, status.memberships), (5, 5, 15));
    assert!((status.blobs[0].popularity - 5.0).abs() < 1e-9);
}
