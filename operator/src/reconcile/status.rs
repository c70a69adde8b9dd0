//! What a Swarm's status says, out of what is known of it.
//!
//! State: none. Invariants: of the same facts and the same status before comes the same status. `Ready`, `Reconciling` and `Stalled` are as
//! kstatus reads them: exactly one of them is true. A figure about the same digest doesn't go back while agents haven't had the time to report.
//! Absent on purpose: when it is written.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use shoal_api::{
    ArtifactStatus, Condition, ConditionStatus, Mode, NodesStatus, Quantity, Swarm, SwarmStatus, TrafficStatus,
};
use shoal_tracker_server::ResolveError;

use super::lookups::{Lookup, Lookups};
use super::observed::NodeSet;
use super::reasons;

/// The API server takes 32 KiB; people read a line.
const MAX_MESSAGE: usize = 1_024;

/// What agents say of an artifact, taken together.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) complete: NodeSet,
    pub(super) failed: u32,
    /// Why it failed on the first of them.
    pub(super) words: String,
    pub(super) size: u64,
    pub(super) from_peers: u64,
    pub(super) from_origin: u64,
}

/// What is known of a Swarm.
pub(super) struct Facts<'a> {
    pub(super) meaning: Result<&'a Swarm, &'a str>,
    /// What is wrong with the Secrets that it names.
    pub(super) no_secret: Option<&'a str>,
    pub(super) generation: i64,
    pub(super) before: &'a SwarmStatus,
    pub(super) lookups: &'a Lookups,
    /// Of its artifacts, in their order.
    pub(super) tallies: &'a [Tally],
    pub(super) selected: &'a NodeSet,
    pub(super) connected: &'a NodeSet,
    /// Those that it waits for: neither Kubernetes nor their agent says that they are down.
    pub(super) awaited: NodeSet,
    /// Of whom it is overruled, in words.
    pub(super) overruled: Option<String>,
    /// Whose runtime pulls past the mirror, in words.
    pub(super) bypassed: Option<String>,
    /// Whom the others refuse, in words.
    pub(super) banned: Option<String>,
    pub(super) traffic: TrafficStatus,
    pub(super) settled: bool,
    pub(super) clock: Timestamp,
}

