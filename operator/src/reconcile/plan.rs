//! What is to be done about the Swarms, all of them together: `plan(observed, now) → actions`, without I/O.
//!
//! ```text
//!   observed ──> selections, traffic, lookups ──> tallies of reports ──> a status for each Swarm ──> what of it is worth writing
//! ```
//!
//! State: for each Swarm what a leader remembers between two plans: lookups, traffic, when it wrote last. All of it can be lost: the rest of what a
//! leader knows is in the Swarms' status.
//! Invariants: nothing is written that is there already, so that a cluster where nothing happens has no writes. Progress is written at most every
//! [`PROGRESS`], bytes alone at most every [`TRAFFIC`], everything else at once. At most [`LOOKUPS`] lookups are under way.
//! Absent on purpose: clocks, the API server, registries: see `apply.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_api::{ConditionStatus, Mode, Reference, Swarm, SwarmStatus};
use shoal_tracker_server::{ArtifactState, ResolveError};
use shoal_types::{Digest, Rng, Time};

use super::bans::Bans;
use super::bypasses::Bypasses;
use super::events::{Budget, Event, news};
use super::lookups::Lookups;
use super::observed::{NodeSet, Nodes, Now, Observed, SeenSwarm};
use super::status::{Facts, Tally, status_of};
use super::traffic::{self, Counters, Sum};

/// Between any two writes of a Swarm: what comes back otherwise than it was written is no reason to write without a break.
const MOMENT: Duration = Duration::from_secs(1);
/// Between two writes of figures that move.
const PROGRESS: Duration = Duration::from_secs(3);
/// Between two writes of bytes alone: in a busy cluster they always move, for every Swarm.
const TRAFFIC: Duration = Duration::from_secs(60);
/// Lookups at a time; the tracker asks for 64 names at most, and nodes come first.
const LOOKUPS: usize = 16;
/// A lookup that is due waits so long for others: one plan is for all.
const SLACK: Duration = Duration::from_secs(1);
/// How long the deletion of a Swarm waits for agents that still have it.
const WITHDRAW: Duration = Duration::from_secs(60);
/// A write that failed is tried again so soon, twice as late each time …
const AGAIN: Duration = Duration::from_secs(1);
/// … up to this.
const AT_MOST: Duration = Duration::from_secs(60);
/// Losers name so many of the repositories in which they have no say.
const NAMED_CONFLICTS: usize = 3;

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Ask the origin what a reference means, and tell [`Planner::looked_up`].
    LookUp { swarm: Arc<str>, artifact: String, reference: Reference },
    /// Put the finalizer on, or take it off, and tell [`Planner::written`].
    Hold { swarm: Arc<str>, on: bool },
    /// Write the status, and tell [`Planner::written`].
    Write { swarm: Arc<str>, status: Box<SwarmStatus> },
    /// Tell people.
    Tell { swarm: Arc<str>, uid: String, event: Event },
}

/// What a plan comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    /// When to plan again, if nothing happens before.
    pub(super) wake: Option<Time>,
    /// Swarms with something to write that has to wait.
    pub(super) pending: usize,
}

