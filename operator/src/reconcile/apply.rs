//! A leader's loop: look, plan, do, wait.
//!
//! State: the planner's, the observer's, and the lookups under way.
//! Invariants: before each thing that it does it asks whether it still leads. At most [`AT_ONCE`] writes are under way, and each has an end.
//! Absent on purpose: deciding what is to be done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::api::events::v1::Event as EventObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use shoal_api::kube::Swarm as Object;
use shoal_api::{GROUP, KIND, Reference, SwarmStatus, VERSION};
use shoal_telemetry::with_causes;
use shoal_tracker_server::{Handle, ImageName, ResolveError};
use shoal_types::{Digest, Time};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::election::Leadership;
use super::events::Event;
use super::metrics::Metrics;
use super::observe::Observer;
use super::observed::{Now, Observed};
use super::plan::{Action, Planner};
use super::traffic::Bytes;
use super::{FINALIZER, seed};
use crate::cluster::{FIELD_MANAGER, Watched};
use crate::swarms::Known;

/// Changes come in flocks: so long is waited for more of them.
const BATCH: Duration = Duration::from_millis(100);
/// Reports of 5,000 nodes come all the time; they are counted so often.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Writes at a time.
const AT_ONCE: usize = 16;
/// After a failure it is planned again so soon; the plan says when the failed write itself is due.
const AGAIN: Duration = Duration::from_secs(1);
/// A write that takes longer has failed.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Where events about objects without a namespace are.
const EVENTS_IN: &str = "default";
/// What the API server takes of an event's note.
const MAX_NOTE: usize = 1_000;

type Answer = (Arc<str>, String, Reference, Result<Digest, ResolveError>);

/// Reconciles, whenever this replica leads.
pub(crate) struct Reconciler {
    swarms: Api<Object>,
    events: Api<EventObject>,
    pod: String,
    known: watch::Receiver<Known>,
    nodes: Watched<Node>,
    tracker: Handle,
    since: Instant,
    metrics: Metrics,
}

impl Reconciler {
    /// `known` are the Swarms that the tracker was told of.
    pub(crate) fn new(
        client: Client,
        pod: String,
        known: watch::Receiver<Known>,
        nodes: Watched<Node>,
        tracker: Handle,
        metrics: Metrics,
    ) -> Self {
        let events = Api::namespaced(client.clone(), EVENTS_IN);
        Self { swarms: Api::all(client), events, pod, known, nodes, tracker, since: Instant::now(), metrics }
    }

