//! Which chunk is asked for, of whom, and how many at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_swarm::{ChunkOrder, Config};
use shoal_types::ChunkSet;
use shoal_wire::{Load, PeerMessage, RejectReason};

use crate::common::content::{CHUNK_BYTES, Content};
use crate::common::net::{Net, Role, Setup};
use crate::common::solo::Solo;
use crate::common::{asking_for, chunk, ms, open, text, us};

/// The first chunk that is asked for in this order, over many seeds: an `x` for each that it may be. The first neighbour has
/// everything and is asked; the others only make its chunks more or less rare.
fn first_choices(order: ChunkOrder, others: &[&str]) -> String {
    let count = others[0].len();
    let mut seen = vec!['.'; count];
    for seed in 0..60 {
        let mut solo = Solo::with_seed(Config { order, ..asking_for(1) }, &".".repeat(count), seed);
        for other in others {
            let other = solo.neighbour(other);
            solo.says(other, PeerMessage::Choke);
        }
        solo.news();
        solo.neighbour(&"*".repeat(count));
        let asked = solo.asked();
        assert_eq!(asked.len(), 1, "one request fits");
        seen[asked[0].1 as usize] = 'x';
    }
    seen.into_iter().collect()
}

#[test]
fn rarest_first_asks_for_what_fewest_have_and_breaks_ties_at_random() {
    assert_eq!(first_choices(ChunkOrder::RarestFirst, &["***.**", "*.*.*.", "***.*."]), "...x..");
    assert_eq!(first_choices(ChunkOrder::RarestFirst, &["*..*.*"]), ".xx.x.");
}

#[test]
fn random_order_asks_for_anything() {
    assert_eq!(first_choices(ChunkOrder::Random, &["***.**", "*.*.*."]), "xxxxxx");
}

#[test]
fn sequential_order_asks_for_the_first_missing_one() {
    assert_eq!(first_choices(ChunkOrder::Sequential, &["***.**", "*.*.*."]), "x.....");
    let mut solo = Solo::new(Config { order: ChunkOrder::Sequential, ..asking_for(3) }, "*.*....");
    let source = solo.neighbour("*******");
    assert_eq!(solo.asked(), [(source, 1), (source, 3), (source, 4)]);
}

#[test]
fn random_first_spreads_a_newcomer_s_first_chunks_over_the_rare_ones() {
    // Beside the source the chunks are held by one neighbour, two, two, two, and five.
    let others = ["**...*", "..***.", "..****", ".....*", ".....*", ".....*"];
    let mut firsts = BTreeSet::new();
    for seed in 0..60 {
        let config = Config { random_first_chunks: 1, ..asking_for(1) };
        let mut solo = Solo::with_seed(config, "......", seed);
        for other in others {
            let other = solo.neighbour(other);
            solo.says(other, PeerMessage::Choke);
        }
        solo.news();
        let source = solo.neighbour("******");
        let first = solo.asked()[0].1;
        firsts.insert(first);
        solo.delivers(source, first);
        // Asked for while the first one is being verified: still a newcomer's.
        let second = solo.asked()[0].1;
        solo.delivers(source, second);
        let third = solo.asked()[0].1;
        let rarest = if BTreeSet::from([first, second]) == BTreeSet::from([0, 1]) { 2..=4 } else { 0..=1 };
        assert!(rarest.contains(&third), "{third} is one of the rarest after {first} and {second}");
    }
    assert_eq!(firsts, BTreeSet::from([0, 1, 2, 3, 4]), "anything up to twice as frequent as the rarest");
}

#[test]
fn the_stream_s_next_chunk_is_preferred_as_often_as_the_setting_says() {
    let share = |stream_percent| {
        let follows = |seed: &u64| {
            let mut solo = Solo::with_seed(Config { stream_percent, ..asking_for(1) }, "........", *seed);
            let common = solo.neighbour("*****..*");
            solo.says(common, PeerMessage::Choke);
            let key = solo.content.key();
            solo.engine.set_stream(key, Some(chunk(2)));
            solo.news();
            solo.neighbour("********");
            solo.asked()[0].1 == 2
        };
        (0..200).filter(follows).count()
    };
    assert_eq!(share(0), 0, "the rarest are 5 and 6");
    assert_eq!(share(100), 200);
    assert!((70..130).contains(&share(50)), "about half");
}

