//! The same seed gives the same run.

use super::json;

#[test]
fn a_seed_gives_one_trace_and_another_seed_another() {
    for line in [
        "burst --nodes 20 --size 8MiB",
        "churn --nodes 20 --size 8MiB",
        "zones --nodes 20 --size 8MiB --set mesh=cold",
        "burst --nodes 20 --size 8MiB --preset kraken-policy",
        "burst --nodes 20 --size 8MiB --preset classic",
        "burst --nodes 5 --size 8MiB --preset client-server",
    ] {
        let trace = |seed: u64| json(&format!("{line} --seed {seed}"))["trace"].as_str().unwrap().to_owned();
        let first = trace(1);
        assert_eq!(first, trace(1), "{line}");
        if !line.contains("client-server") {
            assert_ne!(first, trace(2), "{line}");
        }
    }
}

#[test]
fn figures_do_not_depend_on_the_number_of_threads() {
    let report = |jobs: u64| {
        let mut report = json(&format!("random --nodes 10 --size 1MiB --seeds 6 --jobs {jobs}"));
        report.as_object_mut().unwrap().remove("wall_seconds");
        report
    };
    assert_eq!(report(1), report(3));
}
