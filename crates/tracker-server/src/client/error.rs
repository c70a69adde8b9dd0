//! What can go wrong between a node and its tracker.
//!
//! State: none.
//! Invariants: sources are kept.
//! Absent on purpose: what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use shoal_wire::Refusal;

use crate::event::StreamError;
use crate::identity::TokenError;
use crate::protocol::TrackerAddress;
use crate::record::RecordError;
use crate::resolve::ResolveError;

/// Why a tracker gave no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No tracker can be reached.
    #[error("no tracker can be reached")]
    NoTracker,
    /// There is no certificate yet.
    #[error("this node has no certificate yet")]
    NotJoined,
    /// Neither a CA file nor a fingerprint says whom to trust.
    #[error("nothing says which CA to trust: give its file, or a token with its fingerprint (token:sha256)")]
    NoAnchor,
    /// The token can't be used.
    #[error("the join token can't be used")]
    Token(#[from] TokenError),
    /// The CA's file can't be read.
    #[error("{}: the CA's certificate can't be read", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory can't be used.
    #[error("{}: can't keep the node's key there", path.display())]
    StateDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tracker can't be connected to, or the handshake failed.
    #[error("{address}: can't connect: {source}")]
    Connect {
        /// Its address.
        address: TrackerAddress,
        /// Why.
        source: std::io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
    /// The connection broke.
    #[error("the connection to the tracker broke")]
    Http(#[from] hyper::Error),
    /// The answer broke off or is too long.
    #[error("the tracker's answer broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no answer in time.
    #[error("no answer from the tracker")]
    Timeout,
    /// The tracker refused.
    #[error("the tracker refused ({status}, {error}): {message}")]
    Refused {
        /// The status.
        status: u16,
        /// One of a closed set.
        error: String,
        /// In words.
        message: String,
        /// When to ask again.
        retry_after: Option<Duration>,
    },
    /// The answer makes no sense.
    #[error("the tracker's answer can't be used: {0}")]
    Malformed(String),
    /// The stream of events makes no sense.
    #[error("the tracker's events can't be read")]
    Stream(#[from] StreamError),
    /// The tracker says why a name isn't resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The record isn't a tracker's.
    #[error("the tracker's record isn't believed")]
    Record(#[from] RecordError),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Random,
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

impl ClientError {
    /// Whether another tracker may answer what this one didn't.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Http(_) | Self::Body(_) | Self::Timeout => true,
            Self::Refused { error, .. } => error == "stopping",
            _ => false,
        }
    }

    /// Whether the tracker's certificate isn't of the CA that this node knows: the tracker was set up anew.
    pub(super) fn is_of_the_certificate(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        let error = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(error, Some(rustls::Error::InvalidCertificate(_)))
    }
}

/// Why an announce had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceFailure {
    /// The tracker refused it: announcing the same again is pointless.
    #[error("the tracker refused the announce: {}", .0.reason())]
    Refused(Refusal),
    /// This node announces more than it may.
    #[error("the tracker is to be left alone for {} ms", retry_after.as_millis())]
    TooMany {
        /// For how long.
        retry_after: Duration,
    },
    /// No tracker took it: announce it again when an event says that there is one.
    #[error("no tracker took the announce: {0}")]
    Unreachable(String),
}
