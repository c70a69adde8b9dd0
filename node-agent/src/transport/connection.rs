//! One connection that stands: one task that reads and writes until either ends.
//!
//! State: none beyond the two halves'.
//! Invariants: the driver is told `Connected` first and `Closed` last.
//! Absent on purpose: sockets and TLS: anything that is read and written does.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use shoal_types::NodeId;
use shoal_wire::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::event::{CloseCause, Connected, Event, PeerId};
use super::outgoing::Outgoing;
use super::rate::Rate;
use super::read::Reader;
use super::settings::Settings;
use super::store::ChunkStore;
use super::write::Writer;

/// The time for telling the other side why, and for what is left in buffers.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all connections of an agent share.
pub(crate) struct Shared<S: ChunkStore> {
    pub(crate) store: S,
    pub(crate) settings: Settings,
    pub(crate) upload: Rate,
    pub(crate) download: Rate,
    pub(crate) counters: Counters,
    pub(crate) events: mpsc::Sender<Event<S::Incoming>>,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
}

impl<S: ChunkStore> Shared<S> {
    /// Tells the driver. If there is none any more, there is nothing to go on for. When everything ends nobody waits for it.
    pub(crate) async fn tell(&self, event: Event<S::Incoming>) -> Result<(), CloseCause> {
        let gone = CloseCause::Local(CloseReason::Leaving);
        tokio::select! {
            biased;
            sent = self.events.send(event) => sent.map_err(|_| gone),
            () = self.stop.cancelled() => Err(gone),
        }
    }
}

/// A connection, as its two halves see it.
pub(crate) struct Connection<S: ChunkStore> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) outgoing: Arc<Outgoing<S::Outgoing>>,
    pub(crate) peer: PeerId,
    pub(crate) node: NodeId,
}

impl<S: ChunkStore> Connection<S> {
    /// Runs it to its end. `buffer` has what was read beyond the greeting. `left` takes it out of the list of connections before the
    /// driver hears of its end, which may connect again at once; what `left` gives back is dropped when the driver has heard.
    pub(crate) async fn run<G>(
        &self,
        connected: Connected,
        stream: impl AsyncRead + AsyncWrite,
        buffer: BytesMut,
        left: impl FnOnce() -> G,
    ) {
        let shared = &self.shared;
        shared.counters.opened();
        let (read, write) = tokio::io::split(stream);
        let mut writer = Writer::new(self, write);
        let cause = match shared.tell(Event::Connected(connected)).await {
            Err(cause) => cause,
            Ok(()) => {
                let mut reading = pin!(Reader::new(self, read, buffer).run());
                // In random order: what reads as fast as bytes come would else use up the task's turn each time.
                tokio::select! {
                    reason = self.outgoing.ended() => CloseCause::Local(reason),
                    cause = &mut reading => cause,
                    cause = writer.run() => match cause {
                        // The other side has closed. It may have said why.
                        CloseCause::Gone(_) => timeout(FAREWELL, reading).await.unwrap_or(cause),
                        cause => cause,
                    },
                }
            }
        };
        shared.counters.closed(cause.label());
        let told = cause.told();
        let leaving = left();
        let _ = shared.tell(Event::Closed { peer: self.peer, cause }).await;
        drop(leaving);
        let _ = timeout(FAREWELL, writer.take_leave(told)).await;
    }
}
