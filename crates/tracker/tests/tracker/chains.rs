//! Links, chains that are called false, and bans.

use std::collections::BTreeSet;

use shoal_tracker::{AnnounceError, BanConfig, BanReason, ChainState, Config};
use shoal_types::NodeId;
use shoal_wire::{Directive, LeaseRequest, LeaseState};

use crate::harness::*;

fn withdrawn(world: &mut World) -> Vec<(NodeId, u64)> {
    let epoch = |(to, directive)| match directive {
        Directive::Withdraw { epoch, .. } => Some((to, epoch)),
        _ => None,
    };
    world.directives().into_iter().filter_map(epoch).collect()
}

#[test]
fn newcomers_get_the_links_and_strangers_publish_none() {
    let mut world = World::with_nodes(4);
    world.join(0..2);
    let published = links(0, 0, 1, 0, "abc");
    world.say(&Say::progress(0).holding(1, 3).links(published.clone()));
    assert_eq!(world.say(&Say::started(2)).links, [published]);
    assert_eq!(world.say(&Say::progress(2)).links, []);
    let cases = [
        (links(1, 0, 1, 3, "d"), AnnounceError::NotTheHolder { epoch: 1 }),
        (links(1, 0, 2, 3, "d"), AnnounceError::NotTheHolder { epoch: 2 }),
        (links(0, 0, 1, 3, "d"), AnnounceError::ForeignLinks),
        (links(1, 1, 1, 3, "d"), AnnounceError::ForeignLinks),
        (links(1, 0, 1, 15, "de"), AnnounceError::ForeignLinks),
    ];
    for (links, error) in cases {
        assert_eq!(world.tell(&Say::progress(1).links(links)), Err(error));
    }
    let last = links(0, 0, 1, 15, "z");
    assert_eq!(world.tell(&Say::progress(0).holding(1, 16).links(last)), Err(AnnounceError::FalseLastLink));
}

#[test]
fn a_long_chain_comes_in_several_replies() {
    let mut config = shoal_tracker::Config::default();
    config.limits.reply_link_bytes = 1_000;
    let mut world = World::new(config);
    (0..2).for_each(|node| world.connect(node, ""));
    world.join([0]);
    for chunk in 0..15 {
        world.say(&Say::progress(0).holding(1, chunk + 1).links(links(0, 0, 1, chunk, "a")));
    }
    let mut sent = world.say(&Say::started(1)).links;
    assert!((2..15).contains(&sent.len()));
    for _ in 0..10 {
        sent.extend(world.say(&Say::progress(1)).links);
    }
    assert_eq!(sent.iter().map(|links| links.batch.run.first().get()).collect::<Vec<_>>(), (0..15).collect::<Vec<_>>());
}

#[test]
fn a_lead_that_is_alone_proves_its_own_chain_to_nobody() {
    let mut world = World::with_nodes(3);
    world.join(0..1);
    world.say(&Say::completed(0).links(all_links(0, 1, "x")));
    assert_eq!(world.status().chain, ChainState::Provisional);
    world.join(1..2);
    assert_eq!(world.say(&Say::progress(1).false_chain(1)).withdrawn, Some(1), "nobody else is there to know");

    let mut world = World::with_nodes(3);
    world.join(0..1);
    world.say(&Say::completed(0).links(all_links(0, 1, "a")));
    world.join(1..2);
    world.say(&Say::completed(1));
    assert_eq!(world.status().chain, ChainState::Closed);
    world.join(2..3);
    assert_eq!(world.say(&Say::progress(2).false_chain(1)).withdrawn, None);
}

