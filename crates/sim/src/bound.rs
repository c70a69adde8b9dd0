//! The least time that a distribution can take: the fluid bound, in which content flows without chunks, delays or mistakes.
//!
//! With F bytes wanted by N nodes, an origin that sends u_s bytes a second, and nodes that receive d_i and send u_i:
//!
//! > T ≥ max( F / u_s, F / d_min, N·F / (u_s + Σ u_i) )
//!
//! The origin has to send each byte once, the slowest node has to receive all of it, and all uplinks together have to carry a copy
//! for each node. It is adapted to the setup as follows:
//!
//! - *several blobs* (images): the origin sends the distinct bytes D, D / u_s; node i receives what it wants, F_i / d_i; the uplinks
//!   carry Σ F_i.
//! - *arrivals*: node i is not done before a_i + F_i / d_i, where a_i is when it comes.
//! - *zones*: with a link of L bytes a second between two zones, and one copy from the origin, the other zone's copy has to cross
//!   it: D_z / L, where D_z is the distinct bytes that zone z wants. (With a copy for each zone from the origin nothing would have to
//!   cross; that is what one lead gives up.)
//! - *roles*: only honest nodes' uplinks count, because the others give nothing that is of use; free riders receive as everybody does.
//! - *killed nodes* have to receive nothing. What they send before they die counts as if they lived: the bound stays one.
//! - *stragglers* have their own u_i.
//!
//! State: none. Invariants: no run is faster.
//! Absent on purpose: the third term for parts of the nodes. It is never the larger one where links are as equal as here.

use std::collections::BTreeSet;

use crate::setup::{Fault, NodeSetup, Role, Setup};

/// The bound in seconds.
#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
pub(crate) fn fluid(setup: &Setup) -> f64 {
    let killed = killed(setup);
    let finishing = || {
        let counted = |(ix, node): &(usize, &NodeSetup)| is_to_finish(node.role) && !killed.contains(ix);
        setup.nodes.iter().enumerate().filter(counted).map(|(_, node)| node)
    };
    let origin = distinct_bytes(setup, finishing()) / setup.origin_up;
    let slowest = finishing().map(|node| node.pulls_at.as_secs_f64() + wanted_bytes(setup, node) / node.down);
    let copies: f64 = finishing().map(|node| wanted_bytes(setup, node)).sum();
    let honest = setup.nodes.iter().filter(|node| node.role == Role::Honest);
    let uplinks: f64 = setup.origin_up + honest.map(|node| node.up).sum::<f64>();
    let crossing = setup.between_zones.map_or(0.0, |rate| {
        let zones: BTreeSet<usize> = finishing().map(|node| node.zone).collect();
        let wanted = zones.iter().map(|zone| distinct_bytes(setup, finishing().filter(|node| node.zone == *zone)));
        // The origin's copy arrives in one of the zones, at best in the one that wants most.
        let mut wanted: Vec<f64> = wanted.collect();
        wanted.sort_by(f64::total_cmp);
        wanted.pop();
        wanted.pop().unwrap_or(0.0) / rate
    });
    slowest.fold(origin.max(copies / uplinks).max(crossing), f64::max)
}

/// The least time without exchange: the origin sends every node a copy.
#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
pub(crate) fn client_server(setup: &Setup) -> f64 {
    setup.nodes.iter().map(|node| wanted_bytes(setup, node)).sum::<f64>() / setup.origin_up
}

/// Whether a node's finish counts: those that misbehave on purpose may fail.
pub(crate) const fn is_to_finish(role: Role) -> bool {
    matches!(role, Role::Honest | Role::Rider)
}

fn killed(setup: &Setup) -> BTreeSet<usize> {
    let of = |fault: &Fault| match fault {
        Fault::Kill { nodes, .. } => nodes.iter().map(|node| *node as usize).collect(),
        _ => Vec::new(),
    };
    setup.faults.iter().flat_map(|(_, fault)| of(fault)).collect()
}

#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
fn wanted_bytes(setup: &Setup, node: &NodeSetup) -> f64 {
    node.wants.iter().map(|blob| setup.blobs[*blob].size_bytes).sum::<u64>() as f64
}

#[allow(clippy::cast_precision_loss, reason = "bytes of a simulated run, far below 2^53")]
fn distinct_bytes<'a>(setup: &Setup, nodes: impl Iterator<Item = &'a NodeSetup>) -> f64 {
    let blobs: BTreeSet<usize> = nodes.flat_map(|node| node.wants.iter().copied()).collect();
    blobs.iter().map(|blob| setup.blobs[*blob].size_bytes).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_types::Time;

    use super::*;
    use crate::scenario::{Knobs, Plan, Preset, Size};

    const F: u64 = 1 << 30;
    /// F at 10 Gbit/s.
    const T: f64 = F as f64 / 1.25e9;

    fn setup(nodes: usize) -> Setup {
        Plan { knobs: Knobs::of(Preset::Shoal), nodes, size: Size::new(F).unwrap() }.undisturbed(1)
    }

    fn is(setup: &Setup, expected: f64) {
        let bound = fluid(setup);
        assert!((bound / expected - 1.0).abs() < 1e-9, "{bound} instead of {expected}");
    }

    #[test]
    fn each_of_the_three_terms_can_be_the_largest() {
        let mut setup = setup(100);
        is(&setup, T);
        setup.nodes[3].down /= 2.0;
        is(&setup, 2.0 * T);
        setup.origin_up /= 4.0;
        is(&setup, 4.0 * T);
        setup.origin_up *= 4.0;
        setup.nodes.iter_mut().for_each(|node| node.up /= 10.0);
        is(&setup, 100.0 * T / (1.0 + 10.0));
    }

    #[test]
    fn only_the_honest_give_and_only_survivors_take() {
        let mut setup = setup(10);
        setup.nodes.iter_mut().for_each(|node| node.up /= 2.0);
        setup.nodes[..3].iter_mut().for_each(|node| node.role = Role::Rider);
        is(&setup, 10.0 * T / (1.0 + 3.5));
        setup.nodes[0].role = Role::Liar;
        is(&setup, 9.0 * T / (1.0 + 3.5));
        setup.faults.push((Time::ZERO, Fault::Kill { nodes: vec![9, 8], silently: false }));
        is(&setup, 7.0 * T / (1.0 + 3.5));
    }

    #[test]
    fn a_late_node_is_late() {
        let mut setup = setup(10);
        setup.nodes[9].pulls_at = Time::ZERO + Duration::from_secs(3);
        is(&setup, 3.0 + T);
    }

    #[test]
    fn images_cost_the_origin_their_distinct_bytes() {
        let mut knobs = Knobs::of(Preset::Shoal);
        knobs.images = 3;
        let plan = Plan { knobs, nodes: 30, size: Size::new(F).unwrap() };
        // The base is an eighth and 100 KiB, the other layers are three times the rest.
        let base = (F / 8 + (100 << 10)) as f64 / F as f64;
        is(&plan.undisturbed(1), T * (base + 3.0 * (1.0 - base)));
    }

    #[test]
    fn one_copy_crosses_between_zones() {
        let mut setup = setup(10);
        setup.nodes[5..].iter_mut().for_each(|node| node.zone = 1);
        setup.between_zones = Some(1.25e9 * 2.0);
        is(&setup, T);
        setup.between_zones = Some(1.25e9 / 2.0);
        is(&setup, 2.0 * T);
    }

    #[test]
    fn without_exchange_every_node_costs_a_copy() {
        assert!((client_server(&setup(10)) / (10.0 * T) - 1.0).abs() < 1e-9);
    }
}
