//! libtorrent in the same places: one seed at the origin, a peer on each node. Debian's build, by its Python binding.
//!
//! State: a file with its torrent, in memory. Invariants: each round has new processes and empty directories.
//! Absent on purpose: a tracker for it. Each peer is told of all others at the start, which is more than a tracker would do for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::cluster::Places;
use super::pulls::Pulls;
use super::report::Round;
use super::usage::Meter;
use super::workers::Job;
use crate::units::Size;

/// Debian's: another one in PATH doesn't find Debian's packages.
const PYTHON: &str = "/usr/bin/python3";
const PORT: u16 = 6881;

/// Whether it is here.
pub(super) fn check() -> Result<()> {
    let import = Command::new(PYTHON).args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    ensure!(import.is_ok_and(|status| status.success()), "libtorrent is missing: apt-get install python3-libtorrent");
    Ok(())
}

/// What is to be distributed.
pub(super) struct Swarm {
    directory: PathBuf,
    script: PathBuf,
    torrent: PathBuf,
}

impl Swarm {
    /// Makes the file and its torrent.
    pub(super) async fn new(directory: &Path, size: Size) -> Result<Self> {
        let directory = directory.join("libtorrent");
        let seed = directory.join("seed");
        std::fs::create_dir_all(&seed).context("a directory for libtorrent can't be made")?;
        let (script, torrent) = (directory.join("peer.py"), directory.join("image.torrent"));
        std::fs::write(&script, include_str!("libtorrent.py")).context("libtorrent's script can't be written")?;
        let make = tokio::process::Command::new(PYTHON)
            .args([script.as_os_str(), "make".as_ref(), torrent.as_os_str(), seed.join("image").as_os_str()])
            .arg(size.bytes().to_string())
            .output()
            .await
            .context("a torrent can't be made")?;
        ensure!(make.status.success(), "a torrent can't be made: {}", String::from_utf8_lossy(&make.stderr).trim());
        Ok(Self { directory, script, torrent })
    }

    /// All nodes, cold.
    pub(super) async fn round(&self, places: &Places, pulls: &Pulls<'_>) -> Result<Round> {
        let all = [&places.origin].into_iter().chain(&places.nodes);
        let all: Vec<String> = all.map(|place| format!("{}:{PORT}", place.address)).collect();
        let seed = self.command("seed", &self.directory.join("seed"), &all[..1]);
        let mut seed = Job::spawn(&places.origin, &seed, "libtorrent's seed".to_owned())?;
        seed.line().await?;
        let round = self.directory.join("round");
        let mut jobs = Vec::new();
        for (ix, place) in places.nodes.iter().enumerate() {
            let stored = round.join(ix.to_string());
            std::fs::create_dir_all(&stored).context("a directory for libtorrent can't be made")?;
            // Itself first: where it listens. Then whom it may ask.
            let mut peers = all.clone();
            let own = peers.remove(ix + 1);
            peers.insert(0, own);
            jobs.push(Job::spawn(place, &self.command("peer", &stored, &peers), format!("libtorrent on node-{ix}"))?);
        }
        Pulls::ready(&mut jobs).await?;
        let pids: Vec<u32> = jobs.iter().filter_map(Job::pid).collect();
        let meter = Meter::start(&places.origin, &pids)?;
        let outcome = pulls.run(&mut jobs).await?;
        let used = meter.used()?;
        drop(jobs);
        std::fs::remove_dir_all(&round).context("libtorrent's directory can't be removed")?;
        Ok(Round { outcome, used, manifest_requests: 0 })
    }

    fn command(&self, what: &str, directory: &Path, addresses: &[String]) -> Vec<OsString> {
        let fixed = [PYTHON.as_ref(), self.script.as_os_str(), what.as_ref(), self.torrent.as_os_str()];
        let fixed = fixed.into_iter().chain([directory.as_os_str()]).map(OsString::from);
        fixed.chain(addresses.iter().map(OsString::from)).collect()
    }
}
