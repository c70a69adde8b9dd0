//! The command line.
//!
//! State: none. Invariant: what can be refused without a cluster is refused here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::failure::{EXIT_CODES, one_line as joined};
use crate::output::Format;

/// What Shoal's Swarms do in a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl-swarm", bin_name = "kubectl swarm", version, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, as whom: as kubectl is told.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig, instead of those in KUBECONFIG or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in it, instead of its current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How far Swarms are: all in a table, or one in detail.
    Status(StatusArgs),
}

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct StatusArgs {
    /// The Swarm to tell about in detail.
    pub(crate) name: Option<String>,
    /// Shows progress until all that is shown is ready: bars on a terminal, else a line for each change. Ends with 0 when every Swarm shown is Ready, with 1 when one is stalled.
    #[arg(short, long, conflicts_with = "output")]
    pub(crate) watch: bool,
    /// Ends --watch with exit code 3 after this time, as in 90s, 10m, 2h.
    #[arg(long, requires = "watch", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// How to print it, other than for people.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

/// A time as kubectl writes it: 90s, 10m, 2h.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "write a number above zero and s, m or h, as in 10m";
    let (number, unit) = text.split_at(text.len() - usize::from(text.ends_with(['s', 'm', 'h'])));
    let number: u32 = number.parse().map_err(|_| EXPECTED)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(EXPECTED),
    };
    if number == 0 { Err(EXPECTED) } else { Ok(Duration::from_secs(u64::from(number) * seconds)) }
}

/// What clap says over several paragraphs: the first one is the message, the others are usage.
pub(crate) fn one_line(rendered: &str) -> String {
    let (message, _) = rendered.split_once("\n\n").unwrap_or((rendered, ""));
    format!("{}: see --help", joined(message.trim_start_matches("error: ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "10", "0s", "-1s", "1.5h", "10ms", "é", "99999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
