//! Who may ask at all: credit's places, tit-for-tat's slots, and those who only take.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_swarm::{Config, Serving};
use shoal_types::Time;
use shoal_wire::{Load, PeerMessage, RejectReason};

use crate::common::content::LIE;
use crate::common::net::{Net, Role, Setup};
use crate::common::solo::{News, Solo};
use crate::common::{credit, ms, open};

/// Keeps book of who is unchoked.
#[derive(Default)]
struct Places {
    taken: BTreeSet<usize>,
    most: usize,
}

impl Places {
    fn note(&mut self, news: &News) {
        for (to, message) in news.said() {
            match message {
                PeerMessage::Unchoke => drop(self.taken.insert(to)),
                PeerMessage::Choke => drop(self.taken.remove(&to)),
                _ => {}
            }
        }
        self.most = self.most.max(self.taken.len());
    }
}

#[test]
fn at_most_slots_neighbours_are_unchoked_and_the_others_are_refused() {
    for slots in [1, 3, 8] {
        let mut solo = Solo::new(credit(slots, 4), "********");
        let mut places = Places::default();
        let askers: Vec<usize> = (0..12).map(|_| solo.neighbour("........")).collect();
        for round in 0..50 {
            solo.wait(ms(10));
            solo.says(askers[round % 12], PeerMessage::Hungry { sources: 0 });
            places.note(&solo.news());
            assert!(places.taken.len() <= usize::from(slots));
        }
        assert_eq!(places.most, usize::from(slots), "and all places are taken");
        let refused =
            askers.iter().copied().find(|asker| !places.taken.contains(asker)).expect("fewer places than askers");
        solo.requests(refused, 0);
        assert_eq!(solo.news().rejected(), [(refused, 0, RejectReason::Choked)]);
    }
}

#[test]
fn at_most_sources_neighbours_are_accepted() {
    let mut solo = Solo::new(credit(4, 3), &".".repeat(100));
    let sources: Vec<usize> = (0..6).map(|_| solo.source(&"*".repeat(100))).collect();
    let news = solo.news();
    assert_eq!(news.told(&PeerMessage::Decline), sources[3..]);
    let asked: BTreeSet<usize> = news.asked().into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, sources[..3].iter().copied().collect());
}

#[test]
fn who_sent_wrong_bytes_takes_no_other_source_s_place() {
    let mut solo = Solo::new(credit(4, 1), "......");
    let liar = solo.source("******");
    let (_, index) = solo.asked()[0];
    assert!(solo.delivers_variant(liar, index, LIE));
    solo.news();
    solo.says(liar, PeerMessage::Choke);
    solo.says(liar, PeerMessage::Unchoke);
    assert_eq!(solo.news().told(&PeerMessage::Decline), [liar]);
    let honest = solo.source("******");
    let news = solo.news();
    assert_eq!(news.told(&PeerMessage::Decline), []);
    assert!(!news.asked().is_empty() && news.asked().iter().all(|(to, _)| *to == honest));
}

#[test]
fn a_place_without_anything_to_get_is_given_back() {
    let mut solo = Solo::new(credit(4, 4), "**..");
    let idler = solo.source("**..");
    solo.wait(ms(2));
    assert_eq!(solo.news().told(&PeerMessage::Decline), []);
    solo.wait(ms(2));
    assert_eq!(solo.news().told(&PeerMessage::Decline), [idler]);
    // It serves us no longer: nothing is asked of it before it offers the place again.
    solo.joins(idler, "****");
    assert_eq!(solo.asked(), []);
    solo.says(idler, PeerMessage::Unchoke);
    assert_eq!(solo.asked().len(), 2);
    solo.wait(ms(10));
    assert_eq!(solo.news().told(&PeerMessage::Decline), [], "it is of use");
}

#[test]
fn a_slow_neighbour_s_place_is_kept_for_as_long_as_a_chunk_takes() {
    let mut solo = Solo::new(credit(4, 4), "**..");
    let slow = solo.source("***.");
    solo.wait(ms(40));
    solo.delivers(slow, 2);
    solo.wait(ms(20));
    assert_eq!(solo.news().told(&PeerMessage::Decline), []);
    solo.wait(ms(25));
    assert_eq!(solo.news().told(&PeerMessage::Decline), [slow]);
}

