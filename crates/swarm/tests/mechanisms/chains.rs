//! Links that contradict each other, and chains that are withdrawn.

use std::time::Duration;

use shoal_chain::VerifiedLinks;
use shoal_swarm::{Action, Config};
use shoal_types::NodeId;
use shoal_wire::{AnnounceReply, PeerMessage, RejectReason};

use crate::common::content::TRUE;
use crate::common::net::{Net, Role, Setup};
use crate::common::solo::{ME, News, Solo};
use crate::common::{asking_for, chunk, ms, open, text};

const FIRST: NodeId = NodeId::new(501);
const SECOND: NodeId = NodeId::new(502);

/// Links that somebody has invented.
const FALSE: u8 = 3;

fn called_false(news: &News) -> Vec<u64> {
    news.announces().iter().filter_map(|announce| announce.false_chain).collect()
}

#[test]
fn a_contradiction_by_a_later_epoch_is_reported_and_the_earlier_links_are_kept() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.learns(&[solo.content.batch(3, FIRST, 0..5, TRUE)]);
    solo.learns(&[solo.content.batch(5, SECOND, 2..4, FALSE)]);
    solo.wait(ms(1));
    assert_eq!(called_false(&solo.news()), [3], "of the links that are kept");
    let source = solo.neighbour("******");
    for index in 0..6 {
        solo.delivers(source, index);
    }
    assert_eq!(solo.have(), "******");
}

#[test]
fn a_contradiction_by_the_same_or_an_earlier_epoch_is_nothing() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.learns(&[solo.content.batch(3, FIRST, 0..5, TRUE)]);
    solo.learns(&[solo.content.batch(3, SECOND, 0..5, FALSE), solo.content.batch(2, SECOND, 1..3, FALSE)]);
    solo.wait(ms(1));
    assert_eq!(called_false(&solo.news()), []);
}

#[test]
fn a_last_link_that_is_not_the_digest_speaks_against_its_own_author_only() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.learns(&[solo.content.batch(3, FIRST, 0..5, TRUE)]);
    solo.learns(&[solo.content.batch(9, SECOND, 5..6, FALSE)]);
    solo.wait(ms(1));
    assert_eq!(called_false(&solo.news()), []);
}

#[test]
fn links_of_another_algorithm_are_refused() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    let long = shoal_chain::LinkRun::single(chunk(1), shoal_chain::Link::Sha512([5; 64]));
    solo.learns(&[solo.content.signed(1, FIRST, long)]);
    solo.learns(&solo.content.whole_chain(1, FIRST));
    let source = solo.neighbour("******");
    assert!(solo.delivers(source, 1));
    assert_eq!(solo.have(), ".*....");
}

#[test]
fn a_chunk_waits_for_its_links() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    let source = solo.neighbour("******");
    assert!(solo.delivers(source, 3));
    assert!(solo.delivers(source, 5));
    assert_eq!(solo.have(), "......");
    solo.learns(&solo.content.singles(1, FIRST, 3..5));
    assert_eq!(solo.have(), ".....*", "the last one's link is the digest");
    solo.learns(&solo.content.singles(1, FIRST, 2..3));
    assert_eq!(solo.have(), "...*.*");
}

#[test]
fn a_withdrawal_drops_what_was_verified_under_the_chain_and_joins_again() {
    let mut solo = Solo::new(open(), "......");
    let source = solo.neighbour("******");
    for index in [0, 2, 3] {
        solo.delivers(source, index);
    }
    assert_eq!(solo.have(), "*.**..");
    solo.news();
    solo.withdraws(1);
    assert_eq!(solo.have(), "......");
    let news = solo.news();
    assert!(news.contains(&Action::ChainFailed { key: solo.content.key() }));
    let rejoins = news.said_to(source).into_iter().filter_map(|message| match message {
        PeerMessage::Join { have, flags, .. } => Some((text(&have), flags.answer)),
        _ => None,
    });
    assert_eq!(rejoins.collect::<Vec<_>>(), [("......".to_owned(), true)]);
    // Once is enough.
    solo.withdraws(1);
    assert_eq!(solo.news().actions, []);
}

#[test]
fn links_of_a_withdrawn_epoch_are_not_taken_again() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.withdraws(2);
    let source = solo.neighbour("******");
    solo.delivers(source, 0);
    for epoch in [1, 2] {
        solo.learns(&[solo.content.batch(epoch, FIRST, 0..5, TRUE)]);
        assert_eq!(solo.have(), "......", "epoch {epoch}");
    }
    solo.learns(&[solo.content.batch(3, SECOND, 0..5, TRUE)]);
    assert_eq!(solo.have(), "*.....");
}

#[test]
fn an_answer_to_an_announce_withdraws_as_well() {
    let mut solo = Solo::new(open(), "**....");
    solo.replied(&AnnounceReply { withdrawn: Some(1), ..solo.plain_reply() });
    assert_eq!(solo.have(), "......");
}

#[test]
fn requests_that_wait_for_withdrawn_chunks_are_refused() {
    let mut solo = Solo::new(Config { uploads_at_once: 1, substitute: false, ..open() }, "***...");
    let asker = solo.neighbour("......");
    (0..3).for_each(|index| solo.requests(asker, index));
    assert_eq!(solo.news().sending(), [(asker, 0)]);
    solo.withdraws(1);
    let refused = solo.news().rejected();
    assert_eq!(refused, [(asker, 1, RejectReason::Withdrawn), (asker, 2, RejectReason::Withdrawn)]);
}

