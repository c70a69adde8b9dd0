//! The origin registry of a run: one with an image `lab/image:1`, in a process of its own.
//!
//! | which | what for |
//! |---|---|
//! | Debian's docker-registry | what people run; nothing of ours is in its bytes' way |
//! | the embedded one | where that one can't be had, and for what only this one has |
//!
//! State: that process. Invariants: it ends with its owner. Absent on purpose: limits on its bytes; the network has them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{TryStreamExt, stream};
use shoal_agent::pull::{Client, MirrorUrl, Platform, Progress};
use shoal_oci::ImageName;
use shoal_oci::testing::{Content, Options, Registry};
use shoal_types::Digest;
use tokio::fs::File;
use tokio::time::timeout;

use super::workers::{Job, Worker, heard};
use crate::network::Place;
use crate::processes::Fleet;
use crate::registry::DockerRegistry;
use crate::units::Size;

/// docker-registry listens at once.
const READY: Duration = Duration::from_secs(30);

/// What the origin is to have.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Contents {
    /// The image's size.
    pub(super) size: Size,
    /// In how many layers.
    pub(super) layers: u32,
    /// Besides, in `lab/small`, so many blobs of a KiB.
    pub(super) small: u32,
    /// Where the image's blobs are to be as files too, for who compares.
    #[arg(long)]
    pub(super) blobs: Option<PathBuf>,
}

/// Which registry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debian's docker-registry.
    Registry,
    /// The one of the tests, in this program.
    Embedded,
}

/// A registry that runs.
pub(super) struct Origin {
    process: Process,
    /// Its image, by a name that clients reach it at.
    pub(super) image: ImageName,
    /// Where its API is.
    pub(super) url: MirrorUrl,
    /// The bytes of the image's blobs.
    pub(super) bytes: u64,
}

enum Process {
    Embedded(Box<Job>),
    /// The log has a line for each request.
    Registry {
        _fleet: Fleet,
        log: PathBuf,
    },
}

impl Origin {
    /// Starts the embedded one.
    pub(super) async fn start(place: &Place, contents: Contents) -> Result<Self> {
        let listen = SocketAddr::from((place.address, 5000));
        let mut job = Job::start(place, &Worker::Origin { listen, contents })?;
        let bytes = job.line().await?.parse().context("the origin doesn't tell its image's size")?;
        Self::of(Process::Embedded(Box::new(job)), listen, bytes)
    }

    /// Starts docker-registry, with its storage in this directory.
    pub(super) async fn start_registry(place: &Place, contents: Contents, directory: &Path) -> Result<Self> {
        let listen = SocketAddr::from((place.address, 5000));
        let of_registry = directory.join("origin");
        let (registry, image) = tokio::task::spawn_blocking(move || -> Result<_> {
            let registry = DockerRegistry::new(&of_registry, listen).context("give --origin embedded to do without")?;
            let image = registry.store("lab/image", "1", &contents.size.split(contents.layers), 1)?;
            if let Some(blobs) = contents.blobs {
                std::fs::create_dir_all(&blobs).context("a directory for the blobs can't be made")?;
                for blob in image.layers.iter().chain([&image.config]) {
                    std::os::unix::fs::symlink(registry.blob(&blob.digest), blobs.join(blob.digest.to_string()))?;
                }
            }
            Ok((registry, image))
        })
        .await??;
        let mut fleet = Fleet::new(directory);
        fleet.start("origin", &place.within(&registry.command()))?;
        let mut listens = Job::start(place, &Worker::Ready { address: listen, page: "/v2/".to_owned() })?;
        fleet.during(async { timeout(READY, listens.line()).await.context("docker-registry doesn't listen")? }).await?;
        let process = Process::Registry { _fleet: fleet, log: directory.join("origin.log") };
        Self::of(process, listen, image.blob_bytes())
    }

    fn of(process: Process, listen: SocketAddr, bytes: u64) -> Result<Self> {
        Ok(Self { process, image: format!("{listen}/lab/image:1").parse()?, url: url(listen)?, bytes })
    }

    /// How many requests for manifests it has had.
    pub(super) async fn manifest_requests(&mut self) -> Result<u64> {
        match &mut self.process {
            Process::Embedded(job) => {
                job.go().await?;
                job.line().await?.parse().context("the origin doesn't tell its requests")
            }
            Process::Registry { log, .. } => {
                let log = tokio::fs::read_to_string(log).await.context("the origin's log can't be read")?;
                Ok(DockerRegistry::manifest_requests(&log))
            }
        }
    }
}

/// The origin's own part. It says the bytes of its image, then for each line that it hears how many requests for manifests there were.
pub(super) async fn serve(listen: SocketAddr, contents: &Contents) -> Result<()> {
    let registry = Registry::start(Options { listen: Some(listen), ..Options::default() }).await?;
    let image = registry.push_image(&"lab/image".parse()?, "1", &contents.size.split(contents.layers), 1);
    let small = "lab/small".parse()?;
    for ix in 0..contents.small {
        registry.push_blob(&small, small_blob(ix));
    }
    if let Some(directory) = &contents.blobs {
        write_blobs(listen, directory).await?;
    }
    println!("{}", image.blob_bytes());
    while heard().await? {
        println!("{}", registry.traffic(|path| path.contains("/manifests/")).requests);
    }
    Ok(())
}

/// The digest of one of the small blobs.
pub(super) fn small_digest(ix: u32) -> Digest {
    small_blob(ix).digest()
}

fn small_blob(ix: u32) -> Content {
    Content::random(u64::from(ix), 1 << 10)
}

async fn write_blobs(listen: SocketAddr, directory: &Path) -> Result<()> {
    tokio::fs::create_dir_all(directory).await.context("a directory for the blobs can't be made")?;
    let (client, name) = (Client::new(url(listen)?, None), format!("{listen}/lab/image:1").parse()?);
    let image = client.image(&name, &Platform::of_this_machine()).await?;
    let (client, name) = (&client, &name);
    stream::iter(image.blobs.iter().map(anyhow::Ok))
        .try_for_each(|blob| async move {
            let mut file = File::create(directory.join(blob.digest.to_string())).await?;
            Ok(client.blob(name, blob, &mut file, &Progress::default()).await?)
        })
        .await
}

fn url(listen: SocketAddr) -> Result<MirrorUrl> {
    format!("http://{listen}").parse().map_err(anyhow::Error::msg)
}
