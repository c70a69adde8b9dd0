//! Chunks that are asked for before they are here.

use std::time::Duration;

use shoal_swarm::Config;
use shoal_wire::{Load, PeerMessage, RejectReason};

use crate::common::content::TRUE;
use crate::common::solo::Solo;
use crate::common::{asking_for, chunk, credit, ms, open};

fn coming(solo: &Solo, index: u32) -> PeerMessage {
    PeerMessage::Coming { key: solo.content.key(), chunk: chunk(index) }
}

fn has(solo: &Solo, index: u32) -> PeerMessage {
    PeerMessage::Have { key: solo.content.key(), chunks: [chunk(index)].into(), load: Load::default() }
}

/// An engine to which a source is sending chunk 0, and a neighbour that has nothing.
fn receiving(config: Config) -> (Solo, usize, usize) {
    let mut solo = Solo::new(config, "..");
    let source = solo.neighbour("*.");
    let waiting = solo.neighbour("..");
    assert_eq!(solo.asked(), [(source, 0)]);
    solo.hold_verifications = true;
    solo.begins(source, 0);
    (solo, source, waiting)
}

#[test]
fn who_lacks_a_chunk_is_told_when_it_begins_to_arrive() {
    let (mut solo, source, waiting) = receiving(open());
    let promise = coming(&solo, 0);
    assert_eq!(solo.news().told(&promise), [waiting]);
    solo.begins(source, 0);
    assert!(solo.news().told(&promise).is_empty(), "once");
}

#[test]
fn only_who_has_a_place_is_told() {
    let mut solo = Solo::new(credit(1, 4), "*..");
    let served = solo.neighbour("...");
    solo.neighbour("...");
    let source = solo.source(".*.");
    solo.begins(source, 1);
    let promise = coming(&solo, 1);
    assert_eq!(solo.news().told(&promise), [served]);
}

#[test]
fn it_can_be_off() {
    let (mut solo, source, waiting) = receiving(Config { promises: false, ..open() });
    let promise = coming(&solo, 0);
    assert!(solo.news().told(&promise).is_empty());
    solo.requests(waiting, 0);
    assert_eq!(solo.news().rejected(), [(waiting, 0, RejectReason::Absent)]);
    let theirs = coming(&solo, 1);
    solo.says(source, theirs);
    assert!(solo.asked().is_empty());
}

#[test]
fn a_request_for_it_waits_until_it_is_verified() {
    let (mut solo, source, waiting) = receiving(open());
    solo.requests(waiting, 0);
    assert!(solo.delivers(source, 0));
    let news = solo.news();
    assert!(news.sending().is_empty() && news.rejected().is_empty());
    solo.verify_held();
    assert_eq!(solo.news().sending(), [(waiting, 0)]);
}

#[test]
fn what_turns_out_wrong_is_refused_without_blame_and_sent_when_it_is_here() {
    let (mut solo, source, waiting) = receiving(open());
    let late = solo.neighbour("..");
    solo.requests(waiting, 0);
    assert!(solo.delivers_variant(source, 0, TRUE + 1));
    solo.verify_held();
    assert_eq!(solo.have(), "..");
    solo.requests(late, 0);
    let news = solo.news();
    assert!(news.sending().is_empty());
    assert_eq!(news.rejected(), [(late, 0, RejectReason::Withdrawn)]);
    let other = solo.neighbour("*.");
    assert_eq!(solo.asked(), [(other, 0)]);
    assert!(solo.delivers(other, 0));
    solo.verify_held();
    assert_eq!(solo.news().sending(), [(waiting, 0)]);
}

#[test]
fn a_promised_chunk_is_asked_for_if_nothing_that_is_there_can_be_had() {
    let mut solo = Solo::new(asking_for(4), "...");
    let neighbour = solo.neighbour("*..");
    assert_eq!(solo.asked(), [(neighbour, 0)]);
    let promise = coming(&solo, 1);
    solo.says(neighbour, promise.clone());
    assert_eq!(solo.asked(), [(neighbour, 1)]);
    solo.says(neighbour, promise);
    assert!(solo.asked().is_empty(), "once");
    assert!(solo.delivers(neighbour, 1), "it came there, and came here");
    assert_eq!(solo.have(), ".*.");
}

