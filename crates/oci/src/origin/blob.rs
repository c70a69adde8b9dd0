//! A blob's bytes, in order: ranges in flight on several connections, resumed where they broke.
//!
//! ```text
//!             next() ──┐ in order
//!   part k      ■■■■■■■□□   streams through as it comes
//!   part k+1    ■■■□□□□□□   ┐
//!   part k+2    ■■□□□□□□□   ├ read ahead into bounded channels
//!   part k+3    ■□□□□□□□□   ┘
//! ```
//!
//! The first part is asked for alone. If the server answers with the range, the others follow; if it ignores ranges, the first part becomes the
//! whole and is read through. If it answers so soon that it must be near, one request brings all the others: several streams of one link only get
//! into each other's way there, and each new request waits behind what the link is full of. With docker-registry behind 50 Mbit/s, four of them left a
//! third of the link empty.
//!
//! State: the parts in flight, the size of the next one, and the place that the registry redirected to, which later parts ask directly.
//! Invariants: bytes come out in order, none twice, none beyond the range; an error comes after the bytes before it, and ends the stream. At most
//! `connections` parts are in flight, [`WINDOW_BYTES`] together. Dropping the stream ends its requests.
//! Absent on purpose: hashing. The chain does it, and it alone knows whether the bytes are right.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, header};
use shoal_types::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Inner;
use super::error::{Cause, Lie, OriginError};
use super::http::{Answer, Ask};
use crate::guard::Hop;
use crate::names::Repository;
use crate::range;

/// What a blob's parts may hold in memory together. An agent has 128 MiB and leads a few blobs at a time: 8 MiB each leave room for
/// everything else. It is also more than the bandwidth-delay product of 1 Gbit/s over 50 ms.
const WINDOW_BYTES: usize = 8 << 20;

/// The first part's size. At 50 Mbit/s shared by four connections it takes 160 ms.
const FIRST_PART_BYTES: u64 = 256 << 10;

/// Smaller parts would be mostly requests.
const SMALLEST_PART_BYTES: usize = 128 << 10;

/// A part should take about twice this: short against the whole, because parts behind the first one arrive early and wait, while the
/// swarm waits for the first …
const PART_TIME: Duration = Duration::from_millis(50);

/// … but several times what its answer takes, or connections mostly wait: a registry 100 ms away gave 78 Mbit/s with parts of 100 ms,
/// and 450 with these …
const ANSWERS_A_PART: u32 = 4;

/// … up to this.
const LONGEST_PART_TIME: Duration = Duration::from_millis(400);

/// How long parts should take at a server that answers in such a time.
fn part_time(answers_in: Duration) -> Range<Duration> {
    let least = answers_in.saturating_mul(ANSWERS_A_PART).clamp(PART_TIME, LONGEST_PART_TIME);
    least..least * 4
}

/// Pieces of a part in its channel. Pieces have 8 to 400 KiB: of the small ones this holds the largest part of [`WINDOW_BYTES`] / 4 without
/// waiting, and a server that sends single bytes makes its own part wait, nothing else. Of the large ones there are fewer ([`Piece`]).
const PIECES: usize = 256;

/// A failure after so much progress is a new one, not the same again.
const PROGRESS_BYTES: u64 = 256 << 10;

/// The bytes of a blob, or of a range of it.
#[derive(Debug)]
pub struct BlobStream {
    source: Arc<Source>,
    /// What hasn't been asked for yet.
    rest: Range<u64>,
    parts: VecDeque<Part>,
    /// The next byte to give out.
    at: u64,
    ended: bool,
}

#[derive(Debug)]
struct Part {
    end: u64,
    pieces: mpsc::Receiver<Result<Piece, OriginError>>,
    _task: AbortOnDropHandle<()>,
}

