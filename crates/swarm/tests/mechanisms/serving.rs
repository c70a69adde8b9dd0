//! In which order requests are served, how many at a time, and what travels with a chunk.

use shoal_swarm::{Action, Config, ServeOrder};
use shoal_wire::{PeerMessage, RejectReason};

use crate::common::content::{CHUNK_BYTES, TRUE};
use crate::common::net::{Net, Setup};
use crate::common::solo::{ME, Solo};
use crate::common::{chunk, ms, open};

/// One chunk on the link at a time, and none but what was asked for.
fn serial(serve_order: ServeOrder) -> Config {
    Config { serve_order, uploads_at_once: 1, substitute: false, ..open() }
}

/// What a seed sends after chunk 0, if then 1, 2 and 3 are asked for, which two, none and one of the neighbours have.
fn order_of_service(serve_order: ServeOrder) -> Vec<u32> {
    let mut solo = Solo::new(serial(serve_order), "****");
    let asker = solo.neighbour("....");
    solo.neighbour(".*.*");
    solo.neighbour(".*..");
    solo.requests(asker, 0);
    (1..4).for_each(|index| solo.requests(asker, index));
    let mut sent = Vec::new();
    loop {
        let sending = solo.news().sending();
        let Some((_, index)) = sending.first() else { return sent };
        assert_eq!(sending.len(), 1, "one at a time");
        sent.push(*index);
        solo.sent(asker, *index);
    }
}

#[test]
fn sender_side_rarest_first_serves_what_fewest_neighbours_have() {
    assert_eq!(order_of_service(ServeOrder::RarestFirst), [0, 2, 3, 1]);
}

#[test]
fn fifo_serves_as_the_requests_came() {
    assert_eq!(order_of_service(ServeOrder::Fifo), [0, 1, 2, 3]);
}

#[test]
fn super_seeding_sends_what_nobody_has_instead_of_what_has_got_around() {
    let mut solo = Solo::new(Config { substitute: true, ..open() }, "****");
    let asker = solo.neighbour("....");
    solo.neighbour("**.*");
    solo.requests(asker, 1);
    let news = solo.news();
    let key = solo.content.key();
    let substitute = PeerMessage::Substitute { key, asked: chunk(1), sent: chunk(2) };
    assert!(news.said_to(asker).contains(&substitute));
    assert_eq!(news.sending(), [(asker, 2)]);
    // Now each chunk has somebody: what is asked for is sent.
    solo.sent(asker, 2);
    solo.requests(asker, 1);
    assert_eq!(solo.news().sending(), [(asker, 1)]);
}

#[test]
fn super_seeding_can_be_off() {
    let mut solo = Solo::new(Config { substitute: false, ..open() }, "****");
    let asker = solo.neighbour("....");
    solo.neighbour("**.*");
    solo.requests(asker, 1);
    assert_eq!(solo.news().sending(), [(asker, 1)]);
}

#[test]
fn a_substitute_is_taken_for_what_was_asked() {
    let mut solo = Solo::new(super::common::asking_for(1), "....");
    let source = solo.neighbour("****");
    let (_, asked) = solo.asked()[0];
    let sent = (asked + 1) % 4;
    let key = solo.content.key();
    solo.says(source, PeerMessage::Substitute { key, asked: chunk(asked), sent: chunk(sent) });
    assert_eq!(solo.asked(), [], "one is still under way");
    assert!(solo.delivers(source, sent));
    assert_eq!(solo.engine.counters().bytes_wasted, 0);
    // What wasn't sent is asked for again, sooner or later.
    let mut left = solo.asked();
    while let Some((_, index)) = left.pop() {
        solo.delivers(source, index);
        left.extend(solo.asked());
    }
    assert_eq!(solo.have(), "****");
}

#[test]
fn a_substitute_that_another_one_owes_is_cancelled_there() {
    let mut solo = Solo::new(super::common::asking_for(1), "..");
    let first = solo.neighbour("**");
    let (_, one) = solo.asked()[0];
    let second = solo.neighbour("**");
    let (_, other) = solo.asked()[0];
    let key = solo.content.key();
    solo.says(second, PeerMessage::Substitute { key, asked: chunk(other), sent: chunk(one) });
    let news = solo.news();
    assert_eq!(news.cancelled(), [(first, one)]);
    assert_eq!(news.asked(), [(first, other)]);
}

