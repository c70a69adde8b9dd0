//! The lab's program: `cargo xtask lab`.

use std::process::ExitCode;

use clap::Parser;
use shoal_e2e::{ending, lab};

#[tokio::main]
async fn main() -> ExitCode {
    let options = lab::Options::parse();
    ending::exit_code(lab::run(options).await)
}