#[test]
fn a_lying_lead_is_withdrawn_by_a_quorum_and_banned_when_the_truth_is_known() {
    let mut world = World::with_nodes(8);
    world.join(0..8);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "x")));
    for node in 1..3 {
        assert_eq!(world.say(&Say::progress(node).false_chain(1)).withdrawn, None);
        // Saying it twice adds nothing.
        world.say(&Say::progress(node).false_chain(1));
    }
    let reply = world.say(&Say::progress(3).false_chain(1));
    assert_eq!(reply.withdrawn, Some(1));
    assert_eq!(world.status().chain, ChainState::Quarantined);
    let directives = world.directives();
    let count = |wanted: &dyn Fn(&Directive) -> bool| directives.iter().filter(|(_, it)| wanted(it)).count();
    assert_eq!(count(&|it| matches!(it, Directive::Withdraw { epoch: 1, .. })), 8);
    assert_eq!(count(&|it| matches!(it, Directive::LeaseRevoked { epoch: 1, .. })), 1);
    let fresh = |it: &Directive| {
        matches!(it, Directive::Lease { grant, .. }
        if grant.epoch == 2 && grant.frontier.get() == 0 && grant.holes.is_empty())
    };
    assert_eq!(count(&fresh), 1);
    let second = number(world.lead().unwrap());
    assert_ne!(second, 0);

    // A late report about the old chain is no report about the new one.
    (4..8).for_each(|node| drop(world.say(&Say::progress(node).false_chain(1))));
    world.say(&Say::progress(second).holding(2, 16).links(all_links(second, 2, "a")));
    assert_eq!(world.status().chain, ChainState::Provisional);
    let finishers: Vec<u32> = (1..8).filter(|node| *node != second).collect();
    world.say(&Say::completed(second));
    world.say(&Say::completed(finishers[0]));
    assert_eq!(world.banned(), []);
    world.say(&Say::completed(finishers[1]));
    assert_eq!(world.status().chain, ChainState::Closed);
    assert_eq!(world.banned(), [id(0)]);
    let status = world.tracker.snapshot(world.now, 0, 9);
    assert_eq!(status.banned, [(id(0), BanReason::FalseLink)]);
    assert_eq!(world.tell(&Say::progress(0)), Err(AnnounceError::Banned));
}

#[test]
fn of_two_the_honest_one_is_not_stuck_with_the_other_ones_lie() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "x")));
    world.say(&Say::completed(0));
    assert_eq!(epoch_of(&world.say(&Say::progress(1).false_chain(1))), Some(2));
    assert_eq!(world.status().chain, ChainState::Quarantined);
    // Had it published too, it would fetch for itself: nobody else is there to lead.
    world.say(&Say::progress(1).holding(2, 1).links(links(1, 0, 2, 0, "y")));
    world.say(&Say::progress(1).holding(2, 1).false_chain(2));
    world.say(&Say::progress(0).have("").false_chain(2));
    assert_eq!(world.lead(), None);
    let LeaseState::Granted(grant) = world.say(&Say::progress(1).impatient()).lease else { panic!("stuck") };
    assert!(grant.impatient && grant.frontier.get() == 0);
}

#[test]
fn slander_costs_one_pass_at_most_and_bans_nobody() {
    let mut world = World::with_nodes(8);
    world.join(0..8);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "a")));
    (1..4).for_each(|node| drop(world.say(&Say::progress(node).false_chain(1))));
    let second = number(world.lead().unwrap());
    world.say(&Say::progress(second).holding(2, 16).links(all_links(second, 2, "a")));
    (0..8).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!((world.status().chain, world.banned()), (ChainState::Closed, vec![]));
    // A closed chain is beyond slander.
    (0..8).for_each(|node| drop(world.say(&Say::progress(node).false_chain(2))));
    assert_eq!(world.status().chain, ChainState::Closed);
}

#[test]
fn a_tenth_of_slanderers_quarantines_nothing() {
    let mut world = World::with_nodes(100);
    world.join(0..100);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "a")));
    for node in 90..100 {
        world.say(&Say::completed(node));
        world.say(&Say::progress(node).false_chain(1).accuses(0..8));
    }
    assert_eq!((world.status().chain, world.lead(), world.banned()), (ChainState::Provisional, Some(id(0)), vec![]));
}

#[test]
fn a_successor_that_the_origin_contradicts_is_believed_about_its_predecessor() {
    let mut world = World::with_nodes(4);
    world.join(0..4);
    world.say(&Say::progress(0).holding(1, 3).links(links(0, 0, 1, 0, "xyz")));
    world.disconnect(0);
    let second = number(world.lead().unwrap());
    world.directives();
    let reply = world.say(&Say::progress(second).holding(2, 3).false_chain(1));
    assert_eq!(reply.withdrawn, Some(2));
    assert_eq!(withdrawn(&mut world).len(), 3);
    // A third one starts again.
    let third = world.lead().unwrap();
    assert!(third != id(second) && third != id(0));
    assert_eq!(world.status().epoch, 3);
}

