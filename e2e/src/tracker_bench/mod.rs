//! `cargo xtask bench tracker`: what a tracker takes for a large cluster, and how soon it knows the cluster again after a crash.
//!
//! ```text
//!   core 0: shoal-agent tracker          the other cores: this process, with all agents' clients
//!     join ──> everybody announces at a steady rate: windows are measured ──> SIGKILL, started again ──> who is listed again, when?
//! ```
//!
//! The agents are the real client, one connection each, over TLS. The rate is theirs, not the tracker's: an announce is due at a time that was set before, and its
//! latency counts from then (open loop), so a tracker that falls behind can't hide it. Of one blob an agent's announces follow each other, as the protocol has it.
//!
//! State: as the modules'. Invariants: neither process runs on the other one's cores; where there is one core alone, the report says so.
//! Absent on purpose: peers. Nothing is transferred.

mod agents;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::ending;
use crate::figures::{Times, rounded};
use crate::lab::usage::{cpu_seconds, machine_ticks, peak_rss_mib};
use crate::scratch::Scratch;
use agents::Agents;
use server::Server;

/// Announces before the first window: connections are warm and everybody has got the peers that a newcomer gets.
const WARM_UP: Duration = Duration::from_secs(5);
/// What is waited for the last ones after a restart. The figure to meet is 10 s for 95 %.
const RELISTED_WITHIN: Duration = Duration::from_secs(60);
const RELISTED_PERCENT: usize = 95;

/// Measures a tracker under the announces of a large cluster. It takes no root.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask bench tracker", bin_name = "cargo xtask bench tracker")]
pub struct Options {
    /// Agents, each with a connection of its own.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    agents: u32,
    /// Announces a second, of all together.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Blobs that are distributed: each agent is a member of one swarm.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    swarms: u32,
    /// Peers that each announce asks for. A node that has its neighbours asks for none: this is the most that there is to do.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=200))]
    peers: u16,
    /// How long a window is measured, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many windows; medians are told.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    worker: Option<Worker>,
}

/// What this program starts itself for.
#[derive(Clone, Debug, Subcommand)]
enum Worker {
    /// Becomes another program, on one core.
    #[command(hide = true)]
    Pinned(server::Pinned),
}

/// One window.
#[derive(Clone, Debug, Serialize)]
struct Window {
    announces_per_second: f64,
    failed: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Of its one core.
    server_cpu_percent: f64,
    /// Of all cores of this machine, everybody's.
    machine_cpu_percent: f64,
}

/// The result.
#[derive(Debug, Serialize)]
struct Report {
    agents: u32,
    swarms: u32,
    peers_asked_for: u16,
    window_seconds: u32,
    /// Without a second core the load runs beside the server.
    cores: usize,
    /// Medians of the windows.
    #[serde(flatten)]
    median: Window,
    server_rss_max_mib: u64,
    /// From the kill on, with the tracker started again at once.
    relisted_95_percent_seconds: f64,
    relisted_all_seconds: Option<f64>,
    restarted_rss_max_mib: u64,
    windows: Vec<Window>,
}

/// Runs it, or the part of it that this process was started for.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    ending::exit_code(match &options.worker {
        Some(Worker::Pinned(pinned)) => pinned.become_it(),
        None => measure_and_tell(options),
    })
}

fn measure_and_tell(options: &Options) -> Result<()> {
    // Before there is any other thread: they inherit both.
    let cores = server::leave_its_core()?;
    server::allow_files(u64::from(options.agents) * 3 + 256)?;
    let runtime = tokio::runtime::Runtime::new().context("the process can't have its threads")?;
    let report = runtime.block_on(ending::or_interrupted(measure(options, cores)));
    runtime.shutdown_background();
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.lines()?);
    }
    Ok(())
}

async fn measure(options: &Options, cores: usize) -> Result<Report> {
    let scratch = Scratch::in_memory("shoal-bench-tracker", false)?;
    let mut server = Server::start(scratch.path()).await?;
    let mut agents = Agents::start(options, &server, scratch.path()).await?;
    let measured = Box::pin(watched(options, cores, &mut server, &mut agents)).await;
    agents.stop().await;
    server.end().await;
    measured
}

