//! Ingests of blobs whose chain has failed: aborted, so that containerd's next try begins with nothing (RUNTIMES.md 27).
//!
//! State: the blobs whose ingests are being looked for, each for a bounded time.
//! Invariants: only ingests that name the blob and began before its chain failed are aborted; a fresh try isn't disturbed.
//! Absent on purpose: the readers. They were cut before this hears of it.

use std::time::{Duration, SystemTime};

use shoal_types::Digest;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Beside;
use super::api::{Api, IngestStatus};
use super::grpc::CallError;

/// containerd may hold an ingest for a moment, or be restarting: afterwards nobody would know any more.
const TRY_FOR: Duration = Duration::from_secs(60);
const TRY_EVERY: Duration = Duration::from_millis(250);

/// So many looks in a row have to find none: a client that goes on at the origin may open an ingest between two of them.
const CLEAN_LOOKS: u32 = 3;

/// Blobs at a time: a failed chain is rare, more are an attack, and their ingests wait.
const AT_ONCE: usize = 16;

/// Aborts the ingests of every blob that is reported; does so until nobody reports any more.
pub(super) async fn abort_spoilt(mut spoilt: broadcast::Receiver<Digest>, beside: watch::Receiver<Option<Beside>>) {
    let mut aborting = JoinSet::new();
    loop {
        if aborting.len() >= AT_ONCE {
            aborting.join_next().await;
        }
        match spoilt.recv().await {
            Ok(digest) => drop(aborting.spawn(abort_all(digest, SystemTime::now(), beside.clone()))),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::error!(
                    missed,
                    "more chains failed than could be followed: restart containerd if its pulls fail"
                );
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
        while aborting.try_join_next().is_some() {}
    }
    while aborting.join_next().await.is_some() {}
}

async fn abort_all(digest: Digest, failed_at: SystemTime, beside: watch::Receiver<Option<Beside>>) {
    let until = Instant::now() + TRY_FOR;
    let (mut clean, mut aborted) = (0, 0);
    let mut trouble = "containerd isn't there".to_owned();
    while Instant::now() < until {
        let current = beside.borrow().clone();
        if let Some(Beside { api, .. }) = current {
            match look(&api, &digest, failed_at).await {
                Ok(0) => clean += 1,
                Ok(found) => (clean, aborted) = (0, aborted + found),
                Err(error) => (clean, trouble) = (0, error.to_string()),
            }
        }
        if clean >= CLEAN_LOOKS {
            tracing::info!(%digest, aborted, "the blob's chain had failed: the runtime begins it anew");
            return;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
    tracing::error!(%digest, trouble, "the runtime's part of a wrong blob can't be aborted: restart containerd if its pulls of it fail");
}

/// Aborts what is there; how many.
async fn look(api: &Api, digest: &Digest, failed_at: SystemTime) -> Result<usize, CallError> {
    let ingests = api.ingests().await?;
    let spoilt: Vec<&IngestStatus> = ingests.iter().filter(|ingest| is_spoilt(ingest, digest, failed_at)).collect();
    for ingest in &spoilt {
        api.abort(&ingest.reference).await?;
    }
    Ok(spoilt.len())
}

/// An ingest's reference ends with the digest: `layer-sha256:…`.
fn is_spoilt(ingest: &IngestStatus, digest: &Digest, failed_at: SystemTime) -> bool {
    ingest.reference.contains(&digest.to_string()) && ingest.started <= failed_at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_ingests_of_the_blob_are_spoilt() {
        let digest = Digest::Sha256([0xab; 32]);
        let failed_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let ingest = |reference: String, started: u64| IngestStatus {
            reference,
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(started),
        };
        assert!(is_spoilt(&ingest(format!("layer-{digest}"), 999), &digest, failed_at));
        assert!(is_spoilt(&ingest(format!("manifest-latest@{digest}"), 999), &digest, failed_at));
        assert!(!is_spoilt(&ingest(format!("layer-{digest}"), 1001), &digest, failed_at), "the retry");
        let other = Digest::Sha256([0xac; 32]);
        assert!(!is_spoilt(&ingest(format!("layer-{other}"), 999), &digest, failed_at));
    }
}
