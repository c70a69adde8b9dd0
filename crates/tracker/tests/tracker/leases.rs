//! Who leads, and what moves the lease.

use std::time::Duration;

use shoal_types::ChunkIndex;
use shoal_wire::{Directive, LeaseRequest, LeaseState, OriginFailure};

use crate::harness::*;

#[test]
fn the_first_willing_announcer_leads_and_the_others_hear_of_it() {
    let mut world = World::with_nodes(4);
    assert_eq!(world.say(&Say::started(0).declined()).lease, LeaseState::Nobody);
    assert_eq!(epoch_of(&world.say(&Say::started(1))), Some(1));
    assert_eq!(world.say(&Say::started(2)).lease, LeaseState::HeldBy(id(1)));
    // Until it says that it holds the lease, the reply says it again.
    assert_eq!(epoch_of(&world.say(&Say::progress(1))), Some(1));
    let reply = world.say(&Say::progress(1).holding(1, 0));
    assert_eq!(epoch_of(&reply), Some(1));
    assert_eq!(reply.interval, Duration::from_millis(250));
    assert_eq!(world.directives(), []);
}

#[test]
fn a_closed_connection_moves_the_lease_at_once_with_frontier_and_holes() {
    let mut world = World::with_nodes(4);
    world.join(0..4);
    world.say(&Say::progress(0).holding(1, 6).have("******").links(links(0, 0, 1, 0, "abcdef")));
    world.say(&Say::progress(1).have("* *"));
    world.say(&Say::progress(2).have("*  * "));
    world.disconnect(0);
    let granted = world.granted();
    let [(successor, 2, 6, holes)] = &granted[..] else { panic!("{granted:?}") };
    assert!([1, 2].map(id).contains(successor), "one that has something");
    assert_eq!(holes, &[1, 4, 5]);
    assert_eq!(world.lead(), Some(*successor));
    // The old one comes back and hears that it is over.
    world.connect(0, "");
    assert_eq!(world.say(&Say::progress(0).holding(1, 7)).lease, LeaseState::HeldBy(*successor));
    let revoked = Directive::LeaseRevoked { key: blob(0).key(), epoch: 1 };
    assert_eq!(world.directives(), [(id(0), revoked)]);
}

#[test]
fn a_successor_is_sent_the_links_up_to_the_frontier() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    let published = links(0, 0, 1, 0, "abc");
    world.say(&Say::progress(0).holding(1, 3).links(published.clone()));
    assert_eq!(world.say(&Say::progress(1)).links, []);
    world.disconnect(0);
    assert_eq!(world.say(&Say::progress(1).holding(2, 3)).links, [published]);
    assert_eq!(world.say(&Say::progress(1).holding(2, 3)).links, []);
}

#[test]
fn more_holes_than_fit_move_the_frontier_back() {
    let mut config = shoal_tracker::Config::default();
    config.lease.max_holes = 3;
    let mut world = World::new(config);
    (0..2).for_each(|node| world.connect(node, ""));
    world.join(0..2);
    world.say(&Say::progress(0).holding(1, 9).links(links(0, 0, 1, 0, "abcdefghi")));
    world.say(&Say::progress(1).have(" *   *  *"));
    world.disconnect(0);
    assert_eq!(world.granted(), [(id(1), 2, 4, vec![0, 2, 3])]);
}

#[test]
fn a_silent_lead_is_succeeded_and_its_chunks_no_longer_count() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    world.say(&Say::progress(0).holding(1, 4).have("****").links(links(0, 0, 1, 0, "abcd")));
    world.say(&Say::progress(1).have("**"));
    world.pass(749);
    assert_eq!(world.lead(), Some(id(0)));
    world.pass(1);
    let directives = world.directives();
    assert!(directives.contains(&(id(0), Directive::LeaseRevoked { key: blob(0).key(), epoch: 1 })));
    assert!(directives.iter().any(|(to, directive)| *to == id(1)
        && matches!(directive, Directive::Lease { grant, .. } if grant.epoch == 2
            && grant.holes == [2, 3].map(ChunkIndex::new))));
    // It was only slow: its chunks count again, the lease stays where it is.
    assert_eq!(world.say(&Say::progress(0).holding(1, 4)).lease, LeaseState::HeldBy(id(1)));
    assert_eq!(world.status().members, 2);
}

