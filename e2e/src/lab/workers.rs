//! What the lab starts in its namespaces: this same program with another command, which it hears by lines.
//!
//! State: a child for each job. Invariants: a job that is dropped is killed. Absent on purpose: users; the commands are hidden.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser as _, Subcommand};
use serde_json::Value;
use shoal_agent::cli::Cli;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::sleep;

use super::bench::{Fetch, Reference, Small};
use super::client::Pull;
use super::goodput;
use super::liar::Liar;
use super::origin::{self, Contents};
use super::runtimes::RuntimePull;
use crate::network::Place;
use crate::nodes::{self, Node, Tracker};

/// A page that an agent renews each second has been renewed by then.
const RENEWED: Duration = Duration::from_millis(1200);

/// A job's command.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Worker {
    /// The origin registry.
    #[command(hide = true)]
    Origin {
        listen: SocketAddr,
        #[command(flatten)]
        contents: Contents,
    },
    /// Waits until this page is there, and says `ready`.
    #[command(hide = true)]
    Ready { address: SocketAddr, page: String },
    /// The agent, for this package's tests: of all programs they find only this package's.
    #[command(hide = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// A client: says `ready`, waits for a line, pulls, says how it went.
    #[command(hide = true)]
    Client(Pull),
    /// A client of a containerd: the same.
    #[command(hide = true)]
    RuntimePull(RuntimePull),
    /// A receiver that nobody reads from: the same with the exchange's figures.
    #[command(hide = true)]
    Fetch(Fetch),
    /// The same with curl and openssl: says their CPU seconds.
    #[command(hide = true)]
    Reference(Reference),
    /// A client of small blobs.
    #[command(hide = true)]
    Small(Small),
    /// An agent that lies to its peers.
    #[command(hide = true)]
    Liar(Liar),
    /// Says what an agent's exchange has seen, as JSON.
    #[command(hide = true)]
    Exchange { admin: SocketAddr },
    /// One flow's sender.
    #[command(hide = true)]
    Send { listen: SocketAddr, bytes: u64 },
    /// One flow's receiver: says the bytes a second.
    #[command(hide = true)]
    Receive { from: SocketAddr, unmeasured: u64 },
}

impl Worker {
    /// A liar in the place of this node.
    pub(super) fn liar(node: &Node, tracker: &Tracker) -> Self {
        Self::Liar(Liar::new(node, tracker))
    }

    /// Does it.
    pub(super) async fn run(&self) -> Result<()> {
        match self {
            Self::Origin { listen, contents } => origin::serve(*listen, contents).await,
            Self::Client(pull) => {
                println!("ready");
                heard().await?;
                println!("{}", serde_json::to_string(&pull.run().await)?);
                Ok(())
            }
            Self::RuntimePull(pull) => {
                println!("ready");
                heard().await?;
                println!("{}", serde_json::to_string(&pull.run().await)?);
                Ok(())
            }
            Self::Fetch(fetch) => {
                println!("ready");
                heard().await?;
                fetch.run().await
            }
            Self::Reference(reference) => {
                println!("ready");
                heard().await?;
                reference.run().await
            }
            Self::Small(small) => small.run().await,
            Self::Liar(liar) => liar.run().await,
            Self::Agent { arguments } => {
                let line = [OsString::from("shoal-agent")].into_iter().chain(arguments.iter().cloned());
                Ok(Box::pin(Cli::parse_from(line).execute()).await?)
            }
            Self::Ready { address, page } => {
                while nodes::page(*address, page).await.is_err() {
                    sleep(Duration::from_millis(50)).await;
                }
                println!("ready");
                Ok(())
            }
            Self::Exchange { admin } => {
                sleep(RENEWED).await;
                let page: Value = serde_json::from_str(&nodes::page(*admin, "/debug/swarms").await?)?;
                println!("{page}");
                Ok(())
            }
            Self::Send { listen, bytes } => goodput::send(*listen, *bytes).await,
            Self::Receive { from, unmeasured } => goodput::receive(*from, *unmeasured).await,
        }
    }

