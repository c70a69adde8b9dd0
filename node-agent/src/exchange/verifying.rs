//! Verification of what has come: a few threads that hash chunks and write them to the store.
//!
//! The pool for tasks that block would start a thread for every chunk that waits, and each thread keeps memory of its own: on a busy machine
//! an agent grew by 100 MiB.
//!
//! State: the chunks that wait, in the order in which they came; how many bytes came and aren't taken in yet.
//! Invariants: a chunk that was handed in is reported once. While more than [`BACKLOG_BYTES`] wait to be verified or for the room,
//! connections and leads take nothing more in ([`Backlog`]), so that senders feel a slow disk. The threads end with the queue's owner.
//! Absent on purpose: what follows from an outcome.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shoal_chain::{Link, verify_chunk};
use shoal_store::StoreError;
use shoal_swarm::VerifyTicket;
use shoal_types::BlobInfo;
use tokio::sync::{mpsc, watch};

use super::blobs::Shelf;
use super::room::{Done, Outcome};

/// Two keep up with 10 Gbit/s; others of this node need cores as well.
const MOST_THREADS: usize = 4;

/// Four of the largest chunks.
const BACKLOG_BYTES: usize = 16 << 20;

/// How many bytes wait. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Backlog(Arc<watch::Sender<usize>>);

/// Bytes that count as waiting until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    backlog: Backlog,
    bytes: usize,
}

/// A chunk to verify.
pub(super) struct Job {
    pub(super) ticket: VerifyTicket,
    pub(super) blob: BlobInfo,
    pub(super) bytes: Bytes,
    pub(super) before: Link,
    pub(super) after: Link,
    pub(super) shelf: Shelf,
}

/// The threads. They end when this is dropped.
pub(super) struct Verifiers {
    queue: Arc<Queue>,
    backlog: Backlog,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Job, Waiting)>,
    idle: usize,
    closed: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Backlog {
    /// Waits until there is room for more.
    pub(super) async fn has_room(&self) {
        // The sender is right here.
        let _ = self.0.subscribe().wait_for(|bytes| *bytes <= BACKLOG_BYTES).await;
    }

    /// So many wait now.
    pub(super) fn add(&self, bytes: usize) -> Waiting {
        self.0.send_modify(|waiting| *waiting += bytes);
        Waiting { backlog: self.clone(), bytes }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nobody is woken but by the one that makes room.
        self.backlog.0.send_if_modified(|waiting| {
            let was_full = *waiting > BACKLOG_BYTES;
            *waiting -= self.bytes;
            was_full && *waiting <= BACKLOG_BYTES
        });
    }
}

impl Verifiers {
    /// Starts them.
    pub(super) fn start(backlog: Backlog, results: &mpsc::Sender<Done>) -> Self {
        let queue = Arc::<Queue>::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.min(MOST_THREADS) {
            let (queue, results) = (Arc::clone(&queue), results.clone());
            // It ends with the queue, which the room closes.
            tokio::task::spawn_blocking(move || {
                while let Some((job, waiting)) = queue.next() {
                    let outcome = verify(&job.ticket, &job.blob, job.bytes, [job.before, job.after], &job.shelf);
                    // The room ends before its channel does.
                    let _ = results.blocking_send(Done::Verified { ticket: job.ticket, outcome, waiting });
                }
            });
        }
        Self { queue, backlog }
    }

    /// Hands a chunk in. What comes of it is a [`Done::Verified`].
    pub(super) fn verify(&self, job: Job) {
        let waiting = self.backlog.add(job.bytes.len());
        let mut state = self.queue.lock();
        state.jobs.push_back((job, waiting));
        if state.idle > 0 {
            self.queue.more.notify_one();
        }
    }
}

impl Drop for Verifiers {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.closed = true;
        state.jobs.clear();
        self.queue.more.notify_all();
    }
}

impl Queue {
    /// The next job; waits for one. None when it is closed.
    fn next(&self) -> Option<(Job, Waiting)> {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.closed {
            state.idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        state.jobs.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn verify(ticket: &VerifyTicket, blob: &BlobInfo, bytes: Bytes, [before, after]: [Link; 2], shelf: &Shelf) -> Outcome {
    let chunk = ticket.chunk();
    let Ok(proof) = verify_chunk(blob, chunk, &bytes, before, after) else { return Outcome::Wrong };
    match shelf.keep(&proof, bytes) {
        Ok(Some(kept)) => Outcome::Right(kept),
        // Removed meanwhile, or begun anew: nobody waits for it.
        Ok(None) | Err(StoreError::Absent) => Outcome::Stale,
        Err(error) => {
            tracing::warn!(%error, digest = %blob.digest, %chunk, "a chunk can't be kept");
            Outcome::NoRoom
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_wait_while_too_much_does() {
        let backlog = Backlog::default();
        backlog.has_room().await;
        let _much = backlog.add(BACKLOG_BYTES);
        backlog.has_room().await;
        let (one, another) = (backlog.add(1), backlog.add(1));
        let waiting = tokio::spawn({
            let backlog = backlog.clone();
            async move { backlog.has_room().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(another);
        waiting.await.unwrap();
    }
}
