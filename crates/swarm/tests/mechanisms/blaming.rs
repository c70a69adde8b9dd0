//! Whose fault a wrong chunk is: local at once, an accusation only with a closed chain, the publisher's where it is plain.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_chain::VerifiedLinks;
use shoal_swarm::{Config, DisconnectReason};
use shoal_types::ChunkSet;
use shoal_wire::{AnnounceReply, Directive, PeerMessage, RejectReason};

use crate::common::content::{CHUNK_BYTES, Content, LIE, TRUE};
use crate::common::net::{Net, Role, Setup};
use crate::common::solo::{News, Solo, node};
use crate::common::{asking_for, ms};

/// A leech, a liar who has sent one wrong chunk, and an honest neighbour that serves nothing yet.
fn lied_to() -> (Solo, usize, usize) {
    let mut solo = Solo::new(asking_for(8), "......");
    let liar = solo.neighbour("******");
    let (_, index) = solo.asked()[0];
    assert!(solo.delivers_variant(liar, index, LIE));
    let honest = solo.neighbour("******");
    // It forgets what else was asked of it.
    solo.says(liar, PeerMessage::Choke);
    solo.says(liar, PeerMessage::Unchoke);
    (solo, liar, honest)
}

/// Everything that the tracker was told of a chain or a node.
fn verdicts(news: &News) -> (Vec<u64>, Vec<shoal_types::NodeId>) {
    let announces = news.announces();
    (
        announces.iter().filter_map(|announce| announce.false_chain).collect(),
        announces.iter().flat_map(|announce| announce.accused.clone()).collect(),
    )
}

/// The others deliver whatever is asked of them.
fn finish(solo: &mut Solo, honest: usize) -> News {
    let owed = solo.asked();
    finish_with(solo, honest, owed)
}

fn finish_with(solo: &mut Solo, honest: usize, mut owed: Vec<(usize, u32)>) -> News {
    while let Some((to, index)) = owed.pop() {
        if to == honest {
            solo.delivers(honest, index);
        } else {
            solo.rejects(to, index, RejectReason::TooMany);
        }
        let news = solo.news();
        if news.actions.iter().any(|action| matches!(action, shoal_swarm::Action::Completed { .. })) {
            return news;
        }
        owed.extend(news.asked());
    }
    panic!("not complete: {}", solo.have());
}

#[test]
fn under_an_open_chain_a_wrong_chunk_s_sender_is_not_asked_again_and_nobody_is_accused() {
    let (mut solo, liar, honest) = lied_to();
    let asked = solo.asked();
    assert_eq!(asked.iter().filter(|(to, _)| *to == honest).count(), 6, "everything that is missing");
    solo.wait(Duration::from_secs(12));
    let news = solo.news();
    assert!(news.asked().iter().all(|(to, _)| *to == honest));
    assert_eq!(news.dropped(), []);
    assert_eq!(verdicts(&news), (vec![], vec![]));
    assert_eq!(solo.engine.counters().chunks_wrong, 1);
    assert_eq!(solo.engine.counters().bytes_wasted, CHUNK_BYTES);
    assert_eq!(solo.engine.counters().bans, 0);
    assert!(solo.engine.peer_count() == 2 && liar != honest);
}

#[test]
fn after_the_chain_has_closed_the_sender_is_banned_and_accused() {
    let (mut solo, liar, honest) = lied_to();
    let mut news = finish(&mut solo, honest);
    assert_eq!(news.dropped(), [(liar, DisconnectReason::Banned)]);
    solo.wait(ms(1));
    news.actions.extend(solo.news().actions);
    assert_eq!(verdicts(&news), (vec![], vec![node(liar)]));
    assert_eq!(solo.engine.counters().bans, 1);
    let zone = shoal_types::Zone::default();
    assert_eq!(solo.engine.handle_connected(solo.now, node(liar), &zone), None, "it may not come back");
    // It is accused once.
    solo.wait(Duration::from_secs(30));
    let news = solo.news();
    assert!(!news.announces().is_empty());
    assert_eq!(verdicts(&news), (vec![], vec![]));
}

#[test]
fn after_a_withdrawal_it_is_forgotten() {
    let (mut solo, liar, honest) = lied_to();
    solo.disconnects(honest);
    solo.withdraws(1);
    solo.joins(liar, "******");
    assert!(solo.asked().iter().any(|(to, _)| *to == liar), "it may have been honest");
    let links = solo.content.batch(2, node(77), 0..5, TRUE);
    solo.learns(&[links]);
    solo.says(liar, PeerMessage::Choke);
    solo.reconnects(honest);
    solo.joins(honest, "******");
    let mut news = finish(&mut solo, honest);
    solo.wait(ms(1));
    news.actions.extend(solo.news().actions);
    assert_eq!(news.dropped(), []);
    assert_eq!(verdicts(&news), (vec![], vec![]));
}