impl Plan {
    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// What a leader remembers.
#[derive(Debug)]
pub(super) struct Planner {
    rng: Rng,
    nodes: Arc<Nodes>,
    counters: Counters,
    /// Bytes by source since this leader began.
    moved: traffic::Bytes,
    kept: BTreeMap<Arc<str>, Kept>,
    looking: usize,
    secret_changes: u64,
    is_first: bool,
}

#[derive(Debug)]
struct Kept {
    uid: String,
    generation: i64,
    selected: Arc<NodeSet>,
    lookups: Lookups,
    traffic: Sum,
    every: Duration,
    written_at: Option<Time>,
    failures: u32,
    not_before: Time,
    deleting_since: Option<Time>,
    events: Budget,
}

impl Planner {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            nodes: Arc::default(),
            counters: Counters::default(),
            moved: traffic::Bytes::default(),
            kept: BTreeMap::new(),
            looking: 0,
            secret_changes: 0,
            is_first: true,
        }
    }

    /// What is to be done now.
    pub(super) fn plan(&mut self, observed: &Observed, now: Now) -> Plan {
        self.follow(observed, now);
        let mut plan = Plan::default();
        self.look_up(observed, now, &mut plan);
        let tallies = self.tally(observed);
        let overruled = self.overruled(observed);
        let (bypasses, bans) = (Bypasses::of(observed), Bans::of(observed));
        let awaited = observed.up.clone().or(&observed.connected);
        for seen in &observed.swarms {
            let Some(kept) = self.kept.get_mut(&seen.name) else { continue };
            if seen.deleting.is_some() {
                kept.withdraw(seen, observed, now, &mut plan);
                continue;
            }
            if !seen.held {
                // First of all: once agents have something of it, its deletion has to wait for them.
                kept.when_due(now, &mut plan, |plan| {
                    plan.actions.push(Action::Hold { swarm: Arc::clone(&seen.name), on: true });
                });
                continue;
            }
            let facts = Facts {
                meaning: seen.meaning.as_deref().map_err(AsRef::as_ref),
                no_secret: seen.no_secret.as_deref(),
                generation: seen.generation,
                before: &seen.status,
                lookups: &kept.lookups,
                tallies: tallies.get(&*seen.name).map(Vec::as_slice).unwrap_or_default(),
                selected: &kept.selected,
                connected: &observed.connected,
                awaited: awaited.clone().and(&kept.selected),
                overruled: overruled.get(&*seen.name).cloned(),
                bypassed: bypasses.among(&kept.selected),
                banned: bans.among(&kept.selected),
                traffic: kept.traffic.bytes().to_status(),
                settled: observed.settled,
                clock: now.clock,
            };
            let status = status_of(&facts);
            kept.write(seen, status, now, &mut plan);
        }
        plan
    }

    /// A lookup's answer.
    pub(super) fn looked_up(
        &mut self,
        swarm: &str,
        artifact: &str,
        reference: &Reference,
        answer: Result<Digest, ResolveError>,
        now: Time,
    ) {
        self.looking = self.looking.saturating_sub(1);
        if let Some(kept) = self.kept.get_mut(swarm) {
            let every = kept.every;
            kept.lookups.answered(artifact, reference, answer, every, now, &mut self.rng);
        }
    }

    /// Whether a Swarm was written as planned.
    pub(super) fn written(&mut self, swarm: &str, is_written: bool, now: Time) {
        let Some(kept) = self.kept.get_mut(swarm) else { return };
        if is_written {
            (kept.failures, kept.not_before) = (0, Time::ZERO);
        } else {
            let longest = AGAIN.saturating_mul(1 << kept.failures.min(16)).min(AT_MOST);
            kept.failures = kept.failures.saturating_add(1);
            kept.not_before = now + longest.mul_f64(0.5 + self.rng.unit() / 2.0);
        }
    }

    /// Bytes that nodes have moved since this leader began.
    pub(super) const fn moved(&self) -> traffic::Bytes {
        self.moved
    }

    /// Takes in which Swarms and nodes there are.
    fn follow(&mut self, observed: &Observed, now: Now) {
        let other_nodes = !Arc::ptr_eq(&self.nodes, &observed.nodes);
        self.nodes = Arc::clone(&observed.nodes);
        let other_secrets =
            std::mem::replace(&mut self.secret_changes, observed.secret_changes) != observed.secret_changes;
        let mut before = std::mem::take(&mut self.kept);
        // Most Swarms select alike.
        let mut selections: BTreeMap<String, Arc<NodeSet>> = BTreeMap::new();
        for seen in &observed.swarms {
            let same = before.remove(&seen.name).filter(|kept| kept.uid == seen.uid);
            let is_new = same.is_none();
            let mut kept = same.unwrap_or_else(|| Kept::new(seen));
            let edited = is_new || kept.generation != seen.generation;
            kept.generation = seen.generation;
            if let Ok(swarm) = &seen.meaning {
                if edited || other_nodes {
                    let key = format!("{:?}", swarm.node_selector);
                    let select = || Arc::new(observed.nodes.select(&swarm.node_selector));
                    kept.selected = Arc::clone(selections.entry(key).or_insert_with(select));
                }
                kept.every = swarm.resolve_interval;
                kept.lookups.follow(swarm, &seen.status, edited || other_secrets, now.at);
            }
            self.kept.insert(Arc::clone(&seen.name), kept);
        }
        let fresh = observed.settled && !self.is_first;
        self.is_first = false;
        let gains = self.counters.gains(&observed.nodes, &observed.reports, fresh);
        let everywhere: NodeSet = (0..observed.nodes.len()).collect();
        self.moved = self.moved.plus(traffic::of(&gains, &everywhere));
        if !gains.is_empty() {
            self.kept.values_mut().for_each(|kept| kept.traffic.add(traffic::of(&gains, &kept.selected)));
        }
    }

    /// Hands out lookups, those first that have waited longest: failures that are tried again keep nobody else waiting.
    fn look_up(&mut self, observed: &Observed, now: Now, plan: &mut Plan) {
        let mut due: Vec<(Time, &Arc<str>, String)> = Vec::new();
        for seen in &observed.swarms {
            let asks = |swarm: &Arc<Swarm>| swarm.mode != Mode::Suspended && seen.deleting.is_none();
            let Some(kept) = self.kept.get(&seen.name).filter(|_| seen.meaning.as_ref().is_ok_and(asks)) else {
                continue;
            };
            due.extend(kept.lookups.due(now.at).map(|(since, artifact)| (since, &seen.name, artifact.to_owned())));
            if let Some(next) = kept.lookups.next_after(now.at) {
                plan.wake_at(next + SLACK);
            }
        }
        due.sort_unstable();
        let room = LOOKUPS.saturating_sub(self.looking);
        // They wait for others' answers, which are a reason to plan again.
        plan.pending += due.len().saturating_sub(room);
        for (_, swarm, artifact) in due.into_iter().take(room) {
            let Some(reference) = self.kept.get_mut(swarm).and_then(|kept| kept.lookups.ask(&artifact)) else {
                continue;
            };
            self.looking += 1;
            plan.actions.push(Action::LookUp { swarm: Arc::clone(swarm), artifact, reference });
        }
    }

    /// What agents say of each Swarm's artifacts, as far as it is about the digests that these have now.
    fn tally<'a>(&self, observed: &'a Observed) -> BTreeMap<&'a str, Vec<Tally>> {
        let mut tallies: BTreeMap<&str, Vec<Tally>> = BTreeMap::new();
        let mut places: BTreeMap<(&str, &str), (usize, Digest, &NodeSet)> = BTreeMap::new();
        for seen in &observed.swarms {
            let (Ok(swarm), Some(kept)) = (&seen.meaning, self.kept.get(&seen.name)) else { continue };
            tallies.insert(&seen.name, vec![Tally::default(); swarm.artifacts.len()]);
            for (artifact, place) in swarm.artifacts.iter().zip(0..) {
                if let Some(digest) = kept.lookups.get(&artifact.name).and_then(|lookup| lookup.digest) {
                    places.insert((&seen.name, &artifact.name), (place, digest, &kept.selected));
                }
            }
        }
        for (node, report) in &observed.reports {
            for artifact in &report.artifacts {
                let key = (artifact.swarm.as_str(), artifact.name.as_str());
                let Some((place, digest, selected)) = places.get(&key) else { continue };
                if artifact.digest != *digest || !selected.contains(*node) {
                    continue;
                }
                let Some(tally) = tallies.get_mut(key.0).and_then(|tallies| tallies.get_mut(*place)) else { continue };
                match &artifact.state {
                    ArtifactState::Complete => tally.complete.insert(*node),
                    ArtifactState::Failed(words) => {
                        tally.failed += 1;
                        if tally.words.is_empty() {
                            tally.words.clone_from(words);
                        }
                    }
                    ArtifactState::Waiting | ArtifactState::Fetching => {}
                }
                // Nodes of several platforms have different parts of it.
                tally.size = tally.size.max(artifact.total_bytes);
                tally.from_peers = tally.from_peers.saturating_add(artifact.from_peers);
                tally.from_origin = tally.from_origin.saturating_add(artifact.from_origin);
            }
        }
        tallies
    }

    /// Swarms that claim what an older one claims, for nodes that both select; in words.
    fn overruled<'a>(&self, observed: &'a Observed) -> BTreeMap<&'a str, String> {
        let there = observed.swarms.iter().filter(|seen| seen.deleting.is_none());
        let mut swarms: Vec<(&'a str, &Arc<Swarm>, &NodeSet)> = there
            .filter_map(|seen| Some((&*seen.name, seen.meaning.as_ref().ok()?, &*self.kept.get(&seen.name)?.selected)))
            .collect();
        swarms.sort_by_key(|(name, swarm, _)| (swarm.created, *name));
        let mut claimed: BTreeMap<String, Vec<(&str, &NodeSet)>> = BTreeMap::new();
        let mut overruled = BTreeMap::new();
        for (name, swarm, selected) in swarms {
            let mut lost: Vec<String> = Vec::new();
            for claim in swarm.claims() {
                let claimants = claimed.entry(claim.clone()).or_default();
                let older = claimants.iter().find(|(other, nodes)| *other != name && nodes.common(selected) > 0);
                if let Some((other, _)) = older {
                    lost.push(format!("{claim} is {other}'s"));
                }
                // A rule for the whole of a registry says the same as the registry's own entry.
                if claimants.last().is_none_or(|(last, _)| *last != name) {
                    claimants.push((name, selected));
                }
            }
            if !lost.is_empty() {
                let more = lost.len().saturating_sub(NAMED_CONFLICTS);
                lost.truncate(NAMED_CONFLICTS);
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                let what = format!("an older Swarm is followed where both say something: {}{more}", lost.join("; "));
                overruled.insert(name, what);
            }
        }
        overruled
    }
}