async fn watched(options: &Options, cores: usize, server: &mut Server, agents: &mut Agents) -> Result<Report> {
    tokio::time::sleep(WARM_UP).await;
    let mut windows = Vec::new();
    for _ in 0..options.runs {
        windows.push(server.during(window(options, server.pid(), agents)).await?);
    }
    let server_rss_max_mib = peak_rss_mib(server.pid());
    let killed = server.restart().await?;
    let mut relisted = agents.relisted(RELISTED_WITHIN).await;
    relisted.sort();
    let count = options.agents as usize;
    let needed = (count * RELISTED_PERCENT).div_ceil(100);
    ensure!(
        relisted.len() >= needed,
        "only {} of {count} agents are listed again {} s after the restart",
        relisted.len(),
        RELISTED_WITHIN.as_secs()
    );
    let after = |listed: usize| rounded((relisted[listed - 1] - killed).as_secs_f64());
    Ok(Report {
        agents: options.agents,
        swarms: options.swarms,
        peers_asked_for: options.peers,
        window_seconds: options.seconds,
        cores,
        median: Window::median(&windows),
        server_rss_max_mib,
        relisted_95_percent_seconds: after(needed),
        relisted_all_seconds: (relisted.len() == count).then(|| after(count)),
        restarted_rss_max_mib: peak_rss_mib(server.pid()),
        windows,
    })
}

async fn window(options: &Options, pid: u32, agents: &Agents) -> Result<Window> {
    let (cpu, machine) = (cpu_seconds(pid), machine_ticks());
    let found = agents.window(Duration::from_secs(options.seconds.into())).await;
    let times = Times::new(found.latencies).context("no announce was answered: is the machine too busy?")?;
    let seconds = f64::from(options.seconds);
    let ((busy, all), used) = (machine_ticks(), cpu_seconds(pid) - cpu);
    Ok(Window {
        announces_per_second: rounded(f64::from(found.answered) / seconds),
        failed: found.failed,
        p50_ms: rounded(times.p50() * 1e3),
        p99_ms: rounded(times.percentile(99) * 1e3),
        max_ms: rounded(times.last() * 1e3),
        server_cpu_percent: rounded(100.0 * used / seconds),
        machine_cpu_percent: rounded(percent(busy - machine.0, all - machine.1)),
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * crate::figures::float(part) / crate::figures::float(whole.max(1))
}

impl Window {
    /// Each figure's; failures are summed, because one is too many.
    fn median(windows: &[Self]) -> Self {
        let median = |of: fn(&Self) -> f64| {
            Times::new(windows.iter().map(of).collect()).map_or(0.0, |figures| rounded(figures.p50()))
        };
        Self {
            announces_per_second: median(|window| window.announces_per_second),
            failed: windows.iter().map(|window| window.failed).sum(),
            p50_ms: median(|window| window.p50_ms),
            p99_ms: median(|window| window.p99_ms),
            max_ms: median(|window| window.max_ms),
            server_cpu_percent: median(|window| window.server_cpu_percent),
            machine_cpu_percent: median(|window| window.machine_cpu_percent),
        }
    }
}

impl Report {
    /// A table: a line for each figure.
    fn lines(&self) -> Result<String> {
        let object = serde_json::to_value(self)?;
        let figures = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_array());
        Ok(figures.map(|(key, value)| format!("{key:29} {value}\n")).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn medians_are_of_each_figure_and_failures_are_summed() {
        let window = |figure: f64| Window {
            announces_per_second: figure,
            failed: 1,
            p50_ms: figure,
            p99_ms: 10.0 - figure,
            max_ms: figure,
            server_cpu_percent: figure,
            machine_cpu_percent: figure,
        };
        let median = Window::median(&[window(1.0), window(5.0), window(3.0)]);
        assert_eq!((median.p50_ms, median.p99_ms, median.failed), (3.0, 7.0, 3));
    }
}
