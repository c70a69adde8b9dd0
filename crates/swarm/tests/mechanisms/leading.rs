//! The lead: fetching from the origin in order, succeeding another one, filling holes, and giving the lease back.

use std::time::Duration;

use shoal_swarm::{Action, Config};
use shoal_types::NodeId;
use shoal_wire::{Announce, Directive, LeaseGrant, LeaseRequest, OriginFailure, PeerMessage};

use crate::common::content::{LIE, TRUE};
use crate::common::net::{Net, Setup};
use crate::common::solo::{ME, News, Solo, node};
use crate::common::{asking_for, chunk, ms, open, us};

const PREDECESSOR: NodeId = NodeId::new(501);

/// A lead never goes on from the bytes of a neighbour here, unless the test says so.
fn patient() -> Config {
    Config { lead_yields: false, ..asking_for(64) }
}

fn links_wanted(news: &News) -> Vec<(usize, u32)> {
    let wanted = |(to, message)| match message {
        PeerMessage::LinksWanted { from, .. } => Some((to, from.get())),
        _ => None,
    };
    news.said().into_iter().filter_map(wanted).collect()
}

fn leases(news: &News) -> Vec<LeaseRequest> {
    news.announces().iter().map(|announce| announce.lease.clone()).collect()
}

#[test]
fn a_lead_fetches_in_order_and_publishes_each_link_once() {
    let mut solo = Solo::without_links(patient(), 8);
    let listener = solo.neighbour("........");
    solo.granted(4, 0);
    assert_eq!(solo.news().fetches(), [(0, 8)]);
    let mut links = Vec::new();
    let mut told = Vec::new();
    let keep_book = |news: &News, links: &mut Vec<_>, told: &mut Vec<_>| {
        links.extend(news.announces().iter().flat_map(|announce| announce.links.clone()));
        for message in news.said_to(listener) {
            if let PeerMessage::Have { chunks, .. } = message {
                told.extend(chunks.iter().map(|chunk| chunk.get()));
            }
        }
    };
    for index in 0..8 {
        solo.fetched(4, index);
        solo.wait(ms(30));
        keep_book(&solo.news(), &mut links, &mut told);
    }
    assert_eq!(solo.have(), "********");
    let expected = solo.content.singles(4, ME, 0..7);
    assert_eq!(links, expected.into_iter().map(shoal_chain::VerifiedLinks::into_inner).collect::<Vec<_>>());
    assert_eq!(told, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_was_merged_before_it_is_published_is_published_as_one() {
    let mut solo = Solo::without_links(patient(), 8);
    solo.granted(4, 0);
    let merge = |solo: &mut Solo, chunks| {
        let merged = solo.content.batch(4, ME, chunks, TRUE);
        solo.engine.handle_merged_links(solo.now, solo.content.key(), &merged);
    };
    let published = |solo: &mut Solo| -> Vec<(u32, u32)> {
        solo.wait(ms(2000));
        let news = solo.news();
        let announces = news.announces();
        let runs = announces.iter().flat_map(|announce| &announce.links).map(|links| &links.batch.run);
        runs.map(|run| (run.first().get(), run.count())).collect()
    };
    solo.news();
    (0..3).for_each(|index| solo.fetched(4, index));
    merge(&mut solo, 0..3);
    assert_eq!(published(&mut solo), [(0, 3)]);
    solo.fetched(4, 3);
    assert_eq!(published(&mut solo), [(3, 1)]);
    solo.fetched(4, 4);
    merge(&mut solo, 3..5);
    assert_eq!(published(&mut solo), [(4, 1)], "the tracker has the other one");
}

#[test]
fn a_lead_reports_how_far_it_is_and_then_that_it_is_done() {
    let mut solo = Solo::without_links(Config { lead_report: ms(100), ..patient() }, 3);
    solo.wait(ms(1));
    solo.news();
    solo.granted(4, 0);
    solo.fetched(4, 0);
    solo.wait(ms(110));
    let held: Vec<LeaseRequest> = leases(&solo.news());
    let report = |frontier| LeaseRequest::Holding { epoch: 4, frontier: chunk(frontier), backlog: 0 };
    assert_eq!(held.last(), Some(&report(1)));
    solo.fetched(4, 1);
    solo.fetched(4, 2);
    solo.wait(ms(1));
    let news = solo.news();
    assert!(news.contains(&Action::Completed { key: solo.content.key() }));
    let last: &Announce = news.announces().last().copied().expect("an announce");
    assert_eq!((last.event, &last.lease), (shoal_wire::AnnounceEvent::Completed, &report(3)));
    assert_eq!(last.bytes_from_origin, 3 * crate::common::content::CHUNK_BYTES);
}

#[test]
fn a_lead_that_has_everything_tells_how_much_of_it_has_reached_nobody() {
    let mut solo = Solo::without_links(open(), 3);
    let other = solo.neighbour("...");
    solo.granted(4, 0);
    (0..2).for_each(|index| solo.fetched(4, index));
    let key = solo.content.key();
    solo.says(other, PeerMessage::Have { key, chunks: [chunk(1)].into(), load: Default::default() });
    solo.fetched(4, 2);
    solo.wait(ms(1));
    let last = LeaseRequest::Holding { epoch: 4, frontier: chunk(3), backlog: 2 };
    assert_eq!(leases(&solo.news()).last(), Some(&last));
}

#[test]
fn chunks_of_another_lease_or_out_of_order_are_ignored() {
    let mut solo = Solo::without_links(patient(), 8);
    solo.fetched(3, 0);
    solo.granted(4, 0);
    solo.fetched(3, 0);
    solo.fetched(4, 1);
    assert_eq!(solo.have(), "........");
    solo.fetched(4, 0);
    solo.fetched(4, 0);
    assert_eq!(solo.have(), "*.......");
}

#[test]
fn holes_are_filled_after_some_patience_and_what_neighbours_have_is_left_to_them() {
    let config = Config { hole_patience: ms(100), ..patient() };
    let mut solo = Solo::without_links(config, 8);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..4, TRUE)]);
    let neighbour = solo.neighbour("*.**....");
    solo.says(neighbour, PeerMessage::Choke);
    solo.granted(2, 4);
    assert_eq!(solo.news().fetches(), [(4, 8)]);
    (4..8).for_each(|index| solo.fetched(2, index));
    solo.wait(ms(80));
    assert_eq!(solo.news().fetches(), []);
    solo.wait(ms(60));
    assert_eq!(solo.news().fetches(), [(1, 2)]);
    solo.fetched(2, 1);
    solo.wait(ms(200));
    assert_eq!(solo.news().fetches(), [], "the neighbour has the others");
    solo.says(neighbour, PeerMessage::Unchoke);
    for index in [0, 2, 3] {
        solo.delivers(neighbour, index);
    }
    assert_eq!(solo.have(), "********");
}

