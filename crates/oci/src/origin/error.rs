//! What goes wrong at an origin, in one line that names registry, repository, status and cause.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shoal_types::Digest;

use crate::guard::Refused;
use crate::names::{Registry, Repository};

/// A request to an origin failed. Cheap to clone: several may have waited for the same answer.
#[derive(Clone, Debug)]
pub struct OriginError(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    repository: Option<Repository>,
    at: Option<String>,
    cause: Cause,
}

impl OriginError {
    pub(super) fn new(registry: &Registry, repository: Option<&Repository>, cause: Cause) -> Self {
        Self(Arc::new(Inner { registry: registry.clone(), repository: repository.cloned(), at: None, cause }))
    }

    /// The same, with the host that failed where that isn't the registry itself.
    pub(super) fn at(registry: &Registry, repository: Option<&Repository>, host: Option<String>, cause: Cause) -> Self {
        Self(Arc::new(Inner { registry: registry.clone(), repository: repository.cloned(), at: host, cause }))
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The repository, where the request was about one.
    #[must_use]
    pub fn repository(&self) -> Option<&Repository> {
        self.0.repository.as_ref()
    }

    /// What happened.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// How long the registry wants to be left alone, if it said that it is busy.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.cause() {
            Cause::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.cause() {
            Cause::Unreachable(_) | Cause::Broken(_) | Cause::TimedOut { .. } | Cause::Lied(Lie::Short { .. }) => true,
            Cause::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { registry, repository, at, cause } = &*self.0;
        write!(f, "{registry}")?;
        if let Some(repository) = repository {
            write!(f, "/{repository}")?;
        }
        write!(f, ": {cause}")?;
        if let Some(host) = at {
            write!(f, " (at {host})")?;
        }
        Ok(())
    }
}

impl Error for OriginError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause().source()
    }
}

/// What happened. `says` is the server's own message: one line, at most 200 characters.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// 401 or 403, after a token was tried where the registry gives any.
    #[error("status {status}, access denied: {says}")]
    Unauthorized {
        /// The status.
        status: u16,
        /// The server's message.
        says: String,
    },
    /// 404.
    #[error("status 404, not found: {says}")]
    NotFound {
        /// The server's message.
        says: String,
    },
    /// 429, or 503 with a Retry-After; or the time that an earlier one set isn't over.
    #[error("status {status}, busy for another {} s", retry_after.as_secs_f32().ceil())]
    Busy {
        /// The status.
        status: u16,
        /// How long to leave it alone.
        retry_after: Duration,
    },
    /// Another status that isn't a success.
    #[error("status {status}: {says}")]
    Status {
        /// The status.
        status: u16,
        /// The server's message.
        says: String,
    },
    /// No connection.
    #[error("unreachable: {}", innermost(.0))]
    Unreachable(#[source] reqwest::Error),
    /// A connection that broke.
    #[error("the connection broke: {}", innermost(.0))]
    Broken(#[source] reqwest::Error),
    /// Too long without a byte.
    #[error("no {what} within {} s", limit.as_secs_f32())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// A body that is longer than what it is may be.
    #[error("{what} is longer than {limit} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The registry wants to send us where it may not.
    #[error(transparent)]
    Refused(Refused),
    /// What came isn't what was promised.
    #[error(transparent)]
    Lied(Lie),
    /// An answer that makes no sense.
    #[error("{0}")]
    Protocol(&'static str),
}

/// How an origin's answer contradicts itself or what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// Another content.
    #[error("the content's digest is {found} instead of {expected}")]
    Digest {
        /// What was asked for, or announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Another size.
    #[error("the blob has {found} bytes instead of {expected}")]
    Size {
        /// The descriptor's.
        expected: u64,
        /// What the server says.
        found: u64,
    },
    /// The body ended early, and cleanly.
    #[error("the body ended at byte {at} of {end}")]
    Short {
        /// Where it ended.
        at: u64,
        /// Where it should have.
        end: u64,
    },
    /// The body went on.
    #[error("the body goes on beyond byte {end}")]
    Long {
        /// Where it should have ended.
        end: u64,
    },
    /// Another range than the one asked for.
    #[error("the answer to the range from byte {asked} has \"{found}\" as its Content-Range")]
    ContentRange {
        /// The first byte asked for.
        asked: u64,
        /// The header.
        found: String,
    },
}

/// The end of an error's chain: "connection refused" says more than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    one_line(&innermost.to_string())
}

/// A text from outside, fit for a log's line.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
