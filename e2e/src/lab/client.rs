//! A client on a node, as a runtime is one: it tries again what has failed, and can compare each byte that it is given.
//!
//! State: none beyond one pull. Invariants: bytes are compared as they come, so also those of a body that is cut later are counted.
//! Absent on purpose: the origin. A runtime would go on there; here it is counted as a failure.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use anyhow::Result;
use futures_util::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use shoal_agent::pull::{Client, MirrorUrl, PARALLEL_BLOBS, Platform, Progress};
use shoal_oci::ImageName;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::nodes;

/// How often a pull is tried: the kubelet would go on for ever.
const TRIES: u32 = 5;

/// What is pulled.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Pull {
    /// From where.
    pub(super) mirror: MirrorUrl,
    /// Its name.
    pub(super) image: ImageName,
    /// The right blobs, to compare with.
    #[arg(long)]
    pub(super) blobs: Option<PathBuf>,
}

/// How a pull went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Pulled {
    /// Tries that failed.
    pub(super) failures: u32,
    /// Wrong bytes that were given to this client, if it has compared them.
    pub(super) wrong_bytes: u64,
    /// Why it was given up, if it was.
    pub(super) error: Option<String>,
}

impl Pull {
    /// Pulls, tries again, and says how that went.
    pub(super) async fn run(&self) -> Pulled {
        let (client, wrong) = (Client::new(self.mirror.clone(), None), Arc::new(AtomicU64::new(0)));
        let mut pulled = Pulled::default();
        while pulled.failures < TRIES {
            match self.once(&client, &wrong).await {
                Ok(()) => {
                    pulled.error = None;
                    break;
                }
                Err(error) => pulled.error = Some(format!("{error:#}")),
            }
            pulled.failures += 1;
        }
        pulled.wrong_bytes = wrong.load(Ordering::Relaxed);
        pulled
    }

    async fn once(&self, client: &Client, wrong: &Arc<AtomicU64>) -> Result<()> {
        let Some(right) = &self.blobs else {
            return Ok(nodes::pull(client, &self.image, &Progress::default()).await?);
        };
        let found = client.image(&self.image, &Platform::of_this_machine()).await?;
        stream::iter(found.blobs.iter().map(anyhow::Ok))
            .try_for_each_concurrent(PARALLEL_BLOBS, |blob| async move {
                let mut compared = Compared::new(&right.join(blob.digest.to_string()), wrong)?;
                client.blob(&self.image, blob, &mut compared, &Progress::default()).await?;
                Ok(compared.shutdown().await?)
            })
            .await
    }
}

/// Takes a blob's bytes and counts those that aren't what they should be.
struct Compared {
    right: File,
    wrong: Arc<AtomicU64>,
}

impl Compared {
    fn new(right: &Path, wrong: &Arc<AtomicU64>) -> io::Result<Self> {
        Ok(Self { right: File::open(right)?, wrong: Arc::clone(wrong) })
    }
}

impl AsyncWrite for Compared {
    /// The right bytes are in memory: reading them blocks nobody.
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut right = vec![0; bytes.len()];
        self.right.read_exact(&mut right)?;
        let wrong = bytes.iter().zip(&right).filter(|(byte, right)| byte != right).count();
        self.wrong.fetch_add(wrong as u64, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wrong_bytes_are_counted() {
        let path = std::env::temp_dir().join(format!("shoal-e2e-compared-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let wrong = Arc::new(AtomicU64::new(0));
        let mut compared = Compared::new(&path, &wrong).unwrap();
        compared.write_all(b"0123").await.unwrap();
        assert_eq!(wrong.load(Ordering::Relaxed), 0);
        compared.write_all(b"4x6y").await.unwrap();
        assert_eq!(wrong.load(Ordering::Relaxed), 2);
        assert!(compared.write_all(b"8901").await.is_err(), "longer than it is");
        std::fs::remove_file(path).unwrap();
    }
}
