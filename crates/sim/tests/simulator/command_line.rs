//! Arguments, right and wrong.

use super::{json, sim};

#[test]
fn without_arguments_the_scenarios_are_listed() {
    let output = sim("");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for scenario in ["burst", "staggered", "churn", "liars", "framers", "lying-lead", "stragglers", "tracker-outage"]
        .into_iter()
        .chain(["free-riders", "zones", "images", "lead-dies", "lead-vanishes", "origin-outage", "random"])
    {
        assert_eq!(
            text.lines().filter(|line| line.trim_start().starts_with(&format!("{scenario} "))).count(),
            1,
            "{scenario}"
        );
    }
}

#[test]
fn wrong_usage_is_one_line_with_the_choices_and_exit_code_2() {
    for (line, says) in [
        ("brust", "the scenarios are burst, staggered,"),
        ("burst --set slot=3", "the keys are order,"),
        ("burst --set slots", "expected key=value"),
        ("burst --set slots=many", "slots: expected a number"),
        ("burst --set mesh=warm", "mesh: expected standing or cold"),
        ("burst --set uploads-at-once=0", "uploads-at-once must be 1 to 64"),
        ("burst --size 0", "a number above zero with B, KiB, MiB, GiB or TiB"),
        ("burst --size 0GiB", "a number above zero"),
        ("burst --size large", "a number above zero"),
        ("burst --size 100TiB", "more than 1048576 chunks"),
        ("burst --nodes 0", "expected 1 to 100000"),
        ("burst --nodes 1000000000", "expected 1 to 100000"),
        ("burst --nodes few", "invalid"),
        ("burst --seeds 0", "1..=1000000"),
        ("burst --preset best", "shoal, classic, kraken-policy, client-server"),
        ("burst --wrong", "--wrong"),
        ("burst and more", "'and'"),
        ("burst --seed 1 --seeds 2", "cannot be used with"),
        ("liars --nodes 10 --set liars=11", "liars: expected 0 to 9 of 10 nodes"),
        ("liars --nodes 10 --set liars=10", "liars: expected 0 to 9 of 10 nodes"),
        ("framers --nodes 10 --set framers=200%", "0% to 100%"),
        ("liars --nodes 1", "liars: expected 0 to 0 of 1 nodes"),
        ("churn --nodes 10 --set killed=10", "killed: expected 0 to 9"),
        ("zones --nodes 1", "at most one for each"),
        ("images --size 1MiB", "at least 6400KiB"),
        ("liars --preset client-server", "there is no exchange"),
        ("random --nodes 3", "5 or more"),
        ("table --only z", "the parts are a, b, c"),
    ] {
        let output = sim(line);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.starts_with("error: ") && error.contains(says), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn help_is_no_error() {
    for line in ["--help", "table --help"] {
        let output = sim(line);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn json_is_one_object_with_the_figures_of_the_scenario() {
    let report = json("zones --nodes 10 --size 1MiB --seeds 2");
    assert_eq!((&report["scenario"], &report["preset"]), (&"zones".into(), &"shoal".into()));
    assert_eq!((&report["nodes"], &report["size"], &report["seeds"]), (&10.into(), &(1 << 20).into(), &2.into()));
    for figure in ["t_last_over_bound", "p99_over_p50", "origin_copies", "wasted", "bytes_across"] {
        let (median, p95) = (report[figure]["median"].as_f64().unwrap(), report[figure]["p95"].as_f64().unwrap());
        assert!(median <= p95, "{figure}: {median}, {p95}");
    }
    for count in ["unfinished", "wrong_bytes", "honest_bans"] {
        assert_eq!(report[count], 0, "{count}");
    }
    assert!(report["bound_seconds"].as_f64().unwrap() > 0.0 && report["wall_seconds"].as_f64().unwrap() > 0.0);
    assert!(report.get("vs_undisturbed").is_none() && report.get("rider_over_giver").is_none());
    assert!(json("churn --nodes 10 --size 1MiB --seeds 1").get("vs_undisturbed").is_some());
}

#[test]
fn a_violated_invariant_is_exit_code_1_with_the_seed_and_the_command() {
    let output = sim("origin-outage --nodes 5 --size 1MiB --seed 3 --set origin-stops-at=0% --set origin-outage=9999s");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("violated: seed 3: 5 nodes unfinished"), "{error}");
    let command = "see cargo xtask sim origin-outage --nodes 5 --size 1MiB --set origin-stops-at=0% --set origin-outage=9999s --seed 3";
    assert!(error.trim_end().ends_with(command), "{error}");
}

#[test]
fn the_table_is_written_anew_from_what_was_measured() {
    let docs = std::env::temp_dir().join(format!("shoal-sim-table-{}", std::process::id()));
    std::fs::create_dir_all(&docs).unwrap();
    let output = sim(&format!("table --render --docs {}", docs.display()));
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(docs.join("simulation.md")).unwrap();
    assert!(page.contains("| a | `burst`, 1 GiB | t_last/bound | ≤ 1.08: – |"), "nothing was measured yet");
    assert!(std::fs::read_to_string(docs.join("simulation.svg")).unwrap().starts_with("<svg"));
    std::fs::remove_dir_all(&docs).unwrap();
}

#[test]
fn the_page_in_the_docs_is_what_its_measurements_give() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let copy = std::env::temp_dir().join(format!("shoal-sim-docs-{}", std::process::id()));
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(docs.join("simulation.json"), copy.join("simulation.json")).unwrap();
    assert!(sim(&format!("table --render --docs {}", copy.display())).status.success());
    for name in ["simulation.md", "simulation.svg"] {
        let [kept, made] = [&docs, &copy].map(|dir| std::fs::read_to_string(dir.join(name)).unwrap());
        assert!(kept == made, "{name} isn't what the table writes: run cargo xtask sim table --render");
    }
    std::fs::remove_dir_all(&copy).unwrap();
}
