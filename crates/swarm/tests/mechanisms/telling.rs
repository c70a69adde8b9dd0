//! How neighbours learn who has what: a bitmap in the beginning, then what is new, in batches.

use std::collections::BTreeSet;

use shoal_swarm::Config;
use shoal_types::Time;
use shoal_wire::{JoinFlags, PeerMessage};

use crate::common::solo::Solo;
use crate::common::{asking_for, credit, ms, set, text, us};

fn haves(solo: &mut Solo, puppet: usize) -> Vec<Vec<u32>> {
    haves_of(solo.news().said_to(puppet))
}

fn haves_of(said: Vec<PeerMessage>) -> Vec<Vec<u32>> {
    let have = |message| match message {
        PeerMessage::Have { chunks, .. } => Some(chunks.iter().map(|chunk| chunk.get()).collect()),
        _ => None,
    };
    said.into_iter().filter_map(have).collect()
}

fn joins(solo: &mut Solo, puppet: usize) -> Vec<(String, JoinFlags)> {
    let join = |message| match message {
        PeerMessage::Join { have, flags, .. } => Some((text(&have), flags)),
        _ => None,
    };
    solo.news().said_to(puppet).into_iter().filter_map(join).collect()
}

#[test]
fn a_new_neighbour_gets_a_bitmap_and_answers_with_its_own() {
    let mut solo = Solo::new(asking_for(1), "**..");
    let stranger = solo.stranger("home");
    let asks = JoinFlags { answer: true, ..JoinFlags::default() };
    assert_eq!(joins(&mut solo, stranger), [("**..".to_owned(), asks)]);
    solo.joins_as(stranger, "....", asks);
    assert_eq!(joins(&mut solo, stranger), [("**..".to_owned(), JoinFlags::default())]);
    solo.joins(stranger, "...*");
    assert_eq!(joins(&mut solo, stranger), [], "an answer isn't answered");
}

#[test]
fn a_seed_says_that_it_is_one() {
    let mut solo = Solo::new(asking_for(1), "****");
    let stranger = solo.stranger("home");
    assert!(joins(&mut solo, stranger)[0].1.seed);
}

#[test]
fn haves_are_batched_and_each_chunk_is_told_once() {
    let interval = us(200);
    let mut solo = Solo::new(Config { have_interval: interval, ..asking_for(64) }, &".".repeat(40));
    let source = solo.neighbour(&"*".repeat(40));
    let listener = solo.neighbour(&".".repeat(40));
    let asked = solo.asked();
    let mut told = Vec::new();
    let mut last = Time::ZERO;
    let mut batches = 0;
    for (at, (_, index)) in asked.iter().enumerate() {
        let last_one = at + 1 == asked.len();
        solo.delivers(source, *index);
        solo.wait(us(7));
        for chunks in haves(&mut solo, listener) {
            let span = solo.now.since(last);
            // The last chunk is told at once, whenever the one before it was.
            assert!(span + us(7) >= interval || last_one, "{span:?} after the one before");
            (last, batches) = (solo.now, batches + 1);
            told.extend(chunks);
        }
    }
    solo.wait(interval);
    haves(&mut solo, listener).into_iter().for_each(|chunks| told.extend(chunks));
    assert_eq!(told.len(), 40);
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>().len(), 40);
    // 40 chunks in 280 µs.
    assert!(batches <= 4, "{batches} batches");
}

#[test]
fn without_an_interval_each_chunk_is_told_as_it_comes() {
    let mut solo = Solo::new(Config { have_interval: us(0), ..asking_for(8) }, "....");
    let source = solo.neighbour("****");
    let listener = solo.neighbour("....");
    for index in [2, 0, 3] {
        solo.delivers(source, index);
        assert_eq!(haves(&mut solo, listener), [[index]]);
        // Two chunks of 64 KiB take a link of 10 Gbit/s 105 µs; what comes faster is told in twos.
        solo.wait(us(105));
    }
}

