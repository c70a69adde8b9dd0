//! Every developer command of Shoal, as `cargo xtask COMMAND`.
//!
//! Purpose: one entrance, so that a developer, the README and CI run the same lines.
//! State: none in the checkout. Tools that the commands need are built once into the user's cache (see [`tools`]).
//! Invariants: every line that is run is printed first, to the standard error. The exit code is 2 for wrong usage, else that of the
//! child that failed, and what failed is one line that ends with what to do.
//! Absent on purpose: logic about Shoal itself. A command is a list of steps; what a step does is in the crate that it starts.

mod check;
#[cfg(test)]
mod documents;
mod images;
mod step;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::step::{Step, StepFailed};

/// Every developer command of Shoal.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, lints, documentation, and the dependencies' licences, bans and sources: all without running a test.
    Check(check::Options),
    /// The tests of every crate.
    Test(PassedOn),
    /// The Criterion benchmarks; `bench agent` measures whole agents, as root, `bench tracker` a tracker under load, both with arguments of their own behind the dashes.
    Bench(Bench),
    /// The simulator: every argument is its own. Without one it lists the scenarios.
    #[command(disable_help_flag = true)]
    Sim(PassedOn),
    /// Agents on this machine pull one image at once, with `--cluster` (as root) the pods of a Kubernetes cluster: every argument is its own.
    #[command(disable_help_flag = true)]
    Demo(PassedOn),
    /// The same over shaped networks, as root: every argument is its own.
    #[command(disable_help_flag = true)]
    Lab(PassedOn),
    /// Kubernetes on this machine: every argument is its own. `cluster tools` fetches or builds what it takes.
    #[command(disable_help_flag = true)]
    Cluster(PassedOn),
    /// The operator's and the agent's images as OCI layouts, below cargo's target directory.
    Images(images::Options),
    /// Writes what is generated and checked in: the definition of the Swarm resource, in `crds/` and for the chart.
    Generate,
}

/// Arguments that belong to the command behind the subcommand, in its words.
#[derive(Args, Debug)]
struct PassedOn {
    /// Passed on as they are.
    #[arg(value_name = "ARGS", num_args = 0.., allow_hyphen_values = true)]
    before_dashes: Vec<OsString>,
    /// Passed on behind a `--`.
    #[arg(value_name = "ARGS_BEHIND_DASHES", last = true)]
    behind_dashes: Vec<OsString>,
}

#[derive(Args, Debug)]
struct Bench {
    /// One benchmark target, for example `chain`; a pattern like `ch*` works too. All of them if absent. `agent` and `tracker` are no targets of Criterion's.
    #[arg(default_value = "*")]
    name: String,
    /// Passed on to Criterion, for example `-- --save-baseline before`, or to the bench of agents or trackers: `bench agent -- --help`.
    #[arg(value_name = "ARGS", last = true)]
    passed_on: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(error.downcast_ref::<StepFailed>().map_or(1, StepFailed::exit_code))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Check(options) => check::run(&options),
        Command::Test(passed_on) => test(passed_on).run("mend the failing test or build shown above"),
        Command::Bench(bench) if bench.program().is_some() => in_release(bench.step()?),
        Command::Bench(bench) => bench.step()?.run("mend the failing benchmark or build shown above"),
        Command::Sim(passed_on) => sim(passed_on).become_it(),
        Command::Demo(passed_on) => in_release(demo(passed_on)?),
        Command::Lab(passed_on) => in_release(e2e(passed_on.into_args(), "shoal-lab")?),
        Command::Cluster(passed_on) => in_release(e2e(passed_on.into_args(), "shoal-cluster")?),
        Command::Images(options) => images::run(&options),
        Command::Generate => crds("write").run("mend the build or what is said above"),
    }
}

/// The definition of the Swarm resource, which crates/api writes or compares with what is checked in.
fn crds(verb: &str) -> Step {
    Step::cargo([
        "run",
        "--quiet",
        "-p",
        "shoal-api",
        "--features",
        "kube",
        "--example",
        "crds",
        "--",
        verb,
        "crds",
        CHART_CRDS,
    ])
}

/// The chart's copy: a chart has no files from outside of it.
const CHART_CRDS: &str = "charts/shoal/files/crds";

/// The benchmarks that are programs of `e2e/`.
const PROGRAMS: [(&str, &str); 2] = [("agent", "shoal-bench"), ("tracker", "shoal-tracker-bench")];

/// A program of `e2e/`, which starts the agent's and the operator's: all are built by one line, and it is started by its path. `cargo run` would unite
/// other features and build half of everything again.
fn in_release(program: Step) -> anyhow::Result<()> {
    Step::cargo(["build", "--release", "--bins", "-p", "shoal-agent", "-p", "shoal-operator", "-p", "shoal-e2e"])
        .run("mend the build shown above; it takes the toolchain of rust-toolchain.toml and a C compiler")?;
    program.become_it()
}

