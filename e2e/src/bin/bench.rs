//! The bench's program: `cargo xtask bench agent`.

use std::process::ExitCode;

use clap::Parser;
use shoal_e2e::ending;
use shoal_e2e::lab::bench::{Options, run};

#[tokio::main]
async fn main() -> ExitCode {
    ending::exit_code(run(Options::parse()).await)
}