#[test]
fn a_lead_that_reports_and_gets_nowhere_is_succeeded_and_one_on_a_slow_origin_is_not() {
    for (bytes_a_report, survives) in [(0, false), (1, true)] {
        let mut world = World::with_nodes(2);
        world.join(0..2);
        for report in 0..20 {
            world.say(&Say::progress(0).holding(1, 0).bytes(0, report * bytes_a_report));
            world.pass(100);
        }
        assert_eq!(world.status().epoch == 1, survives, "{bytes_a_report} bytes a report");
    }
}

#[test]
fn a_lead_alone_on_a_dead_origin_is_asked_again_ever_more_rarely() {
    let mut world = World::with_nodes(1);
    let mut epochs = 0;
    world.join([0]);
    for _ in 0..1_000 {
        let epoch = world.status().epoch;
        epochs = epoch;
        let holds = world.lead().is_some();
        let say = Say::progress(0);
        world.say(&if holds { say.failed(epoch, OriginFailure::Unreachable) } else { say });
        world.pass(10);
    }
    // 10 s: at once, at once, after 100 ms, 200 ms … 3.2 s.
    assert!((7..=9).contains(&epochs), "{epochs}");
}

#[test]
fn who_yields_or_fails_makes_place_for_another_one() {
    let yields: LeaseRequest = LeaseRequest::Yielded { epoch: 1 };
    let fails = LeaseRequest::Failed { epoch: 1, failure: OriginFailure::Unreachable };
    for word in [yields, fails, LeaseRequest::Declined] {
        let mut world = World::with_nodes(3);
        world.join(0..2);
        assert_eq!(world.say(&Say::progress(0).lease(word)).lease, LeaseState::HeldBy(id(1)));
        assert_eq!(world.granted(), [(id(1), 2, 0, vec![])]);
        // The next time it is the newcomer's turn, not the first one's again.
        world.join([2]);
        world.say(&Say::progress(0));
        world.say(&Say::progress(1).lease(LeaseRequest::Yielded { epoch: 2 }));
        // The second one in vain: the third waits a little.
        assert_eq!(world.lead(), None);
        world.pass(100);
        assert_eq!(world.lead(), Some(id(2)));
        // Someone has to: when only they are left, they lead again.
        world.disconnect(2);
        assert_eq!(world.lead(), None);
        assert_eq!(epoch_of(&world.say(&Say::progress(0))), Some(4));
    }
}

#[test]
fn a_backlog_that_keeps_growing_moves_the_lease_if_there_is_a_successor() {
    // However often it reports, and however late the origin's first byte is: at first a backlog is the pipeline's filling.
    for (others, late, apart, lead) in [(0, 0, 20, 0), (1, 0, 20, 1), (1, 0, 2, 0), (1, 60, 2, 0)] {
        let mut world = World::with_nodes(1 + others);
        world.join(0..1 + others);
        world.pass(late);
        for backlog in [10, 20, 30, 40, 50] {
            let lease = LeaseRequest::Holding { epoch: 1, frontier: ChunkIndex::new(1), backlog };
            world.pass(apart);
            world.say(&Say::progress(0).lease(lease).bytes(0, backlog.into()));
        }
        assert_eq!(world.lead(), Some(id(lead)), "{others} others, every {apart} ms after {late} ms");
    }
}

#[test]
fn the_lead_that_completes_releases_and_is_succeeded_if_it_dies_too_early() {
    let mut world = World::with_nodes(3);
    world.join(0..3);
    world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "a")));
    assert_eq!(world.say(&Say::completed(0)).lease, LeaseState::Nobody);
    assert_eq!(world.say(&Say::progress(1).have("*")).lease, LeaseState::Nobody);
    assert_eq!(world.status().replicas, 1);
    world.disconnect(0);
    let holes: Vec<u32> = (1..15).collect();
    let granted = world.granted();
    assert_eq!(granted.len(), 1);
    assert_eq!((granted[0].1, granted[0].2, &granted[0].3), (2, 15, &holes));
}

