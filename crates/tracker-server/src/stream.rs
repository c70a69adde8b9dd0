//! One node's stream of events: the driver's end and the connection's end.
//!
//! State: a queue of frames, bounded in bytes; on the connection's end, the promise to say when it goes.
//! Invariants: a [`Departure`] is told exactly once, whichever way the connection ends, because it has kept its place in the queue of
//! departures from the start.
//! Absent on purpose: what the frames say.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use shoal_types::NodeId;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::event::StreamEvent;
use crate::limits::ServerLimits;

/// Which of a node's streams: each has a higher number.
pub(crate) type StreamNumber = u64;

/// Says that a stream has ended.
#[derive(Debug)]
pub(crate) struct Departure {
    stream: (NodeId, StreamNumber),
    place: Option<OwnedPermit<(NodeId, StreamNumber)>>,
}

impl Departure {
    pub(crate) const fn new(stream: (NodeId, StreamNumber), place: OwnedPermit<(NodeId, StreamNumber)>) -> Self {
        Self { stream, place: Some(place) }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.send(self.stream);
        }
    }
}

/// The driver's end. When it goes, the answer ends after what is queued.
#[derive(Debug)]
pub(crate) struct EventSink {
    frames: Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// The node doesn't read.
#[derive(Debug)]
pub(crate) struct Full;

impl EventSink {
    /// Queues a frame. One that is longer than all that may wait finds room in an empty queue.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), Full> {
        let queued = self.queued.load(Ordering::Relaxed);
        if queued > 0 && queued + frame.len() > self.max_bytes {
            return Err(Full);
        }
        let length = frame.len();
        // Before it is sent: the other end subtracts what it takes.
        self.queued.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(frame).map_err(|_| Full)
    }

    /// Whether everything has been taken by the connection.
    pub(crate) fn is_drained(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0
    }
}

/// The connection's end: the answer's body.
#[derive(Debug)]
pub(crate) struct EventBody {
    frames: Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    keepalive: Interval,
    _departure: Departure,
}

pub(crate) fn stream(limits: &ServerLimits, departure: Departure) -> (EventSink, EventBody) {
    // The shortest directive has 60 bytes, so the bytes' bound comes first unless many are that short.
    let (frames, taken) = channel((limits.event_bytes / 64).max(16));
    let queued = Arc::new(AtomicUsize::new(0));
    let mut keepalive = interval(limits.keepalive);
    keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    keepalive.reset();
    (
        EventSink { frames, queued: Arc::clone(&queued), max_bytes: limits.event_bytes },
        EventBody { frames: taken, queued, keepalive, _departure: departure },
    )
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.poll_recv(cx) {
            Poll::Ready(Some(frame)) => {
                self.queued.fetch_sub(frame.len(), Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.keepalive.poll_tick(cx));
                let frame = StreamEvent::KeepAlive.encode().expect("it is empty");
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_queue_is_bounded_in_bytes_and_departs_once() {
        let (told, mut departures) = channel(1);
        let departure = Departure::new((NodeId::new(1), 7), told.try_reserve_owned().unwrap());
        let limits = ServerLimits { event_bytes: 100, ..ServerLimits::default() };
        let (sink, mut body) = stream(&limits, departure);
        sink.push(Bytes::from(vec![1; 300])).unwrap();
        assert!(sink.push(Bytes::from(vec![2; 10])).is_err());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 300);
        assert!(sink.is_drained());
        (0..10).for_each(|_| sink.push(Bytes::from(vec![3; 10])).unwrap());
        assert!(sink.push(Bytes::from(vec![3; 10])).is_err());
        drop(sink);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 100);
        assert_eq!(departures.recv().await, Some((NodeId::new(1), 7)));
        assert_eq!(departures.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_says_that_it_lives() {
        let (told, _departures) = channel(1);
        let departure = Departure::new((NodeId::new(1), 7), told.try_reserve_owned().unwrap());
        let (_sink, mut body) = stream(&ServerLimits::default(), departure);
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(Some(frame), StreamEvent::KeepAlive.encode());
    }
}
