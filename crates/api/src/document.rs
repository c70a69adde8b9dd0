//! What a tracker tells a node: the Swarms, and what the tags of their artifacts mean.
//!
//! The text is YAML as [`crate::read_swarms`] reads it, a Swarm a document, and one document more for the artifacts:
//!
//! ```yaml
//! apiVersion: shoal.dev/v1alpha1
//! kind: ResolvedArtifacts
//! selected: true      # the tracker knows the reader's labels: what follows and the Swarms are all for this node
//! artifacts:
//! - {swarm: default, name: pytorch, reference: "r.example/ml/pytorch:2.9", digest: "sha256:…", placement: Runtime, pin: true}
//! ```
//!
//! State: none. Invariants: an artifact is one of a Swarm in the same document, with the reference, placement and pin that this Swarm gives it; no two
//! are the same Swarm's of the same name. Older Swarms come first.
//! Absent on purpose: who resolves tags, and who has which labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_types::Digest;

use crate::file::{documents, read_swarm_documents};
use crate::{
    Artifact, FileError, GROUP, KIND, LabelSelector, Placement, Problem, Reference, Swarm, SwarmSpec, VERSION,
};

const ARTIFACTS: &str = "ResolvedArtifacts";

/// Swarms and their resolved artifacts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// The oldest first.
    swarms: Vec<WrittenSwarm>,
    artifacts: Vec<ResolvedArtifact>,
    selected: bool,
}

/// A Swarm that was checked, and the specification from which it was.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenSwarm {
    swarm: Arc<Swarm>,
    spec: SwarmSpec,
}

/// An artifact of a Swarm whose tag was looked up: what nodes fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedArtifact {
    /// Its Swarm.
    pub swarm: Arc<str>,
    /// Its name in the Swarm.
    pub name: String,
    /// What the Swarm calls it.
    pub reference: Reference,
    /// The manifest's digest.
    pub digest: Digest,
    /// Where it goes.
    pub placement: Placement,
    /// Whether caches keep it.
    pub pin: bool,
}

impl WrittenSwarm {
    /// Checks a specification: see [`Swarm::check`].
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn check(name: &str, created: u64, spec: SwarmSpec) -> Result<Self, Vec<Problem>> {
        Ok(Self { swarm: Arc::new(Swarm::check(name, created, &spec)?), spec })
    }

    /// The Swarm.
    #[must_use]
    pub const fn swarm(&self) -> &Arc<Swarm> {
        &self.swarm
    }

    fn text(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": {"name": *self.swarm.name}, "spec": self.spec,
        })
    }
}

impl ResolvedArtifact {
    /// An artifact of a Swarm, whose reference means this digest.
    #[must_use]
    pub fn new(swarm: &Swarm, artifact: &Artifact, digest: Digest) -> Self {
        let Artifact { name, reference, placement, pin } = artifact.clone();
        Self { swarm: Arc::clone(&swarm.name), name, reference, digest, placement, pin }
    }
}

impl Document {
    /// A document of these Swarms, of which nothing is resolved.
    #[must_use]
    pub fn new(mut swarms: Vec<WrittenSwarm>) -> Self {
        swarms.sort_by(|a, b| (a.swarm.created, &a.swarm.name).cmp(&(b.swarm.created, &b.swarm.name)));
        Self { swarms, artifacts: Vec::new(), selected: false }
    }

    /// Reads a file that people write: Swarms alone.
    ///
    /// # Errors
    /// As [`crate::read_swarms`].
    pub fn read_file(file: &str, text: &str) -> Result<Self, FileError> {
        Ok(Self::new(read_swarm_documents(file, documents(file, text)?)?))
    }

    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    /// If it isn't that: all problems, each with its place.
    pub fn read(source: &str, text: &str) -> Result<Self, FileError> {
        let is_artifacts = |document: &Value| document["kind"] == ARTIFACTS;
        let (mut artifacts, swarms): (Vec<Value>, Vec<Value>) =
            documents(source, text)?.into_iter().partition(is_artifacts);
        let failed = |problem: Problem| FileError::new(source, vec![problem]);
        if artifacts.len() > 1 {
            return Err(failed(Problem::new("kind", format!("{ARTIFACTS} is here twice: write one"))));
        }
        let Some(artifacts) = artifacts.pop() else { return Ok(Self::new(read_swarm_documents(source, swarms)?)) };
        let text: ArtifactsText =
            serde_json::from_value(artifacts).map_err(|error| failed(Problem::new(ARTIFACTS, error.to_string())))?;
        if text.api_version != format!("{GROUP}/{VERSION}") {
            return Err(failed(Problem::new("apiVersion", format!("write {GROUP}/{VERSION}"))));
        }
        // A node that no Swarm selects gets none.
        let swarms = if swarms.is_empty() { Vec::new() } else { read_swarm_documents(source, swarms)? };
        let mut document = Self { selected: text.selected, ..Self::new(swarms) };
        let count = text.artifacts.len();
        let parsed = text.artifacts.into_iter().enumerate().map(|(at, artifact)| artifact.parse(at));
        let parsed: Vec<ResolvedArtifact> = parsed.collect::<Result<_, _>>().map_err(failed)?;
        document.resolve(parsed);
        if document.artifacts.len() < count {
            let what = "one of them is no Swarm's artifact as the Swarm has it, or is here twice";
            return Err(failed(Problem::new("artifacts", what)));
        }
        Ok(document)
    }