#[test]
fn the_stream_s_next_chunk_can_change_and_end() {
    let config = Config { stream_percent: 100, order: ChunkOrder::Sequential, ..asking_for(1) };
    let mut solo = Solo::new(config, "......");
    let key = solo.content.key();
    solo.engine.set_stream(key, Some(chunk(3)));
    let source = solo.neighbour("******");
    assert_eq!(solo.asked(), [(source, 3)]);
    solo.engine.set_stream(key, Some(chunk(4)));
    solo.delivers(source, 3);
    assert_eq!(solo.asked(), [(source, 4)]);
    solo.engine.set_stream(key, None);
    solo.delivers(source, 4);
    assert_eq!(solo.asked(), [(source, 0)]);
}

#[test]
fn layer_order_asks_for_the_blob_of_the_lower_priority_number_first() {
    let (later, earlier) = (Content::new(2, 4), Content::new(3, 4));
    let mut solo = Solo::new(asking_for(6), "****");
    solo.start(later, 7);
    solo.start(earlier, 3);
    let source = solo.stranger("home");
    solo.news();
    for content in [later, earlier] {
        let have = ChunkSet::full(4).into();
        solo.says(source, PeerMessage::Join { blob: content.blob, have, flags: Default::default() });
    }
    // The source's Join for the later one came first: it has got that blob's four chunks and two of the other's.
    let news = solo.news();
    assert_eq!((news.asked_of(later.key()).len(), news.asked_of(earlier.key()).len()), (4, 2));
    for (_, index) in news.asked_of(later.key()) {
        solo.delivers_of(later.key(), source, index, 0);
    }
    assert_eq!(solo.news().asked_of(earlier.key()).len(), 2);

    // Both at once: the earlier layer comes first, and fills the pipeline.
    let mut solo = Solo::new(asking_for(6), "****");
    let source = solo.stranger("home");
    for content in [later, earlier] {
        let have = ChunkSet::full(4).into();
        solo.start(content, if content.key() == later.key() { 7 } else { 3 });
        solo.says(source, PeerMessage::Choke);
        solo.says(source, PeerMessage::Join { blob: content.blob, have, flags: Default::default() });
    }
    solo.news();
    solo.says(source, PeerMessage::Unchoke);
    let news = solo.news();
    assert_eq!((news.asked_of(earlier.key()).len(), news.asked_of(later.key()).len()), (4, 2));
}

#[test]
fn nothing_is_asked_for_twice_and_never_more_than_the_pipeline_holds() {
    let mut solo = Solo::new(asking_for(4), &".".repeat(40));
    let sources: Vec<usize> = (0..5).map(|_| solo.neighbour(&"*".repeat(40))).collect();
    let mut owed: Vec<(usize, u32)> = solo.asked();
    let mut asked = owed.clone();
    while let Some((source, index)) = owed.pop() {
        for source in &sources {
            assert!(owed.iter().filter(|(of, _)| of == source).count() <= 4);
        }
        solo.delivers(source, index);
        let news = solo.asked();
        asked.extend(&news);
        owed.extend(news);
    }
    assert_eq!(asked.iter().map(|(_, index)| index).collect::<BTreeSet<_>>().len(), 40);
    assert_eq!(asked.len(), 40);
    assert_eq!(solo.have(), "*".repeat(40));
}

/// The most chunks that a leech has asked for and not got, of a seed 20 ms away that sends 100 MB/s, and the time it takes.
fn deepest_pipeline(config: Config) -> (usize, Duration) {
    let slow = Setup { config: Config { uploads_per_link: 4, ..open() }, up: 100_000_000, ..Setup::default() };
    let mut net = Net::new(200, [slow, Setup { config, ..Setup::default() }]);
    net.latency = ms(10);
    net.mesh();
    net.seeds(0);
    net.run_for(ms(100));
    net.start([1]);
    let begins = net.now;
    net.run_until_complete(1..2, Duration::from_secs(60));
    let mut changes: Vec<_> = net.pieces.iter().map(|piece| (piece.at, -1)).collect();
    for (at, node, action) in &net.log {
        if let (1, shoal_swarm::Action::Send { message: PeerMessage::Request { .. }, .. }) = (*node, action) {
            changes.push((*at, 1));
        }
    }
    changes.sort_unstable();
    let owed = changes.iter().scan(0, |owed, (_, change)| {
        *owed += change;
        Some(*owed)
    });
    (usize::try_from(owed.max().expect("requests")).expect("more requests than chunks"), net.now.since(begins))
}

