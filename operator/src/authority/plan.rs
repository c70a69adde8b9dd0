//! When the CA's root is changed, step by step: a pure function of what there is and of the time.
//!
//! ```text
//!             30 days before its end                 a life later                        a life later
//!  resting ─────────────────────────> prepared ─────────────────────> switched ────────────────────────> resting
//!  one root                 the next one is trusted,       the next one signs,             one root
//!                           the present one signs          the last one is trusted
//! ```
//!
//! A CA is in exactly one of these stages. A step waits for a node's certificate's life and an hour: by then every node whose certificate is
//! valid got it, and with it the roots to trust, after the step before. The hour is for replicas and clocks that lag.
//!
//! State: none. Absent on purpose: who makes the step. Any replica that sees it due tries; the first one wins.

use std::time::{Duration, SystemTime};

use shoal_tracker_server::CERTIFICATE_LIFE;

/// A root's life: long enough for a cluster that is switched off for months, short enough for the change to be practised.
pub(super) const ROOT_LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Time for people to see that a change fails.
const CHANGE_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
const OVERLAP: Duration = CERTIFICATE_LIFE.saturating_add(Duration::from_secs(3_600));

/// Where in a change of roots a CA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Resting,
    Prepared,
    Switched,
}

/// When the next step is due. `since` is when the last one was made, `until` the end of the root that signs.
pub(super) fn due_at(stage: Stage, since: SystemTime, until: SystemTime) -> SystemTime {
    match stage {
        Stage::Resting => until - CHANGE_BEFORE,
        // A root that has ended signs nothing that anybody takes: there is nothing to wait for.
        Stage::Prepared => (since + OVERLAP).min(until),
        Stage::Switched => since + OVERLAP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CA of numbered roots, in virtual time.
    struct Virtual {
        stage: Stage,
        since: SystemTime,
        signing: u32,
        until: SystemTime,
    }

    impl Virtual {
        fn new(now: SystemTime) -> Self {
            Self { stage: Stage::Resting, since: now, signing: 0, until: now + ROOT_LIFE }
        }

        fn trusted(&self) -> Vec<u32> {
            match self.stage {
                Stage::Resting => vec![self.signing],
                Stage::Prepared => vec![self.signing, self.signing + 1],
                Stage::Switched => vec![self.signing - 1, self.signing],
            }
        }

        fn step_if_due(&mut self, now: SystemTime) -> bool {
            let due = now >= due_at(self.stage, self.since, self.until);
            if due {
                self.since = now;
                self.stage = match self.stage {
                    Stage::Resting => Stage::Prepared,
                    Stage::Prepared => {
                        // It was made with the step before, at most an overlap ago; its end is later by no more than this says.
                        (self.signing, self.until) = (self.signing + 1, now - OVERLAP + ROOT_LIFE);
                        Stage::Switched
                    }
                    Stage::Switched => Stage::Resting,
                };
            }
            due
        }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn at_every_moment_of_five_years_whoever_has_a_valid_certificate_trusts_all_the_others() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut ca = Virtual::new(begin);
        // Each has a certificate of a root, trusts roots, and got both at that time. They renew at different hours, at the last moment.
        let certified = |ca: &Virtual, now| (ca.signing, ca.trusted(), now);
        let mut nodes: Vec<_> = (0..24).map(|hour| certified(&ca, begin - HOUR * hour)).collect();
        for hour in 0..5 * 365 * 24 {
            let now = begin + HOUR * hour;
            ca.step_if_due(now);
            for node in &mut nodes {
                if now >= node.2 + CERTIFICATE_LIFE - HOUR {
                    *node = certified(&ca, now);
                }
            }
            assert!(now < ca.until, "the root ends only after it was changed");
            for (_, trusted, _) in &nodes {
                assert!(trusted.contains(&ca.signing), "hour {hour}: a node refuses the tracker");
                for (root, ..) in &nodes {
                    assert!(trusted.contains(root), "hour {hour}: a node refuses another one");
                    assert!(ca.trusted().contains(root), "hour {hour}: the tracker refuses a node");
                }
            }
        }
        assert_eq!(ca.signing, 5);
    }

    #[test]
    fn a_cluster_that_was_off_beyond_the_roots_end_changes_it_at_once() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut ca = Virtual::new(begin);
        let now = begin + ROOT_LIFE * 2;
        assert!(ca.step_if_due(now) && ca.step_if_due(now), "prepared and switched");
        assert_eq!((ca.stage, ca.signing), (Stage::Switched, 1));
        assert!(!ca.step_if_due(now));
    }
}