#[test]
fn a_lead_that_completes_and_gave_nothing_is_waited_for_a_second_and_no_more() {
    let completes = |backlog| {
        let mut world = World::with_nodes(3);
        world.join(0..3);
        world.say(&Say::progress(0).holding(1, 16).links(all_links(0, 1, "a")));
        let last = LeaseRequest::Holding { epoch: 1, frontier: ChunkIndex::new(16), backlog };
        world.pass(20);
        world.say(&Say::completed(0).lease(last));
        world
    };
    let mut gives = completes(13);
    gives.pass(2_000);
    assert_eq!((gives.granted(), gives.status().replicas), (vec![], 1));
    let mut world = completes(14);
    assert_eq!(world.status().replicas, 0, "it may be the only one that ever gets anything from itself");
    assert_eq!(world.say(&Say::progress(1)).lease, LeaseState::Nobody);
    world.pass(999);
    assert_eq!(world.granted(), []);
    world.pass(1);
    assert_eq!(world.granted().len(), 1);
    // Who has something from it is waited for.
    let mut slow = completes(16);
    for step in 1..6 {
        slow.pass(500);
        slow.say(&Say::progress(1).bytes(step * 1_000, 0));
    }
    assert_eq!(slow.granted(), []);
}

#[test]
fn one_claim_of_completion_moves_nothing() {
    let mut world = World::with_nodes(6);
    world.join(0..4);
    world.say(&Say::completed(4));
    assert_eq!(world.say(&Say::progress(1)).lease, LeaseState::HeldBy(id(0)));
    // Nor does it stop the succession.
    world.disconnect(0);
    assert_eq!(world.granted().len(), 1);
    let lead = world.lead();
    // Three do not take the lease away, either: the lead finds them itself.
    world.say(&Say::completed(5));
    world.connect(9, "");
    world.say(&Say::completed(9));
    assert_eq!((world.lead(), world.status().replicas), (lead, 3));
}

#[test]
fn a_false_claim_before_there_is_a_lead_costs_the_claims_patience() {
    let mut world = World::with_nodes(4);
    world.say(&Say::completed(0));
    let reply = world.say(&Say::started(1));
    assert_eq!((reply.lease, reply.interval), (LeaseState::Nobody, Duration::from_millis(75)));
    assert_eq!(world.say(&Say::started(2).impatient()).lease, LeaseState::Nobody);
    world.pass(149);
    assert_eq!(world.granted(), []);
    world.pass(1);
    assert_eq!(world.granted().len(), 1);
}

#[test]
fn a_seed_that_delivers_is_lead_enough() {
    let mut world = World::with_nodes(4);
    world.say(&Say::completed(0));
    world.join(1..3);
    for step in 1..20 {
        world.pass(100);
        world.say(&Say::progress(1).bytes(step * 1_000, 0));
        assert_eq!(world.say(&Say::progress(2)).lease, LeaseState::Nobody);
    }
    // It stops delivering.
    world.pass(1_000);
    assert_eq!(world.granted().len(), 1);
}

#[test]
fn a_seed_without_links_leads_if_it_asks_to() {
    let mut world = World::with_nodes(2);
    world.say(&Say::completed(0));
    world.say(&Say::started(1).declined());
    world.pass(500);
    assert_eq!(epoch_of(&world.say(&Say::completed(0).lease(LeaseRequest::Willing))), None);
    world.pass(500);
    assert_eq!(epoch_of(&world.say(&Say::completed(0).impatient())), Some(1));
}

#[test]
fn impatience_gets_a_lease_beside_the_leads() {
    let mut world = World::with_nodes(4);
    world.join(0..4);
    let reply = world.say(&Say::progress(1).impatient());
    let LeaseState::Granted(grant) = reply.lease else { panic!("{:?}", reply.lease) };
    assert!(grant.impatient && grant.epoch == 2);
    // One at a time; the lead stays.
    assert_eq!(world.say(&Say::progress(2).impatient()).lease, LeaseState::HeldBy(id(0)));
    assert_eq!(world.lead(), Some(id(0)));
    // Its links are its own business, and no offence.
    let reply = world.say(&Say::progress(1).holding(2, 1).links(links(1, 0, 2, 0, "x")));
    assert_eq!(epoch_of(&reply), Some(2));
    // What it meets at the origin is no verdict for all.
    let busy = OriginFailure::Busy { retry_after: Duration::from_secs(9) };
    assert_eq!(world.say(&Say::progress(1).failed(2, busy)).lease, LeaseState::HeldBy(id(0)));
    assert_eq!(epoch_of(&world.say(&Say::progress(2).impatient())), Some(3));
    // One who falls silent makes place.
    world.pass(700);
    world.say(&Say::progress(0).holding(1, 1));
    world.pass(50);
    assert_eq!(epoch_of(&world.say(&Say::progress(1).impatient())), Some(4));
    assert_eq!(world.lead(), Some(id(0)));
}

