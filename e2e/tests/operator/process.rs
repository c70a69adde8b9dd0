//! An operator as a process of its own, which can be killed, and told to stop.
//!
//! State: the process. The test's own program is the operator: a test that is no test runs the command line that it finds in its environment.

use std::process::ExitStatus;

use clap::Parser as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::world::{LONG, World};

/// The command line, a flag a line.
const ARGUMENTS: &str = "OPERATOR_UNDER_TEST";
/// The test that runs it.
const ITSELF: &str = "process::the_operator_itself";

pub(crate) struct Process(Child);

impl Process {
    /// Starts the replica of this number.
    pub(crate) async fn start(world: &World, number: u8) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([ITSELF, "--exact", "--nocapture"]).env(ARGUMENTS, world.operator_arguments(number).await);
        Self(command.kill_on_drop(true).spawn().unwrap())
    }

    /// As a crash ends it.
    pub(crate) async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    /// As a kubelet ends it.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.0.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        timeout(LONG, self.0.wait()).await.expect("it ends").unwrap()
    }

    /// The most memory that it has had, in MiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id().unwrap())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_itself() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let done = shoal_operator::Cli::try_parse_from(arguments.lines()).unwrap().execute().await;
    done.unwrap();
}
