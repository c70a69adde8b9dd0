//! A directory for one run, gone afterwards.
//!
//! State: `target/NAME-PID`, or the same in memory. Invariants: it ends with its owner; what a killed run left is removed by the next one, by the process number in
//! its name. Absent on purpose: any other place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const MEMORY: &str = "/dev/shm";

/// A run's directory.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes the directory beside the directory of this program, which is in `target/`. If `keep`, it stays for who wants to look into it.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(name: &str, keep: bool) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let target = program.parent().and_then(Path::parent).context("this program is not in a target directory")?;
        Self::within(target, name, keep)
    }

    /// The same in memory, where no disk is the bottleneck.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn in_memory(name: &str, keep: bool) -> Result<Self> {
        Self::within(Path::new(MEMORY), name, keep)
    }

    fn within(parent: &Path, name: &str, keep: bool) -> Result<Self> {
        remove_stale(parent, name);
        let path = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("{} can't be made", path.display()))?;
        Ok(Self { path, keep })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} can't be removed ({error}): remove it by hand", self.path.display());
        }
    }
}

/// Whether a process with this number is there, and not only its number because nobody has waited for it. A number that was given anew only delays
/// the removal.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // "7018 (name, with anything in it) Z …"
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// The process number in a name of ours that has outlived its process.
#[must_use]
pub fn dead_owner(entry: &str, name: &str) -> Option<u32> {
    let pid: u32 = entry.strip_prefix(name)?.strip_prefix('-')?.parse().ok()?;
    (!is_alive(pid)).then_some(pid)
}

/// Removes the directories in memory whose process is dead.
pub fn remove_stale_in_memory(name: &str) {
    remove_stale(Path::new(MEMORY), name);
}

fn remove_stale(parent: &Path, name: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|entry| dead_owner(entry, name).is_some()) {
            // One that can't be removed hurts nobody.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_stale() {
        let own = std::process::id();
        // Above the largest process number that Linux gives.
        for (entry, dead) in [("demo-4194305", true), ("lab-4194305", false), ("demo", false), ("demo-x", false)] {
            assert_eq!(dead_owner(entry, "demo").is_some(), dead, "{entry}");
        }
        assert_eq!(dead_owner(&format!("demo-{own}"), "demo"), None);
    }
}
