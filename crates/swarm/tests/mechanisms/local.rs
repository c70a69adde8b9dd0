//! A blob that lies whole on the node: it is claimed at once, had as it is linked, and nothing of it is wanted of anybody.

use shoal_swarm::{Action, Config, Engine};
use shoal_wire::{AnnounceEvent, LeaseRequest, PeerMessage};

use crate::common::solo::{ME, PUBLISHER, Solo};
use crate::common::{asking_for, content::TRUE, ms};

/// The next chunks are hashed, up to, and without, this one.
fn linked(solo: &mut Solo, from: u32, to: u32) {
    let links = solo.content.batch(Engine::LOCAL_EPOCH, ME, from..to, TRUE);
    solo.engine.handle_local_chunks(solo.now, solo.content.key(), from..to, &links);
    solo.settle();
}

fn config() -> Config {
    asking_for(64)
}

#[test]
fn it_is_claimed_at_once_and_nothing_of_it_is_wanted() {
    let mut solo = Solo::local(config(), 8);
    let announces: Vec<_> = solo.news().announces().into_iter().cloned().collect();
    let [announce] = announces.as_slice() else { panic!("{announces:?}") };
    assert_eq!((announce.event, &announce.lease), (AnnounceEvent::Completed, &LeaseRequest::Declined));
    assert!(announce.have.as_ref().is_some_and(|have| have.is_full()) && announce.want_peers == 0);
    let seed = solo.source("********");
    solo.learns(&solo.content.whole_chain(1, PUBLISHER));
    solo.granted(3, 0);
    solo.wait(ms(20_000));
    let news = solo.news();
    assert_eq!((news.asked(), news.fetches()), (vec![], vec![]));
    assert_eq!(solo.have(), "........", "others' links are no proof of what lies here");
    assert!(news.announces().iter().all(|announce| announce.have.is_none()), "it was told once");
    let _ = seed;
}

#[test]
fn neighbours_get_what_is_linked_with_its_links() {
    let mut solo = Solo::local(config(), 8);
    let leech = solo.neighbour("........");
    let joins = solo.news().said_to(leech);
    let shown = |message: &PeerMessage| match message {
        PeerMessage::Join { have, flags, .. } => Some((have.len(), flags.seed)),
        _ => None,
    };
    assert_eq!(joins.iter().find_map(shown), Some((0, true)), "{joins:?}");
    linked(&mut solo, 0, 3);
    solo.says(leech, solo.request(2, true));
    let news = solo.news();
    assert_eq!(news.sending(), [(leech, 2)]);
    let links = news.said_to(leech).into_iter().find_map(|message| match message {
        PeerMessage::Links { batches, .. } => Some(batches),
        _ => None,
    });
    assert!(links.is_some_and(|batches| batches[0].publisher == ME));
    solo.says(leech, solo.request(5, true));
    assert_eq!(solo.news().rejected().len(), 1, "it isn't linked yet");
    linked(&mut solo, 3, 8);
    let news = solo.news();
    assert!(news.contains(&Action::Completed { key: solo.content.key() }));
    assert_eq!(solo.have(), "********");
    solo.wait(ms(1));
    assert!(solo.news().announces().iter().all(|announce| announce.links.is_empty()), "links of no lease");
}

#[test]
fn a_withdrawal_takes_nothing_of_it() {
    let mut solo = Solo::local(config(), 8);
    linked(&mut solo, 0, 3);
    solo.withdraws(7);
    assert_eq!(solo.have(), "***.....");
    linked(&mut solo, 3, 8);
    solo.withdraws(8);
    assert_eq!(solo.have(), "********");
    let failed = Action::ChainFailed { key: solo.content.key() };
    assert!(!solo.news().contains(&failed));
}
