//! A real containerd on each node, with nothing in it, and what it has in the end.
//!
//! State: the processes and a directory in memory. Invariants: both end with their owner; a pull that succeeded is believed when every blob was
//! hashed and every file of the layers is unpacked.
//! Absent on purpose: trying again. Whether a pull succeeds is what is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use shoal_oci::ImageName;

use super::client::Pulled;
use super::cluster::{MIRROR, name};
use super::workers::{Job, Worker};
use crate::containerd::{self, Containerd, Programs};
use crate::network::Place;
use crate::processes::Fleet;

/// containerd is there within a second; a few dozen on two cores take their time.
const READY: Duration = Duration::from_secs(60);

/// Whom the containerds ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through<'a> {
    /// The registry.
    Origin,
    /// The agents' mirrors, put in front by the agent's own program.
    Mirror(&'a Path),
}

/// The containerds of a round.
pub(super) struct Runtimes {
    fleet: Fleet,
    containerds: Vec<Containerd>,
    directory: PathBuf,
}

/// What a client of a containerd is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RuntimePull {
    /// The containerd's socket.
    pub(super) socket: PathBuf,
    /// The image's name.
    pub(super) image: ImageName,
}

impl Runtimes {
    /// Starts one on each node, and waits until they answer.
    pub(super) async fn start(
        places: &[Place],
        programs: &Programs,
        directory: PathBuf,
        registry: &str,
        through: Through<'_>,
    ) -> Result<Self> {
        std::fs::create_dir_all(&directory).context("a directory for the containerds can't be made")?;
        let mut runtimes = Self { fleet: Fleet::new(&directory), containerds: Vec::new(), directory };
        for (ix, place) in places.iter().enumerate() {
            let containerd = Containerd::new(programs, &runtimes.directory.join(name(ix)))?;
            match through {
                Through::Origin => containerd.ask_origin(registry)?,
                Through::Mirror(agent) => containerd.ask_mirror(&[agent.into()], MIRROR, registry)?,
            }
            runtimes.fleet.start(&service(ix), &place.within(&containerd.command()))?;
            runtimes.containerds.push(containerd);
        }
        for (ix, containerd) in runtimes.containerds.iter().enumerate() {
            runtimes.fleet.until(&service(ix), READY, async || containerd.is_ready().await).await?;
        }
        Ok(runtimes)
    }

    /// A client of each, in its node's place.
    pub(super) fn clients(&self, places: &[Place], image: &ImageName) -> Result<Vec<Job>> {
        let client = |containerd: &Containerd| {
            Worker::RuntimePull(RuntimePull { socket: containerd.socket(), image: image.clone() })
        };
        places.iter().zip(&self.containerds).map(|(place, containerd)| Job::start(place, &client(containerd))).collect()
    }

    /// Their sockets, in the nodes' order.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        self.containerds.iter().map(Containerd::socket).collect()
    }

    /// Whether each of the first ones keeps the image of layers of these sizes, all of it and nothing wrong, and has unpacked it.
    pub(super) async fn check(&self, count: usize, layer_bytes: &[u64]) -> Result<()> {
        let audits = self.containerds.iter().take(count).map(|containerd| {
            let kept = containerd.kept();
            tokio::task::spawn_blocking(move || kept.audit())
        });
        for (ix, audit) in try_join_all(audits).await?.into_iter().enumerate() {
            let audit = audit?;
            ensure!(audit.is_whole(layer_bytes), "{}'s containerd doesn't have what it says: {audit:?}", name(ix));
        }
        Ok(())
    }

    /// Ends them, and forgets what they have.
    pub(super) async fn end(mut self, keep: bool) -> Result<()> {
        self.fleet.end().await;
        if keep {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.directory).context("the containerds' directory can't be removed")
    }
}

impl RuntimePull {
    /// Has the image pulled and unpacked, once, and says how that went.
    pub(super) async fn run(&self) -> Pulled {
        match containerd::pull(&self.socket, &self.image).await {
            Ok(()) => Pulled::default(),
            Err(error) => Pulled { failures: 1, error: Some(format!("{error:#}")), ..Pulled::default() },
        }
    }

    /// Its command line's words.
    pub(super) fn words(&self) -> Vec<std::ffi::OsString> {
        vec![self.socket.clone().into(), self.image.to_string().into()]
    }
}

fn service(ix: usize) -> String {
    format!("containerd-{ix}")
}
