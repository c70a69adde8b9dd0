//! The cluster's program: `cargo xtask cluster`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shoal_e2e::{ending, tools};

/// Kubernetes on this machine, for Shoal's tests.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cluster", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetches or builds what a cluster is made of, once, into the user's cache: minutes for each, an hour at most for all.
    Tools(tools::cluster::Options),
}

fn main() -> ExitCode {
    let Command::Tools(options) = Cli::parse().command;
    ending::exit_code(tools::cluster::run(&options))
}
