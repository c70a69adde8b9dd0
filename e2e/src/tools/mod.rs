//! Programs that the lab and the cluster need and that a machine may lack: fetched or built once, then kept.
//!
//! | source | for |
//! |---|---|
//! | [`debian`]: the distribution's packages, unpacked and not installed | what needs no version of its own: containerd 1.6, runc, docker-registry, etcd |
//! | [`golang`]: built from Go modules | what the distribution doesn't have: containerd 2, helm, oras |
//! | [`kubernetes`], `coredns`: built in a module of ours | Kubernetes' own programs, which Go alone doesn't know how to build; CoreDNS without every cloud |
//!
//! [`cluster`] is the list of what a cluster takes.
//!
//! State: `$XDG_CACHE_HOME/shoal/tools/NAME-VERSION` (`~/.cache` in the place of an unset variable), as `cargo xtask` keeps its own.
//! Invariants: the checkout and the system stay as they are; a directory that exists is whole, because it gets its name last; two runs that
//! want the same one don't make it twice. Absent on purpose: programs from PATH, but for kubectl. All machines of a
//! distribution have the same ones.

mod cache;
pub mod cluster;
mod coredns;
pub mod debian;
pub mod golang;
pub mod kubernetes;

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use cache::is_cached;

/// Runs a command to its end; what it says when it fails goes into the error, on one line.
pub(crate) fn run(command: &mut Command, remedy: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} can't be started: {remedy}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // The first lines of these tools tell progress, the last ones the reason.
    let reason = said[said.len().saturating_sub(3)..].join("; ");
    bail!("{name} failed ({}): {reason}: {remedy}", output.status)
}

/// What a program says of its version.
///
/// # Errors
/// If it can't be started.
pub fn version_of(program: impl AsRef<OsStr>) -> Result<String> {
    let program = program.as_ref();
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{} can't be started", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_says_why_in_one_line() {
        let failed = run(Command::new("sh").args(["-c", "echo a >&2; echo; echo b >&2; exit 3"]), "mend it");
        assert_eq!(failed.unwrap_err().to_string(), "sh failed (exit status: 3): a; b: mend it");
        let missing = run(&mut Command::new("no-such-tool"), "install it").unwrap_err();
        assert_eq!(missing.to_string(), "no-such-tool can't be started: install it");
    }
}
