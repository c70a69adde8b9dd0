//! Who leads: the rules of the Lease, without I/O.
//!
//! ```text
//!  leader:   |renew──────────────10 s──────────> stops acting
//!  follower:   |sees it──────────────────15 s──────────────────> may take it
//! ```
//!
//! State: what the Lease said when it last changed, and when that was seen; until when this replica leads.
//! Invariants: another replica's lease is taken only when it has stood unchanged for its whole duration by this replica's own clock, or was given up:
//! nobody's wall clock matters. A leader's time counts from when it began to write, so it is over before anyone else's wait for it is.
//! Absent on purpose: reading and writing. A write that lost against another one was refused by the API server, for its resource version.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use shoal_types::Time;

/// How long others leave a lease alone that nobody renews.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that hasn't renewed for so long leads no more.
pub(super) const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often the Lease is looked at, by the leader to renew it.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// One replica's part in the election.
#[derive(Debug)]
pub(super) struct Elector {
    /// The pod's name. A container that was killed and started again in its pod is the same holder, and goes on at once.
    identity: String,
    seen: Option<(LeaseSpec, Time)>,
    leads_until: Option<Time>,
}

impl Elector {
    pub(super) const fn new(identity: String) -> Self {
        Self { identity, seen: None, leads_until: None }
    }

    /// Until when this replica leads, if nothing else happens.
    pub(super) fn leads_until(&self) -> Option<Time> {
        self.leads_until
    }

    /// What to write, now that the Lease says this (or isn't there); none, if it is another one's.
    pub(super) fn consider(&mut self, lease: Option<&LeaseSpec>, now: Time, clock: Timestamp) -> Option<LeaseSpec> {
        let lease = lease.cloned().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == lease => *since,
            _ => now,
        };
        let holder = lease.holder_identity.clone().unwrap_or_default();
        self.seen = Some((lease.clone(), since));
        let own = holder == self.identity;
        if !own {
            self.leads_until = None;
            let seconds = u64::try_from(lease.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
            if !holder.is_empty() && now.since(since) < Duration::from_secs(seconds) {
                return None;
            }
        }
        let (clock, transitions) = (MicroTime(clock), lease.lease_transitions.unwrap_or_default());
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if own { lease.acquire_time } else { Some(clock.clone()) },
            renew_time: Some(clock),
            lease_transitions: Some(if own || holder.is_empty() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        })
    }

    /// What was to be written is, and writing began then.
    pub(super) fn written(&mut self, lease: LeaseSpec, began: Time) {
        self.leads_until = Some(began + RENEW_WITHIN);
        self.seen = Some((lease, began));
    }

    /// What to write to let another one lead at once; none, if it isn't this replica's to give.
    pub(super) fn release(&mut self, lease: &LeaseSpec, clock: Timestamp) -> Option<LeaseSpec> {
        self.leads_until = None;
        let own = lease.holder_identity.as_ref() == Some(&self.identity);
        own.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(clock)),
            ..lease.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// A replica with a wall clock of its own, and the API server it speaks to.
    struct Replica {
        elector: Elector,
        ahead: Duration,
        dead: bool,
        cut_off: bool,
    }

    impl Replica {
        fn new(name: &str, ahead: u64) -> Self {
            let elector = Elector::new(name.to_owned());
            Self { elector, ahead: Duration::from_secs(ahead), dead: false, cut_off: false }
        }

        fn look(&mut self, lease: &mut Option<LeaseSpec>, now: Time) {
            if self.dead || self.cut_off {
                return;
            }
            let clock = Timestamp::UNIX_EPOCH + now.since(Time::ZERO) + self.ahead;
            if let Some(write) = self.elector.consider(lease.as_ref(), now, clock) {
                *lease = Some(write.clone());
                self.elector.written(write, now);
            }
        }

        fn leads(&self, now: Time) -> bool {
            !self.dead && self.elector.leads_until().is_some_and(|until| now < until)
        }
    }

    /// Both look every two seconds, the second one a bit later. Who led when, in steps of 100 ms.
    fn run(replicas: &mut [Replica; 2], mut then: impl FnMut(&mut [Replica; 2], u64), millis: u64) -> Vec<[bool; 2]> {
        let mut lease = None;
        let mut led = Vec::new();
        for now in (0..millis).step_by(100) {
            then(replicas, now);
            for (late, replica) in replicas.iter_mut().enumerate() {
                if now % 2_000 == late as u64 * 700 {
                    replica.look(&mut lease, at(now));
                }
            }
            let leads = [replicas[0].leads(at(now)), replicas[1].leads(at(now))];
            assert!(leads != [true, true], "two lead at {now} ms");
            led.push(leads);
        }
        led
    }

    #[test]
    fn the_first_leads_as_long_as_it_renews_whatever_the_clocks_say() {
        for ahead in [[0, 0], [0, 86_400], [86_400, 0]] {
            let mut replicas = [Replica::new("a", ahead[0]), Replica::new("b", ahead[1])];
            let led = run(&mut replicas, |_, _| {}, 300_000);
            assert!(led.iter().all(|led| *led == [true, false]));
        }
    }

    #[test]
    fn who_dies_is_succeeded_within_20_seconds() {
        let mut replicas = [Replica::new("a", 0), Replica::new("b", 3_600)];
        let led = run(&mut replicas, |replicas, now| replicas[0].dead = now >= 60_000, 120_000);
        let took_over = led.iter().position(|led| led[1]).unwrap() * 100;
        assert!((60_000 + 12_000..=60_000 + 20_000).contains(&took_over), "{took_over} ms");
        assert_eq!(led.last(), Some(&[false, true]));
    }

    #[test]
    fn who_cannot_renew_stops_before_another_one_begins() {
        let mut replicas = [Replica::new("a", 0), Replica::new("b", 0)];
        let cut = |replicas: &mut [Replica; 2], now| replicas[0].cut_off = (60_000..100_000).contains(&now);
        let led = run(&mut replicas, cut, 160_000);
        let (stopped, began) =
            (led.iter().position(|led| !led[0]).unwrap(), led.iter().position(|led| led[1]).unwrap());
        assert!(stopped + 40 <= began, "{stopped} {began}");
        assert_eq!(led.last(), Some(&[false, true]), "who comes back follows");
    }

    #[test]
    fn a_lease_that_is_given_up_is_taken_at_once_and_only_its_holder_gives_it_up() {
        let (mut a, mut b) = (Elector::new("a".to_owned()), Elector::new("b".to_owned()));
        let clock = Timestamp::UNIX_EPOCH;
        let held = a.consider(None, at(0), clock).unwrap();
        a.written(held.clone(), at(0));
        assert_eq!(b.consider(Some(&held), at(1), clock), None);
        assert_eq!(b.release(&held, clock), None);
        let free = a.release(&held, clock).unwrap();
        assert_eq!(a.leads_until(), None);
        let taken = b.consider(Some(&free), at(2), clock).unwrap();
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_duration_seconds, Some(15));
    }

    #[test]
    fn the_same_pod_goes_on_at_once_after_a_restart() {
        let (mut before, mut after) = (Elector::new("a".to_owned()), Elector::new("a".to_owned()));
        let held = before.consider(None, at(0), Timestamp::UNIX_EPOCH).unwrap();
        let renewed = after.consider(Some(&held), at(0), Timestamp::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_eq!(renewed.acquire_time, held.acquire_time);
        assert_eq!(renewed.lease_transitions, Some(0));
    }
}
