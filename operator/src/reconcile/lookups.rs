//! When an artifact's reference is looked up, and what came of it.
//!
//! ```text
//!   due ──> asked ──answer──> known, due again after resolveSeconds (a digest never is)
//!             └────error────> failed, due again soon, later each time
//! ```
//!
//! State: for each artifact of a Swarm its digest, its failure, and when it is due.
//! Invariants: a failure takes no digest away. An answer about another reference than the Swarm's present one changes nothing.
//! Absent on purpose: asking.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_api::{Reference, Swarm, SwarmStatus};
use shoal_tracker_server::ResolveError;
use shoal_types::{Digest, Rng, Time};

/// After a failure it is tried again so soon, twice as late each time …
const AGAIN: Duration = Duration::from_secs(5);
/// … up to this, or to what the Swarm says, if that is less.
const AT_MOST: Duration = Duration::from_secs(300);

/// The lookups of a Swarm, by its artifacts' names.
#[derive(Debug, Default)]
pub(super) struct Lookups(BTreeMap<String, Lookup>);

#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) reference: Reference,
    pub(super) digest: Option<Digest>,
    pub(super) failure: Option<ResolveError>,
    /// Whether there was an answer since this began.
    pub(super) answered: bool,
    due: Time,
    asking: bool,
    failures: u32,
}

impl Lookups {
    /// The Swarm's artifacts, and no others. What its status says of the same reference holds already.
    pub(super) fn follow(&mut self, swarm: &Swarm, status: &SwarmStatus, edited: bool, now: Time) {
        let mut before = std::mem::take(&mut self.0);
        for artifact in &swarm.artifacts {
            let same = before.remove(&artifact.name).filter(|lookup| lookup.reference == artifact.reference);
            let mut lookup =
                same.unwrap_or_else(|| Lookup::new(artifact.reference.clone(), status, &artifact.name, now));
            if edited && lookup.failure.is_some() {
                // What was wrong may be right now.
                (lookup.due, lookup.failures) = (now, 0);
            }
            self.0.insert(artifact.name.clone(), lookup);
        }
    }

    /// When the next one is due of those that aren't yet.
    pub(super) fn next_after(&self, now: Time) -> Option<Time> {
        let open = self.0.values().filter(|lookup| !lookup.asking && lookup.due > now && lookup.due < Time::MAX);
        open.map(|lookup| lookup.due).min()
    }

    /// Those that are due and aren't asked yet, with since when.
    pub(super) fn due(&self, now: Time) -> impl Iterator<Item = (Time, &str)> {
        let due = self.0.iter().filter(move |(_, lookup)| !lookup.asking && lookup.due <= now);
        due.map(|(name, lookup)| (lookup.due, name.as_str()))
    }

    /// What to ask for; none, if it is asked already.
    pub(super) fn ask(&mut self, name: &str) -> Option<Reference> {
        let lookup = self.0.get_mut(name).filter(|lookup| !lookup.asking)?;
        lookup.asking = true;
        Some(lookup.reference.clone())
    }

