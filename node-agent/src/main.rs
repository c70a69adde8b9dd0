//! The agent's process.

use std::process::ExitCode;

use clap::Parser as _;
use shoal_agent::cli::Cli;
use tokio::runtime::Builder;

/// One carries some Gbit/s under TLS.
const MOST_WORKERS: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The node is there for others; and with every worker more, tasks that wake each other do so across cores more often.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = (cores / 2).clamp(1, MOST_WORKERS);
    let runtime = match Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the process can't have its threads ({error}): raise the limit of processes");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli.execute());
    // What still blocks is a disk's read: nobody waits for it.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