#[test]
fn honest_ones_that_have_not_heard_of_a_withdrawal_yet_are_not_blamed() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    let honest = solo.neighbour("......");
    solo.withdraws(1);
    solo.learns(&[solo.content.batch(2, node(honest), 0..5, TRUE)]);
    // It still has what it verified under the chain that is withdrawn; it even leads since, and has signed the new one.
    solo.joins(honest, "***...");
    let mut owed = solo.asked();
    let (_, index) = owed.remove(0);
    solo.delivers_variant(honest, index, LIE);
    assert_eq!(solo.asked(), [], "not before it has heard of it");
    owed.clear();
    solo.joins(honest, "......");
    solo.joins(honest, "******");
    owed.extend(solo.asked());
    let mut news = finish_with(&mut solo, honest, owed);
    solo.wait(ms(1));
    news.actions.extend(solo.news().actions);
    assert_eq!(news.dropped(), []);
    assert_eq!(verdicts(&news), (vec![], vec![]));
}

#[test]
fn a_while_after_a_withdrawal_a_wrong_chunk_is_a_wrong_chunk() {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.withdraws(1);
    solo.learns(&[solo.content.batch(2, node(77), 0..5, TRUE)]);
    solo.wait(Duration::from_secs(5));
    let liar = solo.neighbour("******");
    let (_, index) = solo.asked()[0];
    solo.delivers_variant(liar, index, LIE);
    assert_eq!(solo.asked(), []);
}

/// What the tracker is told of a neighbour that sends a wrong chunk: false chains, corrupt leads. It has signed the links from another one's
/// on.
fn after_a_wrong_chunk_of_the_author(index: u32, from: u32) -> (Vec<u64>, Vec<u64>) {
    let mut solo = Solo::without_links(asking_for(8), 6);
    solo.learns(&solo.content.singles(3, node(50), 0..from));
    let mut have = ".".repeat(6);
    have.replace_range(index as usize..=index as usize, "*");
    let author = solo.neighbour(&have);
    solo.learns(&[solo.content.batch(4, node(author), from..5, TRUE)]);
    assert_eq!(solo.asked(), [(author, index)]);
    solo.delivers_variant(author, index, LIE);
    let mut news = solo.news();
    solo.wait(ms(1));
    news.actions.extend(solo.news().actions);
    let (false_chains, accused) = verdicts(&news);
    assert_eq!((accused, news.dropped()), (vec![], vec![]), "for the tracker to decide");
    (false_chains, news.announces().iter().filter_map(|announce| announce.corrupt_lead).collect())
}

#[test]
fn who_alone_has_signed_the_links_that_refute_its_chunk_is_no_lead() {
    for (index, from) in [(0, 0), (4, 0), (3, 2)] {
        assert_eq!(
            after_a_wrong_chunk_of_the_author(index, from),
            (vec![], vec![4]),
            "chunk {index}, links from {from}"
        );
    }
}

#[test]
fn of_who_may_have_gone_on_from_a_false_link_the_links_are_reported() {
    for (index, from) in [(2, 2), (5, 0)] {
        assert_eq!(
            after_a_wrong_chunk_of_the_author(index, from),
            (vec![4], vec![]),
            "chunk {index}, links from {from}"
        );
    }
}

/// How many senders of a chunk that fails it takes to speak against its links; beside them so many others say to have it.
fn senders_against_links(others: usize) -> usize {
    let mut solo = Solo::without_links(asking_for(1), 6);
    let links: Vec<VerifiedLinks> = solo.content.singles(3, node(50), 0..2);
    solo.learns(&links);
    let false_link = solo.content.batch(3, node(50), 2..3, LIE);
    solo.learns(&[false_link]);
    for _ in 0..others {
        let other = solo.neighbour("..*...");
        solo.rejects(other, 2, RejectReason::Choked);
    }
    solo.news();
    for senders in 1..20 {
        // Honest ones, each with nothing but chunk 2.
        let honest = solo.neighbour("..*...");
        assert_eq!(solo.asked(), [(honest, 2)]);
        solo.delivers(honest, 2);
        solo.wait(ms(1));
        if verdicts(&solo.news()).0 == [3] {
            assert_eq!(solo.engine.counters().bans, 0);
            return senders;
        }
    }
    panic!("nothing was said against the links");
}

#[test]
fn senders_of_one_failing_chunk_speak_against_its_links() {
    assert_eq!(senders_against_links(0), 3);
    assert_eq!(senders_against_links(1), 8, "somebody may have it right");
}

