//! A standalone cluster's command lines, and what its processes answer.
//!
//! State: none. Invariants: the flags are in this file and nowhere else in this crate.
//! Absent on purpose: how the processes are started (plainly, or within a network of their own): the caller puts that in front.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{TryStreamExt, stream};
use serde_json::Value;
use shoal_agent::pull::{Client, PARALLEL_BLOBS, Platform, Progress, PullError};
use shoal_oci::ImageName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::units::Rate;

/// A page of an admin server comes from memory.
const PAGE: Duration = Duration::from_secs(2);

/// The tracker of a run.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// Where it listens, and under which address agents reach it.
    pub listen: SocketAddr,
    /// The Swarm's file.
    pub swarm: PathBuf,
    /// Where the join token is: the tracker makes it, agents read it.
    pub token: PathBuf,
    /// Where its CA is kept.
    pub data: PathBuf,
}

/// An agent of a run.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where its mirror listens.
    pub mirror: SocketAddr,
    /// Where its peers reach it.
    pub peers: SocketAddr,
    /// Where its pages are.
    pub admin: SocketAddr,
    /// Where its store is.
    pub data: PathBuf,
    /// What it may send and receive, where the network has no limits of its own.
    pub rate: Option<Rate>,
}

/// The agent's program: it is built into the same directory as this one.
///
/// # Errors
/// If it isn't there.
pub fn agent_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program's own path is unknown")?;
    let agent = own.with_file_name("shoal-agent");
    ensure!(agent.exists(), "{} isn't built: start this with `cargo xtask`", agent.display());
    Ok(agent)
}

/// The Swarm's file for one plain-http registry that everybody may read.
#[must_use]
pub fn swarm_file(registry: &str) -> String {
    format!(
        "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {{name: default}}\nspec:\n  registries:\n  \
         - {{host: \"{registry}\", endpoint: \"http://{registry}\", access: Public}}\n"
    )
}

impl Tracker {
    /// Its command line.
    #[must_use]
    pub fn command(&self, program: &Path) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![program.into(), "tracker".into()];
        let mut flag = |name: &str, value: OsString| command.extend([name.into(), value]);
        flag("--log-format", "text".into());
        flag("--listen", self.listen.to_string().into());
        flag("--name", self.listen.ip().to_string().into());
        flag("--swarm", self.swarm.clone().into());
        flag("--join-token-file", self.token.clone().into());
        flag("--data-dir", self.data.clone().into());
        command
    }

    /// Whether agents can join.
    pub async fn is_ready(&self) -> bool {
        let made = tokio::fs::metadata(&self.token).await.is_ok_and(|token| token.len() > 0);
        made && matches!(timeout(PAGE, TcpStream::connect(self.listen)).await, Ok(Ok(_)))
    }
}

impl Node {
    /// Its command line.
    #[must_use]
    pub fn command(&self, program: &Path, tracker: &Tracker) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![program.into(), "run".into()];
        let mut flag = |name: &str, value: OsString| command.extend([name.into(), value]);
        flag("--log-format", "text".into());
        flag("--node-name", self.name.clone().into());
        flag("--tracker", format!("https://{}", tracker.listen).into());
        flag("--join-token-file", tracker.token.clone().into());
        flag("--data-dir", self.data.clone().into());
        flag("--mirror-listen", self.mirror.to_string().into());
        flag("--peer-listen", self.peers.to_string().into());
        flag("--peer-ip", self.peers.ip().to_string().into());
        flag("--admin-listen", self.admin.to_string().into());
        // The run's files are small and go away: a disk that is nearly full is no reason to distribute worse.
        flag("--keep-free", "1".into());
        if let Some(rate) = self.rate {
            flag("--upload-limit", rate.bytes_per_second().to_string().into());
            flag("--download-limit", rate.bytes_per_second().to_string().into());
        }
        command
    }

    /// Whether it serves.
    pub async fn is_ready(&self) -> bool {
        page(self.admin, "/readyz").await.is_ok()
    }

    /// What its exchange has seen, as it was a second ago at most.
    ///
    /// # Errors
    /// If it doesn't tell.
    pub async fn exchange(&self) -> Result<Value> {
        serde_json::from_str(&page(self.admin, "/debug/swarms").await?).context("an agent's page can't be read")
    }

    /// Bytes that it got from peers and from the origin, if it tells.
    pub async fn bytes_by_source(&self) -> (Option<u64>, Option<u64>) {
        bytes_by_source(self.admin).await
    }
}

/// Bytes that the agent with this admin server got from peers and from the origin, if it tells.
pub(crate) async fn bytes_by_source(admin: SocketAddr) -> (Option<u64>, Option<u64>) {
    let metrics = page(admin, "/metrics").await.unwrap_or_default();
    let led = sample(&metrics, "shoal_exchange_origin_bytes_total");
    // A counter with labels has no sample before it counts.
    let passed = sample(&metrics, "shoal_content_bytes_total{source=\"origin\"}").unwrap_or(0);
    (sample(&metrics, "shoal_exchange_received_bytes_total"), led.map(|led| led + passed))
}

/// A sample of a page of metrics, by its name and labels.
fn sample(metrics: &str, name: &str) -> Option<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Pulls an image as a runtime does and throws it away, verified.
///
/// # Errors
/// The client's.
pub async fn pull(client: &Client, image: &ImageName, progress: &Progress) -> Result<(), PullError> {
    let found = client.image(image, &Platform::of_this_machine()).await?;
    progress.expect(found.blob_bytes());
    stream::iter(found.blobs.iter().map(Ok))
        .try_for_each_concurrent(PARALLEL_BLOBS, |blob| async move {
            client.blob(image, blob, &mut tokio::io::sink(), progress).await
        })
        .await
}

/// A page of an admin server: it answers one request a connection.
pub(crate) async fn page(address: SocketAddr, path: &str) -> Result<String> {
    let read = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(PAGE, read).await.context("no answer")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_their_whole_name() {
        let metrics = "# HELP shoal_a_bytes Bytes\n# TYPE shoal_a_bytes counter\nshoal_a_bytes_total_more 1\n\
            shoal_a_bytes_total 700\nshoal_b_bytes_total{source=\"origin\"} 30\n# EOF\n";
        for (name, value) in [
            ("shoal_a_bytes_total", Some(700)),
            ("shoal_b_bytes_total{source=\"origin\"}", Some(30)),
            ("shoal_b_bytes_total", None),
        ] {
            assert_eq!(sample(metrics, name), value, "{name}");
        }
    }
}
