//! helm, and what it renders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use shoal_e2e::scratch::Scratch;
use shoal_e2e::tools::cluster::Tool;

/// The images' registry: the one value that has to be given.
pub(crate) const REGISTRY: &str = "image.registry=registry.example.com/shoal";
/// What the chart is rendered for; a helm that was built from its module takes a version of its own otherwise.
const KUBERNETES: &str = "1.34.0";

pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/shoal")
}

pub(crate) struct Helm {
    program: PathBuf,
    /// In the place of the developer's home.
    home: Scratch,
}

impl Helm {
    /// None where it can't be had: that is said.
    pub(crate) fn get() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let program = Tool::Helm.program().inspect_err(|error| eprintln!("SKIPPED: {error:#}")).ok()?;
        let home = format!("shoal-chart-helm-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Self { program, home: Scratch::in_memory(&home, false).unwrap() })
    }

    /// Runs it with nothing of the developer's in sight.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut helm = Command::new(&self.program);
        helm.env_clear().env("HOME", self.home.path()).args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The standard output of what succeeds.
    pub(crate) fn said<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The chart as text, with these arguments.
    pub(crate) fn template(&self, args: &[&str]) -> String {
        self.said(template_args(args))
    }

    /// What it says of arguments that it refuses.
    pub(crate) fn refuses(&self, args: &[&str]) -> String {
        let output = self.run(template_args(args));
        assert!(!output.status.success(), "{args:?} are let through");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The chart as objects.
    pub(crate) fn objects(&self, args: &[&str]) -> Vec<Value> {
        objects(&self.template(args))
    }
}

fn template_args(args: &[&str]) -> Vec<String> {
    let chart = chart();
    let fixed = ["template", "shoal", chart.to_str().unwrap(), "--namespace=shoal", "--kube-version", KUBERNETES];
    fixed.iter().chain(args).map(|arg| (*arg).to_owned()).collect()
}

/// The documents of a text that aren't empty.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let objects = documents.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}")));
    objects.filter(|object: &Value| !object.is_null()).collect()
}

/// The object of this kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}
