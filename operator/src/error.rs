//! Why an operator doesn't start, or has ended: one line that says what, and what to do.
//!
//! State: none. Invariant: the text is one line.

use shoal_telemetry::{AdminError, with_causes};
use shoal_tracker_server::{AuthorityError, ServerError};

/// Why it doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't be used.
    #[error("{0}")]
    Setting(String),
    /// Signals can't be heard.
    #[error("signals can't be heard: {0}")]
    Signals(String),
    /// A part has ended without being told to.
    #[error("{0} has ended: see the log, and restart the operator")]
    Ended(&'static str),
    /// The admin server can't listen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The CA can't be used.
    #[error("the CA can't be used: {}", with_causes(.0))]
    Authority(#[from] AuthorityError),
    /// The tracker can't start.
    #[error("the tracker can't start: {}", with_causes(.0))]
    Tracker(#[from] ServerError),
}

impl StartError {
    /// 2 for what the configuration is to blame for, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Setting(_) => 2,
            _ => 1,
        }
    }
}