#[test]
fn partners_are_told_at_once_and_the_others_eight_chunks_at_a_time_or_in_the_end() {
    let mut solo = Solo::new(Config { have_interval: us(0), ..credit(1, 4) }, &".".repeat(40));
    let source = solo.source(&"*".repeat(40));
    let others: Vec<usize> = (0..2).map(|_| solo.neighbour(&".".repeat(40))).collect();
    let mut owed = solo.asked();
    let mut tell = |solo: &mut Solo, count: usize| {
        let mut told = [0, 1].map(|_| Vec::new());
        for _ in 0..count {
            let (_, index) = owed.remove(0);
            solo.delivers(source, index);
            solo.wait(ms(1));
            let news = solo.news_keeping(&mut owed);
            for (told, other) in told.iter_mut().zip(&others) {
                told.extend(haves_of(news.said_to(*other)).into_iter().map(|chunks| chunks.len()));
            }
        }
        told.sort_by_key(Vec::len);
        told
    };
    let [other, partner] = tell(&mut solo, 16);
    assert_eq!(partner, [1; 16]);
    assert_eq!(other, [8, 8]);
    let [other, partner] = tell(&mut solo, 3);
    assert_eq!((other, partner), (vec![], vec![1; 3]));
    solo.wait(ms(100));
    let news = solo.news();
    let late = others.iter().flat_map(|other| haves_of(news.said_to(*other)));
    assert_eq!(late.map(|chunks| chunks.len()).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_have_makes_a_chunk_available() {
    let mut solo = Solo::new(asking_for(8), "....");
    let source = solo.neighbour("*...");
    assert_eq!(solo.asked(), [(source, 0)]);
    let key = solo.content.key();
    let chunks = set("..**").iter().collect();
    solo.says(source, PeerMessage::Have { key, chunks, load: Default::default() });
    let asked: BTreeSet<_> = solo.asked().into_iter().collect();
    assert_eq!(asked, BTreeSet::from([(source, 2), (source, 3)]));
}

#[test]
fn who_leaves_is_asked_no_more_and_told_no_more() {
    let mut solo = Solo::new(asking_for(8), "*...");
    let source = solo.neighbour("****");
    let leaver = solo.neighbour("****");
    let asked = solo.asked();
    assert!(asked.iter().all(|(to, _)| *to == source));
    let key = solo.content.key();
    solo.says(leaver, PeerMessage::Leave { key });
    solo.delivers(source, asked[0].1);
    assert_eq!(haves(&mut solo, leaver), Vec::<Vec<u32>>::new());
    solo.says(source, PeerMessage::Leave { key });
    solo.joins(leaver, "****");
    assert_eq!(solo.asked().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [leaver, leaver]);
}

#[test]
fn stopping_a_blob_takes_leave_and_gives_the_chunks_back() {
    let mut solo = Solo::new(asking_for(8), "*...");
    let source = solo.neighbour("****");
    solo.delivers(source, 2);
    solo.news();
    let key = solo.content.key();
    let kept = solo.engine.stop(solo.now, key);
    solo.settle();
    assert_eq!(kept.map(|kept| text(&kept)), Some("*.*.".to_owned()));
    let news = solo.news();
    assert_eq!(news.told(&PeerMessage::Leave { key }), [source]);
    assert_eq!(news.announces().len(), 1);
    assert!(!solo.delivers(source, 1), "it comes too late");
    assert_eq!(solo.engine.stop(solo.now, key), None);
}

#[test]
fn a_rejoin_with_less_loses_what_was_asked_of_it() {
    let mut solo = Solo::new(asking_for(8), "....");
    let source = solo.neighbour("****");
    assert_eq!(solo.asked().len(), 4);
    let other = solo.neighbour("****");
    solo.joins(source, "*...");
    let asked: BTreeSet<_> = solo.asked().into_iter().collect();
    assert_eq!(asked, BTreeSet::from([(other, 1), (other, 2), (other, 3)]));
}