#[test]
fn the_lead_of_an_impatient_lease_is_not_believed_about_the_lead() {
    let mut world = World::with_nodes(4);
    world.join(0..4);
    world.say(&Say::progress(0).holding(1, 3).links(links(0, 0, 1, 0, "abc")));
    assert_eq!(epoch_of(&world.say(&Say::progress(1).impatient())), Some(2));
    world.say(&Say::progress(1).holding(2, 3).false_chain(1));
    assert_eq!((world.status().chain, world.lead()), (ChainState::Provisional, Some(id(0))));
}

#[test]
fn contradicting_links_are_contested_and_withdrawn_when_others_agree() {
    let mut world = World::with_nodes(6);
    world.join(0..6);
    world.say(&Say::progress(0).holding(1, 4).links(links(0, 0, 1, 0, "axxx")));
    world.disconnect(0);
    let second = number(world.lead().unwrap());
    world.say(&Say::progress(second).holding(2, 4).links(links(second, 0, 2, 1, "bcd")));
    assert_eq!(world.status().chain, ChainState::Contested { epoch: 2 });
    let mut others = (1..6).filter(|node| *node != second);
    world.say(&Say::progress(others.next().unwrap()).false_chain(1));
    assert_eq!(world.status().chain, ChainState::Contested { epoch: 2 });
    world.say(&Say::progress(others.next().unwrap()).false_chain(1));
    assert_eq!(world.status().chain, ChainState::Quarantined);
    // Neither of the two publishers leads again.
    let third = world.lead().unwrap();
    assert!(third != id(0) && third != id(second));
    // The truth is the second one's: the first is banned when it is back.
    let third = number(third);
    world.say(&Say::progress(third).holding(3, 16).links(links(third, 0, 3, 0, "abcdefghijklmno")));
    (1..6).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!(world.banned(), [id(0)]);
}

#[test]
fn a_lead_that_contradicts_itself_or_a_proof_leads_no_more() {
    let mut world = World::with_nodes(3);
    world.join(0..3);
    world.say(&Say::progress(0).holding(1, 2).links(links(0, 0, 1, 0, "ab")));
    world.say(&Say::progress(0).holding(1, 2).links(links(0, 0, 1, 0, "ax")));
    assert_ne!(world.lead(), Some(id(0)));
    assert_eq!(world.status().chain, ChainState::Quarantined);

    let mut world = World::with_nodes(4);
    world.join(0..3);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "a")));
    (0..3).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!(world.status().chain, ChainState::Closed);
    (0..3).for_each(|node| world.disconnect(node));
    assert_eq!(epoch_of(&world.say(&Say::started(3))), Some(2));
    world.say(&Say::progress(3).holding(2, 1).links(links(3, 0, 2, 0, "z")));
    assert_eq!((world.status().chain, world.lead()), (ChainState::Closed, None));
}

#[test]
fn who_comes_with_the_whole_blob_proves_no_chain() {
    let mut world = World::with_nodes(8);
    world.join(0..2);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "x")));
    (2..8).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!(world.status().chain, ChainState::Provisional);
    assert_eq!(world.status().replicas, 6);
}

#[test]
fn liars_are_banned_everywhere_and_lose_their_leases() {
    let mut world = World::with_nodes(8);
    world.join(0..8);
    for node in 1..3 {
        world.say(&Say::progress(node).accuses([0, 0, 77]));
        assert_eq!(world.lead(), Some(id(0)));
    }
    let reply = world.say(&Say::progress(3).accuses([0]).want(50));
    assert_eq!((world.banned(), reply.banned), (vec![id(0)], vec![id(0)]));
    assert!(reply.peers.iter().all(|peer| peer.node != id(0)) && reply.peers.len() == 6);
    assert_ne!(world.lead(), Some(id(0)));
    world.directives();
    world.pass(50);
    // All but the liar and the one who heard of it by its reply.
    let told = world.directives().into_iter().filter(|(_, it)| *it == Directive::Ban { nodes: vec![id(0)] });
    assert_eq!(told.map(|(to, _)| to).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 4, 5, 6, 7].map(id)));
    assert_eq!(world.tell(&Say::progress(0)), Err(AnnounceError::Banned));
    // Coming back doesn't help, and a newcomer is told at its first announce.
    world.disconnect(0);
    world.pass(60_000);
    world.connect(0, "");
    assert_eq!(world.tell(&Say::started(0)), Err(AnnounceError::Banned));
    assert_eq!(world.tracker.members(id(0), 10), []);
    world.connect(8, "");
    assert_eq!(world.say(&Say::started(8)).banned, [id(0)]);
    assert_eq!(world.say(&Say::progress(8)).banned, []);
    assert!(matches!(world.say(&Say::progress(8)).lease, LeaseState::HeldBy(_) | LeaseState::Granted(_)));
}

