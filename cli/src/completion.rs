//! `kubectl swarm completion`: what a shell sources to complete `kubectl-swarm`'s arguments.
//!
//! State: none. Absent on purpose: completions of what is in a cluster.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::args::Cli;

const NAME: &str = "kubectl-swarm";
/// The generator takes a dash for what is between a command and its subcommand, in bash, and finds none of those then.
const WITHOUT_DASH: &str = "kubectl_swarm";

pub(crate) fn script(shell: Shell) -> String {
    let name = if shell == Shell::Bash { WITHOUT_DASH } else { NAME };
    let (mut script, mut command) = (Vec::new(), Cli::command().name(name).bin_name(name));
    generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    if shell != Shell::Bash {
        return script.into_owned();
    }
    // Whom the function completes is told at the ends of these lines.
    let called = |line: &str| match line.strip_suffix(WITHOUT_DASH) {
        Some(registration) if line.trim_start().starts_with("complete ") => format!("{registration}{NAME}\n"),
        _ => format!("{line}\n"),
    };
    script.lines().map(called).collect()
}