#[test]
fn what_is_claimed_and_never_comes_is_fetched_in_the_end() {
    let config = Config { hole_patience: ms(100), ..patient() };
    let mut solo = Solo::without_links(config, 4);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..3, TRUE)]);
    let braggart = solo.neighbour("****");
    solo.says(braggart, PeerMessage::Choke);
    solo.granted(2, 4);
    solo.wait(ms(250));
    assert_eq!(solo.news().fetches(), []);
    solo.wait(ms(100));
    assert_eq!(solo.news().fetches(), [(0, 4)]);
}

#[test]
fn what_was_asked_of_somebody_and_never_comes_is_fetched_in_the_end() {
    let config = Config { hole_patience: ms(100), ..patient() };
    let mut solo = Solo::without_links(config, 4);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..3, TRUE)]);
    solo.neighbour("****");
    assert_eq!(solo.asked().len(), 4);
    solo.granted(2, 4);
    solo.wait(ms(250));
    assert_eq!(solo.news().fetches(), []);
    solo.wait(ms(100));
    let news = solo.news();
    assert_eq!((news.fetches(), news.cancelled().len()), (vec![(0, 4)], 4));
}

#[test]
fn a_suspect_s_claims_keep_no_hole_open() {
    let config = Config { hole_patience: ms(100), ..patient() };
    let mut solo = Solo::without_links(config, 4);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..3, TRUE)]);
    let liar = solo.neighbour("****");
    solo.delivers_variant(liar, 1, 9);
    solo.says(liar, PeerMessage::Choke);
    solo.granted(2, 4);
    solo.wait(ms(300));
    assert_eq!(solo.news().fetches(), [(0, 4)]);
}

#[test]
fn what_cannot_be_verified_is_the_lead_s_whoever_was_asked_for_it() {
    let mut solo = Solo::without_links(patient(), 8);
    let braggart = solo.neighbour("********");
    assert_eq!(solo.asked().len(), 8);
    // Two have come and wait for links, the others are promised.
    solo.delivers(braggart, 2);
    solo.delivers_variant(braggart, 5, 9);
    solo.granted(1, 0);
    solo.wait(ms(25));
    let news = solo.news();
    assert_eq!(news.fetches(), [(0, 8)]);
    assert_eq!(news.cancelled().len(), 6);
    (0..8).for_each(|index| solo.fetched(1, index));
    assert_eq!(solo.have(), "********");
}