    /// The answer to one of them.
    pub(super) fn answered(
        &mut self,
        name: &str,
        reference: &Reference,
        answer: Result<Digest, ResolveError>,
        every: Duration,
        now: Time,
        rng: &mut Rng,
    ) {
        let Some(lookup) = self.0.get_mut(name).filter(|lookup| lookup.reference == *reference) else { return };
        (lookup.asking, lookup.answered) = (false, true);
        match answer {
            Ok(digest) => {
                (lookup.digest, lookup.failure, lookup.failures) = (Some(digest), None, 0);
                // Not all at the same moment; and what a digest means doesn't change.
                let fixed = reference.digest().is_some();
                lookup.due = if fixed { Time::MAX } else { now + every.mul_f64(0.8 + 0.1 * rng.unit()) };
            }
            Err(error) => {
                let longest = AGAIN.saturating_mul(1 << lookup.failures.min(16)).min(AT_MOST).min(every);
                let wait = longest.mul_f64(0.5 + rng.unit() / 2.0);
                let told = if let ResolveError::Busy { retry_after } = error { retry_after } else { Duration::ZERO };
                lookup.due = now + wait.max(told);
                lookup.failures = lookup.failures.saturating_add(1);
                // Registries put numbers of requests into their words: the first ones stay as long as it is the same trouble.
                let same = |before: &ResolveError| std::mem::discriminant(before) == std::mem::discriminant(&error);
                if !lookup.failure.as_ref().is_some_and(same) {
                    lookup.failure = Some(error);
                }
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Lookup> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Lookup)> {
        self.0.iter()
    }
}

impl Lookup {
    fn new(reference: Reference, status: &SwarmStatus, name: &str, now: Time) -> Self {
        let known =
            status.artifacts.iter().find(|known| known.name == name && known.reference == reference.to_string());
        let known = known.and_then(|known| known.digest.parse().ok());
        let digest = reference.digest().copied().or(known);
        Self { reference, digest, failure: None, answered: false, due: now, asking: false, failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_api::ArtifactStatus;

    use super::*;

    fn swarm(reference: &str) -> Swarm {
        let spec = json!({"registries": [{"host": "r.example"}], "artifacts": [{"name": "a", "reference": reference}]});
        Swarm::check("s", 0, &serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    const EVERY: Duration = Duration::from_secs(300);
    const DIGEST: Digest = Digest::Sha256([1; 32]);

    #[test]
    fn a_tag_is_asked_for_at_once_and_then_once_an_interval() {
        let (mut lookups, mut rng, swarm) = (Lookups::default(), Rng::new(1), swarm("r.example/a:1"));
        let status = SwarmStatus::default();
        lookups.follow(&swarm, &status, true, at(0));
        let asked = lookups.ask("a").unwrap();
        assert_eq!(lookups.due(at(0)).next(), None, "nobody asks twice at a time");
        assert_eq!(lookups.ask("a"), None);
        lookups.answered("a", &asked, Ok(DIGEST), EVERY, at(1), &mut rng);
        lookups.follow(&swarm, &status, true, at(2));
        let due = lookups.next_after(at(1)).unwrap();
        assert!((at(241)..=at(271)).contains(&due), "{due:?}");
        assert_eq!(lookups.due(at(200)).next(), None);
        assert_eq!(lookups.due(at(301)).next(), Some((due, "a")));
    }

    #[test]
    fn failures_are_repeated_later_and_later_and_at_once_when_the_swarm_is_edited() {
        let (mut lookups, mut rng, swarm) = (Lookups::default(), Rng::new(1), swarm("r.example/a:1"));
        let reference = swarm.artifacts[0].reference.clone();
        lookups.follow(&swarm, &SwarmStatus::default(), true, at(0));
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..12 {
            assert!(lookups.ask("a").is_some());
            let words = format!("request {}", waits.len());
            lookups.answered("a", &reference, Err(ResolveError::NotFound(words)), EVERY, now, &mut rng);
            let due = lookups.next_after(now).unwrap();
            waits.push(due.since(now).as_secs());
            now = due;
        }
        assert!(waits[0] < 5 && waits[3] >= 20 && waits.iter().all(|wait| *wait <= 300), "{waits:?}");
        let failure = lookups.get("a").unwrap().failure.clone();
        assert_eq!(failure, Some(ResolveError::NotFound("request 0".to_owned())), "the words stay");
        lookups.follow(&swarm, &SwarmStatus::default(), true, at(1));
        assert_eq!(lookups.due(at(1)).next(), Some((at(1), "a")));
        assert!(lookups.ask("a").is_some());
        let busy = ResolveError::Busy { retry_after: Duration::from_secs(900) };
        lookups.answered("a", &reference, Err(busy), EVERY, at(1), &mut rng);
        assert_eq!(lookups.next_after(at(1)), Some(at(901)), "who asks for patience gets it");
    }

    #[test]
    fn what_the_status_knows_of_the_same_reference_holds_and_a_digest_is_its_own() {
        let known = ArtifactStatus {
            name: "a".to_owned(),
            reference: "r.example/a:1".to_owned(),
            digest: DIGEST.to_string(),
            ..ArtifactStatus::default()
        };
        let status = SwarmStatus { artifacts: vec![known], ..SwarmStatus::default() };
        let digest = |reference: &str| {
            let mut lookups = Lookups::default();
            lookups.follow(&swarm(reference), &status, false, at(0));
            lookups.get("a").unwrap().digest
        };
        assert_eq!(digest("r.example/a:1"), Some(DIGEST));
        assert_eq!(digest("r.example/a:2"), None);
        let other = Digest::Sha256([2; 32]);
        assert_eq!(digest(&format!("r.example/a@{other}")), Some(other));
        let mut lookups = Lookups::default();
        lookups.follow(&swarm("r.example/a:1"), &status, false, at(0));
        let failed = Err(ResolveError::Unreachable("down".to_owned()));
        lookups.answered("a", &"r.example/a:1".parse().unwrap(), failed, EVERY, at(0), &mut Rng::new(1));
        assert_eq!(lookups.get("a").unwrap().digest, Some(DIGEST));
    }
}