#[test]
fn what_is_there_is_asked_for_first_and_has_its_own_room() {
    let mut solo = Solo::new(Config { inflight_per_peer: 4, ..asking_for(1) }, "....");
    let neighbour = solo.neighbour("*...");
    let asked = |solo: &mut Solo, message| {
        solo.says(neighbour, message);
        solo.asked()
    };
    assert_eq!(solo.asked(), [(neighbour, 0)]);
    let (one, two, three) = (coming(&solo, 1), coming(&solo, 2), has(&solo, 3));
    assert_eq!(asked(&mut solo, one), [(neighbour, 1)]);
    assert_eq!(asked(&mut solo, two), [], "twice the pipeline is full");
    assert_eq!(asked(&mut solo, three), [], "so is the pipeline");
    assert!(solo.delivers(neighbour, 0));
    assert_eq!(solo.asked(), [(neighbour, 3)], "there is room for one that is there");
}

#[test]
fn who_has_promised_a_chunk_asks_nobody_for_it_on_a_promise() {
    let (mut solo, source, waiting) = receiving(open());
    let promise = coming(&solo, 0);
    solo.says(waiting, promise.clone());
    assert!(solo.delivers_variant(source, 0, TRUE + 1));
    solo.verify_held();
    solo.says(waiting, promise);
    assert!(solo.asked().is_empty(), "it may be waiting for us");
    let told = has(&solo, 0);
    solo.says(waiting, told);
    assert_eq!(solo.asked(), [(waiting, 0)]);
}

#[test]
fn a_promise_is_no_silence_until_it_is_kept() {
    let config = Config { snub_after: ms(50), ..asking_for(1) };
    let mut solo = Solo::new(config, "..");
    let neighbour = solo.neighbour("..");
    let promise = coming(&solo, 0);
    solo.says(neighbour, promise);
    assert_eq!(solo.asked(), [(neighbour, 0)]);
    solo.wait(ms(200));
    assert_eq!(solo.engine.counters().snubs, 0);
    let told = has(&solo, 0);
    solo.says(neighbour, told);
    solo.wait(ms(40));
    assert_eq!(solo.engine.counters().snubs, 0, "its time begins when it has the chunk");
    solo.wait(ms(100));
    assert_eq!(solo.engine.counters().snubs, 1);
}

/// An engine that was promised chunk 1 by somebody who took so long for chunk 0, and has another neighbour that has it.
fn promised_by_one_that_took(took: Duration) -> (Solo, usize, usize) {
    let mut solo = Solo::new(asking_for(1), "...");
    let slow = solo.neighbour("*..");
    assert_eq!(solo.asked(), [(slow, 0)]);
    solo.wait(took);
    assert!(solo.delivers(slow, 0));
    let promise = coming(&solo, 1);
    solo.says(slow, promise);
    assert_eq!(solo.asked(), [(slow, 1)]);
    let holder = solo.neighbour(".*.");
    (solo, slow, holder)
}

#[test]
fn an_overdue_promise_is_given_up_for_somebody_who_has_the_chunk() {
    let (mut solo, slow, holder) = promised_by_one_that_took(ms(5));
    solo.wait(ms(100));
    let news = solo.news();
    assert_eq!((news.cancelled(), news.asked()), (vec![(slow, 1)], vec![(holder, 1)]));
}

#[test]
fn a_promise_over_a_slow_link_is_waited_for() {
    let (mut solo, slow, holder) = promised_by_one_that_took(ms(100));
    solo.wait(ms(300));
    assert!(solo.news().cancelled().is_empty(), "it takes a hundred to come there, and as many to come here");
    solo.begins(slow, 1);
    solo.wait(ms(400));
    assert!(solo.news().cancelled().is_empty(), "it is coming");
    solo.wait(ms(1_200));
    assert_eq!(solo.news().asked(), [(holder, 1)], "it began and went no further");

    let (mut solo, ..) = promised_by_one_that_took(ms(100));
    solo.wait(ms(600));
    assert_eq!(solo.news().asked(), [(holder, 1)]);
}

#[test]
fn a_promise_is_waited_for_longer_as_long_as_other_chunks_come() {
    let (mut solo, slow, holder) = promised_by_one_that_took(ms(100));
    let others_come = |solo: &mut Solo, times: u32| {
        for _ in 0..times {
            solo.wait(ms(100));
            solo.goes_on(slow);
        }
        solo.news()
    };
    assert!(others_come(&mut solo, 15).cancelled().is_empty());
    let news = others_come(&mut solo, 100);
    assert_eq!((news.cancelled(), news.asked()), (vec![(slow, 1)], vec![(holder, 1)]), "but not for ever");
}
