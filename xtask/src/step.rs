//! A step: one child process, printed before it runs and named when it fails.
//!
//! State: none beyond the step itself.
//! Invariants: a step runs in the workspace's root whatever directory the developer is in, with the cargo that runs xtask, and what
//! is printed of it can be pasted into a shell there.
//! Absent on purpose: captured output and time limits. The developer sees what the child prints, as it prints it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// How the variables begin in which cargo tells xtask of its package: a cargo that xtask starts mustn't see them.
const OF_A_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// A program with its arguments and what it needs in its environment beyond the developer's.
#[derive(Debug)]
pub(crate) struct Step {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

impl Step {
    /// A cargo subcommand.
    pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Self {
        Self::program("cargo").args(args)
    }

    /// Any other program.
    pub(crate) fn program(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// With these arguments behind the ones it has.
    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With an environment variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Prints it, runs it and waits for it. `remedy` tells the developer what to do about a failure.
    pub(crate) fn run(&self, remedy: &'static str) -> Result<()> {
        eprintln!("$ {self}");
        let status = self.command()?.status().with_context(|| self.cannot_start())?;
        if status.success() {
            return Ok(());
        }
        Err(StepFailed { step: self.to_string(), status, remedy }.into())
    }

    /// Whether it succeeds, run unseen: a question to the machine.
    pub(crate) fn succeeds(&self) -> Result<bool> {
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().with_context(|| self.cannot_start())?.success())
    }

    /// Prints it and puts it in this process's place: signals reach it directly and its exit code is this process's. Returns only
    /// if it can't be started.
    pub(crate) fn become_it(&self) -> Result<()> {
        eprintln!("$ {self}");
        Err(self.command()?.exec()).with_context(|| self.cannot_start())
    }

    fn command(&self) -> Result<Command> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
        let root = manifest.as_deref().map(Path::new).and_then(Path::parent);
        let root = root.context("CARGO_MANIFEST_DIR is not set: run this as `cargo xtask`")?;
        // The cargo that started xtask, not whichever comes first in PATH: one toolchain for all steps.
        let cargo = std::env::var_os("CARGO").filter(|_| self.program == "cargo");
        let mut command = Command::new(cargo.as_ref().unwrap_or(&self.program));
        if cargo.is_some() {
            // ring is built anew when they change, and most of the workspace with it: whoever runs `cargo build` between two `cargo xtask` would
            // wait for that each time.
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(|name| OF_A_PACKAGE.iter().any(|of| name.starts_with(of))) {
                    command.env_remove(name);
                }
            }
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(root);
        Ok(command)
    }

    fn cannot_start(&self) -> String {
        format!("{} can't be started", self.program.display())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "{}", quoted(&self.program))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// A step ran and didn't succeed.
#[derive(Debug)]
pub(crate) struct StepFailed {
    step: String,
    status: ExitStatus,
    remedy: &'static str,
}

impl StepFailed {
    /// The child's exit code, or what a shell makes of the signal that killed it.
    pub(crate) fn exit_code(&self) -> u8 {
        let signal = self.status.signal().map(|signal| 128 + signal);
        self.status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }
}

impl fmt::Display for StepFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed ({}): {}", self.step, self.status, self.remedy)
    }
}

impl std::error::Error for StepFailed {}

/// The word as a POSIX shell reads it back.
fn quoted(word: &OsStr) -> Cow<'_, str> {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_prints_as_a_shell_reads_it() {
        let step = Step::program("tool").args(["plain-1.0", "a b", "", "it's", "*"]).env("FLAGS", "-D warnings");
        assert_eq!(step.to_string(), r"FLAGS='-D warnings' tool plain-1.0 'a b' '' 'it'\''s' '*'");
    }

    #[test]
    fn a_failure_keeps_the_exit_code_and_says_what_to_do() {
        for (script, code, status) in [("exit 7", 7, "exit status: 7"), ("kill -TERM $$", 143, "signal: 15 (SIGTERM)")]
        {
            let error = Step::program("sh").args(["-c", script]).run("try again").expect_err(script);
            assert_eq!(error.to_string(), format!("`sh -c '{}'` failed ({status}): try again", script));
            assert_eq!(error.downcast_ref::<StepFailed>().map(StepFailed::exit_code), Some(code));
        }
    }

    #[test]
    fn a_cargo_is_told_nothing_of_this_package() {
        let command = Step::cargo(["build"]).command().unwrap();
        let taken: Vec<&OsStr> =
            command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(taken.contains(&OsStr::new("CARGO_PKG_NAME")) && taken.contains(&OsStr::new("CARGO_MANIFEST_DIR")));
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = Step::program("no-such-tool").run("").expect_err("there is none");
        assert!(format!("{error:#}").starts_with("no-such-tool can't be started: "), "{error:#}");
    }
}
