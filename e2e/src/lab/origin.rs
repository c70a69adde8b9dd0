//! The origin registry of a run: one with an image `lab/image:1`, in a process of its own.
//!
//! State: that process. Invariants: it ends with its owner. Absent on purpose: limits on its bytes; the network has them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures_util::{TryStreamExt, stream};
use shoal_agent::pull::{Client, MirrorUrl, Platform, Progress};
use shoal_oci::ImageName;
use shoal_oci::testing::{Content, Options, Registry};
use shoal_types::Digest;
use tokio::fs::File;

use super::network::Place;
use super::workers::{Job, Worker, heard};
use crate::units::Size;

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

/// A registry that runs.
pub(super) struct Origin {
    job: Job,
    /// Its image, by a name that clients reach it at.
    pub(super) image: ImageName,
    /// Where its API is.
    pub(super) url: MirrorUrl,
    /// The bytes of the image's blobs.
    pub(super) bytes: u64,
}

impl Origin {
    /// Starts it.
    pub(super) async fn start(place: &Place, contents: Contents) -> Result<Self> {
        let listen = SocketAddr::from((place.address, 5000));
        let mut job = Job::start(place, &Worker::Origin { listen, contents })?;
        let bytes = job.line().await?.parse().context("the origin doesn't tell its image's size")?;
        let image = format!("{listen}/lab/image:1").parse()?;
        Ok(Self { job, image, url: url(listen)?, bytes })
    }

    /// How many requests for manifests it has had.
    pub(super) async fn manifest_requests(&mut self) -> Result<u64> {
        self.job.go().await?;
        self.job.line().await?.parse().context("the origin doesn't tell its requests")
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