#[test]
fn what_the_origin_refuses_is_remembered_for_all() {
    let mut world = World::with_nodes(5);
    world.join(0..4);
    // One lead's 404 is its own.
    world.say(&Say::progress(0).failed(1, OriginFailure::NotFound));
    let second = number(world.lead().unwrap());
    let refused = world.say(&Say::progress(second).failed(2, OriginFailure::NotFound)).lease;
    let expected = LeaseState::Refused { failure: OriginFailure::NotFound, retry_after: Duration::from_secs(30) };
    assert_eq!(refused, expected);
    for _ in 0..30 {
        world.pass(1_000);
        (0..4).for_each(|node| drop(world.say(&Say::progress(node))));
    }
    assert!(world.lead().is_some());

    let mut world = World::with_nodes(2);
    world.join(0..2);
    let busy = OriginFailure::Busy { retry_after: Duration::from_secs(2) };
    world.say(&Say::progress(0).failed(1, busy));
    world.pass(500);
    let expected = LeaseState::Refused { failure: busy, retry_after: Duration::from_millis(1_500) };
    assert_eq!(world.say(&Say::progress(1).impatient()).lease, expected);
    world.pass(1_500);
    assert_eq!(world.granted().len(), 1);
}

#[test]
fn layers_of_one_image_have_leads_on_different_nodes() {
    let mut world = World::with_nodes(3);
    for node in 0..3 {
        for layer in 0..3 {
            world.say(&Say::started(node).of(layer));
        }
        world.pass(1);
    }
    let mut leads: Vec<_> = (0..3).map(|layer| world.status_of(layer).lead.unwrap()).collect();
    leads.sort_unstable();
    assert_eq!(leads, [0, 1, 2].map(id));
    assert_eq!(world.directives(), []);
    // Alone, one leads them all, a little later.
    let mut world = World::with_nodes(1);
    (0..3).for_each(|layer| drop(world.say(&Say::started(0).of(layer))));
    world.pass(5);
    assert_eq!(world.granted().len(), 2);
}

#[test]
fn after_a_restart_the_old_lead_leads_on() {
    let mut world = World::with_nodes(4);
    assert_eq!(world.say(&Say::progress(1).have("*")).lease, LeaseState::Nobody);
    assert_eq!(world.say(&Say::progress(2)).lease, LeaseState::Nobody);
    world.pass(100);
    let reply = world.say(&Say::progress(0).holding(7, 5).links(links(0, 0, 7, 0, "abcde")));
    assert_eq!(epoch_of(&reply), Some(7));
    assert_eq!(world.say(&Say::progress(2)).lease, LeaseState::HeldBy(id(0)));
    world.disconnect(0);
    assert_eq!(world.granted().iter().map(|grant| (grant.1, grant.2)).collect::<Vec<_>>(), [(8, 5)]);

    // If it doesn't show up, another one is named.
    let mut world = World::with_nodes(4);
    world.say(&Say::progress(1).have("*"));
    world.pass(300);
    assert_eq!(world.granted(), [(id(1), 1, 1, vec![])]);
}

#[test]
fn a_blob_that_comes_back_goes_on_counting_epochs() {
    let mut world = World::with_nodes(2);
    world.join(0..2);
    world.disconnect(0);
    assert_eq!(world.status().epoch, 2);
    world.say(&Say::stopped(1));
    world.pass(3_600_000);
    assert_eq!(world.tracker.snapshot(world.now, 9, 9).blobs_known, 0);
    assert_eq!(epoch_of(&world.say(&Say::started(1))), Some(3));
}