#[test]
fn the_pipeline_grows_with_the_measured_bandwidth_and_delay() {
    let fixed = Config { inflight_round_trips: 0, inflight_bytes: 0, endgame_percent: 0, ..open() };
    let measured = Config { inflight_round_trips: 2, ..fixed.clone() };
    let bounded = Config { inflight_per_peer: 10, ..measured.clone() };
    let (fixed, fixed_time) = deepest_pipeline(fixed);
    let (measured, measured_time) = deepest_pipeline(measured);
    let (bounded, _) = deepest_pipeline(bounded);
    // A round trip of 20 ms at 100 MB/s is 30 chunks.
    assert_eq!(fixed, 2);
    assert!(measured > 30, "{measured} chunks cover the delay");
    assert_eq!(bounded, 10);
    assert!(measured_time * 3 < fixed_time, "{measured_time:?} against {fixed_time:?}");
}

#[test]
fn the_pipeline_holds_at_least_the_configured_bytes() {
    let config = Config { inflight_bytes: u32::try_from(5 * CHUNK_BYTES).unwrap(), ..asking_for(2) };
    let mut solo = Solo::new(Config { inflight_per_peer: 64, ..config }, &".".repeat(20));
    solo.neighbour(&"*".repeat(20));
    assert_eq!(solo.asked().len(), 5);
}

#[test]
fn of_a_slow_neighbour_no_more_is_asked_than_soon_comes() {
    let config = Config { inflight_bytes: u32::try_from(5 * CHUNK_BYTES).unwrap(), ..asking_for(2) };
    let mut solo = Solo::new(Config { inflight_per_peer: 64, ..config }, &".".repeat(20));
    let source = solo.neighbour(&"*".repeat(20));
    let asked = solo.asked();
    assert_eq!(asked.len(), 5, "how fast it is isn't known yet");
    for (_, index) in &asked[..4] {
        solo.wait(ms(100));
        solo.delivers(source, *index);
    }
    assert_eq!(solo.asked().len(), 1, "of the five one is owed still, and two are enough");
}

/// Duplicates in the endgame of a blob of 200 chunks, all of them under way: what was asked twice.
fn duplicates(endgame_percent: u8) -> usize {
    let config = Config { endgame_percent, inflight_per_peer: 300, inflight_chunks: 200, ..asking_for(200) };
    let mut solo = Solo::new(config, &".".repeat(200));
    for _ in 0..3 {
        solo.neighbour(&"*".repeat(200));
    }
    let asked = solo.asked();
    let once: BTreeSet<u32> = asked.iter().map(|(_, index)| *index).collect();
    assert_eq!(once.len(), 200);
    asked.len() - once.len()
}

#[test]
fn endgame_duplicates_are_bounded() {
    assert_eq!(duplicates(0), 0);
    assert_eq!(duplicates(1), 2);
    assert_eq!(duplicates(5), 10);
}

#[test]
fn endgame_duplicates_are_cancelled_when_one_of_them_arrives() {
    let config = Config { endgame_percent: 100, ..asking_for(4) };
    let mut solo = Solo::new(config, "..");
    let first = solo.neighbour("**");
    let asked = solo.asked();
    assert_eq!(asked.len(), 2, "one neighbour is no endgame");
    let second = solo.neighbour("**");
    assert_eq!(solo.asked().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [second, second]);
    solo.delivers(second, 0);
    assert_eq!(solo.news().cancelled(), [(first, 0)]);
    // The first bytes are enough.
    solo.begins(first, 1);
    solo.delivers(first, 1);
    assert_eq!(solo.news().cancelled(), [(second, 1)]);
    assert_eq!(solo.have(), "**");
    // What was on its way already is of no use, and counted.
    assert!(!solo.delivers(second, 1));
    assert_eq!(solo.engine.counters().bytes_wasted, CHUNK_BYTES);
}

