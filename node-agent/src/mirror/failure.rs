//! Why the core can't give what a runtime asks for, and what the mirror makes of it.
//!
//! ```text
//! the core's reason ──> status 403, 404 or 503: the runtime goes to the next host
//!                  └──> a code and a text: the first host's error is the one that a user sees, so it says what the origin said
//! ```
//!
//! State: none.
//! Invariants: no failure becomes a status that a runtime retries on the same host (408, 429), takes for its own mistake, or answers with
//! credentials (401).
//! Absent on purpose: failures of the request itself. Those are the mirror's own (`refusal`).

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use shoal_oci::origin::{Cause, OriginError};

/// A request that failed behind the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    reason: Reason,
    origin: Option<OriginAnswer>,
    detail: Option<Box<str>>,
}

/// What failed, as far as the runtime is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The origin has no such thing.
    NotFound,
    /// It isn't for everyone: the runtime has to ask the origin with the pod's secret.
    Denied,
    /// The policy says that the runtime has to ask the origin itself.
    Withheld,
    /// The core has no way to serve such a thing.
    Unsupported,
    /// A manifest or list above what is held in memory.
    TooLarge,
    /// It can't be had right now.
    Unavailable,
    /// Nothing came within the time that a runtime can wait.
    Stalled,
    /// The origin asked for patience.
    OriginBusy {
        /// For how long, if it said so.
        retry_after: Option<Duration>,
    },
    /// What the origin sent isn't what its digest or its descriptor says.
    Corrupt,
}

/// What the origin said, for the log, the counters and the text that a user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginAnswer {
    /// Nothing: no connection, or one that broke.
    Unreachable,
    /// A status.
    Status(u16),
    /// Something that doesn't fit what was asked, what it announced, or where it may send us.
    Unusable,
}

impl Failure {
    /// What is kept of a detail: enough for a chain of causes, little enough for a log line and for an error body.
    pub const MAX_DETAIL_BYTES: usize = 512;

    /// A failure for this reason.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, origin: None, detail: None }
    }

    /// What the origin had said.
    #[must_use]
    pub const fn with_origin(mut self, answer: OriginAnswer) -> Self {
        self.origin = Some(answer);
        self
    }

    /// What exactly happened. It reaches the log and the user: no secrets. Its start is kept, [`Self::MAX_DETAIL_BYTES`].
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        let mut text = detail.to_string();
        text.truncate(text.floor_char_boundary(Self::MAX_DETAIL_BYTES));
        self.detail = Some(text.into_boxed_str());
        self
    }

    /// Its reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// What the origin had said, if it was asked.
    #[must_use]
    pub const fn origin(&self) -> Option<OriginAnswer> {
        self.origin
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.text())?;
        match self.origin {
            None => {}
            Some(OriginAnswer::Unreachable) => f.write_str(" (the origin can't be reached)")?,
            Some(OriginAnswer::Status(status)) => write!(f, " (the origin answered {status})")?,
            Some(OriginAnswer::Unusable) => f.write_str(" (the origin's answer can't be used)")?,
        }
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Failure {}

/// What a failed request to the origin means for the runtime.
impl From<&OriginError> for Failure {
    fn from(error: &OriginError) -> Self {
        let (reason, answer) = match error.cause() {
            Cause::Unauthorized { status, .. } => (Reason::Denied, OriginAnswer::Status(*status)),
            Cause::NotFound { .. } => (Reason::NotFound, OriginAnswer::Status(404)),
            Cause::Busy { status, retry_after } => {
                (Reason::OriginBusy { retry_after: Some(*retry_after) }, OriginAnswer::Status(*status))
            }
            Cause::Status { status, .. } => (Reason::Unavailable, OriginAnswer::Status(*status)),
            Cause::Unreachable(_) | Cause::Broken(_) => (Reason::Unavailable, OriginAnswer::Unreachable),
            Cause::TimedOut { .. } => (Reason::Stalled, OriginAnswer::Unreachable),
            Cause::TooLarge { .. } => (Reason::TooLarge, OriginAnswer::Unusable),
            Cause::Refused(_) => (Reason::Withheld, OriginAnswer::Unusable),
            Cause::Lied(_) | Cause::Protocol(_) => (Reason::Corrupt, OriginAnswer::Unusable),
        };
        Self::new(reason).with_origin(answer).with_detail(error)
    }
}

impl Reason {
    /// The status for the runtime: 503 where asking here again may help, else 404, and 403 for what isn't for everyone. All lead it to the next
    /// host. If that refuses it, too, then containerd 2 tells people of our 404, as of something that doesn't exist, rather than of the registry's 401.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound | Self::Withheld | Self::Unsupported | Self::TooLarge => StatusCode::NOT_FOUND,
            Self::Unavailable | Self::Stalled | Self::OriginBusy { .. } | Self::Corrupt => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Withheld => "withheld",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Stalled => "stalled",
            Self::OriginBusy { .. } => "origin_busy",
            Self::Corrupt => "corrupt",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "not found at the origin",
            // Many registries say the same of what doesn't exist.
            Self::Denied => "denied: it doesn't exist, or takes a pull secret that the registry accepts",
            Self::Withheld => "left to the origin by policy",
            Self::Unsupported => "not something that the mirror can serve",
            Self::TooLarge => "larger than the mirror holds in memory",
            Self::Unavailable => "not to be had right now",
            Self::Stalled => "nothing came in time",
            Self::OriginBusy { .. } => "the origin asks for patience",
            Self::Corrupt => "the origin's bytes are not what their descriptor says",
        }
    }
}

impl OriginAnswer {
    /// A label out of a closed set: statuses that tell different stories have their own.
    pub(super) const fn label(answer: Option<Self>) -> &'static str {
        match answer {
            None => "not_asked",
            Some(Self::Unreachable) => "unreachable",
            Some(Self::Unusable) => "unusable",
            Some(Self::Status(status)) => match status {
                401 => "401",
                403 => "403",
                404 => "404",
                429 => "429",
                500..=599 => "5xx",
                _ => "other",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_the_origin_said() {
        let failure =
            Failure::new(Reason::Denied).with_origin(OriginAnswer::Status(401)).with_detail("docker.io/library/alpine");
        assert_eq!(
            failure.to_string(),
            "denied: it doesn't exist, or takes a pull secret that the registry accepts (the origin answered 401): docker.io/library/alpine"
        );
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let failure = Failure::new(Reason::Corrupt).with_detail("é".repeat(Failure::MAX_DETAIL_BYTES));
        assert_eq!(failure.detail.unwrap().len(), Failure::MAX_DETAIL_BYTES);
    }
}
