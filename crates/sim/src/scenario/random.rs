//! Small swarms whose settings the seed draws: who and what goes wrong, the links, the demand, the exchange's variants.
//!
//! State: none. Invariants: a drawn plan passes [`Plan::check`]; its settings are those of `--set`, so each can be run by hand.
//! Absent on purpose: figures. So small a swarm is far from its bound.

use shoal_types::Rng;

use super::keys::apply;
use super::plan::Plan;
use super::units::Size;

/// The fewest nodes: with fewer there are no parts to deal.
const LEAST_NODES: usize = 5;

/// The smallest blob: three chunks of the smallest size.
const LEAST_BYTES: u64 = 3 * (64 << 10);

/// The settings that one is drawn of, and in how many of a hundred swarms.
const DRAWN: &[(usize, &[&str])] = &[
    (30, &["liars=10%", "liars=20%"]),
    // Not more: three accusers of 13 nodes ban, and a fifth of 20 nodes are four.
    (30, &["framers=10%"]),
    (30, &["free-riders=10%", "free-riders=25%"]),
    (15, &["lying-lead=yes"]),
    (25, &["stragglers=10%", "stragglers=30%"]),
    (25, &["killed=10%", "killed=30%"]),
    (30, &["killed-at=0%", "killed-at=10%", "killed-at=90%"]),
    (15, &["lead-dies-at=10%", "lead-dies-at=50%", "lead-dies-at=95%"]),
    (15, &["lead-vanishes-at=10%", "lead-vanishes-at=50%", "lead-vanishes-at=95%"]),
    (15, &["tracker-dies-at=0%", "tracker-dies-at=30%", "tracker-dies-at=80%"]),
    (15, &["origin-stops-at=0%", "origin-stops-at=20%", "origin-stops-at=50%"]),
    (20, &["origin-outage=5ms", "origin-outage=3s"]),
    (30, &["zones=2", "zones=3"]),
    (30, &["zone-link=10%", "zone-link=50%"]),
    (40, &["arrivals=0.5", "arrivals=2", "arrivals=20"]),
    (40, &["rtt=100us", "rtt=2ms", "rtt=10ms"]),
    (30, &["mesh=cold"]),
    (20, &["uplink=1Gbit", "uplink=5Gbit"]),
    (20, &["origin-rate=1Gbit", "origin-rate=40Gbit"]),
    (10, &["origin-connection-rate=1Gbit"]),
    (10, &["cores=1"]),
    (10, &["images=2", "images=3"]),
    (10, &["chunk-size=128KiB", "chunk-size=256KiB"]),
    (10, &["order=random", "order=sequential"]),
    (10, &["serving=tit-for-tat", "serving=open"]),
    (10, &["serve-order=fifo"]),
    (10, &["substitute=no"]),
    (10, &["endgame-percent=0", "endgame-percent=20"]),
    (10, &["max-peers=4", "max-peers=10"]),
    (10, &["stream-percent=50"]),
];

/// Whether swarms can be drawn up to this one.
///
/// # Errors
/// One line that names what would be valid.
pub(crate) fn check(largest: &Plan) -> Result<(), String> {
    if largest.nodes < LEAST_NODES {
        return Err(format!("nodes: a random swarm has {LEAST_NODES} or more, not {}", largest.nodes));
    }
    if largest.size.bytes() < LEAST_BYTES {
        return Err(format!("size: a random swarm's blob has {LEAST_BYTES} bytes or more, not {}", largest.size));
    }
    Ok(())
}

/// The seed's swarm, with at most as many nodes and as large a blob as this one, and the settings that were drawn for it.
pub(crate) fn plan(largest: &Plan, seed: u64) -> (Plan, Vec<String>) {
    // Apart from the run's own randomness, which is made from the same seed.
    let mut rng = Rng::new(!seed);
    let nodes = LEAST_NODES + rng.below(largest.nodes - LEAST_NODES + 1);
    let mut plan = Plan { nodes, size: size(largest.size, rng.unit()), ..largest.clone() };
    let mut drawn = Vec::new();
    for (percent, choices) in DRAWN {
        if rng.below(100) < *percent
            && let Some(setting) = rng.choose(choices)
        {
            let mut with = plan.clone();
            // What doesn't go with the others is left out, like images of less than their layers.
            if apply(&mut with.knobs, setting).is_ok() && with.check().is_ok() {
                plan = with;
                drawn.push((*setting).to_owned());
            }
        }
    }
    (plan, drawn)
}

/// A size at this place, from 0 to 1, between the least and the largest one: all magnitudes alike, seldom a multiple of a chunk.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sizes far below 2^53 bytes"
)]
fn size(largest: Size, place: f64) -> Size {
    let span = largest.bytes() as f64 / LEAST_BYTES as f64;
    Size::new((LEAST_BYTES as f64 * span.powf(place)) as u64).unwrap_or(largest)
}

#[cfg(test)]
mod tests {
    use super::super::knobs::{Knobs, Preset};
    use super::*;

    fn largest() -> Plan {
        Plan { knobs: Knobs::of(Preset::Shoal), nodes: 30, size: Size::new(8 << 20).unwrap() }
    }

    #[test]
    fn drawn_plans_are_valid_and_differ() {
        let plans: Vec<_> = (0..500).map(|seed| plan(&largest(), seed)).collect();
        for (plan, drawn) in &plans {
            let mut knobs = largest().knobs;
            drawn.iter().for_each(|setting| apply(&mut knobs, setting).unwrap());
            assert_eq!(knobs, plan.knobs);
            assert_eq!(plan.check(), Ok(()));
            assert!((5..=30).contains(&plan.nodes) && plan.size.bytes() <= 8 << 20);
        }
        assert_eq!(plans[7], plan(&largest(), 7));
        let disturbed = plans.iter().filter(|(plan, _)| plan.knobs.trouble.disturbs()).count();
        assert!((300..500).contains(&disturbed), "{disturbed}");
    }

    #[test]
    fn every_drawn_setting_is_one() {
        for setting in DRAWN.iter().flat_map(|(_, choices)| *choices) {
            assert_eq!(apply(&mut Knobs::of(Preset::Shoal), setting), Ok(()), "{setting}");
        }
    }
}
