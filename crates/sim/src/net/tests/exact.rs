//! Exact sharing: the reference that the network is measured against, and the check of what the network promises.

use super::super::Network;
use super::super::link::ROUNDING;

/// A flow of the reference: its links and its cap.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) path: Vec<usize>,
    pub(super) cap: f64,
}

/// The max-min fair rates, by progressive filling: all rates rise together until a link is full or a cap is met; the flows
/// concerned stay, and the others rise on.
pub(super) fn max_min(capacities: &[f64], wishes: &[Wish]) -> Vec<f64> {
    let mut rest = capacities.to_vec();
    let mut waiting = vec![0_u32; capacities.len()];
    let mut crossing = vec![Vec::new(); capacities.len()];
    for (flow, wish) in wishes.iter().enumerate() {
        for &link in &wish.path {
            waiting[link] += 1;
            crossing[link].push(flow);
        }
    }
    let mut by_cap: Vec<usize> = (0..wishes.len()).filter(|&flow| wishes[flow].cap.is_finite()).collect();
    by_cap.sort_by(|&a, &b| wishes[b].cap.total_cmp(&wishes[a].cap));
    let mut rates = vec![f64::NAN; wishes.len()];
    loop {
        while by_cap.last().is_some_and(|&flow| !rates[flow].is_nan()) {
            by_cap.pop();
        }
        let cap = by_cap.last().map(|&flow| (wishes[flow].cap, flow));
        let full = (0..rest.len())
            .filter(|&link| waiting[link] > 0)
            .map(|link| ((rest[link] / f64::from(waiting[link])).max(0.0), link))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (level, stopped) = match (cap, full) {
            (Some((cap, flow)), Some((level, _))) if cap <= level => (cap, vec![flow]),
            (_, Some((level, link))) => (level, crossing[link].clone()),
            (Some((cap, flow)), None) => (cap, vec![flow]),
            (None, None) => return rates,
        };
        for flow in stopped {
            if rates[flow].is_nan() {
                rates[flow] = level;
                for &link in &wishes[flow].path {
                    rest[link] -= level;
                    waiting[link] -= 1;
                }
            }
        }
    }
}

/// Checks what `fabric` promises: loads are the rates' sums, no link is overfilled, and each flow below its cap has a link that is
/// filled up to its slack and on which no flow is faster.
pub(super) fn assert_fair_within_slack(net: &Network) {
    let (links, flows) = (&net.fabric.links, &net.fabric.flows);
    let all = || (0..).take(links.len());
    let rates = |link| links.flows(link).map(|slot| flows.get(slot).rate);
    let fastest: Vec<f64> = all().map(|link| rates(link).fold(0.0, f64::max)).collect();
    let limits = |link: u32, rate: f64| {
        let is_fastest = rate >= fastest[link as usize] * (1.0 - ROUNDING);
        is_fastest && links[link].load >= links[link].least() * (1.0 - ROUNDING)
    };
    for link in all() {
        let (sum, capacity) = (rates(link).sum::<f64>(), links[link].capacity);
        assert!((sum - links[link].load).abs() <= ROUNDING * capacity.max(1.0), "a load is the sum of the rates");
        assert!(sum <= capacity * (1.0 + 2.0 * ROUNDING), "link {link} carries {sum} of {capacity}");
        for (place, slot) in (0..).zip(links.flows(link)) {
            let flow = flows.get(slot);
            let hop = flow.path.links().iter().position(|&other| other == link).expect("the flow knows its link");
            assert_eq!(flow.places()[hop], place, "the flow knows its place");
            let is_limited = flow.path.links().iter().any(|&link| limits(link, flow.rate));
            assert!(flow.rate >= flow.cap || is_limited, "a flow of rate {} waits for nothing", flow.rate);
        }
    }
}

#[test]
fn progressive_filling_on_a_textbook_example() {
    // One flow over both links, one over each: the first link's two get a half each, the second link's other one the rest.
    let wish = |path: &[usize], cap| Wish { path: path.to_vec(), cap };
    let inf = f64::INFINITY;
    let rates = max_min(&[1.0, 2.0], &[wish(&[0, 1], inf), wish(&[0], inf), wish(&[1], inf), wish(&[1], 0.25)]);
    assert_eq!(rates, [0.5, 0.5, 1.25, 0.25]);
}
