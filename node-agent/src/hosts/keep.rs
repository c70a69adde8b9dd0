//! Keeping the mirror in front for as long as it answers: `shoal-agent hosts keep`, beside an agent.
//!
//! ```text
//!  the mirror answers ──> install, at each look: what others have written meanwhile gets the mirror in front, too
//!  it is silent at two looks, or the keeper is to stop ──> restore
//! ```
//!
//! State: for how many looks the mirror has been silent. Invariant: when this returns without an error, the tree is as it was before.
//! Absent on purpose: going on after an error. Whoever runs this shows the line to people and starts it again.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{CertsDir, HostsError, Mirror, Report, Targets};

/// A runtime whose mirror is gone loses a refused connection for each pull, one whose mirror hangs waits for it: seconds are soon enough.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One is an agent that starts again.
const SILENT_LOOKS: u32 = 2;

/// Keeps the mirror in front until the stop, then takes it back. `answers` looks whether the mirror does.
///
/// # Errors
/// As [`CertsDir::open`], [`CertsDir::install`] and [`CertsDir::restore`].
pub async fn keep(
    directory: &Path,
    mirror: &Mirror,
    targets: &Targets,
    answers: impl AsyncFn() -> bool,
    stop: &CancellationToken,
) -> Result<(), HostsError> {
    // What an earlier keeper couldn't take back isn't left in front of nobody.
    let mut silent = SILENT_LOOKS - 1;
    let mut skipped = Vec::new();
    while let Some(answered) = stop.run_until_cancelled(answers()).await {
        silent = if answered { 0 } else { silent.saturating_add(1) };
        if answered {
            let report = CertsDir::open(directory)?.install(mirror, targets)?;
            tell("the mirror is in front", &report);
            for new in report.skipped.iter().filter(|new| !skipped.contains(*new)) {
                tracing::warn!("{new}");
            }
            skipped = report.skipped;
        } else if silent >= SILENT_LOOKS {
            tell("the mirror doesn't answer: runtimes go to the registries", &CertsDir::open(directory)?.restore()?);
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            break;
        }
    }
    tell("everything is as it was before", &CertsDir::open(directory)?.restore()?);
    Ok(())
}

fn tell(what: &'static str, report: &Report) {
    if report.changed > 0 {
        tracing::info!(directories = report.directories.join(" "), files = report.changed, "{what}");
    }
}