#[test]
fn a_successor_asks_for_links_and_goes_on_at_the_frontier() {
    let mut solo = Solo::without_links(patient(), 8);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..2, TRUE)]);
    let ahead = solo.neighbour("****....");
    let behind = solo.neighbour("*.......");
    solo.granted(2, 4);
    let news = solo.news();
    assert_eq!(news.fetches(), []);
    assert_eq!(links_wanted(&news), [(ahead, 2)], "not {behind}");
    solo.wait(ms(3));
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 2..4, TRUE)]);
    let news = solo.news();
    let before = solo.content.batch(1, PREDECESSOR, 3..4, TRUE).get().batch.run.get(chunk(3));
    let key = solo.content.key();
    assert!(news.contains(&Action::FetchOrigin { key, epoch: 2, chunks: 4..8, before }));
}

#[test]
fn a_successor_whom_nobody_answers_goes_on_where_links_end() {
    let mut solo = Solo::without_links(patient(), 8);
    solo.learns(&[solo.content.batch(1, PREDECESSOR, 0..2, TRUE)]);
    let silent = solo.neighbour("****....");
    solo.says(silent, PeerMessage::Choke);
    solo.granted(2, 4);
    solo.wait(ms(15));
    assert_eq!(solo.news().fetches(), []);
    solo.wait(ms(15));
    assert_eq!(solo.news().fetches(), [(2, 8)]);
}

/// What a lead's neighbour does with 40 chunks that come in 80 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Asks for each, and never gets the first one.
    Asks,
    /// Has each at once.
    Gets,
    /// Asks for nothing, and gets nothing.
    Idles,
    /// There is none.
    None,
}

/// What the lead says and does meanwhile.
fn leads_beside(lead_yields: bool, neighbour: Neighbour) -> Solo {
    let mut solo = Solo::without_links(Config { lead_yields, ..open() }, 100);
    let other = (neighbour != Neighbour::None).then(|| solo.neighbour(&".".repeat(100)));
    solo.granted(7, 0);
    fetches_40(&mut solo, other, neighbour, ms(2));
    solo
}

fn fetches_40(solo: &mut Solo, other: Option<usize>, does: Neighbour, apart: Duration) {
    for index in 0..40 {
        solo.fetched(7, index);
        solo.wait(apart);
        match (other, does) {
            (Some(other), Neighbour::Asks) => solo.requests(other, index),
            (Some(other), Neighbour::Gets) => {
                let key = solo.content.key();
                let chunks = [chunk(index)].into();
                solo.says(other, PeerMessage::Have { key, chunks, load: Default::default() });
            }
            _ => {}
        }
    }
}

#[test]
fn a_lead_whose_uplink_is_too_slow_yields_and_no_late_answer_grants_it_the_same_again() {
    let mut solo = leads_beside(true, Neighbour::Asks);
    let news = solo.news();
    assert!(leases(&news).contains(&LeaseRequest::Yielded { epoch: 7 }));
    assert!(news.actions.iter().any(|action| matches!(action, Action::StopOrigin { .. })));
    solo.granted(7, 0);
    assert_eq!(solo.news().fetches(), [], "the answer to what was announced before");
    solo.granted(8, 32);
    assert_eq!(solo.news().fetches().len(), 1);
    for (lead_yields, neighbour) in
        [(false, Neighbour::Asks), (true, Neighbour::Gets), (true, Neighbour::Idles), (true, Neighbour::None)]
    {
        let yielded =
            leases(&leads_beside(lead_yields, neighbour).news()).contains(&LeaseRequest::Yielded { epoch: 7 });
        assert!(!yielded, "yields: {lead_yields}, the neighbour: {neighbour:?}");
    }
}

#[test]
fn a_lead_is_not_judged_by_how_long_the_origin_took_to_answer() {
    let mut solo = Solo::without_links(open(), 100);
    let other = solo.neighbour(&".".repeat(100));
    solo.granted(7, 0);
    solo.wait(ms(60));
    fetches_40(&mut solo, Some(other), Neighbour::Asks, ms(1));
    assert!(!leases(&solo.news()).contains(&LeaseRequest::Yielded { epoch: 7 }));
}

