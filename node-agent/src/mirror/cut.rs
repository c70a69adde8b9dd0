//! Ending a connection before its answer does, so that the client sees every byte handed over so far and then a clean end.
//!
//! A runtime goes on elsewhere after a body that is shorter than its `Content-Length`, but only if the connection ends with FIN: a reset
//! fails the whole pull. hyper has no such ending. A body that fails makes it drop what it has buffered, and closing a socket
//! with unread input makes the kernel send RST. So nobody here ever fails a body:
//!
//! ```text
//! body:   turns the switch, is Pending for good ──> hyper flushes ──> socket: all is written and the switch is turned: flush fails
//!    ──> hyper gives up ──> server: takes the socket back, FIN, reads what the client still sends, closes
//! ```
//!
//! State: a switch per connection, shared by the body that is being sent, the socket, and the task that serves them.
//! Invariants: a switch is turned once and the first reason stays.
//! Absent on purpose: a way back. A connection that is cut never carries another answer.

use std::sync::{Arc, OnceLock};

/// Why an answer ended before all its bytes were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The content's stream failed.
    SourceFailed,
    /// The content's stream ended before the announced length.
    SourceEnded,
    /// The content's stream gave nothing for too long.
    SourceStalled,
    /// The client took nothing for too long.
    ReaderStalled,
    /// The mirror is stopping and its drain deadline has passed.
    Stopping,
}

impl Cut {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::SourceFailed => "source_failed",
            Self::SourceEnded => "source_ended",
            Self::SourceStalled => "source_stalled",
            Self::ReaderStalled => "reader_stalled",
            Self::Stopping => "stopping",
        }
    }
}

/// One connection's switch.
#[derive(Clone, Debug, Default)]
pub(super) struct CutSwitch(Arc<OnceLock<Cut>>);

impl CutSwitch {
    /// Turns it, unless it was turned before.
    pub(super) fn turn(&self, why: Cut) {
        // An earlier reason explains the end better than a later one.
        let _ = self.0.set(why);
    }

    pub(super) fn get(&self) -> Option<Cut> {
        self.0.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let switch = CutSwitch::default();
        assert_eq!(switch.get(), None);
        switch.turn(Cut::SourceFailed);
        switch.clone().turn(Cut::Stopping);
        assert_eq!(switch.get(), Some(Cut::SourceFailed));
    }
}