#[test]
fn a_place_at_one_that_is_much_slower_than_others_is_not_kept_so_long() {
    let mut solo = Solo::new(credit(4, 4), "**......");
    let slow = solo.source("***.....");
    let fast = solo.source("...*****");
    for _ in 0..4 {
        solo.wait(ms(10));
        let index = solo.asked().into_iter().filter(|(to, _)| *to == fast).map(|(_, index)| index).next();
        index.into_iter().for_each(|index| assert!(solo.delivers(fast, index)));
    }
    solo.delivers(slow, 2);
    solo.wait(ms(30));
    assert_eq!(solo.news().told(&PeerMessage::Decline), [slow]);
}

#[test]
fn who_declines_makes_room_for_another_and_is_asked_again_later() {
    let mut solo = Solo::new(credit(1, 4), "****");
    let first = solo.neighbour("....");
    let second = solo.neighbour("....");
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [first]);
    solo.says(first, PeerMessage::Decline);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [second]);
    solo.says(second, PeerMessage::Decline);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [], "neither wants it for a while");
    solo.wait(ms(5));
    assert_eq!(solo.news().told(&PeerMessage::Unchoke).len(), 1);
}

#[test]
fn a_place_goes_to_who_lacks_something_of_ours() {
    let mut solo = Solo::new(credit(4, 4), "**..");
    solo.neighbour("**.*");
    let needy = solo.neighbour("..**");
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [needy]);
}

#[test]
fn a_free_place_goes_to_whom_fewest_serve() {
    let mut solo = Solo::new(credit(1, 4), "****");
    let served = solo.neighbour("....");
    let rich = solo.neighbour("....");
    let poor = solo.neighbour("....");
    solo.says(rich, PeerMessage::Hungry { sources: 3 });
    solo.says(poor, PeerMessage::Hungry { sources: 1 });
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [served], "who is served isn't ahead");
    solo.disconnects(served);
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [poor]);
}

#[test]
fn a_hungry_neighbour_that_gives_gets_the_place_of_one_who_is_ahead() {
    let many = ".".repeat(64);
    let config = Config { endgame_percent: 0, ..credit(1, 4) };
    let mut solo = Solo::new(config, &("*".repeat(62) + ".."));
    let rich = solo.neighbour(&many);
    // It gets around, and says that others serve it too.
    solo.joins(rich, &("*".repeat(60) + "...."));
    let key = solo.content.key();
    let load = Load { sources: 3 };
    solo.says(rich, PeerMessage::Have { key, chunks: [].into(), load });
    let poor = solo.source(&("..".to_owned() + &".".repeat(61) + "*"));
    solo.news();
    solo.says(poor, PeerMessage::Hungry { sources: 3 });
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [], "as many serve it as the one who is served");
    solo.says(poor, PeerMessage::Hungry { sources: 1 });
    let news = solo.news();
    assert_eq!(news.told(&PeerMessage::Choke), [rich]);
    assert_eq!(news.told(&PeerMessage::Unchoke), [poor]);
}

#[test]
fn who_is_served_by_nobody_says_that_it_is_hungry() {
    let mut solo = Solo::new(credit(4, 4), "....");
    let holder = solo.neighbour("****");
    solo.neighbour("....");
    solo.wait(ms(30));
    let news = solo.news();
    assert_eq!(news.asked(), []);
    let hungry = news.told(&PeerMessage::Hungry { sources: 0 });
    assert!(!hungry.is_empty() && hungry.iter().all(|to| *to == holder), "{hungry:?}");
}

#[test]
fn all_places_are_given_back_when_nothing_is_wanted_any_more() {
    let mut solo = Solo::new(credit(4, 4), "***.");
    let sources = [solo.source("****"), solo.source("****")];
    let (to, index) = solo.asked()[0];
    solo.delivers(to, index);
    assert_eq!(BTreeSet::from_iter(solo.news().told(&PeerMessage::Decline)), BTreeSet::from(sources));
    solo.says(sources[0], PeerMessage::Unchoke);
    assert_eq!(solo.news().told(&PeerMessage::Decline), [sources[0]]);
}

