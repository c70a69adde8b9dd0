//! Zones: what crosses between them goes through one gateway, unless that stalls.

use std::time::Duration;

use shoal_swarm::{Config, ServeOrder};
use shoal_wire::{AnnounceReply, Directive, JoinFlags, PeerMessage};

use crate::common::net::{Net, Setup};
use crate::common::solo::{ME, Solo, node};
use crate::common::{asking_for, credit, ms, open};

fn named_gateway(solo: &mut Solo, node: shoal_types::NodeId) {
    solo.directive(&Directive::Gateway { key: solo.content.key(), node });
}

const GATEWAY: JoinFlags = JoinFlags { gateway: true, seed: false, answer: false };

fn gateway_joins(solo: &mut Solo, puppet: usize) -> usize {
    let joins = |message: &PeerMessage| matches!(message, PeerMessage::Join { flags, .. } if flags.gateway);
    solo.news().said_to(puppet).iter().filter(|message| joins(message)).count()
}

#[test]
fn an_ordinary_node_asks_across_only_after_some_time_without_progress() {
    let config = Config { zone_patience: ms(250), ..asking_for(2) };
    let mut solo = Solo::new(config, "....");
    named_gateway(&mut solo, node(77));
    let abroad = solo.neighbour_abroad("****");
    solo.wait(ms(240));
    assert_eq!(solo.asked(), []);
    solo.wait(ms(40));
    let asked = solo.asked();
    assert_eq!(asked.len(), 2);
    // A chunk is progress: nothing more is asked for before it has waited again.
    solo.delivers(abroad, asked[0].1);
    assert_eq!(solo.asked().len(), 1, "asked for when it came, before it was verified");
    solo.delivers(abroad, asked[1].1);
    assert_eq!(solo.asked(), []);
}

#[test]
fn a_gateway_asks_across_at_once_and_says_what_it_is() {
    let mut solo = Solo::new(asking_for(2), "....");
    let abroad = solo.neighbour_abroad("****");
    solo.news();
    named_gateway(&mut solo, ME);
    let news = solo.news();
    assert_eq!(news.asked().len(), 2);
    let flags = news.said_to(abroad).into_iter().find_map(|message| match message {
        PeerMessage::Join { flags, .. } => Some(flags),
        _ => None,
    });
    assert!(flags.expect("a join").gateway);
}

#[test]
fn a_gateway_that_hears_it_from_an_answer_says_so_once() {
    let mut solo = Solo::new(asking_for(2), "....");
    let abroad = solo.neighbour_abroad("****");
    solo.news();
    let reply = AnnounceReply { gateway: Some(ME), ..solo.plain_reply() };
    solo.replied(&reply);
    assert_eq!(gateway_joins(&mut solo, abroad), 1);
    solo.replied(&reply);
    assert_eq!(gateway_joins(&mut solo, abroad), 0);
}

#[test]
fn near_ones_are_asked_before_far_ones() {
    let mut solo = Solo::new(asking_for(2), "....");
    named_gateway(&mut solo, ME);
    let abroad = solo.neighbour_abroad("....");
    let near = solo.neighbour("....");
    solo.joins(near, "****");
    assert_eq!(solo.asked().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [near, near]);
    solo.joins(abroad, "****");
    assert_eq!(solo.asked().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [abroad, abroad]);
    solo.says(near, PeerMessage::Choke);
    solo.says(abroad, PeerMessage::Choke);
    solo.news();
    solo.says(abroad, PeerMessage::Unchoke);
    solo.says(abroad, PeerMessage::Choke);
    solo.says(near, PeerMessage::Unchoke);
    assert!(solo.asked().iter().filter(|(to, _)| *to == near).count() == 2);
}

#[test]
fn another_zone_s_gateway_is_served_first() {
    let config = Config { uploads_at_once: 1, substitute: false, serve_order: ServeOrder::Fifo, ..open() };
    let mut solo = Solo::new(config, "****");
    let near = solo.neighbour("....");
    let gateway = solo.neighbour_abroad("....");
    solo.joins_as(gateway, "....", GATEWAY);
    (0..3).for_each(|index| solo.requests(near, index));
    solo.requests(gateway, 3);
    let mut order = Vec::new();
    while let Some((to, index)) = solo.news().sending().first().copied() {
        order.push(to);
        solo.sent(to, index);
    }
    assert_eq!(order, [near, gateway, near, near]);
}

#[test]
fn a_free_place_goes_to_another_zone_s_gateway_first() {
    let mut solo = Solo::new(credit(1, 4), "****");
    let served = solo.neighbour("....");
    solo.neighbour("....");
    let gateway = solo.neighbour_abroad("....");
    solo.joins_as(gateway, "....", GATEWAY);
    solo.neighbour("....");
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [served]);
    solo.disconnects(served);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [gateway]);
}

#[test]
fn a_lead_serves_its_own_zone_before_another_one_s_gateway() {
    let mut solo = Solo::without_links(Config { serving: credit(1, 4).serving, ..open() }, 4);
    let gateway = solo.neighbour_abroad("....");
    solo.joins_as(gateway, "....", GATEWAY);
    solo.granted(1, 0);
    solo.fetched(1, 0);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [gateway], "nobody else wants it");
    let near = solo.neighbour("....");
    solo.wait(ms(110));
    let news = solo.news();
    assert_eq!((news.told(&PeerMessage::Choke), news.told(&PeerMessage::Unchoke)), (vec![gateway], vec![near]));
    solo.disconnects(near);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [gateway]);
}

/// Two zones of four nodes, a seed in the first one, and a gateway for the second.
fn two_zones(gateway: bool, zone_patience: Duration) -> Net {
    let config = Config { zone_patience, ..Config::default() };
    let home = Setup { config, ..Setup::default() };
    let abroad = Setup { zone: "abroad", ..home.clone() };
    let mut setups = vec![home; 4];
    setups.extend(vec![abroad; 4]);
    let mut net = Net::new(64, setups);
    if gateway {
        net.tracker.gateways.insert("abroad", 5);
    }
    net.mesh();
    net.seeds(0);
    net.start(1..8);
    net.run_until_complete(1..8, Duration::from_secs(5));
    net
}

fn chunks_across(net: &Net) -> usize {
    net.pieces.iter().filter(|piece| (piece.from < 4) != (piece.to < 4)).count()
}

#[test]
fn a_blob_crosses_about_once_with_a_gateway() {
    let with = chunks_across(&two_zones(true, ms(250)));
    assert!((64..=70).contains(&with), "{with} chunks");
    let without_patience = chunks_across(&two_zones(true, ms(0)));
    assert!(without_patience > with * 5 / 4, "{without_patience} chunks");
}

#[test]
fn a_zone_without_a_gateway_gets_everything_all_the_same() {
    let net = two_zones(false, ms(50));
    assert!((4..8).all(|node| net.is_complete(node)));
}

#[test]
fn when_a_gateway_dies_its_zone_asks_across() {
    let config = Config { zone_patience: ms(50), ..Config::default() };
    let home = Setup { config, up: 100_000_000, ..Setup::default() };
    let abroad = Setup { zone: "abroad", ..home.clone() };
    let mut net = Net::new(64, [home.clone(), home, abroad.clone(), abroad.clone(), abroad]);
    net.tracker.gateways.insert("abroad", 2);
    net.mesh();
    net.seeds(0);
    net.start(1..5);
    net.run_while(Duration::from_secs(2), |net| net.count(2) < 20);
    net.kill(2);
    net.run_until_complete(3..5, Duration::from_secs(10));
}
