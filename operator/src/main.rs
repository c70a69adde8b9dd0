//! The operator's process.

use std::process::ExitCode;

use clap::Parser as _;
use shoal_operator::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the process can't have its threads ({error}): raise the limit of processes");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli.execute());
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
