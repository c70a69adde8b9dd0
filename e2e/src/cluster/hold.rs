//! `cargo xtask cluster up` and `down`: a cluster that outlives the command that started it.
//!
//! ```text
//!   up ──starts──> hold, which owns the cluster and its lock, and waits for SIGTERM <──sends── down
//! ```
//!
//! State: `/run/shoal-cluster`: `lock` (held by the holder, with its process number in it), `kubeconfig` (there as soon as the cluster is ready), `log`.
//! Invariant: a lock that is held means that the number in it is its holder's. Absent on purpose: more than one of them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{Cluster, Options, Programs};
use crate::ending::or_interrupted;

const DIRECTORY: &str = "/run/shoal-cluster";
/// A cluster is switched off within seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

fn file(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Starts a cluster and returns when it is ready. It stays until [`down`].
///
/// # Errors
/// If there is one already, or it doesn't start.
pub async fn up(options: &Options, arguments: &[String]) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a cluster makes namespaces, mounts and cgroups: run this as root");
    fs::create_dir_all(DIRECTORY).with_context(|| format!("{DIRECTORY} can't be made"))?;
    ensure!(holder()?.is_none(), "there is a cluster already: end it with `cargo xtask cluster down`");
    // One that was killed has left it.
    let _ = fs::remove_file(file("kubeconfig"));
    eprintln!("fetching or building what is missing of its programs (minutes, the first time) …");
    Programs::get(options.containerd)?;
    let log = File::create(file("log")).context("the log can't be written")?;
    let itself = std::env::current_exe().context("this program's own path is unknown")?;
    let mut command = Command::new(itself);
    command.arg("hold").args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A terminal's Ctrl-C is for this command.
    let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn()?;
    eprintln!("starting {} nodes …", options.nodes);
    if let Err(error) = or_interrupted(ready(&mut child)).await {
        signal(child.id(), Signal::TERM);
        let _ = child.wait();
        return Err(error);
    }
    println!("export KUBECONFIG={}", file("kubeconfig").display());
    Ok(())
}

async fn ready(holder: &mut Child) -> Result<()> {
    while !file("kubeconfig").exists() {
        if let Some(status) = holder.try_wait().context("the cluster can't be watched")? {
            let log = fs::read_to_string(file("log")).unwrap_or_default();
            let said = log.trim().strip_prefix("error: ").unwrap_or(log.trim());
            bail!("there is no cluster ({status}): {said}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Is the cluster: starts it, and ends it when it is told to.
///
/// # Errors
/// If it doesn't start, or one of its processes ends.
pub async fn hold(options: &Options) -> Result<()> {
    let mut lock = File::options().create(true).truncate(false).write(true).open(file("lock"))?;
    ensure!(lock.try_lock().is_ok(), "there is a cluster already");
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    let kubeconfig = file("kubeconfig");
    // What ends this, a signal too, drops the cluster.
    let ended = or_interrupted(async {
        let mut cluster = Cluster::start(options, &Programs::get(options.containerd)?).await?;
        let written = file("kubeconfig.new");
        cluster.write_kubeconfig(&written)?;
        fs::rename(&written, &kubeconfig).context("the kubeconfig can't be written")?;
        cluster.during(std::future::pending()).await
    })
    .await;
    // One that wasn't written needn't go.
    let _ = fs::remove_file(&kubeconfig);
    ended
}

/// Ends the cluster.
///
/// # Errors
/// If it doesn't end in time.
pub async fn down() -> Result<()> {
    let Some(holder) = holder()? else {
        super::sweep();
        eprintln!("there is no cluster");
        return Ok(());
    };
    signal(holder, Signal::TERM);
    let deadline = Instant::now() + ENDS_WITHIN;
    while self::holder()?.is_some() {
        ensure!(Instant::now() < deadline, "process {holder} doesn't end: see {}", file("log").display());
        sleep(LOOK).await;
    }
    fs::remove_dir_all(DIRECTORY).with_context(|| format!("{DIRECTORY} can't be removed"))
}

/// The process number of who holds the lock.
fn holder() -> Result<Option<u32>> {
    let Ok(lock) = File::open(file("lock")) else { return Ok(None) };
    if lock.try_lock().is_ok() {
        return Ok(None);
    }
    let text = fs::read_to_string(file("lock")).context("the lock can't be read")?;
    Ok(Some(text.trim().parse().context("the lock names no process: try again")?))
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // The only failure is that it has ended by itself.
        let _ = kill_process(pid, signal);
    }
}
