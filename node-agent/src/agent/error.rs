//! Why an agent or a standalone tracker doesn't start: one line that says what, and what to do.
//!
//! State: none. Invariant: the text is one line.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use shoal_api::FileError;
use shoal_store::OpenError;
use shoal_telemetry::AdminError;
use shoal_tracker_server::client::ClientError;
use shoal_tracker_server::{AuthorityError, ServerError, TokenError};

/// Why it doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't be used.
    #[error("{0}")]
    Setting(String),
    /// The Swarm file can't be used.
    #[error(transparent)]
    Swarm(#[from] FileError),
    /// A file can't be read or written.
    #[error("{}: {action} failed ({source}): check that it is there, its permissions and the space that is left", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An address can't be listened at.
    #[error("{what} can't listen at {address} ({source}): choose another address or port with {flag}")]
    Listen {
        /// Whose address.
        what: &'static str,
        /// Which one.
        address: SocketAddr,
        /// What sets it.
        flag: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The tracker's client can't keep its state.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The admin server can't listen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The exchange's settings make no sense together.
    #[error("the Swarm's transfer settings can't be used")]
    Exchange(#[from] shoal_swarm::ConfigError),
    /// The tracker's CA can't be used.
    #[error("the tracker's CA can't be used")]
    Authority(#[from] AuthorityError),
    /// The join tokens can't be used.
    #[error("the join token can't be used")]
    Token(#[from] TokenError),
    /// The tracker can't start.
    #[error("the tracker can't start")]
    Tracker(#[from] ServerError),
}

impl StartError {
    /// Whether the configuration is at fault, and not the host.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Setting(_) | Self::Swarm(_) | Self::Exchange(_) | Self::Token(_))
    }

    /// For `map_err`: what was tried with which file.
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, action, source }
    }
}
