//! Swarms of agents that look for each other, with some of them dead.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shoal_types::{Digest, NodeId, Rng, Time, Zone};

use super::*;

/// A cluster: every node's records, and who is dead.
struct Cluster {
    nodes: Vec<NodeId>,
    records: BTreeMap<NodeId, ProviderRecords>,
    dead: BTreeSet<NodeId>,
}

impl Cluster {
    fn new(rng: &mut Rng, count: usize) -> Self {
        let nodes: Vec<NodeId> =
            (0..count).map(|_| NodeId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()))).collect();
        let records = nodes.iter().map(|node| (*node, ProviderRecords::new(&LookupConfig::default()))).collect();
        Self { nodes, records, dead: BTreeSet::new() }
    }

    fn members(&self) -> Members {
        let mut members = Members::new(&LookupConfig::default());
        self.nodes.iter().for_each(|node| assert!(members.insert(*node, Zone::default())));
        members
    }

    fn kill(&mut self, rng: &mut Rng, percent: usize) {
        let dead = self.nodes.iter().filter(|_| rng.below(100) < percent);
        self.dead.extend(dead.copied().collect::<Vec<_>>());
    }

    /// Runs a lookup. Half of the dead refuse at once, the others are silent.
    fn look_up(&self, digest: Digest, members: &mut Members) -> Lookup {
        let mut now = Time::ZERO;
        let mut lookup = Lookup::start(now, digest, members, &LookupConfig::default());
        for _ in 0..100 {
            while let Some(node) = lookup.poll_ask(now) {
                match (self.dead.contains(&node), node.get() % 2) {
                    (false, _) => lookup.handle_reply(node, &self.records[&node].get(now, digest)),
                    (true, 0) => lookup.handle_unreachable(now, node, members),
                    (true, _) => {}
                }
            }
            match lookup.poll_timeout() {
                Some(at) => now = at,
                None => break,
            }
            lookup.handle_timeout(now, members);
        }
        assert!(lookup.is_done());
        lookup
    }
}

fn digest(rng: &mut Rng) -> Digest {
    let mut bytes = [0; 32];
    bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_be_bytes()));
    Digest::Sha256(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn everybody_agrees_on_the_stand_in_and_it_is_the_closest_live_one(
        seed in any::<u64>(), count in 1_usize..400, percent in 0_usize..60,
    ) {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::new(&mut rng, count);
        cluster.kill(&mut rng, percent);
        let digest = digest(&mut rng);
        let live = cluster.nodes.iter().copied().filter(|node| !cluster.dead.contains(node));
        let closest = live.min_by_key(|node| node.get() ^ digest.position());
        let mut ranked = cluster.nodes.clone();
        ranked.sort_by_key(|node| node.get() ^ digest.position());
        // A lookup asks 12 at most: beyond that nobody is found, by everybody alike.
        let expected = closest.filter(|node| ranked[..12.min(count)].contains(node));
        for _ in 0..20 {
            prop_assert_eq!(cluster.look_up(digest, &mut cluster.members()).stand_in(), expected);
        }
    }

    #[test]
    fn who_misses_members_still_finds_a_live_one_and_those_who_know_the_stand_in_agree(
        seed in any::<u64>(), count in 50_usize..300,
    ) {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::new(&mut rng, count);
        cluster.kill(&mut rng, 20);
        let digest = digest(&mut rng);
        let stand_in = cluster.look_up(digest, &mut cluster.members()).stand_in();
        for _ in 0..20 {
            let mut members = cluster.members();
            for node in &cluster.nodes {
                if rng.below(10) == 0 {
                    members.remove(*node);
                }
            }
            let knows = stand_in.is_some_and(|node| members.zone(node).is_some());
            let found = cluster.look_up(digest, &mut members).stand_in();
            prop_assert!(found.is_none_or(|node| !cluster.dead.contains(&node)));
            prop_assert!(!knows || found == stand_in);
        }
    }

    #[test]
    fn providers_are_found_while_one_of_their_keepers_lives(
        seed in any::<u64>(), count in 20_usize..300, providers in 1_usize..5,
    ) {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::new(&mut rng, count);
        cluster.kill(&mut rng, 20);
        let digest = digest(&mut rng);
        let providers: BTreeSet<NodeId> = (0..providers).map(|at| cluster.nodes[at]).collect();
        let keepers = cluster.look_up(digest, &mut cluster.members()).keepers();
        for keeper in &keepers {
            for provider in &providers {
                cluster.records.get_mut(keeper).unwrap().add(Time::ZERO, digest, *provider);
            }
        }
        // All keepers but one die.
        let survivor = rng.choose(&keepers).copied();
        cluster.dead.extend(keepers.iter().filter(|keeper| Some(**keeper) != survivor));
        let lookup = cluster.look_up(digest, &mut cluster.members());
        if survivor.is_some() {
            prop_assert_eq!(lookup.providers().collect::<BTreeSet<_>>(), providers);
        }
    }
}

#[test]
fn a_member_that_did_not_answer_is_passed_over_for_a_while() {
    let mut rng = Rng::new(1);
    let mut cluster = Cluster::new(&mut rng, 100);
    let digest = digest(&mut rng);
    let mut members = cluster.members();
    let first = members.closest(Time::ZERO, digest.position(), 1)[0];
    cluster.dead.insert(first);
    let config = LookupConfig::default();
    cluster.look_up(digest, &mut members);
    let at = Time::ZERO + config.answer_within;
    assert_ne!(members.closest(at, digest.position(), 1), [first]);
    assert_eq!(members.closest(at + config.avoid_for, digest.position(), 1), [first]);
    let mut again = Lookup::start(at, digest, &members, &config);
    assert_ne!(again.poll_ask(at), Some(first));
}

#[test]
fn answers_of_strangers_and_floods_are_dropped() {
    let mut rng = Rng::new(2);
    let cluster = Cluster::new(&mut rng, 10);
    let config = LookupConfig { max_providers: 2, ..LookupConfig::default() };
    let mut lookup = Lookup::start(Time::ZERO, digest(&mut rng), &cluster.members(), &config);
    lookup.handle_reply(NodeId::new(1), &[NodeId::new(2)]);
    assert_eq!(lookup.providers().count(), 0);
    let flood: Vec<NodeId> = (0..1_000).map(NodeId::new).collect();
    while let Some(node) = lookup.poll_ask(Time::ZERO) {
        lookup.handle_reply(node, &flood);
        lookup.handle_reply(node, &flood[500..]);
    }
    assert_eq!(lookup.providers().count(), 2);
    assert!(lookup.is_done());
}