#[test]
fn a_lead_to_which_the_bytes_come_anyway_keeps_its_lease() {
    let mut solo = Solo::without_links(open(), 100);
    let other = solo.neighbour(&".".repeat(100));
    solo.granted(7, 0);
    let key = solo.content.key();
    solo.engine.handle_comes_anyway(key, 7);
    fetches_40(&mut solo, Some(other), Neighbour::Asks, ms(2));
    let leases = leases(&solo.news());
    assert!(!leases.contains(&LeaseRequest::Yielded { epoch: 7 }));
    // Nor has the tracker a reason to take it away.
    let grows = |lease: &LeaseRequest| matches!(lease, LeaseRequest::Holding { backlog, .. } if *backlog > 0);
    assert!(!leases.iter().any(grows), "{leases:?}");
}

#[test]
fn a_revoked_lease_ends_the_fetch_and_the_swarm_is_asked() {
    let mut solo = Solo::without_links(patient(), 6);
    let neighbour = solo.neighbour("......");
    solo.granted(3, 0);
    solo.fetched(3, 0);
    solo.joins(neighbour, ".****.");
    assert_eq!(solo.asked(), []);
    let key = solo.content.key();
    solo.directive(&Directive::LeaseRevoked { key, epoch: 2 });
    assert_eq!(solo.news().actions, [], "another lease");
    solo.directive(&Directive::LeaseRevoked { key, epoch: 3 });
    let news = solo.news();
    assert!(news.contains(&Action::StopOrigin { key }));
    assert_eq!(news.asked().len(), 4);
    solo.fetched(3, 1);
    assert_eq!(solo.have(), "*.....", "it was under way");
}

#[test]
fn a_new_lease_takes_the_place_of_an_earlier_one() {
    let mut solo = Solo::without_links(patient(), 6);
    solo.granted(3, 0);
    solo.fetched(3, 0);
    solo.fetched(3, 1);
    solo.news();
    solo.granted(3, 0);
    solo.granted(2, 0);
    assert_eq!(solo.news().fetches(), []);
    solo.granted(5, 0);
    let news = solo.news();
    assert!(news.contains(&Action::StopOrigin { key: solo.content.key() }));
    assert_eq!(news.fetches(), [(2, 6)]);
    (2..6).for_each(|index| solo.fetched(5, index));
    assert_eq!(solo.have(), "******");
}

#[test]
fn an_origin_s_refusal_is_reported_and_the_swarm_is_asked() {
    let mut solo = Solo::without_links(patient(), 6);
    solo.granted(3, 0);
    let key = solo.content.key();
    solo.engine.handle_origin_failed(solo.now, key, 3, OriginFailure::NotFound);
    solo.settle();
    solo.wait(us(1));
    let news = solo.news();
    assert!(news.contains(&Action::StopOrigin { key }));
    assert!(leases(&news).contains(&LeaseRequest::Failed { epoch: 3, failure: OriginFailure::NotFound }));
    let neighbour = solo.neighbour("******");
    let mut asked = solo.asked();
    asked.sort_unstable();
    assert_eq!(asked, (0..6).map(|index| (neighbour, index)).collect::<Vec<_>>());
}

#[test]
fn a_leech_without_progress_asks_for_a_lease_of_its_own() {
    let config = Config { impatient_after: Duration::from_secs(2), ..patient() };
    let mut solo = Solo::new(config, "*.....");
    solo.wait(ms(1900));
    assert!(leases(&solo.news()).iter().all(|lease| *lease == LeaseRequest::Willing));
    solo.wait(ms(800));
    assert!(leases(&solo.news()).contains(&LeaseRequest::Impatient));
    // Though a neighbour says to have everything: it has had its time.
    let neighbour = solo.neighbour("******");
    solo.says(neighbour, PeerMessage::Choke);
    let grant = LeaseGrant { epoch: 9, frontier: chunk(0), holes: Vec::new(), impatient: true };
    solo.directive(&Directive::Lease { key: solo.content.key(), grant });
    solo.wait(ms(50));
    let fetches = solo.news().fetches();
    assert!(!fetches.is_empty());
}