/// Bytes that wait in a part's channel, and the part's share of the window that they take.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What the parts of one blob share.
struct Source {
    origin: Arc<Inner>,
    repository: Repository,
    digest: Digest,
    size_bytes: u64,
    ranges: AtomicU8,
    /// How long the first answer took, in microseconds: later ones wait in a queue that our own bytes fill.
    answers_in: AtomicU64,
    part_bytes: AtomicU64,
    /// Where the registry redirected to.
    moved_to: Mutex<Option<Hop>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.origin.registry, self.repository, self.digest)
    }
}

/// Whether the server answers ranges with ranges; not known before its first answer.
const UNKNOWN: u8 = 0;
const RANGED: u8 = 1;
const IGNORED: u8 = 2;
/// Ranges too, by a server that is near.
const NEAR: u8 = 3;

impl BlobStream {
    pub(super) fn new(
        origin: Arc<Inner>,
        repository: &Repository,
        digest: Digest,
        size_bytes: u64,
        range: Range<u64>,
    ) -> Self {
        let source = Arc::new(Source {
            origin,
            repository: repository.clone(),
            digest,
            size_bytes,
            ranges: AtomicU8::new(UNKNOWN),
            answers_in: AtomicU64::new(0),
            part_bytes: AtomicU64::new(FIRST_PART_BYTES),
            moved_to: Mutex::new(None),
        });
        let end = range.end.min(size_bytes);
        let at = range.start.min(end);
        Self { source, rest: at..end, parts: VecDeque::new(), at, ended: false }
    }

    /// The next bytes; none after the last ones or after an error. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Result<Bytes, OriginError>> {
        while !self.ended {
            self.ask_ahead();
            let Some(part) = self.parts.front_mut() else {
                self.ended = true;
                break;
            };
            match part.pieces.recv().await {
                Some(Ok(Piece { bytes, _room })) => {
                    self.at += bytes.len() as u64;
                    self.ask_ahead();
                    return Some(Ok(bytes));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.parts.clear();
                    return Some(Err(error));
                }
                None => {
                    if self.source.ranges.load(Ordering::Acquire) == IGNORED {
                        // The part that has just ended was everything.
                        part.end = self.rest.end;
                        self.rest.start = self.rest.end;
                    }
                    if self.at != part.end {
                        // Its task was ended from outside, by a runtime that shuts down.
                        self.ended = true;
                        let (at, end) = (self.at, part.end);
                        return Some(Err(self.source.fail(Cause::Lied(Lie::Short { at, end }))));
                    }
                    self.parts.pop_front();
                }
            }
        }
        None
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, OriginError>> + Send {
        futures_util::stream::unfold(self, |mut blob| async move { blob.next().await.map(|bytes| (bytes, blob)) })
    }

    fn ask_ahead(&mut self) {
        let connections = self.source.origin.connections.get();
        let ranges = self.source.ranges.load(Ordering::Acquire);
        let in_flight = match ranges {
            RANGED => connections,
            // The first part, and all the others.
            NEAR => 2,
            UNKNOWN => 1,
            _ => 0,
        };
        while self.parts.len() < in_flight && !self.rest.is_empty() {
            let left = self.rest.end - self.rest.start;
            let size = self.source.part_bytes.load(Ordering::Relaxed);
            // Not in parts: what is hardly more than one, and anything over a single connection.
            let size = if connections == 1 || ranges == NEAR || left <= size * 2 { left } else { size };
            let range = self.rest.start..self.rest.start + size;
            let range_end = range.end;
            self.rest.start = range_end;
            let (sender, pieces) = mpsc::channel(PIECES);
            let task = fetch_part(Arc::clone(&self.source), range, self.rest.end, sender);
            self.parts.push_back(Part { end: range_end, pieces, _task: AbortOnDropHandle::new(tokio::spawn(task)) });
        }
    }
}

