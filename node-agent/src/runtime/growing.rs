//! The bytes of a blob that the runtime is downloading, as they come: a lead's source where only the runtime may read the origin.
//!
//! ```text
//!   no ingest ──> ingest, empty ──> grows ──> committed: the blob itself
//!       └── 2 s ──────┴── 15 s ───────┴── 15 s without a byte ──> none: the runtime doesn't download it
//! ```
//!
//! State: the open file, and how far it was read.
//! Invariants: bytes come in order from where they are wanted, each once; every wait ends.
//! Absent on purpose: trust. The chain is built over these bytes, and its end is the digest.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use shoal_store::containerd::{ContentStore, Growth, Ingest};
use shoal_types::Digest;
use tokio::time::{Instant, sleep};

/// What is read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// A chunk of 64 KiB comes in 5 ms at 100 Mbit/s. A look is two system calls.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// containerd opens the ingest before it asks anybody for the blob.
const BEGUN_WITHIN: Duration = Duration::from_secs(2);
/// A runtime that goes on at the origin has to be let in there first, and a registry may be slow to begin.
const GROWS_WITHIN: Duration = Duration::from_secs(15);

/// A blob that the runtime downloads.
pub(crate) struct Growing {
    content: ContentStore,
    digest: Digest,
    left: Range<u64>,
    ingest: Option<Ingest>,
}

/// One look.
enum Look {
    Bytes(Bytes),
    Empty,
    Absent,
}

impl Growing {
    /// This range of it.
    pub(crate) const fn new(content: ContentStore, digest: Digest, range: Range<u64>) -> Self {
        Self { content, digest, left: range, ingest: None }
    }

    /// The next bytes; none, when the runtime doesn't download the blob (any more), or no more are wanted.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let since = Instant::now();
        while !self.left.is_empty() {
            let (content, digest, ingest, left) =
                (self.content.clone(), self.digest, self.ingest.take(), self.left.clone());
            let looked = tokio::task::spawn_blocking(move || look(&content, &digest, ingest, &left)).await.ok()?;
            let within = match looked {
                (Look::Bytes(bytes), ingest) => {
                    self.ingest = ingest;
                    self.left.start += bytes.len() as u64;
                    return Some(bytes);
                }
                (Look::Empty, ingest) => {
                    self.ingest = ingest;
                    GROWS_WITHIN
                }
                (Look::Absent, _) => BEGUN_WITHIN,
            };
            if since.elapsed() >= within {
                return None;
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }
}

/// What there is now, and the file for the next look.
fn look(content: &ContentStore, digest: &Digest, ingest: Option<Ingest>, left: &Range<u64>) -> (Look, Option<Ingest>) {
    read(content, digest, ingest, left).unwrap_or_else(|error| {
        tracing::debug!(%digest, %error, "the runtime's download can't be read");
        (Look::Absent, None)
    })
}

fn read(
    content: &ContentStore,
    digest: &Digest,
    ingest: Option<Ingest>,
    left: &Range<u64>,
) -> std::io::Result<(Look, Option<Ingest>)> {
    let length = PIECE_BYTES.min(left.end - left.start);
    let mut bytes = vec![0; usize::try_from(length).expect("a piece fits")];
    let found = match ingest {
        Some(ingest) => Some(ingest),
        None => content.ingest(digest)?,
    };
    let Some(mut ingest) = found else {
        // It may have come between two looks.
        let Some(blob) = content.blob(digest)? else { return Ok((Look::Absent, None)) };
        blob.read_at(left.start, &mut bytes)?;
        return Ok((Look::Bytes(bytes.into()), None));
    };
    Ok(match ingest.read_at(left.start, &mut bytes)? {
        Growth::Bytes(count) => {
            bytes.truncate(count);
            (Look::Bytes(bytes.into()), Some(ingest))
        }
        Growth::Waiting => (Look::Empty, Some(ingest)),
        // The next try has a file of its own; what is committed and ends too early isn't the blob.
        Growth::Vanished | Growth::End => (Look::Absent, None),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn what_is_downloaded_is_followed_over_its_commit() {
        let dir = Dir(std::env::temp_dir().join(format!("shoal-growing-{}", std::process::id())));
        let (ingest, blobs) = (dir.0.join("ingest/one"), dir.0.join("blobs/sha256"));
        std::fs::create_dir_all(&ingest).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        let digest = Digest::Sha256([0xab; 32]);
        std::fs::write(ingest.join("ref"), format!("k8s.io/1/layer-{digest}")).unwrap();
        let mut data = std::fs::File::create(ingest.join("data")).unwrap();
        let content = ContentStore::open(&dir.0).unwrap();
        let mut growing = Growing::new(content.clone(), digest, 2..600_000);
        data.write_all(&[1; 1_000]).unwrap();
        assert_eq!(growing.next().await.unwrap().len(), 998);
        let rest = tokio::task::spawn_blocking(move || {
            std::thread::sleep(LOOK_EVERY * 3);
            data.write_all(&vec![2; 599_000]).unwrap();
            std::fs::rename(ingest.join("data"), blobs.join("ab".repeat(32))).unwrap();
            std::fs::remove_dir_all(ingest).unwrap();
        });
        let mut length = 998;
        while let Some(bytes) = growing.next().await {
            assert!(bytes.iter().all(|byte| *byte == 2));
            length += bytes.len();
        }
        rest.await.unwrap();
        assert_eq!(length, 599_998);
        // A run that begins when all is there.
        let mut again = Growing::new(content, digest, 599_990..600_000);
        assert_eq!(again.next().await.unwrap().len(), 10);
        assert!(again.next().await.is_none());
    }
}
