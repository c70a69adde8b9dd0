//! `cargo xtask check`: everything about the code that can be said without running it.
//!
//! State: none.
//! Invariants: the quickest step comes first, and the first that fails ends the check. Warnings are denied here and not in the
//! sources, so that unfinished work still builds on a developer's machine.
//! Absent on purpose: the known vulnerabilities, unless asked for. Their list is fetched from a site that is not the registry, and it
//! changes by the day: a commit that passed would fail without having changed.

use anyhow::{Result, ensure};
use clap::Args;

use crate::step::Step;
use crate::tools::CARGO_DENY;

/// What is checked.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Format, lints and documentation of this crate only; may be given several times.
    #[arg(short, long, value_name = "CRATE")]
    package: Vec<String>,
    /// The list of known vulnerabilities too: it is fetched from github.com.
    #[arg(long)]
    advisories: bool,
}

/// Runs the steps until one fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        ensure!(
            Step::cargo([subcommand, "--version"]).succeeds()?,
            "the toolchain lacks {component}: run `rustup component add {component}` in this directory"
        );
    }
    fmt(options).run("run `cargo fmt --all`")?;
    clippy(options).run("mend what clippy shows above")?;
    doc(options).run("mend the documentation shown above")?;
    if options.concerns("shoal-api") {
        crate::crds("check").run("run `cargo xtask generate` and commit what it writes")?;
    }
    let cargo_deny = CARGO_DENY.installed()?;
    let deny = |checks: &[&str]| Step::program(&cargo_deny).args(["check"]).args(checks);
    deny(&["licenses", "bans", "sources"])
        .run("mend the dependency shown above, or give deny.toml an exception with its reason")?;
    if options.advisories {
        deny(&["advisories"]).run("replace the dependency shown above, or see to it that github.com can be reached")?;
    }
    Ok(())
}

fn fmt(options: &Options) -> Step {
    Step::cargo(["fmt", "--check"]).args(options.members("--all"))
}

/// `--no-deps`: otherwise a chosen crate's check would fail for a warning in another member that it depends on.
fn clippy(options: &Options) -> Step {
    Step::cargo(["clippy", "--no-deps", "--all-targets"])
        .args(options.members("--workspace"))
        .args(["--", "-D", "warnings"])
}

fn doc(options: &Options) -> Step {
    Step::cargo(["doc", "--no-deps"]).args(options.members("--workspace")).env("RUSTDOCFLAGS", "-D warnings")
}

impl Options {
    fn concerns(&self, package: &str) -> bool {
        self.package.is_empty() || self.package.iter().any(|chosen| chosen == package)
    }

    /// The chosen crates as cargo's arguments, or the flag that means every member.
    fn members(&self, all: &str) -> Vec<String> {
        if self.package.is_empty() {
            return vec![all.to_owned()];
        }
        self.package.iter().flat_map(|package| ["-p".to_owned(), package.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(options: &Options) -> [String; 3] {
        [fmt(options), clippy(options), doc(options)].map(|step| step.to_string())
    }

    #[test]
    fn every_member_is_checked_and_warnings_are_denied() {
        assert_eq!(
            lines(&Options::default()),
            [
                "cargo fmt --check --all",
                "cargo clippy --no-deps --all-targets --workspace -- -D warnings",
                "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace",
            ]
        );
    }

    #[test]
    fn chosen_crates_narrow_the_check() {
        let options = Options { package: vec!["a".into(), "b".into()], advisories: false };
        assert_eq!(
            lines(&options),
            [
                "cargo fmt --check -p a -p b",
                "cargo clippy --no-deps --all-targets -p a -p b -- -D warnings",
                "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps -p a -p b",
            ]
        );
    }
}
