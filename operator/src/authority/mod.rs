//! The CA, which lies in a Secret: made by whoever is first, followed by all replicas, its root changed before it ends.
//!
//! State: the roots as they were last read or written; the Secret's version.
//! Invariants: a write names the version that it replaces, so of several replicas that want to make a CA, or a step, one does, and the others read
//! what it made. A Secret that can't be read never takes the place of roots that could. The key is in the Secret and in this process's memory,
//! nowhere else: agents read the certificates from a ConfigMap, because a node may read every Secret that a pod of its mounts.
//! Absent on purpose: a leader.

mod plan;
mod roots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use shoal_telemetry::{Condition, with_causes};
use shoal_tracker_server::{Authority, Handle};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{FIELD_MANAGER, Watched};
use crate::error::StartError;
use roots::Roots;

/// The key under which agents find the certificates.
const BUNDLE: &str = "ca.crt";
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// A machine that sleeps doesn't count the time on timers' clock, and a ConfigMap that somebody changed is put right.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Keeps the CA of one installation.
pub(crate) struct Keeper {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    secret: String,
    config_map: String,
}

/// The CA at some moment.
pub(crate) struct Held {
    roots: Roots,
    version: Option<String>,
}

impl Held {
    /// What signs and is trusted.
    pub(crate) fn authority(&self) -> Result<Authority, StartError> {
        Ok(self.roots.authority()?)
    }
}

/// Why the CA isn't there, or a step isn't made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the Secret {secret} isn't a CA ({error}): put the right one back, or delete it to have a new CA made")]
    Secret { secret: String, error: String },
    #[error("{0}")]
    Api(String),
    #[error(transparent)]
    Authority(#[from] shoal_tracker_server::AuthorityError),
}

impl From<kube::Error> for KeepError {
    fn from(error: kube::Error) -> Self {
        Self::Api(with_causes(&error))
    }
}

