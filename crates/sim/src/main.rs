//! The simulator's command line: `shoal-sim`, or `cargo xtask sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shoal_sim::cli::main()
}