impl Kept {
    fn new(seen: &SeenSwarm) -> Self {
        Self {
            uid: seen.uid.clone(),
            generation: seen.generation,
            selected: Arc::default(),
            lookups: Lookups::default(),
            traffic: Sum::new(&seen.status.traffic),
            every: Duration::from_secs(300),
            written_at: None,
            failures: 0,
            not_before: Time::ZERO,
            deleting_since: None,
            events: Budget::default(),
        }
    }

    /// Does it, unless the last write failed a moment ago.
    fn when_due(&self, now: Now, plan: &mut Plan, what: impl FnOnce(&mut Plan)) {
        if self.not_before <= now.at {
            what(plan);
        } else {
            plan.pending += 1;
            plan.wake_at(self.not_before);
        }
    }

    /// Lets a Swarm go when no agent that is there has anything of it, or after a while in any case.
    fn withdraw(&mut self, seen: &SeenSwarm, observed: &Observed, now: Now, plan: &mut Plan) {
        if !seen.held {
            return;
        }
        let since = *self.deleting_since.get_or_insert(now.at);
        let asked = seen
            .deleting
            .map_or(Duration::ZERO, |asked| Duration::try_from(now.clock.duration_since(asked)).unwrap_or_default());
        let waited = now.at.since(since).max(asked);
        let pushes = seen.meaning.as_ref().is_ok_and(|swarm| !swarm.artifacts.is_empty());
        let names_it = |(node, report): &(usize, Arc<shoal_tracker_server::Report>)| {
            observed.connected.contains(*node) && report.artifacts.iter().any(|artifact| artifact.swarm == *seen.name)
        };
        let all_are_heard = observed.settled || observed.all_are_back();
        let remains = pushes && !all_are_heard || observed.reports.iter().any(names_it);
        if remains && waited < WITHDRAW {
            plan.pending += 1;
            plan.wake_at(now.at + (WITHDRAW - waited));
            return;
        }
        self.when_due(now, plan, |plan| {
            plan.actions.push(Action::Hold { swarm: Arc::clone(&seen.name), on: false });
        });
    }

