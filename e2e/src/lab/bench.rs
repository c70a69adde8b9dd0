//! `cargo xtask bench agent`: what an agent costs its node.
//!
//! | what | how |
//! |---|---|
//! | CPU and memory of the exchange (`exchange`) | two agents over links without limits, beside nginx, curl and openssl |
//! | what the mirror costs where there are no peers (`alone`) | one agent behind a shaped link, beside the origin itself |
//!
//! State: as the lab's. Invariants: what is compared runs in the same run, alternately, with cold stores; medians are told.

mod alone;
mod exchange;

use anyhow::{Context, Result};
use clap::Parser;
use serde::Serialize;

pub(super) use self::alone::Small;
pub(super) use self::exchange::{Fetch, Reference};
use super::workers;
use crate::ending;
use crate::nodes;
use crate::scratch::Scratch;
use crate::units::{Rate, Size};

/// Measures what an agent costs. It takes root, nginx, curl and openssl.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask bench agent", bin_name = "cargo xtask bench agent")]
pub struct Options {
    /// What goes from one agent to another.
    #[arg(long, default_value = "1GiB")]
    size: Size,
    /// What one agent alone pulls.
    #[arg(long, default_value = "256MiB")]
    pull_size: Size,
    /// What the links of that one carry, both ways.
    #[arg(long, default_value = "200mbit")]
    rate: Rate,
    /// How often each is done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// The links between agents without TLS.
    #[arg(long)]
    plain_peers: bool,
    /// The result as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    worker: Option<workers::Worker>,
}

/// The result.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    exchange: exchange::Figures,
    #[serde(flatten)]
    alone: alone::Figures,
}

const KEYS: [&str; 14] = [
    "tls",
    "rss_max_mib",
    "exchange_mb_per_second",
    "from_peer_percent",
    "sender_cpu_seconds_per_gb",
    "receiver_cpu_seconds_per_gb",
    "reference_cpu_seconds_per_gb",
    "cpu_over_reference",
    "mirror_seconds",
    "direct_seconds",
    "mirror_over_direct",
    "small_direct_p99_ms",
    "small_mirror_p99_ms",
    "small_added_p99_ms",
];

/// Runs it, or the part of it that this process was started for.
///
/// # Errors
/// In one line what failed, or what is missing.
pub async fn run(options: Options) -> Result<()> {
    if let Some(worker) = &options.worker {
        return worker.run().await;
    }
    exchange::check()?;
    let program = nodes::agent_program()?;
    let scratch = Scratch::in_memory("shoal-bench", false)?;
    let measured = async {
        let exchange = exchange::measure(&options, scratch.path(), &program).await?;
        let alone = alone::measure(&options, scratch.path(), &program).await?;
        anyhow::Ok(Report { exchange, alone })
    };
    let report = ending::or_interrupted(measured).await?;
    if options.json {
        println!("{}", serde_json::to_string(&report).context("the report can't be written")?);
    } else {
        print!("{}", report.lines()?);
    }
    Ok(())
}

impl Report {
    fn lines(&self) -> Result<String> {
        let object = serde_json::to_value(self)?;
        Ok(KEYS.iter().filter_map(|key| object.get(key).map(|value| format!("{key:29} {value}\n"))).collect())
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
    fn the_lines_have_every_key() {
        let report = Report { exchange: exchange::Figures::default(), alone: alone::Figures::default() };
        assert_eq!(report.lines().unwrap().lines().count(), KEYS.len());
        assert_eq!(serde_json::to_value(&report).unwrap().as_object().unwrap().len(), KEYS.len());
    }
}
