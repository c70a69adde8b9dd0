//! Swarms from a file, for agents and trackers outside of Kubernetes: the same YAML as in it.
//!
//! State: none. Absent on purpose: reading the file itself, and `List` objects: a file may hold several documents.

use std::fmt;

use serde_json::Value;

use crate::schema::read_spec;
use crate::{GROUP, KIND, Problem, Swarm, VERSION, WrittenSwarm};

/// Reads the Swarms of a YAML text; `file` is how errors call it. Where it matters, an earlier Swarm counts as the older one.
///
/// # Errors
/// If the text isn't YAML, or a Swarm in it has an unknown key, an impossible value or contradicts itself: all problems, each with its place.
pub fn read_swarms(file: &str, text: &str) -> Result<Vec<Swarm>, FileError> {
    let written = read_swarm_documents(file, documents(file, text)?)?;
    Ok(written.iter().map(|written| (**written.swarm()).clone()).collect())
}

/// The documents of a YAML text.
pub(crate) fn documents(file: &str, text: &str) -> Result<Vec<Value>, FileError> {
    serde_saphyr::from_multiple_with_options(text, options())
        .map_err(|error| FileError::new(file, vec![not_yaml(&error)]))
}

/// A Swarm a document.
pub(crate) fn read_swarm_documents(file: &str, documents: Vec<Value>) -> Result<Vec<WrittenSwarm>, FileError> {
    if documents.is_empty() {
        let problem = format!("no Swarm: write apiVersion: {GROUP}/{VERSION}, kind: {KIND}, metadata and spec");
        return Err(FileError::new(file, vec![Problem::new("kind", problem)]));
    }
    let mut swarms: Vec<WrittenSwarm> = Vec::new();
    let mut problems = Vec::new();
    let several = documents.len() > 1;
    for (at, document) in documents.into_iter().enumerate() {
        let prefix = if several { format!("document {}: ", at + 1) } else { String::new() };
        match read_swarm(document, at as u64, &prefix) {
            Ok(written) if swarms.iter().any(|other| other.swarm().name == written.swarm().name) => {
                let name = &written.swarm().name;
                let problem = format!("another Swarm in this file is called {name}: write another name");
                problems.push(Problem::new(format!("{prefix}metadata.name"), problem));
            }
            Ok(written) => swarms.push(written),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(swarms) } else { Err(FileError::new(file, problems)) }
}

/// The keys of a Kubernetes object. What a cluster adds to them is skipped, so that `kubectl get -o yaml` gives a usable file.
const TOP_LEVEL: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

fn read_swarm(document: Value, created: u64, prefix: &str) -> Result<WrittenSwarm, Vec<Problem>> {
    let one = |path: &str, message: String| vec![Problem::new(format!("{prefix}{path}"), message)];
    let Value::Object(mut document) = document else {
        return Err(one("kind", format!("not a Swarm: write apiVersion, kind: {KIND}, metadata and spec")));
    };
    if let Some(key) = document.keys().find(|key| !TOP_LEVEL.contains(&key.as_str())) {
        return Err(one(key, format!("unknown key: write one of {}", TOP_LEVEL.join(", "))));
    }
    for (key, expected) in [("apiVersion", format!("{GROUP}/{VERSION}")), ("kind", KIND.to_owned())] {
        if document.get(key).and_then(Value::as_str) != Some(&expected) {
            return Err(one(key, format!("write {key}: {expected}")));
        }
    }
    let name = document.get("metadata").and_then(|metadata| metadata["name"].as_str()).unwrap_or_default();
    if !crate::check::is_dns_name(name) {
        return Err(one(
            "metadata.name",
            "write lower-case letters, digits, \"-\" and \".\", as in default".to_owned(),
        ));
    }
    let name = name.to_owned();
    let path = format!("{prefix}spec");
    let spec = match document.remove("spec") {
        Some(spec) if !spec.is_null() => read_spec(spec, &path)?,
        _ => return Err(one("spec", "missing: write it, with registries at least".to_owned())),
    };
    WrittenSwarm::check(&name, created, spec)
        .map_err(|problems| problems.into_iter().map(|problem| problem.within(prefix)).collect())
}

/// Only `true` and `false` are booleans: a registry may well be called `no`.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn not_yaml(error: &serde_saphyr::Error) -> Problem {
    let path = error.location().map_or_else(String::new, |at| format!("line {}, column {}", at.line(), at.column()));
    let message = error.without_snippet().to_string();
    // What follows repeats the place, or speaks to programmers.
    let what = [" at line ", ", set ", "\n"].iter().fold(&*message, |text, end| text.split(end).next().unwrap_or(text));
    Problem::new(path, what)
}

/// A file without usable Swarms. Its text is one line: the first problem, and where the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    file: String,
    problems: Vec<Problem>,
}

impl FileError {
    pub(crate) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems }
    }

    /// All that is wrong.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        let Some((first, rest)) = self.problems.split_first() else { return Ok(()) };
        first.fmt(f)?;
        for (at, problem) in rest.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { " (also wrong: " } else { ", " }, problem.path())?;
        }
        f.write_str(if rest.is_empty() { "" } else { ")" })
    }
}

impl std::error::Error for FileError {}
