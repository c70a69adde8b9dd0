//! Retry-After: what a registry that is busy says, and the time until which it is left alone.
//!
//! State: that time.
//! Invariants: while it isn't over, no request leaves. It never lies more than [`LONGEST`] ahead.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use tokio::time::Instant;

/// For a 429 that doesn't say how long.
const UNSAID: Duration = Duration::from_secs(5);

/// Registries limit by the hour at most (Docker Hub by six hours, and a retry after one does no harm there). A header that says years would
/// lock a node out for good.
const LONGEST: Duration = Duration::from_secs(3600);

/// Until when a registry is to be left alone.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<(u16, Instant)>>);

impl Gate {
    /// How long the registry still wants to be left alone, and the status with which it said so.
    pub(super) fn closed(&self) -> Option<(u16, Duration)> {
        let (status, until) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some((status, left))
    }

    /// Closes it.
    pub(super) fn close(&self, status: u16, span: Duration) {
        let until = Instant::now() + span;
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none_or(|(_, earlier)| earlier < until) {
            *gate = Some((status, until));
        }
    }
}

/// How long an answer asks us to wait; none if it doesn't.
pub(super) fn asked(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(header::RETRY_AFTER).and_then(|value| parse(value.to_str().ok()?, now));
    match (status, said) {
        (429, said) => Some(said.unwrap_or(UNSAID)),
        (503, Some(said)) => Some(said),
        _ => None,
    }
}

/// Seconds, or an HTTP date.
fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let span = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(span.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_dates_and_nonsense() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |text| parse(text, now).map(|span| span.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(3600));
        assert_eq!(seconds("Fri, 31 Dec 9999 23:59:59 GMT"), Some(3600));
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
        assert_eq!(asked(429, &HeaderMap::new(), now), Some(UNSAID));
        assert_eq!(asked(503, &HeaderMap::new(), now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_opens_by_itself_and_never_earlier_than_said() {
        let gate = Gate::default();
        assert_eq!(gate.closed(), None);
        gate.close(429, Duration::from_secs(10));
        gate.close(503, Duration::from_secs(1));
        assert_eq!(gate.closed(), Some((429, Duration::from_secs(10))));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(gate.closed(), None);
    }
}