/// On this machine's loopback, or with `--cluster` on real kubelets.
fn demo(passed_on: PassedOn) -> anyhow::Result<Step> {
    let mut args = passed_on.into_args();
    let Some(at) = args.iter().position(|arg| arg == "--cluster") else { return e2e(args, "shoal-demo") };
    args[at] = "demo".into();
    args[..=at].rotate_right(1);
    e2e(args, "shoal-cluster")
}

fn e2e(args: Vec<OsString>, program: &str) -> anyhow::Result<Step> {
    Ok(Step::program(release()?.join(program)).args(args))
}

/// Where cargo puts release builds.
fn release() -> anyhow::Result<PathBuf> {
    Ok(programs()?.with_file_name("release"))
}

/// Where cargo has put this program and those of the same build; its tests are in a directory below.
fn programs() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let mut above = this.ancestors().skip(1).skip_while(|directory| directory.ends_with("deps"));
    Ok(above.next().context("this program is nowhere")?.to_owned())
}

/// From the workspace's root cargo tests every member; a `-p` among the arguments narrows that, which `--workspace` would forbid.
fn test(passed_on: PassedOn) -> Step {
    Step::cargo(["test"]).args(passed_on.into_args())
}

fn sim(passed_on: PassedOn) -> Step {
    Step::cargo(["run", "--release", "-p", "shoal-sim", "--"]).args(passed_on.into_args())
}

impl PassedOn {
    fn into_args(self) -> Vec<OsString> {
        let dashes = (!self.behind_dashes.is_empty()).then(|| OsString::from("--"));
        self.before_dashes.into_iter().chain(dashes).chain(self.behind_dashes).collect()
    }
}

impl Bench {
    /// The program of `e2e/` that it is, if it is one.
    fn program(&self) -> Option<&'static str> {
        PROGRAMS.iter().find(|(name, _)| *name == self.name).map(|(_, program)| *program)
    }

    /// `--bench` leaves out the unit tests' harnesses, which `cargo bench` would start too and which don't know Criterion's arguments.
    fn step(self) -> anyhow::Result<Step> {
        if let Some(program) = self.program() {
            return e2e(self.passed_on, program);
        }
        let step = Step::cargo(["bench", "--bench"]).args([self.name]);
        Ok(if self.passed_on.is_empty() { step } else { step.args(["--"]).args(self.passed_on) })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    pub(super) fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(["cargo xtask"].into_iter().chain(line.split_whitespace())).map(|cli| cli.command)
    }

    /// What a line comes to; what is built is RELEASE/PROGRAM.
    pub(super) fn runs(line: &str) -> String {
        let step = match parse(line).expect("a valid line") {
            Command::Check(_) | Command::Images(_) => panic!("these are several steps"),
            Command::Test(passed_on) => Ok(test(passed_on)),
            Command::Bench(bench) => bench.step(),
            Command::Sim(passed_on) => Ok(sim(passed_on)),
            Command::Demo(passed_on) => demo(passed_on),
            Command::Lab(passed_on) => e2e(passed_on.into_args(), "shoal-lab"),
            Command::Cluster(passed_on) => e2e(passed_on.into_args(), "shoal-cluster"),
            Command::Generate => Ok(crds("write")),
        };
        let step = step.expect("the test is where cargo puts it").to_string();
        step.replace(&*release().unwrap().to_string_lossy(), "RELEASE")
    }

    #[test]
    fn the_arguments_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_starts_its_line_with_the_arguments_untouched() {
        for (line, expected) in [
            ("test", "cargo test"),
            ("test -p shoal-chain --release", "cargo test -p shoal-chain --release"),
            ("test -- --nocapture", "cargo test -- --nocapture"),
            ("test -p shoal-chain -- --skip slow", "cargo test -p shoal-chain -- --skip slow"),
            ("bench", "cargo bench --bench '*'"),
            ("bench chain", "cargo bench --bench chain"),
            ("bench chain -- --quick", "cargo bench --bench chain -- --quick"),
            ("bench agent", "RELEASE/shoal-bench"),
            ("bench agent -- --pairs 1", "RELEASE/shoal-bench --pairs 1"),
            ("bench tracker", "RELEASE/shoal-tracker-bench"),
            ("sim", "cargo run --release -p shoal-sim --"),
            ("sim --help", "cargo run --release -p shoal-sim -- --help"),
            ("lab --help", "RELEASE/shoal-lab --help"),
            ("demo --nodes 4", "RELEASE/shoal-demo --nodes 4"),
            ("demo --nodes 4 --cluster --json", "RELEASE/shoal-cluster demo --nodes 4 --json"),
            ("cluster tools -- etcd", "RELEASE/shoal-cluster tools -- etcd"),
            (
                "generate",
                "cargo run --quiet -p shoal-api --features kube --example crds -- write crds charts/shoal/files/crds",
            ),
            ("sim burst --set a=b --json -h", "cargo run --release -p shoal-sim -- burst --set a=b --json -h"),
        ] {
            assert_eq!(runs(line), expected, "{line}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in ["", "nonsense", "check --nonsense", "check stray", "bench one two"] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
