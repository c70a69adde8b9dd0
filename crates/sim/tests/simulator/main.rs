//! The simulator as its users see it: the program, its arguments and what it prints.
//!
//! State: none. Invariants: what is tested here can be typed. Absent on purpose: the limits of large swarms, which take minutes; `table`
//! measures those.

mod command_line;
mod determinism;
mod invariants;
mod scenarios;

use std::process::{Command, Output};

use serde_json::Value;

/// Runs it with these arguments.
fn sim(line: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_shoal-sim");
    Command::new(program).args(line.split_whitespace()).output().expect("the simulator is built before its tests")
}

/// Runs it with these arguments and `--json`, whether or not an invariant was violated.
fn json(line: &str) -> Value {
    let output = sim(&format!("{line} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"))
}

/// The invariants that didn't hold, each with its seed and its command.
fn violations(report: &Value) -> String {
    let lines = report["violations"].as_array().expect("a list").iter().filter_map(Value::as_str);
    lines.map(|line| format!("\n  {line}")).collect()
}

/// The 95th percentile of a figure.
fn p95(report: &Value, figure: &str) -> f64 {
    report[figure]["p95"].as_f64().unwrap_or_else(|| panic!("{figure} of {report}"))
}
