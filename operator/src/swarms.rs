//! The Swarms' way from the API server to the tracker: its document, and the policy by which it asks origins.
//!
//! State: the last document.
//! Invariants: a Swarm that contradicts itself is left out, and is said to be; it never keeps the others away. All replicas make the same document of the
//! same Swarms: the older ones first, as `shoal_api` wants them.
//! Absent on purpose: status, events, artifacts, and what Secrets say (`secrets`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use shoal_api::kube::Swarm as Object;
use shoal_api::{Document, Policy, WrittenSwarm};
use shoal_origins::source;
use shoal_tracker_server::Handle;
use tokio::sync::watch;

use crate::cluster::Watched;
use crate::secrets::Secrets;

/// What all Swarms say.
#[derive(Default)]
pub(crate) struct Swarms {
    /// As agents read it.
    pub(crate) document: Document,
    /// The tracker answers for all nodes, whichever Swarm selects them.
    pub(crate) policy: Arc<Policy>,
    /// Those that were left out, with the reason.
    refused: BTreeMap<String, String>,
}

impl Swarms {
    /// Of these objects.
    pub(crate) fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let key = |object: &&Object| (age(object), object.metadata.name.clone().unwrap_or_default());
        let mut objects: Vec<&Object> = objects.into_iter().collect();
        objects.sort_by_key(key);
        let (mut swarms, mut refused) = (Vec::new(), BTreeMap::new());
        for (at, object) in objects.into_iter().enumerate() {
            let name = object.metadata.name.clone().unwrap_or_default();
            match WrittenSwarm::check(&name, at as u64, object.spec.clone()) {
                Ok(swarm) => swarms.push(swarm),
                Err(problems) => {
                    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    refused.insert(name, problems.join("; "));
                }
            }
        }
        let document = Document::new(swarms);
        let policy = Arc::new(Policy::compile(document.swarms().cloned()));
        Self { document, policy, refused }
    }
}

fn age(object: &Object) -> Option<Timestamp> {
    object.metadata.creation_timestamp.as_ref().map(|created| created.0)
}

/// Tells the tracker of every change.
pub(crate) async fn follow(
    mut objects: Watched<Object>,
    mut secrets: Secrets,
    policy: watch::Sender<Arc<Policy>>,
    tracker: Handle,
) {
    let (mut refused, mut without) = (BTreeMap::new(), Vec::new());
    loop {
        let all = objects.all();
        let swarms = Swarms::of(all.iter().map(AsRef::as_ref));
        for (swarm, problems) in &swarms.refused {
            if refused.get(swarm) != Some(problems) {
                tracing::warn!(swarm, problems, "a Swarm is left out");
            }
        }
        refused = swarms.refused;
        let problems: Vec<String> = swarms
            .document
            .swarms()
            .flat_map(|swarm| secrets.problems(swarm))
            .map(|problem| problem.to_string())
            .collect();
        for problem in problems.iter().filter(|problem| !without.contains(*problem)) {
            tracing::warn!(problem, "a registry has no credentials");
        }
        without = problems;
        policy.send_replace(swarms.policy);
        if tracker.set_swarm(source(&swarms.document)).await.is_err() {
            return;
        }
        tokio::select! {
            () = objects.changed() => {}
            () = secrets.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn agents_read_what_is_right_in_the_order_of_age() {
        let object = |name: &str, created: &str, host: &str| -> Object {
            serde_json::from_value(json!({
                "apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm",
                "metadata": {"name": name, "creationTimestamp": created},
                "spec": {"registries": [{"host": host}]},
            }))
            .unwrap()
        };
        let objects = [
            object("young", "2026-03-01T00:00:00Z", "b.example"),
            object("wrong", "2026-01-01T00:00:00Z", "https://x"),
            object("old", "2026-02-01T00:00:00Z", "a.example"),
        ];
        let swarms = Swarms::of(&objects);
        assert!(swarms.refused["wrong"].contains("registries"), "{:?}", swarms.refused);
        let read = Document::read("document", &swarms.document.text()).unwrap();
        assert_eq!(read.swarms().map(|swarm| &*swarm.name).collect::<Vec<_>>(), ["old", "young"]);
        let mut again = objects.to_vec();
        again.reverse();
        assert_eq!(Swarms::of(&again).document, swarms.document);
        let none = Swarms::of(&[]).document.text();
        assert_eq!(
            Document::read("document", &none).unwrap().swarms().len(),
            0,
            "it can be read, and says that there is none"
        );
    }
}
