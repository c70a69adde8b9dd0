//! Swarms as they change.
//!
//! State: what was seen last of each Swarm. Invariants: a broken connection is taken up again, a few times in a row at most; what no repetition mends ends
//! it at once.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use shoal_api::kube::Swarm;

use crate::failure::Failure;

/// With pauses that double from 0.8 s on, an API server has half a minute to come back.
const FAILURES: u32 = 6;

/// Swarms that are followed.
pub(crate) struct Follow {
    events: Pin<Box<dyn Stream<Item = watcher::Result<Event<Swarm>>>>>,
    known: BTreeMap<String, Swarm>,
    /// Those of a list that isn't whole yet.
    listed: BTreeMap<String, Swarm>,
}

impl Follow {
    /// All of them, or the one of this name.
    pub(crate) fn new(client: Client, name: Option<&str>) -> Self {
        let config = watcher::Config::default();
        let config = match name {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        };
        let events = watcher(Api::all(client), config).default_backoff().boxed_local();
        Self { events, known: BTreeMap::new(), listed: BTreeMap::new() }
    }

    /// Waits for a change, and gives all by their names.
    pub(crate) async fn changed(&mut self) -> Result<&BTreeMap<String, Swarm>, Failure> {
        let mut failures = 0;
        while let Some(event) = self.events.next().await {
            match event {
                Ok(Event::Init) => self.listed.clear(),
                Ok(Event::InitApply(swarm)) => {
                    self.listed.insert(swarm.name_any(), swarm);
                }
                Ok(Event::InitDone) => {
                    self.known = std::mem::take(&mut self.listed);
                    return Ok(&self.known);
                }
                Ok(Event::Apply(swarm)) => {
                    self.known.insert(swarm.name_any(), swarm);
                    return Ok(&self.known);
                }
                Ok(Event::Delete(swarm)) => {
                    self.known.remove(&swarm.name_any());
                    return Ok(&self.known);
                }
                Err(error) => {
                    failures += 1;
                    let failure = of_watch(&error);
                    if failures == FAILURES || is_final(&error) {
                        return Err(failure);
                    }
                }
            }
        }
        Err(Failure::Failed("Swarms can't be followed any more: start again".to_owned()))
    }
}

/// Whether it would be the same next time: nobody was known, allowed or served.
fn is_final(error: &watcher::Error) -> bool {
    let answer = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(answer))
        | watcher::Error::WatchStartFailed(kube::Error::Api(answer)) => answer,
        // A file or a plugin.
        watcher::Error::InitialListFailed(kube::Error::Auth(_)) => return true,
        _ => return false,
    };
    matches!(answer.code, 401 | 403 | 404)
}

fn of_watch(error: &watcher::Error) -> Failure {
    const WHAT: &str = "Swarms can't be followed";
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Failure::of_request(WHAT, error),
        watcher::Error::WatchError(answer) => Failure::of_answer(WHAT, answer),
        watcher::Error::NoResourceVersion => {
            Failure::Failed(format!("{WHAT}: the API server tells no versions: is something between it and here?"))
        }
    }
}