#[test]
fn one_sender_of_many_wrong_chunks_speaks_against_nobody_else() {
    let mut solo = Solo::new(asking_for(6), "......");
    let liar = solo.neighbour("******");
    for (_, index) in solo.asked() {
        assert!(solo.delivers_variant(liar, index, LIE));
    }
    solo.wait(ms(10));
    let news = solo.news();
    assert_eq!(verdicts(&news), (vec![], vec![]));
    assert_eq!(solo.engine.counters().chunks_wrong, 6);
}

#[test]
fn a_suspect_s_unasked_chunks_are_of_no_use() {
    let (mut solo, liar, honest) = lied_to();
    let asked = solo.asked();
    let (_, index) = asked.into_iter().find(|(to, _)| *to == honest).expect("the honest one is asked");
    // It hears what others are asked for, and is quicker.
    assert!(!solo.delivers_variant(liar, index, LIE));
    assert!(solo.delivers(honest, index));
    assert_eq!(solo.engine.counters().chunks_wrong, 1);
}

#[test]
fn a_suspect_stays_one_if_it_leaves_and_comes_back() {
    let (mut solo, liar, honest) = lied_to();
    solo.disconnects(honest);
    solo.news();
    let key = solo.content.key();
    solo.says(liar, PeerMessage::Leave { key });
    solo.joins(liar, "******");
    assert_eq!(solo.asked(), []);
    solo.disconnects(liar);
    solo.reconnects(liar);
    solo.joins(liar, "******");
    assert_eq!(solo.asked(), []);
}

#[test]
fn a_suspect_of_one_blob_is_asked_for_another() {
    let (mut solo, liar, _) = lied_to();
    let other = Content::new(2, 4);
    solo.start(other, 9);
    solo.news();
    let have = ChunkSet::full(4).into();
    solo.says(liar, PeerMessage::Join { blob: other.blob, have, flags: Default::default() });
    assert!(!solo.news().asked_of(other.key()).is_empty());
}

#[test]
fn whom_the_tracker_bans_is_dropped_and_refused() {
    let mut solo = Solo::new(asking_for(8), "......");
    let (first, second) = (solo.neighbour("******"), solo.neighbour("******"));
    solo.directive(&Directive::Ban { nodes: vec![node(first), node(900)] });
    assert_eq!(solo.news().dropped(), [(first, DisconnectReason::Banned)]);
    solo.replied(&AnnounceReply { banned: vec![node(second)], ..solo.plain_reply() });
    assert_eq!(solo.news().dropped(), [(second, DisconnectReason::Banned)]);
    solo.told_of_peers(&[node(first), node(900), node(901)]);
    let connects = solo.news().actions;
    assert_eq!(connects, [shoal_swarm::Action::Connect { node: node(901) }]);
    assert_eq!(solo.engine.counters().bans, 3);
}

#[test]
fn liars_cost_a_few_chunks_and_are_all_accused() {
    let honest = Setup { config: Config::default(), ..Setup::default() };
    let liar = Setup { role: Role::Liar, ..honest.clone() };
    let mut setups = vec![honest; 8];
    setups.extend(vec![liar; 2]);
    let mut net = Net::new(60, setups);
    net.mesh();
    net.seeds(0);
    // They have it all, and corrupt it.
    net.seeds(8);
    net.seeds(9);
    net.start(1..8);
    net.run_until_complete(1..8, Duration::from_secs(5));
    net.run_for(ms(10));
    let liars = BTreeSet::from([net.id(8), net.id(9)]);
    assert!((1..8).all(|node| net.is_complete(node)));
    assert!(net.tracker.accused.iter().all(|(_, accused)| liars.contains(accused)));
    let accused: BTreeSet<_> = net.tracker.accused.iter().map(|(_, accused)| *accused).collect();
    assert_eq!(accused, liars);
    for node in 1..8 {
        let counters = net.engine(node).counters();
        assert!(
            counters.chunks_wrong <= 2 * 8,
            "each liar has a pipeline of six and the chunk that is being verified: {}",
            counters.chunks_wrong
        );
    }
}

#[test]
fn a_lead_that_corrupts_what_it_sends_is_replaced_and_shakes_nobody_s_chunks() {
    for seed in 1..=5 {
        let honest = Setup::default();
        let lying = Setup { role: Role::Liar, ..Setup::default() };
        let mut net = Net::with_seed(48, [lying, honest.clone(), honest.clone(), honest.clone(), honest], seed);
        net.withdraws = true;
        net.mesh();
        net.start(0..5);
        net.run_until_complete(1..5, Duration::from_secs(5));
        assert_eq!(net.tracker.false_chains, [], "seed {seed}: its links hold");
        assert!(!net.tracker.corrupt_leads.is_empty(), "seed {seed}");
        assert!(net.origin_chunks < 2 * 48, "seed {seed}: {} chunks of the origin", net.origin_chunks);
    }
}
