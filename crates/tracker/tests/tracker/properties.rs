//! Whatever agents do, in whatever order: nothing panics, and what must hold holds after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use shoal_chain::{LinkBatch, LinkRun, Signature, SignedLinks};
use shoal_tracker::{AnnounceError, Config};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSet, ChunkSize, Digest, Geometry, NodeId};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, Directive, LeaseRequest, LeaseState, OriginFailure};

use crate::harness::{World, id};

const NODES: u32 = 14;
const BLOBS: u8 = 3;
const BLOB_CHUNKS: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    Connect { node: u32, zone: u8 },
    Disconnect { node: u32 },
    Announce { node: u32, announce: Box<Announce> },
    Pass { millis: u64 },
}

fn digest(number: u8) -> Digest {
    Digest::Sha256([number; 32])
}

fn blob(number: u8) -> BlobInfo {
    let geometry = Geometry::new(u64::from(BLOB_CHUNKS) << 16, ChunkSize::MIN).unwrap();
    BlobInfo { digest: digest(number), geometry }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..NODES, 0_u8..3).prop_map(|(node, zone)| Step::Connect { node, zone }),
        1 => (0..NODES).prop_map(|node| Step::Disconnect { node }),
        30 => (0..NODES).prop_flat_map(|node| announces(node).prop_map(move |announce| Step::Announce { node, announce })),
        4 => (0_u64..400).prop_map(|millis| Step::Pass { millis }),
        1 => (0_u64..20_000).prop_map(|millis| Step::Pass { millis }),
    ]
}

