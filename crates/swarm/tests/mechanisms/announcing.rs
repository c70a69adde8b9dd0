//! What the tracker hears and what its answers do: intervals, bitmaps, new neighbours, another cut.

use std::time::Duration;

use shoal_swarm::{Action, Config};
use shoal_types::{ChunkSize, NodeId, Zone};
use shoal_wire::{AnnounceEvent, AnnounceReply};

use crate::common::solo::{Solo, node};
use crate::common::{asking_for, ms, text};

fn events(solo: &mut Solo) -> Vec<(AnnounceEvent, Option<String>)> {
    let news = solo.news();
    let announces = news.announces().into_iter();
    announces.map(|announce| (announce.event, announce.have.as_ref().map(|have| text(have)))).collect()
}

#[test]
fn a_start_is_announced_at_once_and_then_now_and_again() {
    let mut solo = Solo::new(asking_for(1), "*...");
    assert_eq!(events(&mut solo), [(AnnounceEvent::Started, Some("*...".to_owned()))]);
    solo.replied(&AnnounceReply { interval: Duration::from_secs(2), ..solo.plain_reply() });
    solo.wait(Duration::from_secs(5));
    assert_eq!(events(&mut solo), [(AnnounceEvent::Progress, None)], "nothing has changed");
    let source = solo.neighbour("****");
    let (_, index) = solo.asked()[0];
    solo.delivers(source, index);
    solo.wait(Duration::from_secs(2));
    assert_eq!(events(&mut solo), [(AnnounceEvent::Progress, Some(solo.have()))]);
}

#[test]
fn completion_is_announced_at_once() {
    let mut solo = Solo::new(asking_for(1), "***.");
    let source = solo.neighbour("****");
    events(&mut solo);
    solo.delivers(source, 3);
    solo.wait(ms(0));
    assert_eq!(events(&mut solo), [(AnnounceEvent::Completed, Some("****".to_owned()))]);
}

#[test]
fn leaving_is_announced() {
    let mut solo = Solo::new(asking_for(1), "***.");
    events(&mut solo);
    let key = solo.content.key();
    solo.engine.stop(solo.now, key);
    solo.settle();
    assert_eq!(events(&mut solo), [(AnnounceEvent::Stopped, None)]);
    solo.wait(Duration::from_secs(60));
    assert_eq!(events(&mut solo), []);
}

#[test]
fn new_neighbours_are_looked_for_up_to_the_setting() {
    let config = Config { max_peers: 4, ..asking_for(1) };
    let mut solo = Solo::new(config, "....");
    let known = solo.neighbour("....");
    solo.news();
    solo.told_of_peers(&[node(known), node(50), node(51), node(52), node(53), node(54)]);
    let connects: Vec<Action> = [50, 51, 52].map(|puppet| Action::Connect { node: node(puppet) }).to_vec();
    assert_eq!(solo.news().actions, connects);
    // Others may connect to us: twice as many, and no more.
    let zone = Zone::default();
    let accepted =
        (100..120).filter(|id| solo.engine.handle_connected(solo.now, NodeId::new(*id), &zone).is_some()).count();
    assert_eq!(accepted, 7);
}

#[test]
fn nobody_connects_to_itself_or_twice() {
    let mut solo = Solo::new(asking_for(1), "....");
    solo.neighbour("....");
    solo.news();
    let me = crate::common::solo::ME;
    solo.told_of_peers(&[me, node(0)]);
    assert_eq!(solo.news().actions, []);
    let zone = Zone::default();
    assert_eq!(solo.engine.handle_connected(solo.now, me, &zone), None);
    assert_eq!(solo.engine.handle_connected(solo.now, node(0), &zone), None);
    assert_eq!(solo.engine.peer_count(), 1);
}

#[test]
fn another_cut_is_the_driver_s_to_follow() {
    let mut solo = Solo::new(asking_for(1), "....");
    solo.news();
    let key = solo.content.key();
    let chunk_size = ChunkSize::new(128 << 10).unwrap();
    let other = shoal_types::BlobKey { chunk_size, ..key };
    solo.replied(&AnnounceReply { key: other, ..solo.plain_reply() });
    assert_eq!(solo.news().actions, [Action::Recut { key, chunk_size }]);
}

#[test]
fn answers_about_other_blobs_are_ignored() {
    let mut solo = Solo::new(asking_for(1), "....");
    solo.news();
    let other = crate::common::content::Content::new(77, 3).key();
    solo.replied(&AnnounceReply { key: other, withdrawn: Some(9), ..solo.plain_reply() });
    assert_eq!(solo.news().actions, []);
}
