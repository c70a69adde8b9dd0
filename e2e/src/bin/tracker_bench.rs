//! The tracker bench's program: `cargo xtask bench tracker`.

use std::process::ExitCode;

use clap::Parser as _;
use shoal_e2e::tracker_bench::{Options, run};

fn main() -> ExitCode {
    run(&Options::parse())
}
