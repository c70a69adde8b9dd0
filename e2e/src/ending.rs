//! How a program of this crate ends: by itself, by an error, by a signal.
//!
//! State: none. Invariants: a signal ends the work and not the program, so that what the work has started can be ended in order.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Ctrl-C or SIGTERM, by its number.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted(u8);

/// Does the work unless Ctrl-C or SIGTERM comes.
///
/// # Errors
/// The work's, or that a signal came.
pub async fn or_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let hear = |kind| signal(kind).context("signals can't be received");
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(Interrupted(2).into()),
        _ = terminate.recv() => Err(Interrupted(15).into()),
    }
}

/// Says what went wrong, in the exit code too: after a signal a shell's number for it.
#[must_use]
pub fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::from(error.downcast_ref().map_or(1, |Interrupted(signal)| 128 + signal))
}
