//! The cluster as a plan sees it, out of what is followed and what the tracker knows.
//!
//! State: what was made of each Swarm and of the Nodes when they changed last; what this leader wrote and hasn't seen come back.
//! Invariants: a leader sees its own writes. A Swarm is checked once for each of its generations.
//! Absent on purpose: judging.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use shoal_api::Swarm;
use shoal_api::kube::Swarm as Object;
use shoal_tracker_server::{Handle, Stopping};
use tokio::sync::watch;
use tokio::time::Instant;

use super::FINALIZER;
use super::observed::{NodeSet, Nodes, Observed, SeenSwarm};
use crate::cluster::Watched;
use crate::swarms::{self, Known};

/// Agents that are there come back within this time after a tracker's start, and report.
const SETTLE: Duration = Duration::from_secs(10);

/// Looks at the cluster.
pub(super) struct Observer {
    known: watch::Receiver<Known>,
    nodes: Watched<Node>,
    nodes_changed: bool,
    tracker: Handle,
    reports: watch::Receiver<u64>,
    connections: watch::Receiver<u64>,
    /// When the tracker began to listen.
    since: Instant,
    meanings: BTreeMap<String, Meaning>,
    written: BTreeMap<String, Arc<Object>>,
    known_nodes: Arc<Nodes>,
    up: NodeSet,
}

struct Meaning {
    uid: String,
    generation: i64,
    meaning: Result<Arc<Swarm>, Arc<str>>,
}

impl Observer {
    pub(super) fn new(known: watch::Receiver<Known>, nodes: Watched<Node>, tracker: Handle, since: Instant) -> Self {
        let (reports, connections) = (tracker.report_changes(), tracker.connection_changes());
        let (meanings, written) = (BTreeMap::new(), BTreeMap::new());
        let (known_nodes, up) = (Arc::default(), NodeSet::default());
        Self {
            known,
            nodes,
            nodes_changed: true,
            tracker,
            reports,
            connections,
            since,
            meanings,
            written,
            known_nodes,
            up,
        }
    }

    /// The cluster now.
    pub(super) async fn look(&mut self) -> Result<Observed, Stopping> {
        self.connections.mark_unchanged();
        self.reports.mark_unchanged();
        if std::mem::take(&mut self.nodes_changed) {
            self.look_at_nodes();
        }
        let told = self.known.borrow_and_update().clone();
        let swarms = self.look_at_swarms(&told);
        let connected = self.tracker.connected().await?;
        let numbers = self.known_nodes.numbers();
        let connected = connected.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
        let reports = self.tracker.reports().into_iter();
        let reports = reports.filter_map(|report| Some((*numbers.get(report.node.as_str())?, report.report)));
        let reports = reports.collect();
        drop(numbers);
        Ok(Observed {
            swarms,
            nodes: Arc::clone(&self.known_nodes),
            up: self.up.clone(),
            connected,
            reports,
            settled: self.settles_at().is_none(),
            secret_changes: told.secret_changes,
        })
    }

    /// When agents have had the time to come back; none, if they have had it.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        let at = self.since + SETTLE;
        (Instant::now() < at).then_some(at)
    }

    /// Returns when something is different. What agents report is looked at no earlier than `reports_from`: it changes all the time.
    pub(super) async fn changed(&mut self, reports_from: Instant) {
        let reported = async {
            if self.reports.changed().await.is_err() {
                std::future::pending().await
            }
            tokio::time::sleep_until(reports_from).await;
        };
        tokio::select! {
            Ok(()) = self.known.changed() => {}
            () = self.nodes.changed() => self.nodes_changed = true,
            Ok(()) = self.connections.changed() => {}
            () = reported => {}
        }
    }

    /// The newest of a Swarm that is known.
    pub(super) fn object(&self, name: &str) -> Option<Arc<Object>> {
        let known = self.known.borrow();
        let there = known.objects.iter().find(|object| object.metadata.name.as_deref() == Some(name))?;
        Some(self.newest(there))
    }

    /// What the API server answered to a write.
    pub(super) fn wrote(&mut self, object: Object) {
        if let Some(name) = object.metadata.name.clone() {
            self.written.insert(name, Arc::new(object));
        }
    }

    fn newest(&self, there: &Arc<Object>) -> Arc<Object> {
        let written = there.metadata.name.as_ref().and_then(|name| self.written.get(name));
        Arc::clone(written.filter(|written| is_newer(written, there)).unwrap_or(there))
    }

    fn look_at_swarms(&mut self, told: &Known) -> Vec<SeenSwarm> {
        let mut before = std::mem::take(&mut self.meanings);
        let written = std::mem::take(&mut self.written);
        let mut seen = Vec::with_capacity(told.objects.len());
        for object in told.objects.iter() {
            let Some(name) = object.metadata.name.clone() else { continue };
            if let Some(written) = written.get(&name).filter(|written| is_newer(written, object)) {
                self.written.insert(name.clone(), Arc::clone(written));
            }
            let object = self.newest(object);
            let meta = &object.metadata;
            let uid = meta.uid.clone().unwrap_or_default();
            let generation = meta.generation.unwrap_or_default();
            let same = before.remove(&name).filter(|known| known.uid == uid && known.generation == generation);
            let meaning = same.unwrap_or_else(|| {
                let meaning = swarms::check(&object).map(|swarm| Arc::clone(swarm.swarm())).map_err(Arc::from);
                Meaning { uid: uid.clone(), generation, meaning }
            });
            seen.push(SeenSwarm {
                name: name.as_str().into(),
                uid,
                generation,
                deleting: meta.deletion_timestamp.as_ref().map(|time| time.0),
                held: meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER),
                meaning: meaning.meaning.clone(),
                no_secret: told.secrets.get(name.as_str()).cloned(),
                status: object.status.clone().unwrap_or_default(),
            });
            self.meanings.insert(name, meaning);
        }
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    fn look_at_nodes(&mut self) {
        let nodes = self.nodes.all();
        let name = |node: &Node| -> Option<Arc<str>> { node.metadata.name.as_deref().map(Arc::from) };
        let labelled = |node: &Arc<Node>| Some((name(node)?, node.metadata.labels.clone().unwrap_or_default()));
        let known = Nodes::new(nodes.iter().filter_map(labelled));
        if known != *self.known_nodes {
            self.known_nodes = Arc::new(known);
        }
        let numbers = self.known_nodes.numbers();
        let up = nodes.iter().filter(|node| is_up(node));
        self.up = up.filter_map(|node| numbers.get(node.metadata.name.as_deref()?).copied()).collect();
    }
}

/// Whether Kubernetes calls it ready.
fn is_up(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether this is a later version of the same object.
fn is_newer(written: &Object, there: &Object) -> bool {
    let version = |object: &Object| object.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    written.metadata.uid == there.metadata.uid && version(written) > version(there)
}