    /// The Swarms, the oldest first.
    pub fn swarms(&self) -> impl ExactSizeIterator<Item = &Arc<Swarm>> {
        self.swarms.iter().map(WrittenSwarm::swarm)
    }

    /// The artifacts that are resolved, in the Swarms' order.
    #[must_use]
    pub fn artifacts(&self) -> &[ResolvedArtifact] {
        &self.artifacts
    }

    /// Every artifact that a Swarm lists, resolved or not.
    pub fn listed(&self) -> impl Iterator<Item = (&Arc<Swarm>, &Artifact)> {
        self.swarms().flat_map(|swarm| swarm.artifacts.iter().map(move |artifact| (swarm, artifact)))
    }

    /// Takes the resolved artifacts that a Swarm lists with the same reference; they replace those that were there, placement and pin being the
    /// Swarm's. So what was resolved before a Swarm changed can be given: what it no longer lists is left out.
    pub fn resolve(&mut self, resolved: impl IntoIterator<Item = ResolvedArtifact>) {
        let mut known: BTreeMap<(Arc<str>, String), ResolvedArtifact> = BTreeMap::new();
        for artifact in resolved {
            known.insert((Arc::clone(&artifact.swarm), artifact.name.clone()), artifact);
        }
        let mut artifacts = Vec::new();
        for (swarm, artifact) in self.listed() {
            if let Some(found) = known.remove(&(Arc::clone(&swarm.name), artifact.name.clone()))
                && found.reference == artifact.reference
            {
                artifacts.push(ResolvedArtifact::new(swarm, artifact, found.digest));
            }
        }
        self.artifacts = artifacts;
    }

    /// Keeps what was resolved before where nobody says anything newer: who looks tags up may not have come to it yet.
    pub fn keep_resolved(&mut self, before: &[ResolvedArtifact]) {
        let newer = std::mem::take(&mut self.artifacts);
        self.resolve(before.iter().cloned().chain(newer));
    }

    /// What is for a node with these labels. What was selected already stays.
    #[must_use]
    pub fn select(&self, labels: &BTreeMap<String, String>) -> Self {
        if self.selected {
            return self.clone();
        }
        let is_for = |selector: &LabelSelector| selector.matches(labels);
        let swarms: Vec<_> =
            self.swarms.iter().filter(|written| is_for(&written.swarm.node_selector)).cloned().collect();
        let names: BTreeSet<&str> = swarms.iter().map(|written| &*written.swarm.name).collect();
        let artifacts = self.artifacts.iter().filter(|artifact| names.contains(&*artifact.swarm)).cloned().collect();
        Self { swarms, artifacts, selected: true }
    }

