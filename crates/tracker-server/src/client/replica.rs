//! One tracker's replica: connects, reads its events, connects again.
//!
//! ```text
//!            connected, its hello came                      stream ended, or silent
//!  waiting ────────────────────────────> reached ──────────────────────────────────────> waiting, longer each time
//!                                          │   ▲
//!               a new certificate, or ─────┘   │ the new connection's hello came: the old one is read to its end
//!               its list of replicas changed ──┘
//! ```
//!
//! State: the connection in use.
//! Invariants: the tracker counts as reached exactly from a hello to the end of its stream.
//! Absent on purpose: requests. They take the connection from the routing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::link::{EventReader, Link};
use super::{ClientError, Event, Shared, tls};
use crate::event::{Hello, StreamEvent};
use crate::protocol::{EVENTS, Replica};

/// A stream that was replaced ends when the tracker has seen the new one: a few round trips.
const OLD_STREAM: Duration = Duration::from_secs(1);

/// A follower of one replica.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    /// Each has another one.
    pub(super) number: u64,
    pub(super) replica: Replica,
    /// Where lists of replicas go that this one tells.
    pub(super) lists: mpsc::Sender<Vec<Replica>>,
}

impl Follower {
    pub(super) async fn follow(self, gone: CancellationToken) {
        gone.run_until_cancelled(Box::pin(self.keep_connected())).await;
        self.lost().await;
    }

    async fn keep_connected(&self) {
        let shared = &*self.shared;
        let mut identity = shared.identity.subscribe();
        let mut backoff = Backoff::new();
        let mut incarnation = None;
        let mut old: Option<EventReader> = None;
        loop {
            // Before it is used, so that no change is missed.
            identity.mark_unchanged();
            match open(shared, &self.replica).await {
                Ok((link, hello, mut reader)) => {
                    backoff.reset();
                    let remembers = hello.resumed && incarnation == Some(hello.incarnation);
                    incarnation = Some(hello.incarnation);
                    shared.reached(self.number, &self.replica.name, link, remembers).await;
                    let _ = self.lists.send(hello.replicas).await;
                    if let Some(mut old) = old.take() {
                        let _ = timeout(OLD_STREAM, self.read(&mut old)).await;
                    }
                    tokio::select! {
                        ended = self.read(&mut reader) => {
                            let error = ended.err().map(tracing::field::display);
                            tracing::info!(tracker = %self.replica.name, error, "the tracker's stream has ended");
                            self.lost().await;
                        }
                        _ = identity.changed() => {
                            // The tracker goes on being reached by the old connection until there is a new one.
                            old = Some(reader);
                            continue;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(tracker = %self.replica.name, %error, "the tracker can't be reached");
                    if old.take().is_some() {
                        self.lost().await;
                    }
                }
            }
            tokio::select! {
                () = sleep(backoff.next()) => {}
                // Perhaps that is what was missing.
                _ = identity.changed() => {}
            }
        }
    }

    /// Passes the events on until the stream ends. Whoever takes them slowly slows the stream down, not this node's memory up.
    async fn read(&self, reader: &mut EventReader) -> Result<(), ClientError> {
        while let Some(event) = reader.next().await? {
            match event {
                StreamEvent::Notice(notice) => {
                    self.shared.learn(&notice.contacts);
                    self.shared.tell([Event::Notice(notice)]).await;
                }
                StreamEvent::PolicyChanged { .. } => self.shared.swarm_is_told(),
                StreamEvent::Replicas(replicas) => {
                    let _ = self.lists.send(replicas).await;
                }
                StreamEvent::Hello(_) | StreamEvent::KeepAlive => {}
            }
        }
        Ok(())
    }

    async fn lost(&self) {
        self.shared.lost(self.number, &self.replica.name).await;
    }
}

async fn open(shared: &Shared, replica: &Replica) -> Result<(Link, Hello, EventReader), ClientError> {
    let identity = shared.current_identity()?;
    let link = Link::connect(shared, &replica.address, tls::node(&identity)?).await?;
    let mut reader = link.events(&format!("{EVENTS}?instance={:x}", shared.instance)).await?;
    match reader.next().await? {
        Some(StreamEvent::Hello(hello)) => Ok((link, hello, reader)),
        _ => Err(ClientError::Malformed("a stream without a hello".to_owned())),
    }
}