#[test]
fn who_chokes_us_loses_our_requests_but_not_what_is_on_its_way() {
    let mut solo = Solo::new(credit(4, 4), "....");
    let source = solo.source("****");
    let asked = solo.asked();
    assert_eq!(asked.len(), 4);
    let coming = asked[0].1;
    solo.begins(source, coming);
    solo.says(source, PeerMessage::Choke);
    let other = solo.source("****");
    let again: BTreeSet<_> = solo.asked().into_iter().map(|(to, index)| (to == other, index)).collect();
    assert_eq!(again, asked[1..].iter().map(|(_, index)| (true, *index)).collect());
    assert!(solo.delivers(source, coming));
}

#[test]
fn a_place_moves_from_one_who_only_takes_to_one_who_gives() {
    let many = 40;
    let config = Config { endgame_percent: 0, substitute: false, ..credit(1, 4) };
    let mut solo = Solo::new(config, &("*".repeat(many / 2) + &".".repeat(many / 2)));
    // Nobody is there for a while: who comes late is dealt with all the same.
    solo.wait(ms(500));
    let rider = solo.neighbour(&".".repeat(many));
    assert_eq!(solo.news().told(&PeerMessage::Unchoke), [rider]);
    for index in 0..5 {
        solo.requests(rider, index);
        solo.sent(rider, index);
    }
    // The giver gives; the rider doesn't.
    let giver = solo.source(&(".".repeat(many / 2) + &"*".repeat(many / 2)));
    let (_, index) = solo.asked()[0];
    solo.delivers(giver, index);
    solo.wait(ms(250));
    let news = solo.news();
    assert_eq!(news.told(&PeerMessage::Choke), [rider]);
    assert_eq!(news.told(&PeerMessage::Unchoke), [giver]);
}

#[test]
fn who_only_takes_is_served_last() {
    for lies in [false, true] {
        let many = 40;
        let config = Config { uploads_at_once: 1, substitute: false, endgame_percent: 0, ..credit(2, 4) };
        let mut solo = Solo::new(config, &("*".repeat(many / 2) + &".".repeat(many / 2)));
        let theirs = ".".repeat(many / 2) + &"*".repeat(many / 2);
        let rider = if lies { solo.source(&theirs) } else { solo.neighbour(&".".repeat(many)) };
        if lies {
            // What it gives is worth nothing.
            let (_, index) = solo.asked()[0];
            assert!(solo.delivers_variant(rider, index, LIE));
        }
        let giver = solo.source(&theirs);
        let asked = solo.asked();
        let (_, index) = asked.into_iter().find(|(to, _)| *to == giver).expect("the giver is asked");
        solo.delivers(giver, index);
        for index in 0..3 {
            solo.requests(rider, index);
            solo.sent(rider, index);
        }
        solo.news();
        (3..6).for_each(|index| solo.requests(rider, index));
        (6..8).for_each(|index| solo.requests(giver, index));
        let mut order = Vec::new();
        while let Some((to, index)) = solo.news().sending().first().copied() {
            order.push(to);
            solo.sent(to, index);
        }
        assert_eq!(order, [rider, giver, giver, rider, rider], "the first was on the link before the giver asked");
    }
}

/// A leech under the textbook's rule with eight neighbours that lack what it has and have what it lacks.
struct Classic {
    solo: Solo,
    neighbours: Vec<usize>,
    places: Places,
    owed: Vec<(usize, u32)>,
}

impl Classic {
    fn new(seed: u64) -> Self {
        let mut solo = Solo::with_seed(Config::classic(), &("*".repeat(50) + &".".repeat(1950)), seed);
        let theirs = ".".repeat(50) + &"*".repeat(1950);
        let neighbours = (0..8).map(|_| solo.source(&theirs)).collect();
        Self { solo, neighbours, places: Places::default(), owed: Vec::new() }
    }

    /// Half a second, in which each of these neighbours delivers a chunk.
    fn half_a_second(&mut self, givers: &[usize]) {
        for giver in givers {
            self.keep_book();
            if let Some(at) = self.owed.iter().position(|(to, _)| to == giver) {
                let (to, index) = self.owed.remove(at);
                self.solo.delivers(to, index);
            }
        }
        self.solo.wait(ms(500));
        self.keep_book();
    }

    fn keep_book(&mut self) {
        let news = self.solo.news();
        self.owed.extend(news.asked());
        self.places.note(&news);
        assert!(self.places.taken.len() <= 5, "four and an optimistic one");
    }
}

