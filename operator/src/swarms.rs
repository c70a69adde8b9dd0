//! The Swarms' way from the API server to the tracker: its document, and the policy by which it asks origins.
//!
//! State: the last document.
//! Invariants: a Swarm that contradicts itself is left out; it never keeps the others away. All replicas make the same document of the
//! same Swarms, the older ones first, as `shoal_api` wants them; what an artifact's tag means is what the Swarm's status says of the same
//! reference, so no leader, registry or restart is needed for it. A Swarm that is being deleted pushes nothing.
//! Absent on purpose: status, events, and what Secrets say (`secrets`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_api::kube::Swarm as Object;
use shoal_api::{ArtifactStatus, Document, Policy, ResolvedArtifact, Swarm, WrittenSwarm};
use shoal_origins::source;
use shoal_tracker_server::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::Watched;
use crate::secrets::Secrets;

/// The Swarms that the tracker was told of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// All that there are, those too that mean nothing.
    pub(crate) objects: Arc<[Arc<Object>]>,
    /// What is wrong with the Secrets that they name, by Swarm.
    pub(crate) secrets: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// Counts changes of Secrets.
    pub(crate) secret_changes: u64,
}

/// Changes come in flocks: so long is waited for more of them.
const BATCH: Duration = Duration::from_millis(50);

/// What all Swarms say.
#[derive(Default)]
pub(crate) struct Swarms {
    /// As agents read it.
    pub(crate) document: Document,
    /// The tracker answers for all nodes, whichever Swarm selects them.
    pub(crate) policy: Arc<Policy>,
}

impl Swarms {
    /// Of these objects.
    pub(crate) fn of<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let (mut swarms, mut resolved) = (Vec::new(), Vec::new());
        for object in objects.into_iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            // What is wrong with one, its status says.
            let Ok(written) = check(object) else { continue };
            let status = object.status.as_ref().map(|status| status.artifacts.as_slice());
            resolved.extend(meant(written.swarm(), status.unwrap_or_default()));
            swarms.push(written);
        }
        let mut document = Document::new(swarms);
        document.resolve(resolved);
        let policy = Arc::new(Policy::compile(document.swarms().cloned()));
        Self { document, policy }
    }
}

/// Takes from a Swarm what nobody here reads: who wrote which field.
pub(crate) fn strip(object: &mut Object) {
    object.metadata.managed_fields = None;
}

/// What a Swarm means; all that is wrong with it in one line, if it means nothing.
pub(crate) fn check(object: &Object) -> Result<WrittenSwarm, String> {
    let created = object.metadata.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second());
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let checked = WrittenSwarm::check(name, u64::try_from(created).unwrap_or_default(), object.spec.clone());
    checked.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// The artifacts whose digest is known: it is in the reference, or was looked up.
fn meant(swarm: &Swarm, status: &[ArtifactStatus]) -> impl Iterator<Item = ResolvedArtifact> {
    swarm.artifacts.iter().filter_map(move |artifact| {
        let reference = artifact.reference.to_string();
        let is_it = |known: &&ArtifactStatus| known.name == artifact.name && known.reference == reference;
        let looked_up = || status.iter().find(is_it)?.digest.parse().ok();
        let digest = artifact.reference.digest().copied().or_else(looked_up)?;
        Some(ResolvedArtifact::new(swarm, artifact, digest))
    })
}

/// Tells the tracker of every change, and then the others which Swarms it knows.
pub(crate) async fn follow(
    mut objects: Watched<Object>,
    mut secrets: Secrets,
    policy: watch::Sender<Arc<Policy>>,
    tracker: Handle,
    tell: watch::Sender<Known>,
) {
    let (mut known, mut essences) = (Known::default(), None);
    loop {
        known.objects = objects.all().into();
        // Most changes are of figures in a status.
        let now: Vec<_> = known.objects.iter().map(|object| Essence::of(object, known.secret_changes)).collect();
        if essences.as_ref() != Some(&now) {
            essences = Some(now);
            let Swarms { document, policy: new } = Swarms::of(known.objects.iter().map(AsRef::as_ref));
            known.secrets = Arc::new(problems(&document, &secrets));
            policy.send_replace(new);
            if tracker.set_swarm(source(&document)).await.is_err() {
                return;
            }
        }
        tell.send_replace(known.clone());
        tokio::select! {
            () = objects.changed() => {}
            () = secrets.changed() => known.secret_changes += 1,
        }
        sleep(BATCH).await;
    }
}

/// What is wrong with the Secrets that Swarms name.
fn problems(document: &Document, secrets: &Secrets) -> BTreeMap<Arc<str>, Arc<str>> {
    let problems = |swarm: &Arc<Swarm>| {
        let problems: Vec<String> = secrets.problems(swarm).iter().map(ToString::to_string).collect();
        (!problems.is_empty()).then(|| (Arc::clone(&swarm.name), problems.join("; ").into()))
    };
    document.swarms().filter_map(problems).collect()
}

/// What of an object makes a difference to agents.
#[derive(PartialEq, Eq)]
struct Essence {
    uid: Option<String>,
    generation: Option<i64>,
    is_deleted: bool,
    digests: Vec<[String; 3]>,
    secret_changes: u64,
}

impl Essence {
    fn of(object: &Object, secret_changes: u64) -> Self {
        let artifacts = object.status.iter().flat_map(|status| &status.artifacts);
        let digest = |known: &ArtifactStatus| [known.name.clone(), known.reference.clone(), known.digest.clone()];
        Self {
            uid: object.metadata.uid.clone(),
            generation: object.metadata.generation,
            is_deleted: object.metadata.deletion_timestamp.is_some(),
            digests: artifacts.map(digest).collect(),
            secret_changes,
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
        assert!(check(&objects[1]).unwrap_err().contains("registries"));
        let read = Document::read("document", &swarms.document.text()).unwrap();
        assert_eq!(read.swarms().map(|swarm| &*swarm.name).collect::<Vec<_>>(), ["old", "young"]);
        let mut again = objects.to_vec();
        again.reverse();
        assert_eq!(Swarms::of(&again).document, swarms.document);
        let none = Swarms::of(&[] as &[Object]).document.text();
        assert_eq!(
            Document::read("document", &none).unwrap().swarms().len(),
            0,
            "it can be read, and says that there is none"
        );
    }

    #[test]
    fn what_a_tag_means_is_the_statuss_word_about_the_same_reference() {
        let digest = format!("sha256:{}", "07".repeat(32));
        let object = |reference: &str, deleted: Option<&str>| -> Object {
            let status = json!({"artifacts": [{"name": "a", "reference": "r.example/a:1", "digest": digest}]});
            serde_json::from_value(json!({
                "apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm",
                "metadata": {"name": "s", "deletionTimestamp": deleted},
                "spec": {"registries": [{"host": "r.example"}], "artifacts": [{"name": "a", "reference": reference}]},
                "status": status,
            }))
            .unwrap()
        };
        let pushed = |object: Object| {
            let artifacts = Swarms::of([&object]).document.artifacts().to_vec();
            artifacts.iter().map(|artifact| artifact.digest.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(pushed(object("r.example/a:1", None)).join(" "), digest);
        assert_eq!(pushed(object("r.example/a:2", None)), [""; 0], "another tag has to be looked up");
        let other = format!("sha256:{}", "09".repeat(32));
        assert_eq!(pushed(object(&format!("r.example/a@{other}"), None)), [other]);
        assert_eq!(pushed(object("r.example/a:1", Some("2026-01-01T00:00:00Z"))), [""; 0]);
    }
}
