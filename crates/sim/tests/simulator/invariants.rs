//! What must hold in every run, whatever goes wrong in it.

use super::{json, violations};

/// Small swarms with random links, demands, settings, parts and faults. No wrong byte is accepted, everyone finishes who can, nobody
/// honest is banned, an agent's memory and the origin's budget hold, and the engine's own invariants are checked as it runs.
/// Each line of a failure has the command that shows it.
#[test]
fn two_hundred_random_swarms_keep_the_invariants() {
    let report = json("random --nodes 30 --size 8MiB --seeds 200");
    assert_eq!(report["seeds"], 200);
    let violated = violations(&report);
    assert!(violated.is_empty(), "{} lines:{violated}", violated.lines().count() - 1);
}
