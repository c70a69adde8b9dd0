//! The demo's program: `cargo xtask demo`.

use std::process::ExitCode;

use clap::Parser;
use shoal_e2e::{demo, ending};

#[tokio::main]
async fn main() -> ExitCode {
    let options = demo::Options::parse();
    ending::exit_code(demo::run(&options).await)
}