#[test]
fn uploads_are_bounded_in_total_and_to_each_neighbour() {
    let mut solo = Solo::new(Config { uploads_at_once: 5, uploads_per_link: 2, ..open() }, &"*".repeat(32));
    let askers: Vec<usize> = (0..4).map(|_| solo.neighbour(&".".repeat(32))).collect();
    for index in 0..8 {
        askers.iter().zip([0, 8, 16, 24]).for_each(|(asker, first)| solo.requests(*asker, first + index));
    }
    let mut under_way = Vec::new();
    let mut most = 0;
    let mut sent = 0;
    loop {
        under_way.extend(solo.news().sending());
        most = most.max(under_way.len());
        for asker in &askers {
            assert!(under_way.iter().filter(|(to, _)| to == asker).count() <= 2);
        }
        assert!(under_way.len() <= 5);
        if under_way.is_empty() {
            break;
        }
        let (to, index) = under_way.remove(0);
        solo.sent(to, index);
        sent += 1;
    }
    assert_eq!((most, sent), (5, 32));
    assert_eq!(solo.engine.counters().bytes_sent, 32 * CHUNK_BYTES);
}

#[test]
fn waiting_requests_are_bounded_and_cancelled_ones_forgotten() {
    let config = Config { queued_per_peer: 3, ..serial(ServeOrder::Fifo) };
    let mut solo = Solo::new(config, "********");
    let asker = solo.neighbour("........");
    (0..5).for_each(|index| solo.requests(asker, index));
    let news = solo.news();
    assert_eq!(news.sending(), [(asker, 0)]);
    assert_eq!(news.rejected(), [(asker, 4, RejectReason::TooMany)]);
    let key = solo.content.key();
    solo.says(asker, PeerMessage::Cancel { key, chunk: chunk(1) });
    solo.sent(asker, 0);
    assert_eq!(solo.news().sending(), [(asker, 2)]);
    // Asked for twice is asked for once.
    (0..3).for_each(|_| solo.requests(asker, 3));
    solo.sent(asker, 2);
    solo.sent(asker, 3);
    assert_eq!(solo.news().sending(), [(asker, 3)]);
}

#[test]
fn what_is_not_here_is_rejected() {
    let mut solo = Solo::new(open(), "*.");
    let asker = solo.neighbour("..");
    solo.requests(asker, 1);
    solo.requests(asker, 77);
    let absent = RejectReason::Absent;
    assert_eq!(solo.news().rejected(), [(asker, 1, absent), (asker, 77, absent)]);
    let stranger = solo.stranger("home");
    solo.requests(stranger, 0);
    assert_eq!(solo.news().rejected(), [(stranger, 0, absent)], "who takes no part gets nothing");
}

#[test]
fn nothing_is_served_before_it_is_verified() {
    let mut solo = Solo::new(open(), "....");
    let source = solo.neighbour("****");
    let asker = solo.neighbour("....");
    solo.hold_verifications = true;
    let (_, index) = solo.asked()[0];
    solo.delivers(source, index);
    solo.requests(asker, index);
    assert!(solo.news().sending().is_empty(), "it is promised, and waits");
    solo.verify_held();
    assert_eq!(solo.news().sending(), [(asker, index)]);
}

#[test]
fn without_promises_what_is_not_verified_is_rejected() {
    let mut solo = Solo::new(Config { promises: false, ..open() }, "....");
    let source = solo.neighbour("****");
    let asker = solo.neighbour("....");
    solo.hold_verifications = true;
    let (_, index) = solo.asked()[0];
    solo.delivers(source, index);
    solo.requests(asker, index);
    assert_eq!(solo.news().rejected(), [(asker, index, RejectReason::Absent)]);
    solo.verify_held();
    solo.requests(asker, index);
    assert_eq!(solo.news().sending(), [(asker, index)]);
}

