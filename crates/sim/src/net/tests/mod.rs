//! Tests of the network: its contract on small tables here, its error against exact sharing in `accuracy`.

mod accuracy;
mod exact;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use shoal_types::{Rng, Time};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

#[test]
fn a_lone_flow_uses_its_slowest_link() {
    let mut net = Network::new();
    let (up, down) = (net.add_link(1000.0), net.add_link(4000.0));
    let flow = net.start(Time::ZERO, &[up, down], 500, None, 7);
    assert_eq!(net.rate(flow), Some(1000.0));
    let end = Time::ZERO + 500 * MS;
    assert_eq!(net.next_event(), Some(end));
    assert_eq!(net.poll_finished(Time::ZERO + 499 * MS), None);
    assert_eq!(net.carried_bytes(down), 499);
    assert_eq!(net.poll_finished(end), Some(Finished { flow, tag: 7, at: end }));
    assert_eq!(net.poll_finished(end), None);
    assert_eq!((net.rate(flow), net.next_event(), net.active_flows()), (None, None, 0));
    assert_eq!((net.carried_bytes(up), net.carried_bytes(down)), (500, 500));
}

#[test]
fn what_one_flow_cannot_use_goes_to_the_others() {
    // Senders a, b, c; receiver d. b's link is slow, and a also sends to e.
    let mut net = Network::new();
    let [a, b, c, d, e] = [1200.0, 100.0, 1200.0, 1000.0, 9000.0].map(|rate| net.add_link(rate));
    let ad = net.start(Time::ZERO, &[a, d], 1_000_000, None, 0);
    let bd = net.start(Time::ZERO, &[b, d], 1_000_000, None, 0);
    let cd = net.start(Time::ZERO, &[c, d], 1_000_000, None, 0);
    let ae = net.start(Time::ZERO, &[a, e], 1_000_000, Some(1000.0), 0);
    let mut rates = || [ad, bd, cd, ae].map(|flow| net.rate(flow).unwrap());
    let expected = [450.0, 100.0, 450.0, 750.0];
    assert!(rates().iter().zip(expected).all(|(&rate, expected)| close(rate, expected)), "{:?}", rates());
}

#[test]
fn an_early_end_frees_its_share_and_keeps_what_was_carried() {
    let mut net = Network::new();
    let link = net.add_link(1000.0);
    let first = net.start(Time::ZERO, &[link], 1000, None, 1);
    let second = net.start(Time::ZERO, &[link], 1000, None, 2);
    assert_eq!(net.cancel(Time::ZERO + 1000 * MS, first), Some(500));
    assert_eq!(net.cancel(Time::ZERO + 1000 * MS, first), None);
    assert_eq!(net.next_event(), Some(Time::ZERO + 1500 * MS));
    assert_eq!(net.poll_finished(Time::MAX).map(|end| end.flow), Some(second));
    assert_eq!(net.carried_bytes(link), 1500);
}

#[test]
fn a_capacity_can_change_and_be_zero() {
    let mut net = Network::new();
    let link = net.add_link(1000.0);
    let flow = net.start(Time::ZERO, &[link], 1000, None, 0);
    net.set_capacity(Time::ZERO + 500 * MS, link, 0.0);
    assert_eq!((net.rate(flow), net.next_event()), (Some(0.0), None));
    assert_eq!(net.poll_finished(Time::ZERO + 700 * MS), None);
    net.set_capacity(Time::ZERO + 700 * MS, link, 5000.0);
    assert_eq!(net.next_event(), Some(Time::ZERO + 800 * MS));
}

#[test]
fn a_late_poll_sees_each_end_at_its_own_time() {
    // Three flows share 900 bytes per second; each end speeds up the rest.
    let mut net = Network::new();
    let link = net.add_link(900.0);
    for bytes in [300, 600, 900] {
        net.start(Time::ZERO, &[link], bytes, None, bytes);
    }
    let ends: Vec<_> = std::iter::from_fn(|| net.poll_finished(Time::from_nanos(10_000_000_000))).collect();
    let expected = [(300, 1.0), (600, 1.0 + 300.0 / 450.0), (900, 2.0)];
    assert_eq!(ends.len(), expected.len());
    for (end, (tag, seconds)) in ends.iter().zip(expected) {
        assert!(end.tag == tag && (end.at.as_secs_f64() - seconds).abs() < 1e-8, "{end:?}");
    }
}

#[test]
fn a_flow_without_bytes_ends_at_once() {
    let mut net = Network::new();
    let link = net.add_link(0.0);
    net.start(Time::from_nanos(5), &[link], 0, None, 3);
    assert_eq!(net.next_event(), Some(Time::from_nanos(5)));
    assert_eq!(net.poll_finished(Time::from_nanos(5)).map(|end| end.tag), Some(3));
}