#[test]
fn a_silent_peer_loses_its_requests_and_others_deliver() {
    let mut solo = Solo::new(Config { snub_after: ms(500), ..asking_for(8) }, "....");
    let silent = solo.neighbour("****");
    assert_eq!(solo.asked().len(), 4);
    // It goes on telling what it has got: that is no answer.
    for _ in 0..4 {
        solo.wait(ms(100));
        let key = solo.content.key();
        solo.says(silent, PeerMessage::Have { key, chunks: [chunk(1)].into(), load: Load::default() });
    }
    let other = solo.neighbour("****");
    assert_eq!(solo.asked(), []);
    solo.wait(ms(150));
    assert_eq!(solo.engine.counters().snubs, 1);
    let asked = solo.asked();
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [other; 4]);
    for (_, index) in asked {
        solo.delivers(other, index);
    }
    assert_eq!(solo.have(), "****");
}

#[test]
fn a_peer_that_sends_is_not_snubbed_however_long_its_queue_is() {
    let mut solo = Solo::new(Config { snub_after: ms(500), ..asking_for(8) }, "........");
    let slow = solo.neighbour("********");
    let asked = solo.asked();
    for (_, index) in asked {
        solo.wait(ms(400));
        assert!(solo.delivers(slow, index));
    }
    assert_eq!(solo.engine.counters().snubs, 0);
    assert_eq!(solo.have(), "********");
}

#[test]
fn a_slow_link_is_no_silence() {
    let mut solo = Solo::new(Config { snub_after: ms(500), ..asking_for(1) }, "....");
    let slow = solo.neighbour("****");
    for _ in 0..10 {
        solo.wait(ms(300));
        solo.goes_on(slow);
    }
    assert_eq!(solo.engine.counters().snubs, 0);
    solo.wait(ms(600));
    assert_eq!(solo.engine.counters().snubs, 1);
}

#[test]
fn a_snubbed_peer_that_delivers_is_asked_again_at_once() {
    let mut solo = Solo::new(Config { snub_after: ms(500), ..asking_for(1) }, "....");
    let slow = solo.neighbour("****");
    let (_, index) = solo.asked()[0];
    solo.wait(ms(600));
    assert_eq!(solo.asked(), [], "it is snubbed, and there is nobody else");
    solo.wait(ms(5100));
    let (_, again) = solo.asked()[0];
    // The first answer comes after all, and is as good as any.
    assert_eq!(solo.delivers(slow, index), index == again);
    if index != again {
        solo.delivers(slow, again);
    }
    assert_eq!(solo.asked().len(), 1);
}

#[test]
fn a_disconnected_peer_s_requests_go_to_others_at_once() {
    let mut solo = Solo::new(asking_for(8), "....");
    let first = solo.neighbour("****");
    let second = solo.neighbour("****");
    solo.asked();
    solo.disconnects(first);
    assert_eq!(solo.asked().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [second; 4]);
}

#[test]
fn what_is_rejected_is_asked_of_somebody_else_and_false_claims_are_remembered() {
    let mut solo = Solo::new(asking_for(8), "......");
    let braggart = solo.neighbour("******");
    let asked = solo.asked();
    assert_eq!(asked.len(), 6);
    for (_, index) in &asked[..3] {
        solo.rejects(braggart, *index, RejectReason::Absent);
    }
    let honest = solo.neighbour("******");
    assert_eq!(solo.asked().len(), 3);
    // It has claimed three chunks falsely: nothing is asked of it any more, whatever else it says to have.
    solo.disconnects(honest);
    assert_eq!(solo.asked(), []);
    solo.joins(braggart, "******");
    assert_eq!(solo.asked(), []);
}

#[test]
fn a_full_queue_is_left_alone_for_a_while() {
    let mut solo = Solo::new(Config { have_interval: us(500), ..asking_for(2) }, "....");
    let busy = solo.neighbour("****");
    let (_, index) = solo.asked()[0];
    solo.rejects(busy, index, RejectReason::TooMany);
    assert_eq!(solo.asked(), []);
    solo.wait(ms(3));
    assert_eq!(solo.asked().len(), 1);
}