/// Fetches one part, and tries again from the byte reached where it breaks.
async fn fetch_part(
    source: Arc<Source>,
    range: Range<u64>,
    end_of_all: u64,
    pieces: mpsc::Sender<Result<Piece, OriginError>>,
) {
    let room = Arc::new(Semaphore::new(source.largest_part()));
    let mut transfer = Transfer { at: range.start, end: range.end, end_of_all, waited: Duration::ZERO, room };
    let mut failures = 0;
    let mut failed_at = range.start;
    loop {
        let Err(failure) = transfer.run(&source, &pieces).await else { break };
        let Failure::Origin(error) = failure else { return };
        if transfer.at - failed_at >= PROGRESS_BYTES {
            failures = 0;
        }
        failed_at = transfer.at;
        if let Err(error) = source.origin.pause_or_fail(error, &mut failures).await {
            // The receiver may have left: then nobody needs to know.
            let _ = pieces.send(Err(error)).await;
            return;
        }
    }
    source.adapt(range.end - range.start, transfer.waited);
}

/// One part's progress.
struct Transfer {
    /// The next byte.
    at: u64,
    end: u64,
    end_of_all: u64,
    /// How long the server was waited for: not the time in which the reader was behind.
    waited: Duration,
    /// Bytes that may wait for the reader.
    room: Arc<Semaphore>,
}

enum Failure {
    Origin(OriginError),
    /// Nobody reads any more.
    Abandoned,
}

impl From<OriginError> for Failure {
    fn from(error: OriginError) -> Self {
        Self::Origin(error)
    }
}

impl Transfer {
    async fn run(&mut self, source: &Source, pieces: &mpsc::Sender<Result<Piece, OriginError>>) -> Result<(), Failure> {
        let asked = Instant::now();
        let mut answer = source.ask(self.at, self.end).await?;
        let answered_after = asked.elapsed();
        self.waited += answered_after;
        let mut skip = self.check(source, &answer, answered_after)?;
        let whole = answer.status() == http::StatusCode::OK;
        while self.at < self.end {
            let began = Instant::now();
            let chunk = answer.chunk().await?;
            self.waited += began.elapsed();
            let Some(mut chunk) = chunk else {
                return Err(answer.fail(Cause::Lied(Lie::Short { at: self.at, end: self.end })).into());
            };
            if skip > 0 {
                let skipped = skip.min(chunk.len() as u64);
                skip -= skipped;
                chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(chunk.len()));
            }
            let room = self.end - self.at;
            // A whole body may go on where only a part of it is wanted; a range may not.
            if chunk.len() as u64 > room {
                if !whole || self.end == source.size_bytes {
                    return Err(answer.fail(Cause::Lied(Lie::Long { end: self.end })).into());
                }
                chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            }
            if !chunk.is_empty() {
                self.at += chunk.len() as u64;
                let takes = u32::try_from(chunk.len().min(source.largest_part())).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.room).acquire_many_owned(takes);
                // Nobody closes it; whoever reads no more ends this task.
                let _room = room.await.map_err(|_| Failure::Abandoned)?;
                pieces.send(Ok(Piece { bytes: chunk, _room })).await.map_err(|_| Failure::Abandoned)?;
            }
        }
        // Reading the end keeps the connection, and shows a body that goes on.
        if (!whole || self.end == source.size_bytes) && answer.chunk().await?.is_some_and(|more| !more.is_empty()) {
            return Err(answer.fail(Cause::Lied(Lie::Long { end: self.end })).into());
        }
        Ok(())
    }

    /// Holds the answer's headers against what was asked; how many bytes to skip.
    fn check(&mut self, source: &Source, answer: &Answer, after: Duration) -> Result<u64, OriginError> {
        let size = |found| Cause::Lied(Lie::Size { expected: source.size_bytes, found });
        if answer.status() == http::StatusCode::OK {
            if let Some(found) = answer.length().filter(|found| *found != source.size_bytes) {
                return Err(answer.fail(size(found)));
            }
            // If this is the first answer, nobody else has asked: this part becomes everything.
            let first = source.ranges.compare_exchange(UNKNOWN, IGNORED, Ordering::AcqRel, Ordering::Acquire);
            if first.is_ok() || first == Err(IGNORED) {
                self.end = self.end_of_all;
            }
            return Ok(self.at);
        }
        let header = answer.headers().get(header::CONTENT_RANGE).map_or(&b""[..], HeaderValue::as_bytes);
        match range::parse_content_range(header) {
            Some((_, Some(found))) if found != source.size_bytes => Err(answer.fail(size(found))),
            Some((range, _)) if range.start == self.at && range.end <= self.end => {
                let found = if after < source.origin.near { NEAR } else { RANGED };
                if source.ranges.load(Ordering::Acquire) == UNKNOWN {
                    // The only part so far.
                    let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
                    source.answers_in.store(micros, Ordering::Relaxed);
                    source.ranges.store(found, Ordering::Release);
                }
                Ok(0)
            }
            _ => {
                let found = super::error::one_line(&String::from_utf8_lossy(header));
                Err(answer.fail(Cause::Lied(Lie::ContentRange { asked: self.at, found })))
            }
        }
    }
}

