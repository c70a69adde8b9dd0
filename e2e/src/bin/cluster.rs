//! The cluster's program: `cargo xtask cluster`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use shoal_e2e::{cluster, ending, tools};

/// Kubernetes on this machine: real kubelets and containerds in namespaces, as root.
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
    /// Starts a cluster that stays, and prints the KUBECONFIG to use.
    Up(cluster::Options),
    /// Ends it; nothing stays.
    Down,
    /// On a cluster of its own: an image on all nodes from the registry alone, then through Shoal, by the kubelets' clocks.
    Demo(cluster::DemoOptions),
    /// Is the cluster that `up` starts.
    #[command(hide = true)]
    Hold(cluster::Options),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    ending::exit_code(match command {
        Command::Tools(options) => tools::cluster::run(&options),
        command => run(command),
    })
}

/// On one thread: who started a node's processes takes them along when it dies.
fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime can be started")?.block_on(async {
        match command {
            Command::Tools(_) => Ok(()),
            Command::Up(options) => {
                let words: Vec<String> = std::env::args().skip(2).collect();
                cluster::up(&options, &words).await
            }
            Command::Down => cluster::down().await,
            Command::Demo(options) => cluster::demo(&options).await,
            Command::Hold(options) => cluster::hold(&options).await,
        }
    })
}