impl Keeper {
    pub(crate) fn new(client: Client, namespace: &str, secret: String, config_map: String) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        Self { secrets, config_maps: Api::namespaced(client, namespace), secret, config_map }
    }

    /// The CA that is there; a new one, if none is. Tries until it succeeds; a Secret that holds something else is an error.
    pub(crate) async fn open(&self, known: &Condition) -> Result<Held, StartError> {
        loop {
            match self.read_or_create().await {
                Ok(held) => return Ok(held),
                Err(KeepError::Api(error)) => {
                    tracing::warn!(error, secret = self.secret, "the CA can't be had: it is tried again");
                    known.fails(format!("the Secret {} can't be had: {error}", self.secret));
                    sleep(AGAIN).await;
                }
                Err(KeepError::Authority(error)) => return Err(error.into()),
                Err(error) => return Err(StartError::Setting(error.to_string())),
            }
        }
    }

    async fn read_or_create(&self) -> Result<Held, KeepError> {
        match self.secrets.get_opt(&self.secret).await? {
            Some(secret) => self.read(&secret),
            None => match self.create(&Roots::generate()?).await? {
                Some(held) => {
                    tracing::info!(secret = self.secret, "a new CA was made");
                    Ok(held)
                }
                // Another replica was faster.
                None => self.read(&self.secrets.get(&self.secret).await?),
            },
        }
    }

    fn read(&self, secret: &Secret) -> Result<Held, KeepError> {
        let unusable = |error: String| KeepError::Secret { secret: self.secret.clone(), error };
        let data = secret.data.as_ref().ok_or_else(|| unusable("it is empty".to_owned()))?;
        let roots = Roots::read(data).map_err(|error| unusable(with_causes(&error)))?;
        Ok(Held { roots, version: secret.metadata.resource_version.clone() })
    }

    fn secret(&self, roots: &Roots, version: Option<String>) -> Secret {
        let metadata =
            ObjectMeta { name: Some(self.secret.clone()), resource_version: version, ..ObjectMeta::default() };
        Secret { metadata, data: Some(roots.data()), type_: Some("shoal.dev/ca".to_owned()), ..Secret::default() }
    }

    /// Nothing, if there is a Secret already.
    async fn create(&self, roots: &Roots) -> Result<Option<Held>, KeepError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.secrets.create(&params, &self.secret(roots, None)).await {
            Ok(made) => Ok(Some(Held { roots: roots.clone(), version: made.metadata.resource_version })),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the next step of a change of roots, if it is due. Nothing, if it isn't, or another replica has made it.
    pub(crate) async fn step(&self, held: &Held, now: SystemTime) -> Result<Option<Held>, KeepError> {
        if now < held.roots.due_at()? {
            return Ok(None);
        }
        let next = held.roots.stepped(now)?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.secrets.replace(&self.secret, &params, &self.secret(&next, held.version.clone())).await {
            Ok(made) => {
                tracing::info!(secret = self.secret, "a step of the change of the CA's root was made");
                Ok(Some(Held { roots: next, version: made.metadata.resource_version }))
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that agents find the certificates.
    pub(crate) async fn publish(&self, authority: &Authority) -> Result<(), KeepError> {
        let bundle = authority.trust().to_pem();
        let there = self.config_maps.get_opt(&self.config_map).await?;
        if there.and_then(|map| map.data?.remove(BUNDLE)).as_ref() == Some(&bundle) {
            return Ok(());
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.config_map},
            "data": BTreeMap::from([(BUNDLE, bundle)]),
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.config_maps.patch(&self.config_map, &params, &Patch::Apply(map)).await?;
        Ok(())
    }

    /// Follows the Secret, changes roots when it is time, and tells the tracker.
    pub(crate) async fn keep(self, mut held: Held, mut secret: Watched<Secret>, tracker: Handle) {
        let mut look_at = Instant::now();
        loop {
            let next = tokio::select! {
                () = secret.changed() => match secret.all().first().map(|secret| self.read(secret)) {
                    Some(Ok(next)) => Some(next),
                    Some(Err(error)) => {
                        tracing::error!(error = with_causes(&error), "the CA that was known holds");
                        None
                    }
                    // It is gone.
                    None => {
                        look_at = Instant::now();
                        None
                    }
                },
                () = sleep_until(look_at) => match self.look(&held, &secret).await {
                    Ok((next, wait)) => {
                        look_at = Instant::now() + wait;
                        next
                    }
                    Err(error) => {
                        tracing::error!(error = with_causes(&error), "the CA can't be kept: it is tried again");
                        look_at = Instant::now() + AGAIN;
                        None
                    }
                },
            };
            let Some(next) = next else { continue };
            let changed = next.roots != held.roots;
            held = next;
            if changed {
                let taken = held.roots.authority().map(|authority| tracker.set_authority(Arc::new(authority)));
                match taken {
                    Ok(Ok(())) => tracing::info!("the tracker has the CA's new roots"),
                    Ok(Err(error)) => tracing::error!(error = with_causes(&error), "the tracker can't use the CA"),
                    Err(error) => tracing::error!(error = with_causes(&error), "the CA can't be used"),
                }
                look_at = Instant::now();
            }
        }
    }

    /// Puts right what isn't: the Secret, a step that is due, what agents read. What came of it, and when to look again.
    async fn look(&self, held: &Held, secret: &Watched<Secret>) -> Result<(Option<Held>, Duration), KeepError> {
        let mut next = None;
        if secret.is_listed() && secret.all().is_empty() {
            next = self.create(&held.roots).await?;
            tracing::warn!(secret = self.secret, "the CA's Secret was gone, and was put back");
        }
        if let Some(stepped) = self.step(next.as_ref().unwrap_or(held), SystemTime::now()).await? {
            next = Some(stepped);
        }
        let roots = &next.as_ref().unwrap_or(held).roots;
        self.publish(&roots.authority()?).await?;
        let due = roots.due_at()?.duration_since(SystemTime::now()).unwrap_or_default();
        Ok((next, due.clamp(AGAIN, LOOK_EVERY)))
    }
}