#[test]
fn a_lead_that_contradicts_its_own_links_is_succeeded_by_a_witness_and_its_links_stay() {
    let mut world = World::with_nodes(8);
    world.join(0..8);
    world.say(&Say::progress(0).holding(1, 3).links(links(0, 0, 1, 0, "abc")));
    for node in [1, 2, 2, 0] {
        world.say(&Say::progress(node).corrupt_lead(1));
        assert_eq!(world.lead(), Some(id(0)), "{node} is no quorum");
    }
    // The third witness.
    let reply = world.say(&Say::progress(5).corrupt_lead(1));
    assert_eq!(epoch_of(&reply), Some(2));
    assert_eq!((reply.withdrawn, world.status().chain, world.banned()), (None, ChainState::Provisional, vec![]));
    let revoked =
        world.directives().into_iter().filter(|(_, it)| matches!(it, Directive::LeaseRevoked { epoch: 1, .. }));
    assert_eq!(revoked.map(|(to, _)| to).collect::<Vec<_>>(), [id(0)]);
    // Late witnesses say nothing of who leads now.
    (1..8).for_each(|node| drop(world.say(&Say::progress(node).corrupt_lead(1))));
    assert_eq!(world.lead(), Some(id(5)));
    // It may not lead again.
    world.say(&Say::progress(5).lease(LeaseRequest::Yielded { epoch: 2 }));
    (1..8).for_each(|node| drop(world.say(&Say::stopped(node))));
    assert_eq!(world.say(&Say::progress(0)).lease, LeaseState::Nobody);
}

#[test]
fn a_whole_copy_of_a_lead_that_contradicts_its_own_links_counts_for_nothing() {
    let mut world = World::with_nodes(6);
    world.join(0..6);
    world.say(&Say::completed(0).links(all_links(0, 1, "a")));
    assert_eq!((world.lead(), world.status().replicas), (None, 1));
    (1..3).for_each(|node| drop(world.say(&Say::progress(node).corrupt_lead(1))));
    assert_eq!(world.lead(), None);
    assert_eq!(epoch_of(&world.say(&Say::progress(3).corrupt_lead(1))), Some(2));
    world.say(&Say::completed(0));
    assert_eq!((world.lead(), world.status().replicas), (Some(id(3)), 0), "whatever it says");
    (3..6).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!((world.status().chain, world.banned()), (ChainState::Closed, vec![]), "its links were right");
}

#[test]
fn a_witness_that_does_not_fetch_leaves_the_lease_to_others() {
    let mut world = World::with_nodes(4);
    world.join(0..4);
    (1..4).for_each(|node| drop(world.say(&Say::progress(node).declined().corrupt_lead(1))));
    assert_eq!(world.lead(), None);
    assert_eq!(epoch_of(&world.say(&Say::progress(2))), Some(2));
}

#[test]
fn an_accusation_may_ban_the_accuser() {
    let ban = BanConfig { floor: 3, accusation_budget: 2, ..BanConfig::default() };
    let mut world = World::new(Config { ban, ..Config::default() });
    (0..12).for_each(|node| world.connect(node, ""));
    world.join(0..12);
    // 11 accuses one too many to count.
    world.say(&Say::progress(11).accuses([1, 2, 3]));
    for (accuser, accused) in [(10, 1), (9, 1), (8, 2), (7, 2)] {
        world.say(&Say::progress(accuser).accuses([accused]));
    }
    // With 2 banned 11 is back within its budget, and the third to accuse 1.
    assert!(matches!(world.tell(&Say::progress(1).accuses([2])), Err(AnnounceError::Banned)));
    world.pass(1_000);
    let banned: Vec<u32> =
        world.tracker.snapshot(world.now, 0, 9).banned.iter().map(|(node, _)| number(*node)).collect();
    assert_eq!(banned, [2, 1]);
}
