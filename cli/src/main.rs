//! `kubectl swarm`: how far Swarms are, on which nodes, what is to be fetched ahead, and how long a distribution takes.
//!
//! ```text
//!   args ──> access (kubeconfig, client) ──> status, nodes, preheat ──> table, text ──> output
//!        └─> plan, completion: without a cluster
//! ```
//!
//! State: none. Invariants: what was asked for goes to the standard output and all else to the standard error; a failure is one line there, and the exit
//! code tells its kind (`failure.rs`).
//! Absent on purpose: anything that only the operator may do. It reads and writes what its user may.

mod access;
mod args;
mod completion;
mod doctor;
mod failure;
mod follow;
mod nodes;
mod outlook;
mod output;
mod plan;
mod preheat;
mod selector;
mod status;
mod table;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let done = parse().and_then(|cli| match cli {
        Some(cli) => in_runtime(run(cli)),
        None => Ok(()),
    });
    match done {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// None if help or the version was asked for, and given.
fn parse() -> Result<Option<Cli>, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if error.use_stderr() => Err(Failure::Usage(args::one_line(&error.render().to_string()))),
        Err(help) => {
            // Help that can't be written has no other place to be said.
            let _ = help.print();
            Ok(None)
        }
    }
}

/// One thread: it waits for the API server, and for nothing else.
fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::Failed(format!("the process can't have what it runs on ({error}): raise the limit of open files"))
    })?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    // A resolver or a credential plugin that blocks a thread doesn't keep the process.
    runtime.shutdown_background();
    done
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let client = || access::client(&cli.cluster);
    match &cli.command {
        Command::Status(args) => status::run(args, client().await?).await,
        Command::Nodes(args) => nodes::run(args, client().await?).await,
        Command::Doctor(args) => doctor::run(args, client().await?).await,
        Command::Preheat(args) => preheat::run(args, client().await?).await,
        Command::Plan(args) => plan::run(args),
        Command::Completion(args) => output::print(&completion::script(args.shell)),
    }
}
