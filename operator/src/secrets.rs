//! The credentials that Swarms name: Secrets of type `kubernetes.io/dockerconfigjson`, in the namespaces that the installation allows.
//!
//! ```text
//!   registries[].secretRef ──> the Secret as it is now ──> the entry of that very registry ──> the tracker's resolver
//!                                      └── isn't there, can't be read, names another host ──> a problem of the Swarm
//! ```
//!
//! State: none but what is followed: a Secret that changes counts from the next question on.
//! Invariants: credentials are found for the very host that a Secret names, with its port, where a Swarm names that Secret for that registry, and
//! nowhere else. Secrets of other types never come here, nor do those of other namespaces. Nothing that is said of a Secret has its content in it.
//! Absent on purpose: the older `kubernetes.io/dockercfg`, cluster-wide access, and a copy of what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use shoal_api::{Decision, HostPattern, SecretRef, Swarm};
use shoal_oci::{Credentials, Registry};
use shoal_origins::{CredentialSource, DockerConfig, DockerConfigError};
use shoal_telemetry::{Condition, Readiness};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::Watched;

const TYPE: &str = "kubernetes.io/dockerconfigjson";
const KEY: &str = ".dockerconfigjson";

/// A namespace besides our own whose Secrets may not be listed doesn't keep the tracker from starting for longer than this.
const LISTED_WITHIN: Duration = Duration::from_secs(5);

/// The Secrets. A clone follows the same ones.
#[derive(Clone)]
pub(crate) struct Secrets {
    /// The namespace that Shoal is installed in: that of a reference which names none.
    own: String,
    namespaces: BTreeMap<String, Namespace>,
}

#[derive(Clone)]
struct Namespace {
    secrets: Watched<Secret>,
    /// Says why they can't be listed.
    listing: Readiness,
}

/// Why a registry of a Swarm has no credentials although it names a Secret: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}: Secret {namespace}/{name}: {why}")]
pub(crate) struct SecretProblem {
    host: String,
    namespace: String,
    name: String,
    why: Why,
}

/// What is wrong with a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error(
        "its namespace isn't one whose Secrets may be read: name it in --secret-namespaces (the chart's operator.secretNamespaces)"
    )]
    NotAllowed,
    #[error("{0}")]
    NotListed(String),
    #[error("there is none of type {TYPE}: kubectl create secret docker-registry makes one")]
    Missing,
    #[error("{0}")]
    Unusable(DockerConfigError),
    #[error("it has no entry for this registry: add one to auths, with its port if it has one")]
    NoEntry,
}

impl Secrets {
    /// Follows the Secrets of these namespaces as long as the tasks run. The condition is about those of our own.
    pub(crate) fn follow(
        client: &Client,
        own: &str,
        others: &[String],
        known: Condition,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let follow = |namespace: &str, condition| {
            let config = Config::default().fields(&format!("type={TYPE}"));
            let (secrets, task) = Watched::follow(Api::namespaced(client.clone(), namespace), config, strip, condition);
            tasks.spawn(stop.clone().run_until_cancelled_owned(task));
            secrets
        };
        let mut namespaces =
            BTreeMap::from([(own.to_owned(), Namespace { secrets: follow(own, known), listing: Readiness::new() })]);
        for namespace in others {
            namespaces.entry(namespace.clone()).or_insert_with(|| {
                let listing = Readiness::new();
                Namespace { secrets: follow(namespace, listing.condition("secrets")), listing }
            });
        }
        Self { own: own.to_owned(), namespaces }
    }

    /// Returns when the Secrets of our own namespace are known, and those of the others or that they can't be had.
    pub(crate) async fn listed(&self) {
        let mut own = self.namespaces[&self.own].secrets.clone();
        own.listed().await;
        let all = self.namespaces.values().map(|namespace| async {
            let mut secrets = namespace.secrets.clone();
            secrets.listed().await;
        });
        // What is wrong with the others is said of the Swarms that need them.
        let _ = timeout(LISTED_WITHIN, join_all(all)).await;
    }

    /// Returns when one of them has changed. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let changes = self.namespaces.values_mut().map(|namespace| Box::pin(namespace.secrets.changed()));
        select_all(changes).await;
    }

    /// Why registries of this Swarm have no credentials: one problem for each at most.
    pub(crate) fn problems(&self, swarm: &Swarm) -> Vec<SecretProblem> {
        let problem = |registry: &shoal_api::Registry| {
            let secret = registry.secret.as_ref()?;
            let host = registry.host.to_string();
            let read = self.read(secret).and_then(|config| {
                let found = match &registry.host {
                    HostPattern::Exactly(_) => host.parse().is_ok_and(|host| config.get(&host).is_some()),
                    HostPattern::Rest => !config.is_empty(),
                };
                if found { Ok(()) } else { Err(Why::NoEntry) }
            });
            let (namespace, name) = (self.namespace_of(secret).to_owned(), secret.name.clone());
            read.err().map(|why| SecretProblem { host, namespace, name, why })
        };
        swarm.registries.iter().filter_map(|registry| problem(registry)).collect()
    }

    fn namespace_of<'a>(&'a self, secret: &'a SecretRef) -> &'a str {
        if secret.namespace.is_empty() { &self.own } else { &secret.namespace }
    }

    /// What a Secret says now.
    fn read(&self, secret: &SecretRef) -> Result<DockerConfig, Why> {
        let namespace = self.namespace_of(secret);
        let Some(Namespace { secrets, listing }) = self.namespaces.get(namespace) else { return Err(Why::NotAllowed) };
        let Some(found) = secrets.get_in(namespace, &secret.name) else {
            let missing = listing.missing().pop();
            return Err(missing.map_or(Why::Missing, |missing| Why::NotListed(missing.reason)));
        };
        let text = found.data.as_ref().and_then(|data| data.get(KEY));
        DockerConfig::parse(text.map_or(&[], |text| &text.0)).map_err(Why::Unusable)
    }
}

