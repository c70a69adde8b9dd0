//! The command line.
//!
//! State: none. Invariant: what can be refused without a cluster is refused here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shoal_api::{Placement, Quantity, Reference};
use shoal_sim::forecast::rate;

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
    /// Which nodes take part in a Swarm, and what they lack for it.
    Nodes(NodesArgs),
    /// What keeps Shoal from serving pulls, and what to do about it.
    Doctor(DoctorArgs),
    /// Has an artifact fetched ahead of any pull.
    Preheat(PreheatArgs),
    /// How long a distribution would take. Needs no cluster.
    Plan(PlanArgs),
    /// Prints a script that completes this program's arguments in a shell.
    Completion(CompletionArgs),
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

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct NodesArgs {
    /// The Swarm.
    pub(crate) name: String,
    /// Where the agents' pods are, for who may not see those of all namespaces.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How to print it, other than for people.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

/// Looks at the operator, at the Swarms' conditions and at every node's agent. Ends with 0 if nothing is wrong, with 1 if something is.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DoctorArgs {
    /// Where Shoal's pods are, for who may not see those of all namespaces.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How to print it, other than for people.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Document>,
}

/// Adds the artifact to the Swarm that answers for its registry, as an owner of that one entry; what others wrote there stays theirs. With --nodes it makes a
/// Swarm of its own. --remove, with the same arguments, takes either back.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct PreheatArgs {
    /// What to fetch: registry/repository:tag, or @digest.
    pub(crate) reference: Reference,
    /// Only to nodes with these labels, as kubectl selects them: gpu=a100,zone in (a,b). Makes a Swarm of its own.
    #[arg(long, value_name = "SELECTOR", conflicts_with = "swarm")]
    pub(crate) nodes: Option<String>,
    /// The Swarm to add it to, instead of the one that answers for the registry.
    #[arg(long, value_name = "NAME")]
    pub(crate) swarm: Option<String>,
    /// Into the nodes' caches alone, as for models that no container runs; else into the container runtime.
    #[arg(long)]
    pub(crate) cache: bool,
    /// Waits until every node has it: exit code 1 if that can't be, 3 if it isn't so in time.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Takes back what the same arguments without it did.
    #[arg(long, conflicts_with_all = ["wait", "cache"])]
    pub(crate) remove: bool,
}

impl PreheatArgs {
    pub(crate) const fn placement(&self) -> Placement {
        if self.cache { Placement::Cache } else { Placement::Runtime }
    }
}

#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct PlanArgs {
    /// How much every node gets, as in 8Gi.
    #[arg(long)]
    pub(crate) size: Quantity,
    /// How many nodes.
    #[arg(long, value_name = "N")]
    pub(crate) nodes: usize,
    /// What a node's link carries each way, as in 10Gbit.
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) node_rate: f64,
    /// What the registry sends.
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) origin_rate: f64,
    /// How to print it, other than for people.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Document>,
}

/// For kubectl-swarm: source <(kubectl swarm completion bash).
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Forms of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Document {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
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
