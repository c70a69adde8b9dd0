//! Swarms from a file, for agents and trackers outside of Kubernetes: the same YAML as in it.
//!
//! State: none. Absent on purpose: reading the file itself, and `List` objects: a file may hold several documents.

use std::fmt;

use serde_json::Value;

use crate::schema::read_spec;
use crate::{GROUP, KIND, Problem, Swarm, VERSION};

/// Reads the Swarms of a YAML text; `file` is how errors call it. Where it matters, an earlier Swarm counts as the older one.
///
/// # Errors
/// If the text isn't YAML, or a Swarm in it has an unknown key, an impossible value or contradicts itself: all problems, each with its place.
pub fn read_swarms(file: &str, text: &str) -> Result<Vec<Swarm>, FileError> {
    let failed = |problems| FileError { file: file.to_owned(), problems };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| failed(vec![not_yaml(&error)]))?;
    if documents.is_empty() {
        return Err(failed(vec![Problem::new(
            "kind",
            format!("no Swarm: write apiVersion: {GROUP}/{VERSION}, kind: {KIND}, metadata and spec"),
        )]));
    }
    let mut swarms: Vec<Swarm> = Vec::new();
    let mut problems = Vec::new();
    let several = documents.len() > 1;
    for (at, document) in documents.into_iter().enumerate() {
        let prefix = if several { format!("document {}: ", at + 1) } else { String::new() };
        match read_swarm(document, at as u64, &prefix) {
            Ok(swarm) if swarms.iter().any(|other| other.name == swarm.name) => {
                let problem = format!("another Swarm in this file is called {}: write another name", swarm.name);
                problems.push(Problem::new(format!("{prefix}metadata.name"), problem));
            }
            Ok(swarm) => swarms.push(swarm),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(swarms) } else { Err(failed(problems)) }
}

/// The keys of a Kubernetes object. What a cluster adds to them is skipped, so that `kubectl get -o yaml` gives a usable file.
const TOP_LEVEL: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

fn read_swarm(document: Value, created: u64, prefix: &str) -> Result<Swarm, Vec<Problem>> {
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
    Swarm::check(&name, created, &spec)
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
