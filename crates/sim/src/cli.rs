//! The command line: what is asked for, and the errors of asking wrongly.
//!
//! State: none. Invariants: wrong usage is one line on standard error that names what would be valid, and exit code 2; an invariant that
//! didn't hold is exit code 1, with the seed and the command that shows it. Standard output is the same for the same arguments, but for
//! how long it took.
//! Absent on purpose: policy. What can be run is in `scenario/`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::scenario::{Draft, KEYS, Preset, SCENARIOS, Scenario, Size, Usual, run};
use crate::table::{self, Table};

/// How many runs go at a time.
pub(crate) const JOBS: usize = 2;

/// Simulates distributions of a blob over many nodes, in virtual time, with the real exchange engine and tracker.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    single: Single,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the comparison of all presets and scenarios, and writes docs/simulation.md.
    Table(Table),
}

#[derive(Args, Debug)]
struct Single {
    /// What happens; without it the scenarios, the presets and the keys of --set are listed.
    scenario: Option<String>,
    /// How many nodes pull.
    #[arg(long, value_name = "N", default_value = "100")]
    nodes: usize,
    /// The blob's size, or an image's.
    #[arg(long, value_name = "S", default_value = "1GiB")]
    size: Size,
    /// How many seeds, from 1 on.
    #[arg(long, value_name = "K", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// One seed only: what a violated invariant names.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Whose policy.
    #[arg(long, value_name = "P", value_enum, default_value_t)]
    preset: Preset,
    /// Overrides a setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    /// Seeds that run at a time: 2, if it isn't given. With 10,000 nodes each takes 1.5 GiB.
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: Option<u64>,
}

/// Does what the process's arguments say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return usage(&one_line(&error.render().to_string())),
        Err(help) => {
            println!("{}", help.render());
            return ExitCode::SUCCESS;
        }
    };
    match cli.command {
        Some(Command::Table(table)) => match table::check(&table).map(|()| table::run(&table)) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => failure(&error),
            Err(error) => usage(&error),
        },
        None => single(&cli.single),
    }
}

fn single(args: &Single) -> ExitCode {
    let Some(scenario) = &args.scenario else {
        print!("{}", listing());
        return ExitCode::SUCCESS;
    };
    let draft = Scenario::named(scenario)
        .and_then(|scenario| scenario.draft(args.preset, args.nodes, args.size, &args.settings));
    let draft = match draft {
        Ok(draft) => draft,
        Err(error) => return usage(&error),
    };
    let seeds = args.seed.map_or(1..=args.seeds, |seed| seed..=seed);
    let jobs = args.jobs.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(JOBS);
    let started = Instant::now();
    let samples = run(&draft, seeds, jobs, &Usual::default());
    let report = Report::new(&draft, &samples, started.elapsed().as_secs_f64());
    print_report(args.json, &draft, &report);
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_report(json: bool, draft: &Draft, report: &Report) {
    if json {
        // Only numbers and text: there is nothing that JSON can't hold.
        println!("{}", serde_json::to_string(report).unwrap_or_default());
    } else {
        println!("{}, {} seeds\n\n{}", draft.command(), report.seeds, report.table());
    }
    report.violations.iter().for_each(|line| eprintln!("violated: {line}"));
}

fn usage(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
}

fn failure(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

fn listing() -> String {
    let mut text = String::from(
        "usage: cargo xtask sim SCENARIO [--nodes N] [--size S] [--seeds K | --seed SEED] [--preset P] [--set KEY=VALUE]… [--jobs J] [--json]\n",
    );
    text.push_str("       cargo xtask sim table [--only PART,…] [--from N] [--up-to N | --large] [--docs DIR]\n");
    text.push_str("       cargo xtask sim table --render [--docs DIR]\n\nscenarios:\n");
    for scenario in SCENARIOS {
        let _ = writeln!(text, "  {:<15} {}", scenario.name, scenario.about);
    }
    text.push_str("\npresets:\n");
    for preset in Preset::ALL {
        let _ = writeln!(text, "  {:<15} {}", preset.name(), preset.about());
    }
    text.push_str("\nkeys:\n");
    for key in KEYS {
        let form = format!("{}={}", key.name, key.value);
        let _ = writeln!(text, "  {form:<36} {}", key.help);
    }
    text.push_str("\nTIME is like 500us, 3ms or 1.5s, RATE like 10Gbit, SIZE like 256KiB, SHARE like 10%. The SHARE of a key that ends in -at is of\n");
    text.push_str("the time that the undisturbed run takes.\n");
    text
}

/// What clap says over several paragraphs, without the paragraphs about usage and help.
fn one_line(rendered: &str) -> String {
    let message = rendered.split("\n\n").next().unwrap_or(rendered);
    let words: Vec<_> = message.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_are_one_line_with_the_choices() {
        let error = |line: &str| {
            let words = ["sim"].into_iter().chain(line.split_whitespace());
            one_line(&Cli::try_parse_from(words).expect_err(line).render().to_string())
        };
        assert!(
            error("burst --preset best").contains("[possible values: shoal, classic, kraken-policy, client-server]")
        );
        assert!(error("burst --size 0").contains("a number above zero"));
        assert!(error("burst --seeds 0").contains("1..=1000000"));
        for line in
            ["burst --size 0", "burst --nodes -1", "burst --nonsense", "burst stray", "burst --seed 1 --seeds 2"]
        {
            assert!(!error(line).contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_scenario_and_the_table_are_told_apart() {
        let parse = |line: &str| Cli::try_parse_from(["sim"].into_iter().chain(line.split_whitespace())).expect(line);
        assert!(matches!(parse("table --from 1000").command, Some(Command::Table(_))));
        let cli = parse("burst --nodes 7 --set a=b --set c=d");
        assert_eq!((cli.single.scenario.as_deref(), cli.single.nodes), (Some("burst"), 7));
        assert_eq!(cli.single.settings, ["a=b", "c=d"]);
        assert!(parse("").single.scenario.is_none());
    }

    #[test]
    fn the_listing_has_a_line_for_each_scenario_preset_and_key() {
        let text = listing();
        let lines = SCENARIOS.len() + Preset::ALL.len() + KEYS.len();
        assert_eq!(text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")).count(), lines);
    }
}