#[test]
fn an_upload_limit_holds_over_any_span() {
    let limit = 10_000_000;
    let mut solo = Solo::new(Config { upload_limit: Some(limit), ..serial(ServeOrder::Fifo) }, &"*".repeat(64));
    let asker = solo.neighbour(&".".repeat(64));
    (0..64).for_each(|index| solo.requests(asker, index));
    let begins = solo.now;
    let mut at = Vec::new();
    while at.len() < 64 {
        for (_, index) in solo.news().sending() {
            at.push(solo.now);
            // The link itself is as fast as can be.
            solo.sent(asker, index);
        }
        solo.wait(ms(1));
        assert!(solo.now.since(begins) < ms(5000), "{} sent", at.len());
    }
    for (from, first) in at.iter().enumerate() {
        for (to, last) in at.iter().enumerate().skip(from) {
            let bytes = ((to - from) as u64 * CHUNK_BYTES) as f64;
            let most = limit as f64 * (last.since(*first).as_secs_f64() + 0.05 + 0.002) + CHUNK_BYTES as f64;
            assert!(bytes <= most, "{bytes} bytes, {most} at most");
        }
    }
    let span = at[63].since(at[0]).as_secs_f64();
    assert!((0.35..0.5).contains(&span), "4 MiB at 10 MB/s, less the burst: {span}");
}

#[test]
fn links_travel_with_the_chunk_that_needs_them() {
    let mut solo = Solo::without_links(open(), 8);
    solo.learns(&solo.content.singles(1, super::common::solo::PUBLISHER, 0..7));
    let source = solo.neighbour("********");
    for index in 0..8 {
        solo.delivers(source, index);
    }
    let asker = solo.neighbour("........");
    solo.news();
    solo.says(asker, solo.request(4, true));
    let news = solo.news();
    let key = solo.content.key();
    let batches: Vec<_> = solo.content.singles(1, super::common::solo::PUBLISHER, 3..5);
    let batches = batches.into_iter().map(shoal_chain::VerifiedLinks::into_inner).collect();
    let links = PeerMessage::Links { key, batches };
    assert_eq!(news.said_to(asker), std::slice::from_ref(&links), "the link before the chunk and its own");
    let at = |wanted: &Action| news.actions.iter().position(|action| action == wanted);
    let sends = |action: &Action| matches!(action, Action::SendChunk { .. });
    let bytes = news.actions.iter().position(sends);
    let to = shoal_swarm::Recipients::One(match &news.actions[bytes.expect("the chunk")] {
        Action::SendChunk { to, .. } => *to,
        _ => unreachable!("found as one"),
    });
    assert!(at(&Action::Send { to, message: links }) < bytes, "links come before the bytes that they verify");
    // Who knows them gets bytes only.
    solo.sent(asker, 4);
    solo.requests(asker, 6);
    let news = solo.news();
    assert_eq!((news.said_to(asker), news.sending()), (Vec::new(), vec![(asker, 6)]));
}

#[test]
fn merged_batches_take_the_place_of_single_ones() {
    let mut solo = Solo::without_links(open(), 12);
    let asker = solo.neighbour("............");
    solo.granted(1, 0);
    (0..8).for_each(|index| solo.fetched(1, index));
    let batches = |solo: &mut Solo, index: u32| {
        solo.says(asker, solo.request(index, true));
        let news = solo.news();
        solo.sent(asker, index);
        let links = |message| match message {
            PeerMessage::Links { batches, .. } => Some(batches),
            _ => None,
        };
        news.said_to(asker).into_iter().find_map(links).unwrap_or_default()
    };
    assert_eq!(batches(&mut solo, 5).len(), 2, "one each for the chunk and the one before it");
    let merged = solo.content.batch(1, ME, 0..8, TRUE);
    solo.engine.handle_merged_links(solo.now, solo.content.key(), &merged);
    assert_eq!(batches(&mut solo, 6), [merged.into_inner()]);
}

#[test]
fn a_newcomer_gets_the_links_that_it_needs_from_its_neighbours_alone() {
    let mut net = Net::new(40, vec![Setup::default(); 3]);
    net.mesh();
    net.seeds(0);
    // The tracker knows no links: they come with the chunks.
    net.start([1, 2]);
    net.run_until_complete(1..3, ms(1000));
    assert!((1..3).all(|node| net.is_complete(node)));
    assert_eq!(net.origin_chunks, 0);
}
