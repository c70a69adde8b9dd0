//! `cargo xtask lab`: a cluster over shaped networks, measured.
//!
//! ```text
//!   origin ══╗           ╔══ node-0: agent, client          ══  a veth pair with a token bucket at both ends
//!  tracker ──╬── hub ────╬══ node-1: agent, client          ──  one without
//!            ╚           ╚══ …
//! ```
//!
//! In the same run: the goodput of one flow from the origin to a node and from a node to another is measured first, and the bound is what these
//! allow; then all nodes pull, with cold stores; then, if asked for, once more straight from the origin, with libtorrent, or with a fault.
//!
//! State: namespaces, processes and a directory in memory, all of which end with the run, also by an error or Ctrl-C.
//! Invariants: nothing of the host's own network changes; every name has this process's number in it, and what a killed run left is
//! removed by the next one. Absent on purpose: latency and loss (the kernels at hand have no netem).

pub mod bench;
mod client;
mod cluster;
mod faults;
mod goodput;
mod liar;
mod libtorrent;
mod origin;
mod pulls;
mod report;
mod run;
mod runtimes;
pub(crate) mod usage;
mod workers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use self::faults::Fault;
use crate::containerd::Version;
use crate::units::{Rate, Size};

/// Measures Shoal over shaped networks. It takes root.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask lab", bin_name = "cargo xtask lab")]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) nodes: u32,
    /// The image's size.
    #[arg(long, default_value = "128MiB")]
    pub(crate) size: Size,
    /// What each link carries, both ways; the origin's too.
    #[arg(long, default_value = "50mbit")]
    pub(crate) rate: Rate,
    /// In how many layers the image comes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) layers: u32,
    /// Who pulls.
    #[arg(long, value_enum, default_value_t = Puller::Builtin)]
    pub(crate) client: Puller,
    /// Which containerd, with --client containerd.
    #[arg(long, value_enum, default_value_t = Version::V2)]
    pub(crate) containerd: Version,
    /// Which registry the image is in.
    #[arg(long, value_enum, default_value_t = origin::Kind::Registry)]
    pub(crate) origin: origin::Kind,
    /// What to measure beside Shoal in the same run.
    #[arg(long, value_enum)]
    pub(crate) against: Option<Against>,
    /// How many pairs of rounds, with --against libtorrent.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: u32,
    /// When the nodes begin.
    #[arg(long, value_enum, default_value_t = Start::AtOnce)]
    pub(crate) start: Start,
    /// What goes wrong in a second round: liars:COUNT, kill:COUNT@PERCENT (agents, when so much has come; @random for any moment) or kill-tracker@PERCENT.
    #[arg(long)]
    pub(crate) fault: Option<Fault>,
    /// How many rounds with a fault.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Runs 1, 2, 4 … nodes, no more than --nodes, each time beside direct pulls, and draws the times into this file, as SVG.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["against", "fault", "start"])]
    pub(crate) plot: Option<PathBuf>,
    /// The result as one JSON object; with --plot one for each number of nodes.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the directory with the logs and stores.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(subcommand)]
    worker: Option<workers::Worker>,
}

/// Who pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Puller {
    /// The client of `shoal-agent pull`, without its files.
    Builtin,
    /// A containerd on each node, asked by CRI as the kubelet asks: it has to unpack, too.
    Containerd,
}

/// What runs beside Shoal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// All nodes pull from the origin.
    Direct,
    /// libtorrent with 64 KiB pieces, tuned for this network.
    Libtorrent,
}

/// When the nodes begin to pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// In one moment.
    AtOnce,
    /// One after the other, over the time that all of them would need at least if they began together.
    Staggered,
}

/// Runs the lab, or the part of it that this process was started for.
///
/// # Errors
/// In one line what failed, or what is missing.
pub async fn run(options: Options) -> Result<()> {
    match &options.worker {
        Some(worker) => worker.run().await,
        None => run::run(&options).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Options::command().debug_assert();
        for wrong in [
            "--nodes 0",
            "--nodes 201",
            "--client docker",
            "--against hope",
            "--pairs 0",
            "--fault fire",
            "--plot x --against direct",
        ] {
            assert!(Options::try_parse_from(["lab"].into_iter().chain(wrong.split(' '))).is_err(), "{wrong}");
        }
    }
}
