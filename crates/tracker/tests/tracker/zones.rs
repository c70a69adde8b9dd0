//! Gateways between zones.

use shoal_tracker::Config;
use shoal_types::NodeId;
use shoal_wire::Directive;

use crate::harness::*;

/// Nodes 0 to 9 of zone a, 10 to 19 of zone b, 20 to 29 of zone c.
fn three_zones() -> World {
    let mut world = World::new(Config::default());
    (0..30).for_each(|node| world.connect(node, ["a", "b", "c"][node as usize / 10]));
    world
}

fn gateways(world: &mut World) -> Vec<(NodeId, NodeId)> {
    let gateway = |(to, directive)| match directive {
        Directive::Gateway { node, .. } => Some((to, node)),
        _ => None,
    };
    let mut told: Vec<_> = world.directives().into_iter().filter_map(gateway).collect();
    told.sort_unstable();
    told
}

#[test]
fn each_other_zone_has_one_gateway() {
    let mut world = three_zones();
    for node in 0..30 {
        let expected = [None, Some(id(10)), Some(id(20))][node as usize / 10];
        assert_eq!(world.say(&Say::started(node)).gateway, expected);
    }
    // Everybody has heard of it by its own reply.
    assert_eq!(gateways(&mut world), []);
}

#[test]
fn a_gateway_that_goes_is_replaced_and_its_zone_is_told() {
    for how in 0..2 {
        let mut world = three_zones();
        world.join(0..30);
        world.say(&Say::progress(15).have("***"));
        match how {
            0 => world.disconnect(10),
            _ => drop(world.say(&Say::stopped(10))),
        }
        assert_eq!(gateways(&mut world), (11..20).map(|node| (id(node), id(15))).collect::<Vec<_>>());
        assert_eq!(world.say(&Say::progress(12)).gateway, Some(id(15)));
    }
}

#[test]
fn a_gateway_without_progress_is_replaced_if_others_make_some() {
    for others_progress in [false, true] {
        let mut world = three_zones();
        world.join(0..30);
        for step in 0..20 {
            world.pass(100);
            world.say(&Say::progress(0).holding(1, 0).bytes(0, step));
            for node in 1..30 {
                let peers = if others_progress && node != 10 { step } else { 0 };
                world.say(&Say::progress(node).bytes(peers, 0));
            }
        }
        assert_eq!(world.say(&Say::progress(11)).gateway != Some(id(10)), others_progress);
        assert_eq!(world.say(&Say::progress(21)).gateway, Some(id(20)));
    }
}

#[test]
fn a_zone_with_copies_of_its_own_needs_no_gateway() {
    let mut world = three_zones();
    world.join(0..30);
    (11..13).for_each(|node| drop(world.say(&Say::completed(node))));
    assert_eq!(world.say(&Say::progress(19)).gateway, Some(id(10)));
    world.say(&Say::completed(13));
    assert_eq!(world.say(&Say::progress(19)).gateway, None);
    assert_eq!(world.say(&Say::progress(29)).gateway, Some(id(20)));
}

#[test]
fn the_home_zone_is_the_leads_and_a_successor_is_of_the_same_one() {
    let mut world = three_zones();
    world.join(0..30);
    (10..30).for_each(|node| drop(world.say(&Say::progress(node).have("**"))));
    world.disconnect(0);
    assert!(world.lead().unwrap() < id(10));
    assert_eq!(gateways(&mut world), []);
    // Only when nobody is left there does the blob move house.
    (1..10).for_each(|node| world.disconnect(node));
    let lead = world.lead().unwrap();
    let (home, other) = if lead < id(20) { (10..20, 20) } else { (20..30, 10) };
    for node in home.filter(|node| id(*node) != lead) {
        assert_eq!(world.say(&Say::progress(node)).gateway, None);
    }
    assert!(world.say(&Say::progress(other)).gateway.is_some());
}

#[test]
fn without_a_lead_the_first_seeds_zone_is_home() {
    let mut world = three_zones();
    assert_eq!(world.say(&Say::started(10).declined()).gateway, None);
    world.say(&Say::completed(20));
    assert_eq!(world.say(&Say::started(11).declined()).gateway, Some(id(10)));
    // 10 had announced before there was a home.
    assert_eq!(gateways(&mut world), [(id(10), id(10))]);
}