impl CredentialSource for Secrets {
    fn credentials(&self, registry: &Registry, decision: &Decision) -> Option<Credentials> {
        self.read(decision.secret()?).ok()?.get(registry).cloned()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.namespaces.keys()).finish()
    }
}

/// Leaves what is read. An annotation may have all of the Secret once more.
fn strip(secret: &mut Secret) {
    let metadata = &mut secret.metadata;
    (metadata.annotations, metadata.labels, metadata.managed_fields) = (None, None, None);
    if let Some(data) = &mut secret.data {
        data.retain(|key, _| key == KEY);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use shoal_api::{Policy, WrittenSwarm};

    use super::*;

    const HOST: &str = "registry.example:5000";

    fn secret(namespace: &str, name: &str, auths: serde_json::Value) -> Secret {
        let text = json!({"auths": auths}).to_string();
        let mut secret: Secret = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "annotations": {"last-applied": text}}, "type": TYPE,
        }))
        .unwrap();
        let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        secret.data = Some([(KEY.to_owned(), bytes(&text)), ("other".to_owned(), bytes("geheim"))].into());
        strip(&mut secret);
        assert!(secret.metadata.annotations.is_none() && secret.data.as_ref().unwrap().len() == 1);
        secret
    }

    fn of(namespace: &str, secrets: impl IntoIterator<Item = Secret>) -> (String, Namespace) {
        (namespace.to_owned(), Namespace { secrets: Watched::listed_once(secrets), listing: Readiness::new() })
    }

    fn swarm(registries: serde_json::Value) -> Arc<Swarm> {
        let spec = serde_json::from_value(json!({"registries": registries})).unwrap();
        Arc::clone(shoal_api::Document::new(vec![WrittenSwarm::check("s", 0, spec).unwrap()]).swarms().next().unwrap())
    }

    #[test]
    fn credentials_are_those_of_the_named_secret_for_the_very_host() {
        let entry = json!({"username": "ann", "password": "geheim"});
        let secrets = [
            secret("shoal", "right", json!({HOST: entry})),
            secret("shoal", "elsewhere", json!({"evil.example": entry, "registry.example": entry})),
            secret("shoal", "wrong", json!({HOST: {"username": "geheim"}})),
        ];
        let forbidden = Readiness::new();
        forbidden.condition("secrets").fails("Secrets can't be listed: forbidden");
        let closed = Namespace { secrets: Watched::listed_once([]), listing: forbidden };
        let team = of("team", [secret("team", "right", json!({HOST: entry}))]);
        let namespaces = BTreeMap::from([of("shoal", secrets), team, ("closed".to_owned(), closed)]);
        let secrets = Secrets { own: "shoal".to_owned(), namespaces };
        let shown = |secret: serde_json::Value| {
            let swarm = swarm(json!([{"host": HOST, "secretRef": secret}, {"host": "open.example"}]));
            let policy = Policy::compile([Arc::clone(&swarm)]);
            let found = |host: &str| {
                let decision = policy.decide(&host.parse().unwrap(), "team/app").unwrap();
                secrets.credentials(&host.parse().unwrap(), &decision)
            };
            assert_eq!(found("open.example"), None, "it names no Secret");
            let problems = secrets.problems(&swarm);
            assert_eq!(problems.is_empty(), found(HOST).is_some(), "{problems:?}");
            problems.first().map(ToString::to_string).unwrap_or_default()
        };
        assert_eq!(shown(json!({"name": "right"})), "");
        assert_eq!(shown(json!({"name": "right", "namespace": "team"})), "");
        for (secret, says) in [
            (json!({"name": "elsewhere"}), "Secret shoal/elsewhere: it has no entry for this registry"),
            (json!({"name": "wrong"}), "Secret shoal/wrong: auths: registry.example:5000: give username and password"),
            (json!({"name": "none"}), "Secret shoal/none: there is none of type kubernetes.io/dockerconfigjson"),
            (json!({"name": "right", "namespace": "other"}), "name it in --secret-namespaces"),
            (json!({"name": "right", "namespace": "closed"}), "Secrets can't be listed: forbidden"),
        ] {
            let problem = shown(secret);
            assert!(problem.starts_with("registry.example:5000: ") && problem.contains(says), "{problem}");
            assert!(!problem.contains("geheim") && !problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn a_registry_for_the_rest_has_the_credentials_of_every_host_that_its_secret_names() {
        let entry = json!({"username": "ann", "password": "geheim"});
        let both = [secret("shoal", "some", json!({HOST: entry})), secret("shoal", "empty", json!({}))];
        let secrets = Secrets { own: "shoal".to_owned(), namespaces: BTreeMap::from([of("shoal", both)]) };
        let rest = |secret: &str| swarm(json!([{"host": "*", "secretRef": {"name": secret}}]));
        let policy = Policy::compile([rest("some")]);
        let found = |host: &str| {
            let decision = policy.decide(&host.parse().unwrap(), "team/app").unwrap();
            secrets.credentials(&host.parse().unwrap(), &decision).is_some()
        };
        assert!(found(HOST) && !found("registry.example"));
        assert!(secrets.problems(&rest("some")).is_empty());
        assert_eq!(secrets.problems(&rest("empty")).len(), 1);
    }
}