    /// Its command line.
    pub(super) fn command(&self) -> Result<Vec<OsString>> {
        let (mut words, blobs) = match self {
            Self::Origin { listen, contents } => {
                let Contents { size, layers, small, blobs } = contents;
                (texts(&[&"origin", listen, size, layers, small]), blobs.as_deref())
            }
            Self::Client(Pull { mirror, image, blobs }) => (texts(&[&"client", mirror, image]), blobs.as_deref()),
            Self::Fetch(Fetch { mirror, image, admin }) => (texts(&[&"fetch", mirror, image, admin]), None),
            Self::Reference(Reference { url, file }) => {
                ([texts(&[&"reference", url]), vec![file.into()]].concat(), None)
            }
            Self::Small(Small { mirror, image, count }) => (texts(&[&"small", mirror, image, count]), None),
            Self::RuntimePull(pull) => ([texts(&[&"runtime-pull"]), pull.words()].concat(), None),
            Self::Liar(liar) => ([texts(&[&"liar"]), liar.words()].concat(), None),
            Self::Ready { address, page } => (texts(&[&"ready", address, page]), None),
            Self::Agent { arguments } => ([texts(&[&"agent"]), arguments.clone()].concat(), None),
            Self::Exchange { admin } => (texts(&[&"exchange", admin]), None),
            Self::Send { listen, bytes } => (texts(&[&"send", listen, bytes]), None),
            Self::Receive { from, unmeasured } => (texts(&[&"receive", from, unmeasured]), None),
        };
        words.extend(blobs.into_iter().flat_map(|path: &Path| ["--blobs".into(), path.into()]));
        let own = std::env::current_exe().context("this program's own path is unknown")?;
        Ok([own.into()].into_iter().chain(words).collect())
    }
}

fn texts(words: &[&dyn ToString]) -> Vec<OsString> {
    words.iter().map(|word| word.to_string().into()).collect()
}

/// Waits for a line; whether one came, and not the end.
pub(super) async fn heard() -> Result<bool> {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    Ok(read.await?.context("nothing can be heard")? > 0)
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
        Self::spawn(place, &worker.command()?, format!("{worker:?}"))
    }

    /// Starts any program that speaks by lines; `what` names it in an error.
    pub(super) fn spawn(place: &Place, command: &[OsString], what: String) -> Result<Self> {
        let command = place.within(command);
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
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines(), what })
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

    /// Its process, unless it has been waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it go on.
    pub(super) async fn go(&mut self) -> Result<()> {
        self.stdin.write_all(b"go\n").await.context("a job has ended")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shoal_agent::pull::MirrorUrl;
    use shoal_oci::ImageName;

    use super::super::Options as Lab;
    use super::*;

    #[test]
    fn a_jobs_command_line_is_read_as_it_was_meant() {
        let address: SocketAddr = "10.77.0.1:5000".parse().unwrap();
        let mirror: MirrorUrl = "http://10.77.0.1:5000".parse().unwrap();
        let image: ImageName = "r.io/lab/image:1".parse().unwrap();
        let node = Node {
            name: "node-1".to_owned(),
            mirror: address,
            peers: address,
            admin: address,
            data: "/tmp/a b".into(),
            rate: None,
        };
        let tracker = Tracker { listen: address, swarm: "s".into(), token: "t".into(), data: "d".into() };
        for worker in [
            Worker::Origin {
                listen: address,
                contents: Contents {
                    size: "32MiB".parse().unwrap(),
                    layers: 4,
                    small: 7,
                    blobs: Some("/tmp/a".into()),
                },
            },
            Worker::RuntimePull(RuntimePull { socket: "/tmp/a b".into(), image: "r.io/lab/image:1".parse().unwrap() }),
            Worker::Ready { address, page: "/readyz".to_owned() },
            Worker::Agent { arguments: ["run", "--data-dir", "/d"].map(OsString::from).into() },
            Worker::Client(Pull { mirror: mirror.clone(), image: image.clone(), blobs: None }),
            Worker::Fetch(Fetch { mirror: mirror.clone(), image: image.clone(), admin: address }),
            Worker::Reference(Reference { url: "http://10.77.0.1/a".to_owned(), file: "/tmp/a b".into() }),
            Worker::Small(Small { mirror: mirror.clone(), image: image.clone(), count: 3 }),
            Worker::liar(&node, &tracker),
            Worker::Exchange { admin: address },
            Worker::Send { listen: address, bytes: 5 },
            Worker::Receive { from: address, unmeasured: 5 },
        ] {
            let read = Lab::try_parse_from(worker.command().unwrap()).unwrap().worker;
            assert_eq!(format!("{:?}", read.unwrap()), format!("{worker:?}"));
        }
    }
}