#[test]
fn tit_for_tat_serves_the_best_givers_and_one_optimistic_neighbour() {
    let mut classic = Classic::new(1);
    let givers = classic.neighbours[..4].to_vec();
    let mut optimists = Vec::new();
    for half_seconds in 0..400 {
        classic.half_a_second(&givers);
        if half_seconds >= 40 {
            let taken = &classic.places.taken;
            assert!(givers.iter().all(|giver| taken.contains(giver)), "givers stay: {taken:?} after {half_seconds}");
            let optimist = taken.iter().find(|node| !givers.contains(node));
            optimists.push(*optimist.expect("a fifth one"));
        }
    }
    assert_eq!(classic.places.most, 5);
    // It moves every 30 s and not between.
    let stays: Vec<usize> = optimists.chunk_by(|one, other| one == other).map(<[usize]>::len).collect();
    assert!(stays.len() >= 3, "{stays:?}");
    assert!(stays[1..stays.len() - 1].iter().all(|stay| stay % 60 == 0), "{stays:?}");
}

#[test]
fn tit_for_tat_drops_who_stops_giving() {
    let mut classic = Classic::new(3);
    let neighbours = classic.neighbours.clone();
    let all_served = |classic: &Classic, who: &[usize]| who.iter().all(|node| classic.places.taken.contains(node));
    (0..70).for_each(|_| classic.half_a_second(&neighbours[..4]));
    assert!(all_served(&classic, &neighbours[..4]));
    (0..90).for_each(|_| classic.half_a_second(&neighbours[3..7]));
    assert!(all_served(&classic, &neighbours[3..7]));
}

#[test]
fn without_choking_everybody_is_served_from_the_beginning() {
    let mut solo = Solo::new(Config { uploads_at_once: 30, ..open() }, "****");
    let askers: Vec<usize> = (0..10).map(|_| solo.neighbour("....")).collect();
    askers.iter().for_each(|asker| solo.requests(*asker, 0));
    solo.wait(ms(200));
    let news = solo.news();
    assert_eq!(news.sending().len(), 10);
    let words = [PeerMessage::Choke, PeerMessage::Unchoke, PeerMessage::Decline];
    assert!(words.iter().all(|word| news.told(word).is_empty()));
}

/// When the givers and when the riders have everything, each as the median.
fn givers_and_riders(config: &Config, seed: u64) -> (Time, Time) {
    let giver = Setup { config: config.clone(), up: 125_000_000, ..Setup::default() };
    let rider = Setup { role: Role::Rider, ..giver.clone() };
    let mut setups = vec![giver; 9];
    setups.extend(vec![rider; 3]);
    // The seed isn't what limits them: what givers give each other is.
    setups[0].up *= 2;
    let mut net = Net::with_seed(400, setups, seed);
    net.mesh();
    net.seeds(0);
    net.start(1..12);
    net.run_until_complete(1..12, Duration::from_secs(30));
    let median = |nodes: std::ops::Range<usize>| {
        let mut at: Vec<Time> = nodes.map(|node| net.finished_at(node).expect("nobody starves")).collect();
        at.sort_unstable();
        at[at.len() / 2]
    };
    (median(1..9), median(9..12))
}

#[test]
fn free_riders_finish_later_than_givers_and_never_starve() {
    let begins = Time::from_nanos(1_000_000_000);
    // The transfer takes a quarter of a second: places are dealt about 25 times in it.
    let serving = Serving::Credit { slots: 4, sources: 4, idle: ms(3), rechoke: ms(10), allowance_chunks: 2 };
    let credit = Config { serving, ..Config::default() };
    let serving = Serving::TitForTat { slots: 5, rechoke: ms(20), optimistic: ms(60) };
    let tit_for_tat = Config { serving, ..Config::classic() };
    for (name, config) in [("credit", credit), ("tit-for-tat", tit_for_tat)] {
        let ratios = (1..=3).map(|seed| {
            let (givers, riders) = givers_and_riders(&config, seed);
            riders.since(begins).as_secs_f64() / givers.since(begins).as_secs_f64()
        });
        let ratios: Vec<f64> = ratios.collect();
        assert!(ratios.iter().all(|ratio| *ratio > 1.05), "{name}: {ratios:?}");
    }
}