#[test]
fn a_closed_chain_is_not_withdrawn() {
    let mut solo = Solo::new(open(), "*****.");
    let source = solo.neighbour("******");
    solo.delivers(source, 5);
    solo.withdraws(99);
    assert_eq!(solo.have(), "******");
    let failed = Action::ChainFailed { key: solo.content.key() };
    assert!(!solo.news().contains(&failed));
}

#[test]
fn a_verification_that_ends_after_the_withdrawal_proves_nothing() {
    let mut solo = Solo::new(asking_for(8), "......");
    let source = solo.neighbour("******");
    solo.hold_verifications = true;
    solo.delivers(source, 2);
    solo.withdraws(1);
    solo.verify_held();
    assert_eq!(solo.have(), "......");
    solo.hold_verifications = false;
    solo.joins(source, "******");
    solo.learns(&[solo.content.batch(2, SECOND, 0..5, TRUE)]);
    let asked = solo.asked();
    assert!(asked.contains(&(source, 2)), "it is asked for again: {asked:?}");
    solo.delivers(source, 2);
    assert_eq!(solo.have(), "..*...");
}

#[test]
fn a_withdrawal_of_one_epoch_holds_up_no_verification_under_another() {
    let mut solo = Solo::without_links(asking_for(8), 8);
    solo.learns(&[solo.content.batch(1, FIRST, 0..3, TRUE), solo.content.batch(2, SECOND, 3..7, TRUE)]);
    let source = solo.neighbour("********");
    solo.hold_verifications = true;
    solo.delivers(source, 1);
    solo.delivers(source, 5);
    solo.withdraws(1);
    solo.verify_held();
    solo.hold_verifications = false;
    solo.joins(source, "********");
    solo.learns(&[solo.content.batch(3, SECOND, 0..3, TRUE)]);
    for index in 0..8 {
        solo.delivers(source, index);
    }
    assert_eq!(solo.have(), "********");
}

#[test]
fn a_withdrawal_of_unknown_links_holds_up_nothing() {
    let mut solo = Solo::without_links(asking_for(8), 4);
    solo.learns(&[solo.content.batch(2, SECOND, 0..3, TRUE)]);
    let source = solo.neighbour("****");
    solo.hold_verifications = true;
    solo.delivers(source, 1);
    solo.withdraws(1);
    solo.verify_held();
    assert_eq!(solo.have(), ".*..");
}

#[test]
fn a_lead_whose_origin_contradicts_an_earlier_chain_reports_it() {
    let mut solo = Solo::without_links(open(), 8);
    solo.granted(2, 0);
    // Links of an earlier lead come late.
    solo.learns(&[solo.content.batch(1, FIRST, 1..4, FALSE)]);
    solo.fetched(2, 0);
    solo.wait(ms(1));
    assert_eq!(called_false(&solo.news()), []);
    solo.fetched(2, 1);
    solo.wait(ms(1));
    assert_eq!(called_false(&solo.news()), [1]);
}

#[test]
fn bytes_that_do_not_give_the_digest_speak_against_the_predecessor() {
    let mut solo = Solo::without_links(open(), 8);
    solo.learns(&[solo.content.batch(1, FIRST, 0..6, FALSE)]);
    solo.granted(2, 6);
    let key = solo.content.key();
    solo.engine.handle_origin_chunk(solo.now, key, 2, chunk(6), Some(&after_false_links(&solo)));
    solo.engine.handle_origin_mismatch(solo.now, key, 2);
    solo.settle();
    solo.wait(ms(1));
    let news = solo.news();
    assert_eq!(called_false(&news), [1]);
    assert!(news.contains(&Action::StopOrigin { key }));
}

/// The link that the true chunk 6 gives after false ones.
fn after_false_links(solo: &Solo) -> VerifiedLinks {
    let before = solo.content.batch(1, FIRST, 5..6, FALSE).get().batch.run.get(chunk(5));
    let link = solo.content.link_after(before, chunk(6), TRUE);
    solo.content.signed(2, ME, shoal_chain::LinkRun::single(chunk(6), link))
}

#[test]
fn who_asks_for_links_gets_them_from_that_chunk_on() {
    let mut solo = Solo::without_links(open(), 6);
    solo.learns(&solo.content.singles(1, FIRST, 0..5));
    let asker = solo.neighbour("......");
    solo.news();
    let key = solo.content.key();
    solo.says(asker, PeerMessage::LinksWanted { key, from: chunk(3) });
    let batches = solo.content.singles(1, FIRST, 3..5).into_iter().map(VerifiedLinks::into_inner).collect();
    assert_eq!(solo.news().said_to(asker), [PeerMessage::Links { key, batches }]);
    solo.says(asker, PeerMessage::LinksWanted { key, from: chunk(5) });
    assert_eq!(solo.news().actions, [], "there are none");
}

#[test]
fn a_lying_lead_costs_another_pass_and_no_wrong_byte() {
    for seed in 1..=5 {
        let honest = Setup::default();
        let lying = Setup { role: Role::LyingLead, ..Setup::default() };
        let mut net = Net::with_seed(48, [lying, honest.clone(), honest.clone(), honest.clone(), honest], seed);
        net.withdraws = true;
        net.mesh();
        net.start(0..5);
        net.run_while(Duration::from_secs(1), |net| !(1..5).all(|node| net.finished_at(node).is_some()));
        assert!((1..5).all(|node| net.is_complete(node)), "seed {seed}");
        assert!(net.tracker.accused.iter().all(|(_, accused)| *accused == net.id(0)), "seed {seed}");
        assert!(net.origin_chunks <= 3 * 48, "seed {seed}: {} chunks of the origin", net.origin_chunks);
    }
}