impl Source {
    /// Asks for bytes `at..end`, at the place that the registry redirected to before if it still serves us.
    async fn ask(&self, at: u64, end: u64) -> Result<Answer, OriginError> {
        let mut headers = HeaderMap::new();
        if at > 0 || end < self.size_bytes {
            let value = format!("bytes={at}-{}", end - 1);
            headers.insert(
                header::RANGE,
                HeaderValue::try_from(value).map_err(|_| self.fail(Cause::Protocol("a range")))?,
            );
        }
        let moved_to = self.moved_to().clone();
        if let Some(hop) = moved_to {
            let ask = Ask { method: Method::GET, hop, headers: headers.clone(), repository: Some(&self.repository) };
            let answer = self.origin.http.send(&ask, None).await;
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                return answer;
            }
            // Signed URLs expire and storage servers go: the registry has a fresh one.
            *self.moved_to() = None;
            answer?.drain().await;
        }
        let path = format!("{}/blobs/{}", self.repository, self.digest);
        // Once: the part itself tries again, from the byte that it has reached.
        let url = self.origin.url(&path);
        let answer = self.origin.exchange_once(Method::GET, url, headers, &self.repository).await?;
        if answer.moved {
            *self.moved_to() = Some(answer.hop.clone());
        }
        Ok(answer)
    }

    /// A connection's share of the window.
    fn largest_part(&self) -> usize {
        (WINDOW_BYTES / self.origin.connections.get()).max(SMALLEST_PART_BYTES)
    }

    /// The next parts' size, after one of `bytes` has kept us waiting for so long.
    fn adapt(&self, bytes: u64, waited: Duration) {
        let current = self.part_bytes.load(Ordering::Relaxed);
        // The last part, or one of an earlier size: it says nothing about this one.
        if bytes != current {
            return;
        }
        let largest = self.largest_part() as u64;
        let time = part_time(Duration::from_micros(self.answers_in.load(Ordering::Relaxed)));
        let next = if waited < time.start {
            current * 2
        } else if waited > time.end {
            current / 2
        } else {
            current
        };
        // Two parts that end at once may both count; the size is a guess anyway.
        self.part_bytes.store(next.clamp(SMALLEST_PART_BYTES as u64, largest), Ordering::Relaxed);
    }

    fn moved_to(&self) -> std::sync::MutexGuard<'_, Option<Hop>> {
        self.moved_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, cause: Cause) -> OriginError {
        OriginError::new(&self.origin.registry, Some(&self.repository), cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn parts_of_a_distant_registry_take_several_times_what_its_answers_take() {
        assert_eq!(part_time(ms(1)), ms(50)..ms(200));
        assert_eq!(part_time(ms(80)), ms(320)..ms(1280));
        assert_eq!(part_time(ms(5000)), ms(400)..ms(1600), "it may have been a token's time");
    }
}