#[test]
fn without_a_tracker_each_goes_to_the_origin_at_another_moment_and_nobody_waits_for_ever() {
    let config = Config { impatient_after: Duration::from_secs(2), ..patient() };
    let mut moments = Vec::new();
    for seed in 1..=20 {
        let mut solo = Solo::with_seed(config.clone(), "*.....", seed);
        let began = solo.now;
        let goes = |solo: &mut Solo| {
            let asks = |solo: &mut Solo| {
                solo.wait(ms(25));
                !solo.news().fetches().is_empty()
            };
            assert!((0..400).any(|_| asks(solo)), "seed {seed}: it waits for ever");
            solo.now.since(began)
        };
        let first = goes(&mut solo);
        assert!((ms(4_000)..=ms(8_100)).contains(&first), "seed {seed}: {first:?}");
        moments.push(first);
        // An origin that is down is asked again, but not all the time.
        let mut last = first;
        for _ in 0..8 {
            solo.engine.handle_origin_failed(solo.now, solo.content.key(), 2, OriginFailure::Unreachable);
            solo.settle();
            last = goes(&mut solo);
        }
        assert!(last - first > ms(10_000), "seed {seed}: eight times in {:?}", last - first);
    }
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 10, "{moments:?}");
}

#[test]
fn who_cannot_lead_says_so() {
    let mut solo = Solo::without_links(patient(), 6);
    solo.news();
    solo.engine.set_can_lead(false);
    solo.wait(Duration::from_secs(11));
    let leases = leases(&solo.news());
    assert!(leases.len() >= 2 && leases.iter().all(|lease| *lease == LeaseRequest::Declined), "{leases:?}");
}

#[test]
fn who_has_everything_takes_no_lease() {
    let mut solo = Solo::new(patient(), "****");
    solo.granted(3, 0);
    assert_eq!(solo.news().fetches(), []);
}

#[test]
fn one_lead_feeds_a_swarm_with_one_copy() {
    let mut net = Net::new(64, vec![Setup::default(); 6]);
    net.mesh();
    net.start(0..6);
    net.run_until_complete(0..6, Duration::from_secs(5));
    assert!((0..6).all(|node| net.is_complete(node)));
    assert_eq!(net.origin_chunks, 64);
}

#[test]
fn when_the_lead_dies_another_one_goes_on() {
    for seed in 1..=10 {
        let mut net = Net::with_seed(64, vec![Setup::default(); 6], seed);
        net.origin_rate = 200_000_000;
        net.mesh();
        net.start(0..6);
        net.run_while(Duration::from_secs(5), |net| net.count(1) < 32);
        let lead = net.lead().expect("somebody leads");
        net.kill(lead);
        net.run_until_complete(0..6, Duration::from_secs(2));
        assert!((0..6).all(|node| node == lead || net.is_complete(node)));
        assert!(net.origin_chunks <= 64 + 8, "seed {seed}: {} chunks of the origin", net.origin_chunks);
    }
}

/// A node that knows its predecessor's links up to chunk 6. A neighbour has these chunks.
fn after_links_of(predecessor: NodeId, had: &str) -> Solo {
    let mut solo = Solo::without_links(patient(), 8);
    solo.learns(&[solo.content.batch(1, predecessor, 0..6, TRUE)]);
    let neighbour = solo.neighbour(had);
    solo.says(neighbour, PeerMessage::Choke);
    solo
}

/// The predecessor, which says to have everything, sends a wrong chunk.
fn predecessor_lies(solo: &mut Solo, had: &str) {
    let liar = solo.neighbour("********");
    let at = had.find('.').expect("a chunk that the liar alone has");
    solo.delivers_variant(liar, u32::try_from(at).unwrap(), LIE);
}

#[test]
fn what_nobody_has_of_a_lying_predecessor_s_chunks_is_fetched_first() {
    let had = "**.*....";
    let mut solo = after_links_of(node(1), had);
    predecessor_lies(&mut solo, had);
    solo.news();
    solo.granted(2, 6);
    assert_eq!(solo.news().fetches(), [(2, 3)]);
    solo.fetched(2, 2);
    assert_eq!(solo.news().fetches(), [(4, 6)]);
    solo.fetched(2, 4);
    solo.fetched(2, 5);
    solo.wait(ms(20));
    assert_eq!(solo.news().fetches(), [(6, 8)], "its links hold");
}

#[test]
fn a_lead_that_sees_late_that_its_predecessor_lies_goes_back() {
    let had = "**......";
    let mut solo = after_links_of(node(1), had);
    solo.granted(2, 6);
    solo.wait(ms(20));
    assert_eq!(solo.news().fetches(), [(6, 8)]);
    predecessor_lies(&mut solo, had);
    let news = solo.news();
    assert!(news.contains(&Action::StopOrigin { key: solo.content.key() }));
    assert_eq!(news.fetches(), [(2, 6)]);
    (2..6).for_each(|index| solo.fetched(2, index));
    assert_eq!(solo.news().fetches(), [(6, 8)]);
}
