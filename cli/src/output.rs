//! Where answers go, and in which form.
//!
//! State: none. Invariants: colours are for terminals whose user hasn't refused them (NO_COLOR, TERM=dumb); objects are printed as the API server has
//! them, without who manages which field, as kubectl does.

use std::io::{ErrorKind, IsTerminal as _, Write as _, stdout};

use clap::ValueEnum;
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// The table with more columns.
    Wide,
    /// Names alone, one a line, as kubectl takes them.
    Name,
}

/// Writes to the standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Failed(format!("the output can't be written ({error}): see where it goes")),
    })
}

/// Whether it is looked at as it appears.
pub(crate) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether it may be coloured.
pub(crate) fn is_colourful() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// One JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?;
    Ok(text + "\n")
}

/// One YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| unprintable(&error))
}

fn unprintable(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("the answer can't be printed ({error}): try another --output"))
}

/// Objects as the API server has them, as `kubectl get` prints them: a list of them, or the one that was asked for.
pub(crate) fn objects<K>(objects: &[K], format: Format, single: bool) -> Result<String, Failure>
where
    K: Resource + Clone + Serialize,
{
    let mut objects = objects.iter().map(object).collect::<Result<Vec<Value>, Failure>>()?;
    let document = match objects.pop() {
        Some(object) if single => object,
        last => {
            json!({"apiVersion": "v1", "kind": "List", "items": objects.into_iter().chain(last).collect::<Vec<_>>()})
        }
    };
    if format == Format::Yaml { yaml(&document) } else { json(&document) }
}

fn object<K: Resource + Clone + Serialize>(object: &K) -> Result<Value, Failure> {
    let mut object = object.clone();
    object.meta_mut().managed_fields = None;
    serde_json::to_value(&object).map_err(|error| unprintable(&error))
}