/// How things stand, with the reason and a message.
enum Standing {
    Ready(&'static str, String),
    Reconciling(&'static str, String),
    Stalled(String, String),
}

pub(super) fn status_of(facts: &Facts<'_>) -> SwarmStatus {
    let desired = facts.selected.len();
    let mut ready = facts.selected.common(facts.connected);
    if !facts.settled {
        ready = ready.max(facts.before.nodes.ready).min(desired);
    }
    let artifacts: Vec<ArtifactStatus> = match facts.meaning {
        Ok(swarm) => {
            swarm.artifacts.iter().zip(facts.tallies).map(|(a, tally)| artifact(facts, &a.name, tally)).collect()
        }
        // What was known of them is still of use to who reads it.
        Err(_) => facts.before.artifacts.clone(),
    };
    let conditions = conditions(facts, &artifacts);
    SwarmStatus {
        observed_generation: Some(facts.generation),
        nodes: NodesStatus { desired, ready },
        artifacts,
        traffic: facts.traffic,
        conditions,
        ..SwarmStatus::default()
    }
    .summarized()
}

fn artifact(facts: &Facts<'_>, name: &str, tally: &Tally) -> ArtifactStatus {
    let desired = facts.selected.len();
    let none = ArtifactStatus { name: name.to_owned(), desired, ..ArtifactStatus::default() };
    let Some((lookup, digest)) = facts.lookups.get(name).and_then(|lookup| Some((lookup, lookup.digest?))) else {
        return none;
    };
    let (reference, digest) = (lookup.reference.to_string(), digest.to_string());
    let before = facts.before.artifacts.iter().find(|before| before.name == name && before.digest == digest).cloned();
    let started = || ArtifactStatus { started_at: Some(time(facts.clock)), ..none.clone() };
    let before = before.unwrap_or_else(started);
    let counted = tally.complete.len();
    let complete = if facts.settled { counted } else { counted.max(before.complete).min(desired) };
    let all_have_it = facts.awaited.len() > 0 && facts.awaited.clone().without(&tally.complete).len() == 0;
    let completed_at = before.completed_at.or_else(|| all_have_it.then(|| time(facts.clock)));
    // Agents count since their start, and a digest's bytes come once: the most that was ever seen is the best guess.
    let most = |before: Quantity, now: u64| Quantity::from_bytes(before.bytes().max(now));
    ArtifactStatus {
        reference,
        digest,
        size: most(before.size, tally.size),
        complete,
        from_peers: most(before.from_peers, tally.from_peers),
        from_origin: most(before.from_origin, tally.from_origin),
        started_at: before.started_at,
        completed_at,
        ..none
    }
}

fn conditions(facts: &Facts<'_>, artifacts: &[ArtifactStatus]) -> Vec<Condition> {
    use ConditionStatus::{False, True};
    let standing = standing(facts, artifacts);
    let nothing = || (reasons::NO_PROBLEM.to_owned(), String::new());
    let mut conditions = Vec::with_capacity(7);
    let mut say = |kind, status, (reason, message)| conditions.push(condition(facts, kind, status, reason, message));
    match standing {
        Standing::Ready(reason, message) => {
            say(reasons::READY, True, (reason.to_owned(), message));
            say(reasons::RECONCILING, False, (reason.to_owned(), String::new()));
            say(reasons::STALLED, False, nothing());
        }
        Standing::Reconciling(reason, message) => {
            say(reasons::READY, False, (reason.to_owned(), message.clone()));
            say(reasons::RECONCILING, True, (reason.to_owned(), message));
            say(reasons::STALLED, False, nothing());
        }
        Standing::Stalled(reason, message) => {
            say(reasons::READY, False, (reason.clone(), message.clone()));
            say(reasons::RECONCILING, False, (reason.clone(), String::new()));
            say(reasons::STALLED, True, (reason, message));
        }
    }
    match degraded(facts) {
        Some(trouble) => say(reasons::ORIGIN_DEGRADED, True, trouble),
        None => say(reasons::ORIGIN_DEGRADED, False, nothing()),
    }
    match &facts.overruled {
        Some(words) => say(reasons::CONFLICT, True, (reasons::OVERRULED.to_owned(), words.clone())),
        None => say(reasons::CONFLICT, False, nothing()),
    }
    let reported = [
        (reasons::MIRROR_BYPASSED, reasons::RUNTIME_CONFIGURATION, &facts.bypassed),
        (reasons::PEER_BANNED, reasons::FALSE_CHUNKS, &facts.banned),
    ];
    for (kind, reason, words) in reported {
        // Right after a start nobody has reported yet: what was said holds.
        let before = || facts.before.conditions.iter().find(|before| before.kind == kind && before.status == True);
        let holds = || before().filter(|_| !facts.settled).map(|before| before.message.clone());
        match words.clone().or_else(holds) {
            Some(words) => say(kind, True, (reason.to_owned(), words)),
            None => say(kind, False, nothing()),
        }
    }
    conditions
}

fn standing(facts: &Facts<'_>, artifacts: &[ArtifactStatus]) -> Standing {
    let swarm = match facts.meaning {
        Ok(swarm) => swarm,
        Err(problems) => return Standing::Stalled(reasons::INVALID.to_owned(), problems.to_owned()),
    };
    if swarm.mode == Mode::Suspended {
        let message = "the runtimes ask the registries themselves, and nothing new is pushed";
        return Standing::Ready(reasons::SUSPENDED, message.to_owned());
    }
    if let Some(problem) = facts.no_secret {
        return Standing::Stalled(reasons::SECRET_UNUSABLE.to_owned(), problem.to_owned());
    }
    if let Some((reason, message)) = inherited(facts, reasons::STALLED).or_else(|| stalled(facts)) {
        return Standing::Stalled(reason, message);
    }
    let unresolved: Vec<&str> =
        artifacts.iter().filter(|artifact| artifact.digest.is_empty()).map(|artifact| artifact.name.as_str()).collect();
    if !unresolved.is_empty() {
        return Standing::Reconciling(reasons::RESOLVING, format!("looked up now: {}", some(&unresolved)));
    }
    let desired = facts.selected.len();
    if desired == 0 {
        return Standing::Ready(reasons::NO_NODES, "spec.nodeSelector names no node".to_owned());
    }
    let Some((reason, message)) = unfinished(facts, swarm) else {
        let nodes = match facts.awaited.len() {
            awaited if awaited == desired => format!("all {desired} nodes"),
            awaited => format!("{awaited} of {desired} nodes, the others are down"),
        };
        return match artifacts.len() {
            0 => Standing::Ready(reasons::SERVING, format!("agents run on {nodes}")),
            1 => Standing::Ready(reasons::DISTRIBUTED, format!("{} is on {nodes}", artifacts[0].name)),
            many => Standing::Ready(reasons::DISTRIBUTED, format!("{many} artifacts are on {nodes}")),
        };
    };
    // Right after a start nobody has reported yet: what was finished is believed to be.
    let same =
        |(now, before): (&ArtifactStatus, &ArtifactStatus)| now.name == before.name && now.digest == before.digest;
    let unchanged = artifacts.len() == facts.before.artifacts.len()
        && artifacts.iter().zip(&facts.before.artifacts).all(same)
        && facts.before.observed_generation == Some(facts.generation);
    match [reasons::DISTRIBUTED, reasons::SERVING].map(|reason| (reason, ready_before(facts.before, reason))) {
        [(reason, Some(message)), _] | [_, (reason, Some(message))] if !facts.settled && unchanged => {
            Standing::Ready(reason, message)
        }
        _ => Standing::Reconciling(reason, message),
    }
}

/// What is still to come.
fn unfinished(facts: &Facts<'_>, swarm: &Swarm) -> Option<(&'static str, String)> {
    let missing = facts.awaited.clone().without(facts.connected).len();
    let desired = facts.selected.len();
    if missing > 0 {
        return Some((
            reasons::AGENTS_MISSING,
            format!("{missing} of {desired} nodes have no agent that is connected"),
        ));
    }
    if facts.awaited.len() == 0 {
        return Some((reasons::AGENTS_MISSING, format!("none of the {desired} nodes is up")));
    }
    let awaited = facts.awaited.len();
    let mut lacking = swarm.artifacts.iter().zip(facts.tallies).filter_map(|(artifact, tally)| {
        let have = facts.awaited.common(&tally.complete);
        (have < awaited).then_some((artifact, tally, have))
    });
    let first = lacking.next()?;
    let (artifact, tally, have) = lacking.chain([first]).max_by_key(|(_, tally, _)| tally.failed)?;
    let name = &artifact.name;
    let mut message = format!("{name} is on {have} of {awaited} nodes");
    if tally.failed == 0 {
        return Some((reasons::DISTRIBUTING, message));
    }
    let _ = write!(message, ", {} failed and try again: {}", tally.failed, tally.words);
    Some((reasons::NODES_FAILING, message))
}

fn ready_before(before: &SwarmStatus, reason: &str) -> Option<String> {
    let is = |condition: &&Condition| {
        condition.kind == reasons::READY && condition.status == ConditionStatus::True && condition.reason == reason
    };
    before.conditions.iter().find(is).map(|condition| condition.message.clone())
}

/// What was said about this generation, as long as not every artifact was looked up since this leader began.
fn inherited(facts: &Facts<'_>, kind: &str) -> Option<(String, String)> {
    let open = facts.lookups.iter().any(|(_, lookup)| !lookup.answered);
    let before = facts.before.conditions.iter().find(|condition| condition.kind == kind)?;
    let holds = before.status == ConditionStatus::True && before.observed_generation == Some(facts.generation);
    (open && holds).then(|| (before.reason.clone(), before.message.clone()))
}

/// The artifacts that can't be had, the first one with its registry's words.
fn stalled(facts: &Facts<'_>) -> Option<(String, String)> {
    let reason = |lookup: &Lookup| match lookup.failure.as_ref()? {
        ResolveError::NotFound(_) => Some(reasons::ARTIFACT_NOT_FOUND),
        ResolveError::Denied(_) => Some(reasons::ORIGIN_REFUSED),
        ResolveError::NotAllowed(_) => Some(reasons::NOT_ALLOWED),
        ResolveError::Unreachable(_) if lookup.digest.is_none() => Some(reasons::ORIGIN_UNREACHABLE),
        ResolveError::Unreachable(_) | ResolveError::Busy { .. } | ResolveError::Overloaded => None,
    };
    told(facts, reason)
}

/// A registry that can't be asked now.
fn degraded(facts: &Facts<'_>) -> Option<(String, String)> {
    let reason = |lookup: &Lookup| match lookup.failure.as_ref()? {
        ResolveError::Unreachable(_) => Some(reasons::ORIGIN_UNREACHABLE),
        ResolveError::Busy { .. } => Some(reasons::ORIGIN_BUSY),
        _ => None,
    };
    inherited(facts, reasons::ORIGIN_DEGRADED).or_else(|| told(facts, reason))
}

fn told(facts: &Facts<'_>, reason: impl Fn(&Lookup) -> Option<&'static str>) -> Option<(String, String)> {
    let mut affected = facts.lookups.iter().filter_map(|(name, lookup)| Some((name, lookup, reason(lookup)?)));
    let (name, lookup, reason) = affected.next()?;
    let words = match lookup.failure.as_ref()? {
        // How long it wants to be left alone is different each time.
        ResolveError::Busy { .. } => "the origin wants to be left alone for a while".to_owned(),
        failure => failure.to_string(),
    };
    let mut message = format!("{name}: {}: {words}", lookup.reference);
    let more = affected.count();
    if more > 0 {
        let _ = write!(message, "; and {more} more");
    }
    Some((reason.to_owned(), message))
}

fn condition(facts: &Facts<'_>, kind: &str, status: ConditionStatus, reason: String, message: String) -> Condition {
    let before = facts.before.conditions.iter().find(|before| before.kind == kind && before.status == status);
    let since = before.map_or_else(|| time(facts.clock), |before| before.last_transition_time.clone());
    Condition {
        kind: kind.to_owned(),
        status,
        observed_generation: Some(facts.generation),
        last_transition_time: since,
        reason,
        message: one_line(&message),
    }
}

/// The first few.
fn some(names: &[&str]) -> String {
    match names.split_at_checked(3) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

/// Other people's words, fit to be shown in a line.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(MAX_MESSAGE));
    line
}

/// In seconds, as Kubernetes writes them.
fn time(clock: Timestamp) -> String {
    Timestamp::from_second(clock.as_second()).unwrap_or(clock).to_string()
}