#[test]
fn partial_seeds_pass_on_what_they_have_before_they_have_everything() {
    let mut net = Net::new(64, [Setup::default(), Setup { up: 100_000_000, ..Setup::default() }, Setup::default()]);
    // A line: the last node knows the middle one only.
    net.connect(0, 1);
    net.connect(1, 2);
    net.seeds(0);
    net.start([1, 2]);
    net.run_until_complete(1..3, Duration::from_secs(10));
    let first_hop = net.finished_at(1).expect("the middle one has everything");
    let second_hop = net.pieces_to(2).filter(|piece| piece.from == 1).map(|piece| piece.at).min();
    assert!(second_hop.expect("it passes on") < first_hop);
}

#[test]
fn who_leaves_and_comes_back_with_what_it_kept_gets_no_chunk_twice() {
    let config = Config { endgame_percent: 0, substitute: false, ..Config::default() };
    let setup = Setup { config, up: 200_000_000, ..Setup::default() };
    let mut net = Net::new(80, vec![setup; 3]);
    net.mesh();
    net.seeds(0);
    net.start([1, 2]);
    net.run_while(Duration::from_secs(5), |net| net.count(2) < 30);
    let (have, links) = net.stop(2);
    let kept = text(&have);
    // What is on its way meanwhile comes to nobody.
    net.run_for(ms(50));
    net.pieces.clear();
    net.starts_with(2, have, links);
    net.run_until_complete(1..3, Duration::from_secs(10));
    let mut got: Vec<u32> = net.pieces_to(2).map(|piece| piece.chunk).collect();
    got.sort_unstable();
    let missing: Vec<u32> = kept.bytes().zip(0..).filter(|(mark, _)| *mark == b'.').map(|(_, index)| index).collect();
    assert_eq!(got, missing);
}

#[test]
fn a_download_limit_holds_over_any_span() {
    let limit = 10_000_000;
    let leech = Setup { config: Config { download_limit: Some(limit), ..Config::default() }, ..Setup::default() };
    let mut net = Net::new(100, [Setup::default(), Setup::default(), leech]);
    net.mesh();
    net.seeds(0);
    net.seeds(1);
    net.start([2]);
    net.run_until_complete(2..3, Duration::from_secs(5));
    let at: Vec<_> = net.pieces_to(2).map(|piece| piece.at).collect();
    for (from, first) in at.iter().enumerate() {
        for (to, last) in at.iter().enumerate().skip(from) {
            let bytes = (to - from) as u64 * CHUNK_BYTES;
            let span = last.since(*first).as_secs_f64();
            // A twentieth of a second's burst and the chunk that exceeds it, asked for earlier by what the way takes.
            assert!(
                bytes as f64 <= limit as f64 * (span + 0.05 + 0.005) + 2.0 * CHUNK_BYTES as f64,
                "{bytes} in {span}"
            );
        }
    }
    let span = at.last().expect("chunks came").since(at[0]).as_secs_f64();
    assert!(span > 0.55, "100 chunks at 10 MB/s, less the burst: {span}");
}

#[test]
fn pieces_that_nobody_asked_for_are_kept_if_they_can_be_verified() {
    let mut solo = Solo::new(asking_for(1), "....");
    let source = solo.neighbour("****");
    let (_, index) = solo.asked()[0];
    let other = (index + 1) % 4;
    let stranger = solo.stranger("");
    assert!(!solo.delivers(stranger, other), "who takes no part could go with it unnoticed");
    assert_eq!(solo.engine.counters().bytes_wasted, CHUNK_BYTES);
    assert!(solo.delivers(source, other));
    assert!(solo.delivers(source, index));

    let mut solo = Solo::without_links(asking_for(1), 4);
    let source = solo.neighbour("****");
    let (_, index) = solo.asked()[0];
    assert!(!solo.delivers(source, (index + 1) % 4));
}

#[test]
fn silent_nodes_hold_nobody_up() {
    let config = Config { snub_after: ms(200), ..Config::default() };
    let honest = Setup { config, ..Setup::default() };
    let silent = Setup { role: Role::Silent, ..honest.clone() };
    let mut net = Net::new(60, [honest.clone(), silent.clone(), silent, honest.clone(), honest]);
    net.mesh();
    (0..3).for_each(|seed| net.seeds(seed));
    net.start([3, 4]);
    net.run_until_complete(3..5, Duration::from_secs(2));
    assert!((3..5).any(|node| net.engine(node).counters().snubs > 0));
}
