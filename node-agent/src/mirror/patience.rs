//! A time limit on waiting for one thing that goes on for long: each sign of progress starts it anew.
//!
//! State: the limit, a timer that is set once for many waits, whether it runs.
//! Invariants: time that nobody waits doesn't count: it runs from the first fruitless poll after progress.
//! Absent on purpose: what to do about it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// See the module.
pub(super) struct Patience {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    running: bool,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: Box::pin(sleep(limit)), running: false }
    }

    /// There was progress.
    pub(super) fn renew(&mut self) {
        self.running = false;
    }

    /// There was none: ready when the limit has passed since the first time.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.running {
            self.running = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        self.timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts_and_progress_starts_anew() {
        let limit = Duration::from_secs(10);
        let mut patience = Patience::new(limit);
        let over = |patience: &mut Patience| poll_fn(|cx| patience.poll_over(cx)).now_or_never().is_some();
        tokio::time::advance(limit * 2).await;
        assert!(!over(&mut patience), "nobody waited");
        tokio::time::advance(limit / 2).await;
        assert!(!over(&mut patience));
        patience.renew();
        tokio::time::advance(limit).await;
        assert!(!over(&mut patience), "there was progress");
        tokio::time::advance(limit + Duration::from_millis(1)).await;
        assert!(over(&mut patience));
    }
}
