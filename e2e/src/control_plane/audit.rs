//! What service accounts have written, by the API server's own audit log.
//!
//! State: a file in the control plane's directory. Invariant: a write is in it before its answer is sent (`blocking`).
//! Absent on purpose: reads, and what people and the API server itself write.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
    - level: Metadata\n  userGroups: [system:serviceaccounts]\n  verbs: [create, update, patch, delete, deletecollection]\n\
    - level: None\n";

const LOG: &str = "audit.log";

/// A request that writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Who.
    pub user: String,
    /// `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// `swarms/status`
    pub resource: String,
    /// The object's name; none, if the API server gives it one.
    pub name: String,
}

/// Has an API server keep the log; these are its flags.
pub(super) fn keep(directory: &Path) -> Result<Vec<OsString>> {
    let policy = directory.join("audit.yaml");
    fs::write(&policy, POLICY).context("the audit policy can't be written")?;
    let flag = |name: &str, path: &Path| {
        let mut flag = OsString::from(name);
        flag.push(path);
        flag
    };
    Ok(vec![flag("--audit-policy-file=", &policy), flag("--audit-log-path=", &directory.join(LOG))])
}

/// What is in it.
pub(super) fn writes(directory: &Path) -> Result<Vec<Write>> {
    let log = directory.join(LOG);
    // There is none before the first.
    let text =
        if log.exists() { fs::read_to_string(&log).context("the audit log can't be read")? } else { String::new() };
    text.lines().map(|line| read(line).with_context(|| format!("a line of the audit log: {line}"))).collect()
}

fn read(line: &str) -> Result<Write> {
    let event: Value = serde_json::from_str(line)?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subresource = text("/objectRef/subresource");
    let resource = text("/objectRef/resource") + if subresource.is_empty() { "" } else { "/" } + &subresource;
    Ok(Write { user: text("/user/username"), verb: text("/verb"), resource, name: text("/objectRef/name") })
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {} {}", self.user, self.verb, self.resource, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_wrote_what() {
        let line = r#"{"kind":"Event","level":"Metadata","stage":"ResponseComplete","requestURI":"/apis/shoal.dev/v1alpha1/swarms/a/status",
            "verb":"patch","user":{"username":"system:serviceaccount:shoal:shoal-operator","groups":["system:serviceaccounts"]},
            "objectRef":{"resource":"swarms","name":"a","apiGroup":"shoal.dev","subresource":"status"},"responseStatus":{"code":200}}"#;
        assert_eq!(
            read(line).unwrap().to_string(),
            "system:serviceaccount:shoal:shoal-operator: patch swarms/status a"
        );
        assert!(read("{").is_err());
    }
}