#[test]
#[should_panic(expected = "a flow ended before and was not polled")]
fn an_end_cannot_be_skipped() {
    let mut net = Network::new();
    let link = net.add_link(1000.0);
    net.start(Time::ZERO, &[link], 1, None, 0);
    net.start(Time::ZERO + 2 * MS, &[link], 1, None, 0);
}

/// What may happen to a network.
#[derive(Clone, Debug)]
enum Step {
    /// Some flows over the same path.
    Start {
        path: Vec<usize>,
        bytes: u64,
        cap: Option<f64>,
        count: usize,
    },
    Cancel(prop::sample::Index),
    Capacity(usize, f64),
    Wait(Duration),
}

fn steps(links: usize) -> impl Strategy<Value = Vec<Step>> {
    let path = prop::sample::subsequence((0..links).collect::<Vec<_>>(), 1..=3).prop_shuffle();
    let bytes = prop_oneof![Just(0_u64), 1_u64..2000];
    let cap = prop::option::of(0.0_f64..500.0);
    // Bursts make some links have many flows.
    let count = prop_oneof![9 => Just(1_usize), 1 => 2_usize..80];
    let start = (path, bytes, cap, count).prop_map(|(path, bytes, cap, count)| Step::Start { path, bytes, cap, count });
    let capacity = prop_oneof![Just(0.0), 1.0_f64..1000.0];
    let step = prop_oneof![
        6 => start,
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => (0..links, capacity).prop_map(|(link, rate)| Step::Capacity(link, rate)),
        6 => (0_u64..500_000_000).prop_map(|nanos| Step::Wait(Duration::from_nanos(nanos))),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// After any sequence of calls no link is overfilled, every flow is limited by something, and each byte is counted once.
    #[test]
    fn links_are_used_and_never_overfilled(steps in steps(6)) {
        let mut net = Network::new();
        let links: Vec<_> = (0..6).map(|link| net.add_link(200.0 + 100.0 * f64::from(link))).collect();
        let mut now = Time::ZERO;
        let mut flows: Vec<(FlowId, Vec<usize>, u64)> = Vec::new();
        let mut expected = vec![0; links.len()];
        let mut count = |path: &[usize], bytes: u64| path.iter().for_each(|&link| expected[link] += bytes);
        for step in steps {
            match step {
                Step::Start { path, bytes, cap, count } => for _ in 0..count {
                    let ids: Vec<_> = path.iter().map(|&link| links[link]).collect();
                    let flow = net.start(now, &ids, bytes, cap, flows.len() as u64);
                    flows.push((flow, path.clone(), bytes));
                }
                Step::Cancel(index) => if !flows.is_empty() {
                    let (flow, path, _) = index.get(&flows);
                    count(path, net.cancel(now, *flow).unwrap_or(0));
                }
                Step::Capacity(link, rate) => net.set_capacity(now, links[link], rate),
                Step::Wait(span) => {
                    let mut last = now;
                    now += span;
                    while let Some(end) = net.poll_finished(now) {
                        prop_assert!(last <= end.at && end.at <= now);
                        last = end.at;
                        let (flow, path, bytes) = &flows[usize::try_from(end.tag).unwrap()];
                        prop_assert_eq!(*flow, end.flow);
                        count(path, *bytes);
                    }
                }
            }
            net.share();
            exact::assert_fair_within_slack(&net);
        }
        for (flow, path, _) in &flows {
            count(path, net.cancel(now, *flow).unwrap_or(0));
        }
        for (link, expected) in links.iter().zip(expected) {
            prop_assert_eq!(net.carried_bytes(*link), expected);
            prop_assert!(net.load(*link) == 0.0);
        }
        prop_assert_eq!(net.active_flows(), 0);
        prop_assert_eq!(net.counters().postponed, 0);
    }
}

#[test]
fn the_same_calls_give_the_same_ends() {
    let run = || {
        let mut rng = Rng::new(11);
        let mut net = Network::new();
        let links: Vec<_> = (0..40).map(|_| net.add_link(1e6)).collect();
        for tag in 0..40 {
            net.start(Time::ZERO, &[links[tag], links[(tag + 1 + rng.below(39)) % 40]], 1000, None, tag as u64);
        }
        let mut ends = Vec::new();
        while let Some(at) = net.next_event().filter(|_| ends.len() < 2000) {
            while let Some(end) = net.poll_finished(at) {
                let sender = usize::try_from(end.tag).unwrap();
                net.start(at, &[links[sender], links[(sender + 1 + rng.below(39)) % 40]], 1000, None, end.tag);
                ends.push(end);
            }
        }
        ends
    };
    assert_eq!(run(), run());
}
