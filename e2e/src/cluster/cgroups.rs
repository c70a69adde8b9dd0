//! The nodes' cgroups: a kubelet takes one that is there already, in every hierarchy.
//!
//! State: directories `NAME-PID` in the cgroup file system. Invariants: dropping removes them; those of dead processes are removed first.
//! Absent on purpose: limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::scratch::dead_owner;

const ROOT: &str = "/sys/fs/cgroup";
/// Who was killed leaves its cgroup within milliseconds.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// A cluster's.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroups {
    /// None yet.
    pub(super) fn new(name: &str) -> Result<Self> {
        let hierarchies = hierarchies(Path::new(ROOT));
        ensure!(!hierarchies.is_empty(), "{ROOT} isn't mounted: a kubelet takes cgroups");
        remove_stale(name);
        Ok(Self { name: format!("{name}-{}", std::process::id()), hierarchies })
    }

    /// Makes a node's, and says what its kubelet calls it.
    pub(super) fn add(&self, node: &str) -> Result<String> {
        for hierarchy in &self.hierarchies {
            let own = hierarchy.join(&self.name);
            make(hierarchy, &own)?;
            make(&own, &own.join(node))?;
        }
        Ok(format!("/{}/{node}", self.name))
    }

    /// Waits until nobody is in them.
    pub(super) async fn empty(&self) {
        let deadline = tokio::time::Instant::now() + EMPTY_WITHIN;
        while self.directories().any(|directory| is_occupied(&directory)) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The processes on a node, its pods' too.
    pub(super) fn processes(&self, node: &str) -> Vec<Process> {
        let groups = self.directories().map(|directory| directory.join(node));
        let mut pids: Vec<i32> = groups.flat_map(|group| pids_below(&group)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.into_iter().filter_map(Process::new).collect()
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.name)).filter(|directory| directory.exists())
    }
}

/// A process in a node's group.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    command: Vec<String>,
}

impl Process {
    fn new(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let command = text.split_terminator('\0').map(str::to_owned).collect();
        Some(Self { pid: Pid::from_raw(pid)?, command })
    }

    /// Its command line.
    pub(super) fn command(&self) -> &[String] {
        &self.command
    }

    /// SIGKILL. Whether it was still there.
    pub(super) fn kill(self) -> bool {
        kill_process(self.pid, Signal::KILL).is_ok()
    }
}

fn pids_below(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    own.chain(below(group).flat_map(|below| pids_below(&below))).collect()
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + EMPTY_WITHIN;
        for directory in self.directories() {
            while is_occupied(&directory) && std::time::Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            remove(&directory);
        }
    }
}

/// Removes those of dead processes.
pub(super) fn remove_stale(name: &str) {
    for group in hierarchies(Path::new(ROOT)).iter().flat_map(|hierarchy| below(hierarchy)) {
        let entry = group.file_name().and_then(|entry| entry.to_str());
        if entry.is_some_and(|entry| dead_owner(entry, name).is_some()) {
            remove(&group);
        }
    }
}

/// Where groups are made: one place in version 2, one for each controller in version 1, which may have a version 2 without controllers beside them.
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| path.join("cgroup.procs").exists();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(is_one)
        .collect()
}

/// A group below another. In version 1 a new one of cpuset has no processors before it is told; in version 2 controllers are handed down.
fn make(parent: &Path, path: &Path) -> Result<()> {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that can't be handed down is one that kubelets don't need, or they say so.
        let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    fs::create_dir_all(path).with_context(|| format!("{} can't be made", path.display()))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if controllers.is_empty()
            && let Ok(value) = fs::read_to_string(parent.join(file))
        {
            fs::write(path.join(file), value).with_context(|| format!("{} has no {file}", path.display()))?;
        }
    }
    Ok(())
}

fn is_occupied(directory: &Path) -> bool {
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    !processes.trim().is_empty() || below(directory).any(|below| is_occupied(&below))
}

fn remove(directory: &Path) {
    for below in below(directory) {
        remove(&below);
    }
    if let Err(error) = fs::remove_dir(directory) {
        eprintln!("{} can't be removed ({error}): remove it by hand", directory.display());
    }
}

fn below(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
