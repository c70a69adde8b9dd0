//! What the lab starts in its namespaces: this same program with another command, which it hears by lines.
//!
//! State: a child for each job. Invariants: a job that is dropped is killed. Absent on purpose: users; the commands are hidden.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser as _, Subcommand};
use shoal_agent::cli::Cli;
use shoal_agent::pull::{Client, MirrorUrl, Progress};
use shoal_oci::ImageName;
use shoal_oci::testing::{Options, Registry};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::sleep;

use super::goodput;
use super::network::Place;
use crate::nodes;
use crate::units::Size;

/// A job's command.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Worker {
    /// The origin registry, with an image `lab/image:1`. Says the bytes of its blobs in the file when it listens.
    #[command(hide = true)]
    Origin { listen: SocketAddr, size: Size, layers: u32, ready: PathBuf },
    /// A client: says `ready`, waits for a line, pulls, says `done`.
    #[command(hide = true)]
    Client { mirror: MirrorUrl, image: ImageName },
    /// Waits until an agent serves, and says `ready`.
    #[command(hide = true)]
    Ready { admin: SocketAddr },
    /// The agent, for this package's tests: of all programs they find only this package's.
    #[command(hide = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// One flow's sender.
    #[command(hide = true)]
    Send { listen: SocketAddr, bytes: u64 },
    /// One flow's receiver: says the seconds.
    #[command(hide = true)]
    Receive { from: SocketAddr },
}

impl Worker {
    /// Does it.
    pub(super) async fn run(&self) -> Result<()> {
        match self {
            Self::Origin { listen, size, layers, ready } => {
                let registry = Registry::start(Options { listen: Some(*listen), ..Options::default() }).await?;
                let image = registry.push_image(&"lab/image".parse()?, "1", &size.split(*layers), 1);
                tokio::fs::write(ready, image.blob_bytes().to_string()).await?;
                std::future::pending().await
            }
            Self::Client { mirror, image } => {
                println!("ready");
                tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
                nodes::pull(&Client::new(mirror.clone(), None), image, &Progress::default()).await?;
                println!("done");
                Ok(())
            }
            Self::Agent { arguments } => {
                let line = [OsString::from("shoal-agent")].into_iter().chain(arguments.iter().cloned());
                Ok(Box::pin(Cli::parse_from(line).execute()).await?)
            }
            Self::Ready { admin } => {
                while nodes::page(*admin, "/readyz").await.is_err() {
                    sleep(Duration::from_millis(50)).await;
                }
                println!("ready");
                Ok(())
            }
            Self::Send { listen, bytes } => goodput::send(*listen, *bytes).await,
            Self::Receive { from } => goodput::receive(*from).await,
        }
    }

    /// Its command line.
    pub(super) fn command(&self) -> Result<Vec<OsString>> {
        let words: Vec<OsString> = match self {
            Self::Origin { listen, size, layers, ready } => {
                vec![
                    "origin".into(),
                    listen.to_string().into(),
                    size.to_string().into(),
                    layers.to_string().into(),
                    ready.into(),
                ]
            }
            Self::Client { mirror, image } => {
                vec!["client".into(), mirror.to_string().into(), image.to_string().into()]
            }
            Self::Ready { admin } => vec!["ready".into(), admin.to_string().into()],
            Self::Agent { arguments } => {
                [OsString::from("agent")].into_iter().chain(arguments.iter().cloned()).collect()
            }
            Self::Send { listen, bytes } => vec!["send".into(), listen.to_string().into(), bytes.to_string().into()],
            Self::Receive { from } => vec!["receive".into(), from.to_string().into()],
        };
        let own = std::env::current_exe().context("this program's own path is unknown")?;
        Ok([own.into()].into_iter().chain(words).collect())
    }
}

/// A job that runs in a place.
pub(super) struct Job {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    what: String,
}

impl Job {
    /// Starts one.
    pub(super) fn start(place: &Place, worker: &Worker) -> Result<Self> {
        let command = place.within(&worker.command()?);
        let (program, arguments) = command.split_first().context("nothing to start")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("a job can't be started")?;
        let stdin = child.stdin.take().context("a job without input")?;
        let stdout = child.stdout.take().context("a job without output")?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines(), what: format!("{worker:?}") })
    }

    /// The next line that it says; what it says in its place when it fails.
    pub(super) async fn line(&mut self) -> Result<String> {
        if let Some(line) = self.lines.next_line().await? {
            return Ok(line);
        }
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            tokio::io::AsyncReadExt::read_to_string(&mut BufReader::new(stderr), &mut said).await?;
        }
        Err(anyhow!("{} failed: {}", self.what, said.trim().replace('\n', "; ")))
    }

    /// Lets it go on.
    pub(super) async fn go(&mut self) -> Result<()> {
        self.stdin.write_all(b"go\n").await.context("a job has ended")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Options as Lab;
    use super::*;

    #[test]
    fn a_jobs_command_line_is_read_as_it_was_meant() {
        let address: SocketAddr = "10.77.0.1:5000".parse().unwrap();
        for worker in [
            Worker::Origin { listen: address, size: "32MiB".parse().unwrap(), layers: 4, ready: "/tmp/ready".into() },
            Worker::Client {
                mirror: "http://10.77.0.1:5000".parse().unwrap(),
                image: "r.io/lab/image:1".parse().unwrap(),
            },
            Worker::Ready { admin: address },
            Worker::Agent { arguments: ["run", "--data-dir", "/d"].map(OsString::from).into() },
            Worker::Send { listen: address, bytes: 5 },
            Worker::Receive { from: address },
        ] {
            let read = Lab::try_parse_from(worker.command().unwrap()).unwrap().worker;
            assert_eq!(format!("{:?}", read.unwrap()), format!("{worker:?}"));
        }
    }
}
