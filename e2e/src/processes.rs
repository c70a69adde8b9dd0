//! Processes of a run: started, watched, ended.
//!
//! State: a child and its log for each. Invariants: each is in a process group of its own, so that Ctrl-C reaches only us and we decide the
//! order (or, where nobody here hears Ctrl-C, in ours); each is ended by its id, while its parent still holds it, so the id can't be another's; when a
//! fleet has been dropped none is there any more.
//! Absent on purpose: restarts. A process that ends ends the run, unless it was parted with before.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How much of a log an error shows.
const TAIL_LINES: usize = 8;

/// An agent drains for 15 s at most; in a demo there is nothing left to drain.
const PATIENCE: Duration = Duration::from_secs(5);

/// A killed process ends within milliseconds, unless the kernel waits for a disk in its name.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// How often is looked. A death is told at once by its consequences; this is only the word for it.
const LOOK: Duration = Duration::from_millis(50);

/// The processes of one run.
#[derive(Debug)]
pub struct Fleet {
    logs: PathBuf,
    shares_signals: bool,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Fleet {
    /// None yet. Their logs go into this directory.
    #[must_use]
    pub fn new(logs: &Path) -> Self {
        Self { logs: logs.to_owned(), shares_signals: false, members: Vec::new() }
    }

    /// Its members hear Ctrl-C themselves: for tests, which end by it at once and end nobody.
    #[must_use]
    pub fn sharing_signals(mut self) -> Self {
        self.shares_signals = true;
        self
    }

    /// Starts a program; its output is its log.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&mut self, name: &str, command: &[OsString]) -> Result<u32> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("{} can't be made", log.display()))?;
        let (program, args) = command.split_first().context("nothing to start")?;
        let mut start = Command::new(program);
        // What the developer's environment says about an agent of their own isn't meant for these.
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SHOAL_")) {
            start.env_remove(variable);
        }
        if !self.shares_signals {
            start.process_group(0);
        }
        let child = start
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("a log can't be shared")?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        let pid = child.id().context("it ended at once")?;
        self.members.push(Member { name: name.to_owned(), log, child });
        Ok(pid)
    }

    /// The first that ended, as an error with the end of its log.
    ///
    /// # Errors
    /// If one has ended.
    pub fn check(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(status) =
                member.child.try_wait().with_context(|| format!("{} can't be watched", member.name))?
            {
                return Err(anyhow!("{} ended ({status}){}", member.name, tail(&member.log)));
            }
        }
        Ok(())
    }

    /// Runs this as long as all processes do.
    ///
    /// # Errors
    /// Its own, or that a process ended.
    pub async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let ended = async {
            loop {
                if let Err(ended) = self.check() {
                    return ended;
                }
                sleep(LOOK).await;
            }
        };
        let done = tokio::select! {
            done = work => done,
            ended = ended => return Err(ended),
        };
        if done.is_err() {
            // Work that fails because a process has ended may hear of it first.
            sleep(LOOK).await;
            self.check()?;
        }
        done
    }

    /// The same, for a condition that has to come to hold in this time; `what` names who should fulfil it.
    ///
    /// # Errors
    /// If it doesn't, with the end of its log.
    pub async fn until(&mut self, what: &str, within: Duration, condition: impl AsyncFn() -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            self.check()?;
            if condition().await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let member = self.members.iter().find(|member| member.name == what);
                let tail = member.map_or_else(String::new, |member| tail(&member.log));
                return Err(anyhow!("{what} isn't ready after {} s{tail}", within.as_secs()));
            }
            sleep(LOOK).await;
        }
    }

    /// Takes these processes out, into a fleet of their own: this one no longer minds their death.
    ///
    /// # Errors
    /// If one of them isn't here.
    pub fn part(&mut self, names: &[String]) -> Result<Self> {
        let mut parted = Self::new(&self.logs);
        parted.shares_signals = self.shares_signals;
        for name in names {
            let at = self.members.iter().position(|member| member.name == *name);
            let at = at.with_context(|| format!("there is no {name} to part with"))?;
            parted.members.push(self.members.swap_remove(at));
        }
        Ok(parted)
    }

    /// SIGKILL to all, as a crash would end them.
    pub async fn kill(&mut self) {
        for member in &self.members {
            signal(&member.child, Signal::KILL);
        }
        for mut member in self.members.drain(..) {
            // A killed process ends; what it returns is of no interest.
            let _ = member.child.wait().await;
        }
    }

    /// Ends all: SIGTERM, and SIGKILL to who doesn't follow in time.
    pub async fn end(&mut self) {
        for member in &self.members {
            signal(&member.child, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        for mut member in self.members.drain(..) {
            if tokio::time::timeout_at(deadline, member.child.wait()).await.is_err() {
                signal(&member.child, Signal::KILL);
                // A killed process ends; what it returns is of no interest.
                let _ = member.child.wait().await;
            }
        }
    }
}

impl Drop for Fleet {
    /// Kills who is left, and waits: what they write into may be removed afterwards.
    fn drop(&mut self) {
        for member in &self.members {
            signal(&member.child, Signal::KILL);
        }
        let deadline = std::time::Instant::now() + KILLED_WITHIN;
        for member in &mut self.members {
            while matches!(member.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// None is signalled that has been waited for: it has no id any more.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // The only failure is that it has ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// The end of a log, for an error's end.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return ", and its log is empty".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().fold(". The end of its log:".to_owned(), |tail, line| tail + "\n  " + line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).into()
    }

    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shoal-e2e-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn who_ends_is_named_with_the_end_of_its_log() {
        let logs = directory("ends");
        let mut fleet = Fleet::new(&logs);
        fleet.start("node-0", &shell("exec sleep 1000")).unwrap();
        fleet.start("node-1", &shell("echo first; echo error: the port is in use >&2; exit 3")).unwrap();
        let error = fleet.during(std::future::pending::<Result<()>>()).await.unwrap_err().to_string();
        let expected = "node-1 ended (exit status: 3). The end of its log:\n  first\n  error: the port is in use";
        assert_eq!(error, expected);
        let failed = fleet.during(async { Err::<(), _>(anyhow!("connection reset")) }).await;
        assert_eq!(failed.unwrap_err().to_string(), expected, "the reason, not what follows from it");
        fleet.end().await;
        fs::remove_dir_all(logs).unwrap();
    }

    #[tokio::test]
    async fn a_dropped_fleet_leaves_nobody() {
        let logs = directory("dropped");
        let mut fleet = Fleet::new(&logs).sharing_signals();
        let pid = fleet.start("stubborn", &shell("trap '' TERM INT; while :; do sleep 0.1; done")).unwrap();
        drop(fleet);
        assert!(!crate::scratch::is_alive(pid));
        fs::remove_dir_all(logs).unwrap();
    }

    #[tokio::test]
    async fn all_are_ended_those_too_that_dont_follow() {
        let logs = directory("stubborn");
        let mut fleet = Fleet::new(&logs);
        let pids = [
            fleet.start("polite", &shell("exec sleep 1000")).unwrap(),
            fleet.start("stubborn", &shell("trap '' TERM; while :; do sleep 0.1; done")).unwrap(),
        ];
        fleet.end().await;
        assert!(pids.iter().all(|pid| !crate::scratch::is_alive(*pid)));
        fs::remove_dir_all(logs).unwrap();
    }
}