    /// Writes the status, if it says something else and its time has come.
    fn write(&mut self, seen: &SeenSwarm, status: SwarmStatus, now: Now, plan: &mut Plan) {
        let pause = match change(&seen.status, &status) {
            Change::None => return,
            Change::Traffic => TRAFFIC,
            Change::Progress => PROGRESS,
            Change::Standing => MOMENT,
        };
        let due = self.written_at.map_or(Time::ZERO, |written| written + pause).max(self.not_before);
        if now.at < due {
            plan.pending += 1;
            plan.wake_at(due);
            return;
        }
        self.written_at = Some(now.at);
        for event in news(&seen.status, &status) {
            if self.events.allows(&event, now.at) {
                plan.actions.push(Action::Tell { swarm: Arc::clone(&seen.name), uid: self.uid.clone(), event });
            }
        }
        plan.actions.push(Action::Write { swarm: Arc::clone(&seen.name), status: Box::new(status) });
    }
}

/// How much another status differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    /// In its bytes alone.
    Traffic,
    /// In figures and messages.
    Progress,
    /// In what machines wait for, or what nodes are told.
    Standing,
}

fn change(before: &SwarmStatus, after: &SwarmStatus) -> Change {
    if before == after {
        return Change::None;
    }
    let bytes_apart = SwarmStatus { traffic: before.traffic, summary: before.summary.clone(), ..after.clone() };
    if bytes_apart == *before && before.nodes == after.nodes {
        return Change::Traffic;
    }
    let words = |status: &SwarmStatus| -> Vec<(String, ConditionStatus, String)> {
        let words = status.conditions.iter().map(|said| (said.kind.clone(), said.status, said.reason.clone()));
        words.collect()
    };
    let digests = |status: &SwarmStatus| -> Vec<(String, String, String)> {
        let digests = status.artifacts.iter();
        digests.map(|one| (one.name.clone(), one.reference.clone(), one.digest.clone())).collect()
    };
    let same = before.observed_generation == after.observed_generation
        && words(before) == words(after)
        && digests(before) == digests(after);
    if same { Change::Progress } else { Change::Standing }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