fn announces(node: u32) -> impl Strategy<Value = Box<Announce>> {
    let what = (0..BLOBS, events(), bitmaps(), leases(), batches(node));
    let verdict = || prop::option::weighted(0.1, 0_u64..12);
    let said = (0_u16..60, (verdict(), verdict()), accused(), 0_u64..9, 0_u64..9, oddities());
    (what, said).prop_map(|((number, event, have, lease, links), said)| {
        let (want_peers, (false_chain, corrupt_lead), accused, bytes_from_peers, bytes_from_origin, odd) = said;
        Box::new(Announce {
            digest: digest(number),
            size_bytes: if odd == Odd::Size { 70_000 } else { blob(number).geometry.size_bytes() },
            chunk_size: match odd {
                Odd::Cut => Some(ChunkSize::MAX),
                Odd::Uncut => None,
                _ => Some(ChunkSize::MIN),
            },
            event,
            have,
            want_peers,
            lease,
            links: links.into_iter().map(|links| of_blob(links, number)).collect(),
            false_chain,
            corrupt_lead,
            accused,
            bytes_from_peers,
            bytes_from_origin,
        })
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    Not,
    Size,
    Cut,
    Uncut,
}

fn oddities() -> impl Strategy<Value = Odd> {
    prop_oneof![20 => Just(Odd::Not), 1 => Just(Odd::Size), 1 => Just(Odd::Cut), 2 => Just(Odd::Uncut)]
}

fn events() -> impl Strategy<Value = AnnounceEvent> {
    prop_oneof![
        6 => Just(AnnounceEvent::Started),
        10 => Just(AnnounceEvent::Progress),
        2 => Just(AnnounceEvent::Completed),
        1 => Just(AnnounceEvent::Stopped),
    ]
}

fn bitmaps() -> impl Strategy<Value = Option<Arc<ChunkSet>>> {
    let length = prop_oneof![20 => Just(BLOB_CHUNKS), 1 => 0_u32..300];
    let some = (length, any::<u64>()).prop_map(|(length, bits)| {
        let mut set = ChunkSet::empty(length);
        for bit in (0..length.min(64)).filter(|bit| bits >> bit & 1 == 1) {
            set.insert(ChunkIndex::new(bit));
        }
        Some(Arc::new(set))
    });
    prop_oneof![2 => Just(None), 2 => some, 1 => Just(Some(Arc::new(ChunkSet::full(BLOB_CHUNKS))))]
}

fn leases() -> impl Strategy<Value = LeaseRequest> {
    let epoch = || prop_oneof![10 => 0_u64..12, 1 => any::<u64>()];
    let failure = prop_oneof![
        Just(OriginFailure::Unauthorized),
        Just(OriginFailure::NotFound),
        Just(OriginFailure::Unreachable),
        any::<u16>().prop_map(|millis| OriginFailure::Busy { retry_after: Duration::from_millis(millis.into()) }),
    ];
    prop_oneof![
        2 => Just(LeaseRequest::Declined),
        6 => Just(LeaseRequest::Willing),
        2 => Just(LeaseRequest::Impatient),
        6 => (epoch(), 0..BLOB_CHUNKS + 2, 0_u32..99).prop_map(|(epoch, frontier, backlog)| {
            LeaseRequest::Holding { epoch, frontier: ChunkIndex::new(frontier), backlog }
        }),
        1 => epoch().prop_map(|epoch| LeaseRequest::Yielded { epoch }),
        2 => (epoch(), failure).prop_map(|(epoch, failure)| LeaseRequest::Failed { epoch, failure }),
    ]
}

/// Mostly the announcer's own, of small epochs that it may hold.
fn batches(node: u32) -> impl Strategy<Value = Vec<SignedLinks>> {
    let publisher = prop_oneof![20 => Just(node), 1 => 0..NODES];
    let batch = (publisher, 0_u64..12, 0..BLOB_CHUNKS + 1, 1_usize..5, 0_u8..2).prop_map(
        |(node, epoch, first, count, byte)| {
            let run = LinkRun::new(Algorithm::Sha256, ChunkIndex::new(first), vec![byte; 32 * count]).unwrap();
            let batch = LinkBatch { blob: blob(0), epoch, run };
            SignedLinks { batch, publisher: id(node), signature: Signature([0; 64]) }
        },
    );
    prop::collection::vec(batch, 0..2)
}

fn of_blob(mut links: SignedLinks, number: u8) -> SignedLinks {
    links.batch.blob = blob(number);
    links
}

fn accused() -> impl Strategy<Value = Vec<NodeId>> {
    prop_oneof![8 => Just(Vec::new()), 2 => prop::collection::vec((0..NODES + 3).prop_map(id), 0..4)]
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    /// By blob and epoch: who was granted it.
    granted: BTreeMap<(Digest, u64, u64), NodeId>,
    last_epoch: BTreeMap<(Digest, u64), u64>,
}

impl Seen {
    fn grant(&mut self, digest: Digest, size: u64, epoch: u64, to: NodeId) {
        let holder = *self.granted.entry((digest, size, epoch)).or_insert(to);
        assert_eq!(holder, to, "an epoch has one holder");
    }
}

fn run(steps: Vec<Step>, config: Config, seed: u64) {
    let mut world = World::new(config);
    world.tracker = shoal_tracker::Tracker::new(world.tracker.config().clone(), seed);
    let mut seen = Seen::default();
    for step in steps {
        let before = world.tracker.snapshot(world.now, usize::MAX, usize::MAX);
        match step {
            Step::Connect { node, zone } => world.connect(node, &format!("z{zone}")),
            Step::Disconnect { node } => world.disconnect(node),
            Step::Pass { millis } => world.pass(millis),
            Step::Announce { node, announce } => {
                let reply = world.tracker.handle_announce(world.now, id(node), &announce);
                world.tracker.check_invariants();
                match reply {
                    Ok(reply) => check_reply(&world, &mut seen, id(node), &announce, &reply),
                    // That one may have been found out by this very announce.
                    Err(AnnounceError::Banned) => {}
                    Err(error) => {
                        let mut after = world.tracker.snapshot(world.now, usize::MAX, usize::MAX);
                        let refused = before.counters.refused.get(error.kind()).copied().unwrap_or_default();
                        assert_eq!(after.counters.refused.get(error.kind()), Some(&(refused + 1)));
                        after.counters.refused.clone_from(&before.counters.refused);
                        assert_eq!(before, after, "a refused announce changes nothing");
                    }
                }
            }
        }
        check_status(&world, &mut seen);
        check_directives(&mut world, &mut seen);
    }
}

fn check_reply(world: &World, seen: &mut Seen, from: NodeId, announce: &Announce, reply: &AnnounceReply) {
    let status = world.tracker.snapshot(world.now, usize::MAX, usize::MAX);
    let banned: BTreeSet<NodeId> = status.banned.iter().map(|(node, _)| *node).collect();
    let peers: BTreeSet<NodeId> = reply.peers.iter().map(|peer| peer.node).collect();
    assert_eq!(peers.len(), reply.peers.len(), "each peer once");
    assert!(peers.is_disjoint(&banned) && !peers.contains(&from));
    assert!(reply.banned.iter().all(|node| banned.contains(node)));
    assert!(reply.gateway.is_none_or(|node| !banned.contains(&node)));
    assert!(reply.interval > Duration::ZERO);
    if announce.event == AnnounceEvent::Stopped {
        return;
    }
    let same = |blob: &&shoal_tracker::BlobStatus| (blob.key, blob.size_bytes) == (reply.key, announce.size_bytes);
    let blob = status.blobs.iter().find(same).unwrap();
    let want = usize::from(announce.want_peers).min(world.tracker.config().membership.max_peers.into());
    assert_eq!(peers.len(), want.min(blob.members - 1), "as many as wanted, or all others");
    match &reply.lease {
        LeaseState::Granted(grant) => {
            assert_eq!(blob.lead == Some(from), !grant.impatient, "one lead");
            assert!(grant.epoch <= blob.epoch && grant.frontier.get() <= BLOB_CHUNKS);
            assert!(grant.holes.iter().all(|hole| *hole < grant.frontier));
            seen.grant(announce.digest, announce.size_bytes, grant.epoch, from);
        }
        LeaseState::HeldBy(node) => assert_eq!(blob.lead, Some(*node)),
        LeaseState::Nobody | LeaseState::Refused { .. } => assert_eq!(blob.lead, None),
    }
    for links in &reply.links {
        assert!(reply.withdrawn.is_none_or(|epoch| links.batch.epoch > epoch), "withdrawn links are gone");
    }
}

fn check_directives(world: &mut World, seen: &mut Seen) {
    let status = world.tracker.snapshot(world.now, usize::MAX, usize::MAX);
    for (to, directive) in world.directives() {
        match directive {
            Directive::Lease { key, grant } => {
                assert!(grant.holes.iter().all(|hole| *hole < grant.frontier));
                // Which of a digest's sizes it is of is known to who gets it.
                let sizes = seen.last_epoch.keys().filter(|(digest, _)| *digest == key.digest);
                let sizes: Vec<u64> = sizes.map(|(_, size)| *size).collect();
                if let [size] = sizes[..] {
                    seen.grant(key.digest, size, grant.epoch, to);
                }
            }
            Directive::Ban { nodes } => {
                assert!(nodes.iter().all(|node| status.banned.iter().any(|(banned, _)| banned == node)));
            }
            Directive::LeaseRevoked { .. } | Directive::Withdraw { .. } | Directive::Gateway { .. } => {}
        }
    }
}

fn check_status(world: &World, seen: &mut Seen) {
    let status = world.tracker.snapshot(world.now, usize::MAX, usize::MAX);
    for blob in status.blobs {
        let epoch = seen.last_epoch.entry((blob.key.digest, blob.size_bytes)).or_default();
        assert!(blob.epoch >= *epoch, "epochs only grow");
        *epoch = blob.epoch;
        assert!(blob.lead.is_none_or(|lead| status.banned.iter().all(|(banned, _)| *banned != lead)));
        assert!(blob.seeds <= blob.members && blob.replicas <= blob.members);
        assert!(blob.popularity.is_finite() && blob.popularity >= 0.0);
    }
}

/// Short times and small tables, so that everything happens.
fn tight() -> Config {
    let mut config = Config::default();
    config.membership.blob_linger = Duration::from_secs(5);
    config.membership.disconnect_grace = Duration::from_millis(500);
    config.lease.max_holes = 2;
    config.lease.passed_for = Duration::from_millis(500);
    config.limits.nodes = NODES as usize - 2;
    config.limits.blobs = BLOBS.into();
    config.limits.memberships_per_node = 2;
    config.limits.reply_link_bytes = 300;
    config.limits.chain_bytes = 2_000;
    config.limits.directives = 20;
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_that_agents_do_breaks_it(steps in prop::collection::vec(steps(), 1..250), tightly in any::<bool>(), seed in any::<u64>()) {
        run(steps, if tightly { tight() } else { Config::default() }, seed);
    }

    #[test]
    fn replies_keep_the_floor_of_other_zones(zones in prop::collection::vec(0_u8..3, 2..40), want in 0_u16..50, seed in any::<u64>()) {
        let mut world = World::new(Config::default());
        world.tracker = shoal_tracker::Tracker::new(Config::default(), seed);
        for (node, zone) in (0..).zip(&zones) {
            world.connect(node, &format!("z{zone}"));
            world.say(&crate::harness::Say::started(node));
        }
        for (node, zone) in (0..).zip(&zones) {
            let peers = world.say(&crate::harness::Say::progress(node).want(want)).peers;
            let name = format!("z{zone}");
            let others = zones.iter().filter(|other| *other != zone).count();
            let given = peers.iter().filter(|peer| peer.zone.name() != name).count();
            prop_assert_eq!(peers.len(), usize::from(want).min(zones.len() - 1));
            prop_assert!(given >= usize::from(want).div_ceil(5).min(others));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_answers(steps in prop::collection::vec(steps(), 1..100), seed in any::<u64>()) {
        let play = || {
            let mut tracker = shoal_tracker::Tracker::new(Config::default(), seed);
            let mut now = shoal_types::Time::ZERO;
            let mut log = Vec::new();
            for step in &steps {
                match step {
                    Step::Connect { node, .. } => tracker.handle_connected(now, id(*node), shoal_types::Zone::default()),
                    Step::Disconnect { node } => tracker.handle_disconnected(now, id(*node)),
                    Step::Pass { millis } => {
                        now += Duration::from_millis(*millis);
                        tracker.handle_timeout(now);
                    }
                    Step::Announce { node, announce } => {
                        log.push(format!("{:?}", tracker.handle_announce(now, id(*node), announce)));
                    }
                }
                while let Some(directive) = tracker.poll_directive() {
                    log.push(format!("{directive:?}"));
                }
            }
            log
        };
        prop_assert_eq!(play(), play());
    }
}