    /// The document as it is sent: the same for the same document. JSON is YAML.
    #[must_use]
    pub fn text(&self) -> String {
        let artifacts = ArtifactsText {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: ARTIFACTS.to_owned(),
            selected: self.selected,
            artifacts: self.artifacts.iter().map(ArtifactText::from).collect(),
        };
        let swarms = self.swarms.iter().map(|written| written.text().to_string());
        let artifacts = serde_json::to_string(&artifacts).expect("it has texts, booleans and lists");
        swarms.chain([artifacts]).map(|document| format!("---\n{document}\n")).collect()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactsText {
    api_version: String,
    kind: String,
    #[serde(default)]
    selected: bool,
    #[serde(default)]
    artifacts: Vec<ArtifactText>,
}

#[derive(Serialize, Deserialize)]
struct ArtifactText {
    swarm: String,
    name: String,
    reference: String,
    digest: String,
    #[serde(default)]
    placement: Placement,
    #[serde(default)]
    pin: bool,
}

impl From<&ResolvedArtifact> for ArtifactText {
    fn from(artifact: &ResolvedArtifact) -> Self {
        Self {
            swarm: artifact.swarm.to_string(),
            name: artifact.name.clone(),
            reference: artifact.reference.to_string(),
            digest: artifact.digest.to_string(),
            placement: artifact.placement,
            pin: artifact.pin,
        }
    }
}

impl ArtifactText {
    fn parse(self, at: usize) -> Result<ResolvedArtifact, Problem> {
        let wrong = |key: &str, error: String| Problem::new(format!("artifacts[{at}].{key}"), error);
        Ok(ResolvedArtifact {
            swarm: self.swarm.into(),
            name: self.name,
            reference: self.reference.parse().map_err(|error| wrong("reference", format!("{error}")))?,
            digest: self.digest.parse().map_err(|error| wrong("digest", format!("{error}")))?,
            placement: self.placement,
            pin: self.pin,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWARMS: &str = "apiVersion: shoal.dev/v1alpha1
kind: Swarm
metadata: {name: all}
spec:
  registries: [{host: r.example}]
  artifacts:
  - {name: model, reference: \"r.example/ml/model:1\", placement: Cache, pin: true}
  - {name: app, reference: \"r.example/team/app:2\"}
---
apiVersion: shoal.dev/v1alpha1
kind: Swarm
metadata: {name: \"no\"}
spec:
  nodeSelector: {matchLabels: {gpu: \"yes\"}}
  registries: [{host: \"*\"}]
  artifacts: [{name: driver, reference: \"r.example/driver:3\", placement: Cache}]
";

    fn document() -> Document {
        let mut document = Document::read_file("test", SWARMS).unwrap();
        let resolved: Vec<_> = document
            .listed()
            .zip(1..)
            .map(|((swarm, artifact), byte)| ResolvedArtifact::new(swarm, artifact, Digest::Sha256([byte; 32])))
            .collect();
        document.resolve(resolved);
        document
    }

    fn names(document: &Document) -> Vec<&str> {
        document.artifacts().iter().map(|artifact| artifact.name.as_str()).collect()
    }

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        let document = document();
        let text = document.text();
        let read = Document::read("test", &text).unwrap();
        assert_eq!(read.text(), text);
        assert_eq!(read.artifacts(), document.artifacts());
        assert!(read.swarms().eq(document.swarms()));
        assert!(Document::read_file("test", &text).is_err(), "people's files have Swarms alone");
        assert_eq!(Document::read("test", SWARMS).unwrap().artifacts(), []);
        let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned())]);
        let none = Document::default().select(&labels);
        assert_eq!(Document::read("test", &none.text()).unwrap(), none);
    }

    #[test]
    fn a_node_gets_what_its_labels_select_and_that_is_not_selected_again() {
        let document = document();
        let plain = document.select(&BTreeMap::new());
        assert_eq!((plain.swarms().len(), names(&plain)), (1, vec!["model", "app"]));
        let labels = BTreeMap::from([("gpu".to_owned(), "yes".to_owned())]);
        let gpu = document.select(&labels);
        assert_eq!((gpu.swarms().len(), names(&gpu)), (2, vec!["model", "app", "driver"]));
        let read = Document::read("test", &gpu.text()).unwrap();
        assert_eq!(read.select(&BTreeMap::new()).swarms().len(), 2);
    }

    #[test]
    fn what_was_resolved_holds_until_somebody_knows_better() {
        let before = document();
        let mut after =
            Document::read_file("test", &SWARMS.replace("team/app:2", "team/app:3").replace("pin: true", "pin: false"))
                .unwrap();
        after.keep_resolved(before.artifacts());
        assert_eq!(names(&after), ["model", "driver"], "another tag has to be looked up");
        assert!(!after.artifacts()[0].pin, "the Swarm says so now");
        let moved = ResolvedArtifact { digest: Digest::Sha256([9; 32]), ..before.artifacts()[0].clone() };
        after.resolve([moved.clone()]);
        after.keep_resolved(before.artifacts());
        assert_eq!(after.artifacts()[0].digest, moved.digest);
        assert_eq!(names(&after), ["model", "driver"]);
        let mut gone = Document::read_file("test", SWARMS.split_once("---\n").unwrap().1).unwrap();
        gone.keep_resolved(before.artifacts());
        assert_eq!(names(&gone), ["driver"]);
    }

    #[test]
    fn what_makes_no_sense_says_where() {
        let text = document().text();
        let cases = [
            (text.replace("sha256:0101", "sha999:0101"), "artifacts[0].digest"),
            (
                text.replace("\"reference\":\"r.example/team/app:2\",\"digest\"", "\"reference\":\"app\",\"digest\""),
                "artifacts[1].reference",
            ),
            (text.replace("\"swarm\":\"no\"", "\"swarm\":\"all\""), "artifacts"),
            (format!("{text}---\nkind: ResolvedArtifacts\n"), "kind"),
            (text.replace("\"selected\":false", "\"selected\":7"), ARTIFACTS),
        ];
        for (text, path) in cases {
            let error = Document::read("test", &text).unwrap_err();
            assert_eq!(error.problems()[0].path(), path, "{error}");
        }
    }
}
