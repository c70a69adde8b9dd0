//! Each scenario in small: that what goes wrong does go wrong, and costs no more than it may.

use super::{json, p95, violations};

/// A scenario, which keeps the invariants.
fn run(line: &str) -> serde_json::Value {
    let report = json(line);
    let violated = violations(&report);
    assert!(violated.is_empty(), "{line}:{violated}");
    report
}

#[test]
fn a_burst_costs_the_origin_one_copy_and_little_more_than_the_bound() {
    let report = run("burst --nodes 50 --size 128MiB --seeds 3");
    assert!(p95(&report, "origin_copies") <= 1.02, "{report}");
    assert!((1.0..1.25).contains(&p95(&report, "t_last_over_bound")), "{report}");
    assert!(p95(&report, "p99_over_p50") <= 1.10, "{report}");
}

#[test]
fn without_exchange_every_node_costs_a_copy() {
    let report = run("burst --nodes 20 --size 8MiB --seeds 1 --preset client-server");
    assert!((20.0..22.0).contains(&p95(&report, "t_last_over_bound")), "{report}");
    assert!((p95(&report, "origin_copies") - 20.0).abs() < 1e-6, "{report}");
}

#[test]
fn late_nodes_cost_the_origin_nothing() {
    let report = run("staggered --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "origin_copies") <= 1.02, "{report}");
}

#[test]
fn the_other_presets_finish_too() {
    for preset in ["classic", "kraken-policy"] {
        let report = run(&format!("burst --nodes 30 --size 32MiB --seeds 2 --preset {preset}"));
        assert!(p95(&report, "t_last_over_bound") > 1.0, "{report}");
    }
}

#[test]
fn an_origin_that_is_a_peer_sends_more_than_one_copy_and_nobody_leads() {
    let report = run("burst --nodes 30 --size 32MiB --seeds 2 --set origin=peer");
    let copies = p95(&report, "origin_copies");
    assert!((1.0..5.0).contains(&copies), "{report}");
    let vanishing = run("lead-dies --nodes 30 --size 32MiB --seeds 1 --set origin=peer");
    assert!((p95(&vanishing, "vs_undisturbed") - 1.0).abs() < 1e-9, "there is no lead to die: {vanishing}");
}

#[test]
fn survivors_of_churn_are_hardly_later() {
    let report = run("churn --nodes 50 --size 128MiB --seeds 2");
    // Where the lead is among the killed, its successor begins after the tracker has noticed.
    assert!(p95(&report, "delay_seconds") <= 0.1, "{report}");
}

#[test]
fn liars_and_framers_cost_time_and_nothing_else() {
    for scenario in ["liars", "framers"] {
        let report = run(&format!("{scenario} --nodes 50 --size 128MiB --seeds 2"));
        assert!(p95(&report, "vs_undisturbed") < 10.0, "{report}");
    }
}

#[test]
fn a_lying_lead_costs_a_second_copy() {
    let report = run("lying-lead --nodes 30 --size 64MiB --seeds 2");
    assert!((1.5..2.1).contains(&p95(&report, "origin_copies")), "it did lead: {report}");
}

#[test]
fn an_outage_of_the_tracker_or_the_origin_is_survived() {
    let report = run("tracker-outage --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "vs_undisturbed") <= 1.15, "{report}");
    let report = run("origin-outage --nodes 50 --size 128MiB --seeds 2");
    assert!((0.4..0.7).contains(&p95(&report, "delay_seconds")), "{report}");
}

#[test]
fn free_riders_wait_for_the_others() {
    let report = run("free-riders --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "rider_over_giver") > 1.0, "{report}");
}

#[test]
fn little_more_than_one_copy_crosses_between_zones() {
    let report = run("zones --nodes 50 --size 128MiB --seeds 2");
    assert!((0.99..1.15).contains(&p95(&report, "bytes_across")), "{report}");
}

#[test]
fn images_share_their_base() {
    let report = run("images --nodes 12 --size 32MiB --seeds 2");
    assert!(p95(&report, "origin_copies") <= 1.05, "{report}");
}

#[test]
fn a_lead_is_succeeded() {
    let report = run("lead-dies --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "delay_seconds") < 0.1, "{report}");
    let report = run("lead-vanishes --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "delay_seconds") <= 1.5, "{report}");
}

#[test]
fn slow_uplinks_slow_the_fast_ones_little() {
    let report = run("stragglers --nodes 50 --size 128MiB --seeds 2");
    assert!(p95(&report, "vs_undisturbed") < 2.0, "{report}");
}
