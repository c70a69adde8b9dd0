//! A control plane that knows Swarms, and the program as a user runs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, CustomResourceExt as _};
use serde_json::{Value, json};
use shoal_api::kube::Swarm;
use shoal_e2e::control_plane::{ControlPlane, Programs};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// More than anything here takes on a machine that builds three things beside it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_kubectl-swarm");

pub(crate) struct World {
    plane: ControlPlane,
    pub(crate) client: Client,
    kubeconfig: PathBuf,
}

/// How a program ended, and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl World {
    /// None where there is no control plane; that is said loudly.
    pub(crate) async fn new() -> Option<Self> {
        let programs = match Programs::get() {
            Ok(programs) => programs,
            Err(error) => {
                eprintln!("SKIPPED: {error:#}");
                return None;
            }
        };
        let plane = ControlPlane::start(&programs).await.unwrap_or_else(|error| panic!("{error:#}"));
        let kubeconfig = plane.directory().join("kubeconfig");
        let admin = plane.admin().unwrap();
        admin.write_kubeconfig(&kubeconfig).unwrap();
        Some(Self { client: admin.client().await.unwrap(), plane, kubeconfig })
    }

    /// The same, with the Swarms' definition.
    pub(crate) async fn with_swarms() -> Option<Self> {
        let world = Self::new().await?;
        world.plane.define(&Swarm::crd()).await.unwrap();
        Some(world)
    }

    pub(crate) async fn stop(self) {
        self.plane.stop().await;
    }

    pub(crate) fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The program with arguments, as the administrator.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = command(line);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    pub(crate) async fn run(&self, line: &str) -> Ended {
        ended(self.command(line).spawn().unwrap()).await
    }

    /// A Swarm as a user writes it.
    pub(crate) async fn apply(&self, name: &str, spec: Value) {
        let swarm =
            json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": name}, "spec": spec});
        let params = PatchParams::apply("user").validation_strict();
        self.swarms().patch(name, &params, &Patch::Apply(swarm)).await.unwrap();
    }

    /// A Swarm's status as the operator writes it, about the Swarm as it is.
    pub(crate) async fn status(&self, name: &str, mut status: Value) {
        let generation = self.swarms().get(name).await.unwrap().metadata.generation;
        status["observedGeneration"] = json!(generation);
        let status: shoal_api::SwarmStatus = serde_json::from_value(status).unwrap();
        let status = json!({"apiVersion": "shoal.dev/v1alpha1", "kind": "Swarm", "status": status.summarized()});
        let params = PatchParams::apply("operator").validation_strict();
        self.swarms().patch_status(name, &params, &Patch::Apply(status)).await.unwrap();
    }

    pub(crate) fn swarms(&self) -> Api<Swarm> {
        Api::all(self.client.clone())
    }
}

/// The program with arguments, in an environment without anybody's kubeconfig.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace());
    for name in ["KUBECONFIG", "HOME", "NO_COLOR", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub(crate) async fn ended(child: Child) -> Ended {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

/// A condition that has held for so many seconds.
pub(crate) fn condition(kind: &str, status: &str, reason: &str, message: &str, seconds: i64) -> Value {
    let since = Timestamp::from_second(Timestamp::now().as_second() - seconds).unwrap().to_string();
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

/// Text whose ages are taken out: they depend on how fast the machine is.
pub(crate) fn ageless(text: &str) -> String {
    let is_age = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(['s', 'm', 'h', 'd'])
            && word.chars().all(|c| c.is_ascii_digit() || "smhd".contains(c))
    };
    let shown = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().map(|word| if is_age(word) { "AGE" } else { word }).collect();
        words.join(" ") + "\n"
    };
    text.lines().map(shown).collect()
}
