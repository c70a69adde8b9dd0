//! The tracker's process, alone on the first core.
//!
//! State: the process, and where it keeps its CA and its token. Invariants: what is killed is started again with the same command, so that it has the same
//! address and CA. Absent on purpose: settings; it has its defaults.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use shoal_oci::testing::free_ports;
use tokio::time::Instant;

use crate::nodes::{Tracker, agent_program, swarm_file};
use crate::processes::Fleet;

const NAME: &str = "tracker";
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to run on one core.
#[derive(Args, Clone, Debug)]
pub(super) struct Pinned {
    core: usize,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

impl Pinned {
    /// Becomes it; comes back only if it can't.
    pub(super) fn become_it(&self) -> Result<()> {
        let mut only = CpuSet::new();
        only.set(self.core);
        sched_setaffinity(None, &only).with_context(|| format!("core {} can't be had", self.core))?;
        let (program, arguments) = self.command.split_first().context("nothing to start")?;
        Err(Command::new(program).args(arguments).exec()).context("the tracker can't be started")
    }
}

/// The cores that this process may use, in their order.
fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("the cores are unknown")?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    ensure!(!cores.is_empty(), "there is no core");
    Ok(cores)
}

/// Takes this thread, and those that it starts, off the tracker's core; says how many cores there are. With one core alone it stays.
pub(super) fn leave_its_core() -> Result<usize> {
    let cores = cores()?;
    if let [_, others @ ..] = &cores[..]
        && !others.is_empty()
    {
        let mut set = CpuSet::new();
        others.iter().for_each(|core| set.set(*core));
        sched_setaffinity(None, &set).context("the cores can't be chosen")?;
    }
    Ok(cores.len())
}

/// So many open files, of this process and of those that it starts.
pub(super) fn allow_files(files: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..limit })
        .with_context(|| format!("{files} files can't be open at a time: raise the hard limit (ulimit -Hn)"))
}

pub(super) struct Server {
    fleet: Fleet,
    tracker: Tracker,
    command: Vec<OsString>,
    pid: u32,
}

impl Server {
    /// Starts it on the first core, and waits until agents can join.
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        let swarm = directory.join("swarm.yaml");
        fs::write(&swarm, swarm_file("127.0.0.1:1")).context("the Swarm can't be written")?;
        let tracker = Tracker {
            listen: free_ports(Ipv4Addr::LOCALHOST.into(), 1)?[0],
            swarm,
            token: directory.join("token"),
            data: directory.join("tracker"),
        };
        // This process has left the first one.
        let own = std::env::current_exe().context("this program's own path is unknown")?;
        let mut command: Vec<OsString> = vec![own.into(), "pinned".into(), "0".into()];
        command.extend(tracker.command(&agent_program()?));
        let mut fleet = Fleet::new(directory);
        let pid = fleet.start(NAME, &command)?;
        let mut server = Self { fleet, tracker, command, pid };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<()> {
        let tracker = self.tracker.clone();
        self.fleet.until(NAME, PATIENCE, || tracker.is_ready()).await
    }

    pub(super) const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Does this as long as the tracker runs.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.fleet.during(work).await
    }

    /// SIGKILL, and the same once more; says when it was killed.
    pub(super) async fn restart(&mut self) -> Result<Instant> {
        let killed = Instant::now();
        self.fleet.kill().await;
        self.pid = self.fleet.start(NAME, &self.command)?;
        Ok(killed)
    }

    pub(super) async fn end(&mut self) {
        self.fleet.end().await;
    }
}