    /// Reconciles as long as it is let, or until the tracker stops.
    pub(crate) async fn lead(self: Arc<Self>, leadership: Leadership) {
        let _leading = Leading::new(&self.metrics);
        let started = Instant::now();
        let now = || Now { at: Time::ZERO + started.elapsed(), clock: Timestamp::now() };
        let mut planner = Planner::new(seed());
        let mut observer = Observer::new(self.known.clone(), self.nodes.clone(), self.tracker.clone(), self.since);
        let mut lookups: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        let mut counted = Counted::default();
        loop {
            let Ok(observed) = observer.look().await else { return };
            let plan = planner.plan(&observed, now());
            self.count(&observed, &mut counted, planner.moved());
            let (mut writes, mut told) = (Vec::new(), Vec::new());
            for action in plan.actions {
                match action {
                    Action::LookUp { swarm, artifact, reference } => {
                        lookups.push(Box::pin(self.look_up(swarm, artifact, reference)));
                    }
                    Action::Tell { swarm, uid, event } => told.push((swarm, uid, event)),
                    Action::Hold { .. } | Action::Write { .. } => writes.push(action),
                }
            }
            self.metrics.pending.set(i64::try_from(plan.pending).unwrap_or(i64::MAX));
            self.metrics.reconciled("unchanged", observed.swarms.len().saturating_sub(writes.len()));
            let writing = stream::iter(writes).map(|action| self.write(action, &observer, &leadership));
            let written: Vec<(Arc<str>, Option<Object>)> = writing.buffer_unordered(AT_ONCE).collect().await;
            let failed = written.iter().any(|(_, object)| object.is_none());
            for (swarm, object) in written {
                planner.written(&swarm, object.is_some(), now().at);
                self.metrics.reconciled(if object.is_some() { "written" } else { "failed" }, 1);
                object.into_iter().for_each(|object| observer.wrote(object));
            }
            let telling = stream::iter(told).map(|(swarm, uid, event)| self.tell(swarm, uid, event, &leadership));
            telling.buffer_unordered(AT_ONCE).collect::<()>().await;
            let planned = plan.wake.map(|at| started + at.since(Time::ZERO));
            let wake =
                planned.into_iter().chain(observer.settles_at()).chain(failed.then(|| Instant::now() + AGAIN)).min();
            let mut answers = Vec::new();
            tokio::select! {
                () = observer.changed(Instant::now() + COUNT_EVERY) => {}
                Some(answer) = lookups.next() => answers.push(answer),
                () = sleep_until(wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))) => {}
            }
            sleep(BATCH).await;
            while let Some(Some(answer)) = futures_util::FutureExt::now_or_never(lookups.next()) {
                answers.push(answer);
            }
            for (swarm, artifact, reference, answer) in answers {
                planner.looked_up(&swarm, &artifact, &reference, answer, now().at);
            }
        }
    }

    async fn look_up(&self, swarm: Arc<str>, artifact: String, reference: Reference) -> Answer {
        let answer = self.ask(&reference).await;
        if let Err(error) = &answer {
            tracing::info!(%swarm, artifact, %reference, %error, "an artifact can't be looked up: it is tried again");
        }
        (swarm, artifact, reference, answer)
    }

    async fn ask(&self, reference: &Reference) -> Result<Digest, ResolveError> {
        let digest = reference.digest().map(ToString::to_string);
        let what = digest.as_deref().or(reference.tag()).unwrap_or_default();
        let name = ImageName::new(reference.host().as_str(), reference.repository(), what);
        let name = name.map_err(|error| ResolveError::NotAllowed(error.to_string()))?;
        self.tracker.resolve(&name).await.map(|resolved| resolved.digest)
    }

    /// What the API server made of it; none, if it isn't done.
    async fn write(&self, action: Action, observer: &Observer, leadership: &Leadership) -> (Arc<str>, Option<Object>) {
        let swarm = match &action {
            Action::Hold { swarm, .. } | Action::Write { swarm, .. } => Arc::clone(swarm),
            Action::LookUp { .. } | Action::Tell { .. } => unreachable!("these aren't written"),
        };
        let Some(object) = observer.object(&swarm).filter(|_| leadership.holds()) else { return (swarm, None) };
        let written = async {
            match action {
                Action::Write { status, .. } => self.write_status(&object, &status).await,
                Action::Hold { on, .. } => self.hold(&object, on).await,
                Action::LookUp { .. } | Action::Tell { .. } => unreachable!("these aren't written"),
            }
        };
        let written = match timeout(WRITE_WITHIN, written).await {
            Ok(Ok(object)) => Some(object),
            // It is gone, or another version of it is there, of which the watch tells in a moment.
            Ok(Err(kube::Error::Api(error))) if matches!(error.code, 404 | 409) => None,
            Ok(Err(error)) => {
                tracing::warn!(%swarm, error = with_causes(&error), "a Swarm can't be written: it is tried again");
                None
            }
            Err(_) => {
                tracing::warn!(%swarm, "a Swarm can't be written: the API server takes too long");
                None
            }
        };
        (swarm, written)
    }

    async fn write_status(&self, object: &Object, status: &SwarmStatus) -> Result<Object, kube::Error> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let apply = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            // A Swarm of the same name that was made meanwhile is another one.
            "metadata": {"name": name, "uid": object.metadata.uid},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.swarms.patch_status(name, &params, &Patch::Apply(&apply)).await.map(stripped)
    }

    /// Puts the finalizer on, or takes it off; others' stay.
    async fn hold(&self, object: &Object, on: bool) -> Result<Object, kube::Error> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let others = object.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER);
        let finalizers: Vec<&str> = others.map(String::as_str).chain(on.then_some(FINALIZER)).collect();
        let version = &object.metadata.resource_version;
        let merge = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.swarms.patch(name, &params, &Patch::Merge(&merge)).await.map(stripped)
    }

    /// An event is told once or not at all.
    async fn tell(&self, swarm: Arc<str>, uid: String, event: Event, leadership: &Leadership) {
        if !leadership.holds() {
            return;
        }
        let Event { is_warning, reason, mut note } = event;
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let pod = &self.pod[..self.pod.floor_char_boundary(128)];
        let object = EventObject {
            metadata: ObjectMeta { generate_name: Some("shoal-".to_owned()), ..ObjectMeta::default() },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(format!("{GROUP}/operator")),
            reporting_instance: Some(pod.to_owned()),
            action: Some("Reconcile".to_owned()),
            reason: Some(reason),
            note: Some(note),
            type_: Some(if is_warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: Some(KIND.to_owned()),
                name: Some(swarm.to_string()),
                uid: Some(uid),
                ..ObjectReference::default()
            }),
            ..EventObject::default()
        };
        match timeout(WRITE_WITHIN, self.events.create(&PostParams::default(), &object)).await {
            Ok(Ok(_)) => drop(self.metrics.events.inc()),
            Ok(Err(error)) => tracing::warn!(%swarm, error = with_causes(&error), "an event can't be told"),
            Err(_) => tracing::warn!(%swarm, "an event can't be told: the API server takes too long"),
        }
    }

    fn count(&self, observed: &Observed, counted: &mut Counted, moved: Bytes) {
        let told = std::mem::replace(&mut counted.moved, moved);
        self.metrics.moved("peers", moved.from_peers.saturating_sub(told.from_peers));
        self.metrics.moved("origin", moved.from_origin.saturating_sub(told.from_origin));
        let there: BTreeSet<Arc<str>> = observed.swarms.iter().map(|seen| Arc::clone(&seen.name)).collect();
        counted.swarms.difference(&there).for_each(|gone| self.metrics.forget(gone));
        self.metrics.swarms.set(i64::try_from(there.len()).unwrap_or(i64::MAX));
        counted.swarms = there;
        for seen in &observed.swarms {
            let artifacts = || seen.status.artifacts.iter();
            let desired = artifacts().map(|artifact| u64::from(artifact.desired)).sum();
            let complete = artifacts().map(|artifact| u64::from(artifact.complete)).sum();
            self.metrics.copies(&seen.name, desired, complete);
        }
    }
}

/// What was counted already.
#[derive(Default)]
struct Counted {
    moved: Bytes,
    swarms: BTreeSet<Arc<str>>,
}

/// Nobody here reads who wrote which field; it is as long as the rest.
fn stripped(mut object: Object) -> Object {
    object.metadata.managed_fields = None;
    object
}

/// Says that this replica leads, until it is dropped.
struct Leading<'a>(&'a Metrics);

impl<'a> Leading<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.leader.set(1);
        Self(metrics)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.follows();
    }
}
