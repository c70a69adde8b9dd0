//! How far each node is: bars on a terminal, else a line a second.
//!
//! State: the bars. Invariants: it writes to the standard error only. Absent on purpose: rates; the table has what counts.

use std::convert::Infallible;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shoal_agent::pull::Progress;
use tokio::time::{Instant, interval};

/// Bars are redrawn as often as the eye follows.
const FRAME: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(1);

/// The display.
pub(super) struct Show {
    bytes: u64,
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
}

impl Show {
    /// For nodes of these names that want so many bytes each.
    pub(super) fn new(names: &[&str], bytes: u64) -> Self {
        if !stderr().is_terminal() {
            return Self { bytes, bars: None };
        }
        let style = ProgressStyle::with_template("{prefix:8} [{bar:40}] {percent:>3}% {bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let all = MultiProgress::new();
        let bar =
            |name: &&str| all.add(ProgressBar::new(bytes).with_style(style.clone()).with_prefix((*name).to_owned()));
        let bars = names.iter().map(bar).collect();
        Self { bytes, bars: Some((all, bars)) }
    }

    /// Shows what changes until it is dropped.
    pub(super) async fn follow(&self, progress: &[Progress]) -> Infallible {
        let started = Instant::now();
        let mut ticks = interval(if self.bars.is_some() { FRAME } else { LINE });
        loop {
            ticks.tick().await;
            if let Some((_, bars)) = &self.bars {
                for (bar, progress) in bars.iter().zip(progress) {
                    bar.set_position(progress.received_bytes());
                }
            } else {
                let percent =
                    |progress: &Progress| format!("{:>4}%", progress.received_bytes() * 100 / self.bytes.max(1));
                let line: String = progress.iter().map(percent).collect();
                eprintln!("{:6.1} s{line}", started.elapsed().as_secs_f64());
            }
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        for bar in self.bars.iter().flat_map(|(_, bars)| bars) {
            bar.finish_and_clear();
        }
    }
}
