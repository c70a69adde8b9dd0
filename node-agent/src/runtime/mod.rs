//! The containerd beside this agent: what it has is offered to other nodes, and what it got wrong is aborted.
//!
//! ```text
//!                 ┌── api.rs, grpc.rs: its socket ──┬── ingests.rs: those of a failed chain are aborted
//!   containerd ───┤                                 │
//!                 └── its content store, in place ──┴── offers.rs ──> exchange: claimed, linked, served
//!                              └── growing.rs: what it downloads, as it comes
//!                     images.rs: CRI, for what is to be pulled ahead
//! ```
//!
//! State: the connection, which is made again for as long as the agent runs.
//! Invariants: without the connection nothing is streamed to the runtime before its digest is proven: what a false chain gave it couldn't
//! be aborted. What was offered before stays so meanwhile.
//! Absent on purpose: everything that would change more of containerd than an ingest or a pulled image. CRI-O has neither such a
//! socket nor ingests that go on after a failure: beside it none is named.

mod api;
mod growing;
mod grpc;
mod images;
mod ingests;
mod offers;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use shoal_store::containerd::ContentStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::Policies;
use crate::exchange::Exchange;
use api::Api;
pub(crate) use growing::Growing;
pub use images::ImageError;
pub(crate) use images::{About, Images, PULLED_WITHIN};
use offers::Offers;

/// A runtime that is restarted is back within seconds. Each try costs a system call.
const CONNECT_EVERY: Duration = Duration::from_secs(1);

/// Which containerd this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// Its root, where it isn't the one that its content service tells: as when the agent has it mounted elsewhere.
    pub root: Option<PathBuf>,
    /// The namespace of its images.
    pub namespace: Namespace,
}

/// A namespace of containerd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(HeaderValue);

/// A text that is no namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a containerd namespace has letters, digits and single . _ - between them, 76 at most: k8s.io")]
pub struct NamespaceError;

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        let parts_fit = text
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let value = HeaderValue::from_str(text).map_err(|_| NamespaceError)?;
        if parts_fit && text.len() <= 76 { Ok(Self(value)) } else { Err(NamespaceError) }
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// A containerd that answers.
#[derive(Clone, Debug)]
struct Beside {
    api: Api,
    content: ContentStore,
}

/// What the rest of the agent has to know of the runtime. A clone is of the same one.
#[derive(Clone, Debug)]
pub struct Runtime {
    beside: Option<watch::Receiver<Option<Beside>>>,
}

/// Tells the rest of the agent of the runtime.
#[derive(Debug)]
pub struct Teller(watch::Sender<Option<Beside>>);

impl Runtime {
    /// There is none.
    #[must_use]
    pub const fn none() -> Self {
        Self { beside: None }
    }

    /// One that somebody is going to follow.
    #[must_use]
    pub fn followed() -> (Teller, Self) {
        let (teller, beside) = watch::channel(None);
        (Teller(teller), Self { beside: Some(beside) })
    }

    /// Whether what a stream gave the runtime can be taken back: its ingests can be aborted, or it isn't there.
    #[must_use]
    pub fn takes_back(&self) -> bool {
        self.beside.as_ref().is_none_or(|beside| beside.borrow().is_some())
    }

    /// Its content store, while it is there.
    pub(crate) fn content(&self) -> Option<ContentStore> {
        self.beside.as_ref()?.borrow().as_ref().map(|beside| beside.content.clone())
    }
}

/// Follows one containerd.
pub struct Follower {
    config: RuntimeConfig,
    teller: Teller,
    exchange: Exchange,
    policies: Policies,
}

impl Follower {
    /// A follower, to be run. What it offers goes to this exchange, as far as these policies let it.
    #[must_use]
    pub const fn new(config: RuntimeConfig, teller: Teller, exchange: Exchange, policies: Policies) -> Self {
        Self { config, teller, exchange, policies }
    }

    /// Follows, until the stop.
    pub async fn run(self, stop: CancellationToken) {
        let aborting = ingests::abort_spoilt(self.exchange.spoilt(), self.teller.0.subscribe());
        let aborting = tokio::spawn(stop.clone().run_until_cancelled_owned(aborting));
        let mut offers = Offers::new(self.exchange.clone(), self.policies.clone());
        let mut told = false;
        while !stop.is_cancelled() {
            match self.connect().await {
                Ok((api, content)) => {
                    told = false;
                    tracing::info!(socket = %self.config.socket.display(), content = %content.path().display(), "the runtime is beside this agent");
                    self.teller.0.send_replace(Some(Beside { api: api.clone(), content: content.clone() }));
                    stop.run_until_cancelled(offers.follow(&api, &content)).await;
                    self.teller.0.send_replace(None);
                    if !stop.is_cancelled() {
                        tracing::warn!(socket = %self.config.socket.display(), "containerd is gone: until it is back, blobs are streamed when they are proven whole");
                    }
                }
                Err(why) if !told => {
                    told = true;
                    tracing::warn!(
                        "{}: {why}: check --containerd-socket; until it answers, blobs are streamed when they are proven whole",
                        self.config.socket.display()
                    );
                }
                Err(why) => tracing::debug!(why, "the runtime isn't there"),
            }
            stop.run_until_cancelled(tokio::time::sleep(CONNECT_EVERY)).await;
        }
        let _ = aborting.await;
    }

    async fn connect(&self) -> Result<(Api, ContentStore), String> {
        let api =
            Api::connect(&self.config.socket, &self.config.namespace.0).await.map_err(|error| error.to_string())?;
        // Both services are asked: whoever answers here can abort, too.
        api.ingests().await.map_err(|error| format!("its content service doesn't answer: {error}"))?;
        let told = api.content_root().await.map_err(|error| format!("its plugins can't be asked for: {error}"))?;
        let root = self.config.root.clone().or(told);
        let root = root.ok_or("it doesn't tell where its content store is: give --containerd-root DIR")?;
        let opened = tokio::task::spawn_blocking(move || ContentStore::open(&root)).await;
        let content =
            opened.map_err(|_| "the agent stops")?.map_err(|error| format!("{error}: check --containerd-root"))?;
        Ok((api, content))
    }
}

#[cfg(test)]
mod tests;
