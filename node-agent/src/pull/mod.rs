//! `shoal-agent pull`: an image through the local mirror, as a runtime would fetch it, into a directory.
//!
//! ```text
//! HEAD the tag ──> GET the manifest by its digest ──> (an index: the platform's manifest) ──> configuration and layers, three at a time
//! ```
//!
//! State: none beyond one pull.
//! Invariants: what is in the directory under a digest has that digest. The image is listed in `index.json` when all of it is there.
//! Absent on purpose: the origin. A runtime goes on there when the mirror gives up, in the middle of a layer if need be; this client resumes
//! at the mirror only, because it is there to show what the mirror does, and says so when it ends. TLS is absent too: the mirror is on loopback.

mod checksum;
mod client;
mod error;
mod layout;
mod platform;
mod request;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{TryStreamExt, stream};
use http::HeaderValue;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use shoal_oci::ImageName;
use shoal_oci::manifest::Descriptor;

pub use self::client::{Client, Image, PARALLEL_BLOBS};
pub use self::error::PullError;
use self::layout::Layout;
pub use self::platform::Platform;
pub use self::request::MirrorUrl;
use crate::mirror::{Token, TokenError};

/// What to pull, from where, to where.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// The image, for example docker.io/library/alpine:3.22.
    #[arg(value_name = "REF", env = "SHOAL_PULL_IMAGE")]
    pub image: ImageName,
    /// Where to: oci:DIR, an OCI image layout. It is made, or added to.
    #[arg(long, value_name = "oci:DIR", env = "SHOAL_PULL_TO")]
    pub to: Destination,
    /// The mirror.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9395", env = "SHOAL_MIRROR")]
    pub mirror: MirrorUrl,
    /// The platform to choose from an image for several, for example linux/arm64. By default this machine's.
    #[arg(long, value_name = "OS/ARCH", default_value_t = Platform::of_this_machine(), env = "SHOAL_PULL_PLATFORM")]
    pub platform: Platform,
    /// The file with the secret that the mirror asks for, if it does.
    #[arg(long, value_name = "FILE", env = "SHOAL_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where an image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(PathBuf);

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("oci:") {
            Some(directory) if !directory.is_empty() => Ok(Self(directory.into())),
            _ => Err("write oci:DIR, as in oci:./image"),
        }
    }
}

/// What has come of an image so far, for who shows it.
#[derive(Debug, Default)]
pub struct Progress {
    received_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Progress {
    /// Bytes of blobs that are here.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all blobs; 0 until the manifest is here.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// So many bytes more are here.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The manifest is here: so many bytes are to come.
    pub fn expect(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Pulls an image and says on the standard output what came.
///
/// # Errors
/// In one line: what failed, and what to do about it. Blobs that were complete stay in the directory and aren't fetched again.
pub async fn run(args: PullArgs) -> Result<(), PullError> {
    let started = Instant::now();
    let progress = Progress::default();
    let image = tokio::select! {
        image = pull(&args, &progress) => image?,
        never = show(&progress) => match never {},
        _ = tokio::signal::ctrl_c() => return Err(PullError::Interrupted),
    };
    println!(
        "{} {}: {} blobs, {} in {:.1} s, in {}",
        args.image,
        image.digest,
        image.blobs.len(),
        HumanBytes(image.blob_bytes()),
        started.elapsed().as_secs_f64(),
        args.to.0.display()
    );
    Ok(())
}

async fn pull(args: &PullArgs, progress: &Progress) -> Result<Image, PullError> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let layout = Layout::open(&args.to.0)?;
    let client = Client::new(args.mirror.clone(), token);
    let image = client.image(&args.image, &args.platform).await?;
    progress.expect(image.blob_bytes());
    stream::iter(image.blobs.iter().map(Ok))
        .try_for_each_concurrent(PARALLEL_BLOBS, |blob| fetch(&client, &args.image, blob, &layout, progress))
        .await?;
    layout.put(&image.digest, &image.body).await?;
    layout.list(&args.image, &image).await?;
    Ok(image)
}

async fn fetch(
    client: &Client,
    image: &ImageName,
    blob: &Descriptor,
    layout: &Layout,
    progress: &Progress,
) -> Result<(), PullError> {
    if layout.has(&blob.digest, blob.size_bytes).await? {
        progress.received(blob.size_bytes);
        return Ok(());
    }
    let mut incoming = layout.begin(&blob.digest).await?;
    client.blob(image, blob, incoming.file(), progress).await?;
    incoming.keep().await
}

/// The bar hides itself where there is no terminal.
async fn show(progress: &Progress) -> Infallible {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("## ");
    let bar = ProgressBar::new(0).with_style(style);
    let _cleared = ClearOnDrop(&bar);
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bar.set_length(progress.total_bytes());
        bar.set_position(progress.received_bytes());
    }
}

struct ClearOnDrop<'a>(&'a ProgressBar);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The secret in a file, as a header's value.
pub(crate) fn read_token(path: &Path) -> Result<HeaderValue, PullError> {
    let wrong = || PullError::Token { path: path.to_owned(), source: TokenError };
    let text = std::fs::read_to_string(path).map_err(PullError::io(path, "reading"))?;
    Token::new(text.trim()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(text.trim()).map_err(|_| wrong())?;
    // So that it never shows in a log.
    value.set_sensitive(true);
    Ok(value)
}
