//! What is known of the cluster: its objects, followed.
//!
//! State: the objects of a kind, as the API server last told of them.
//! Invariants: a [`Watched`] is empty until all objects were listed once, never half full. When the API server can't be asked, what it said
//! last holds.
//! Absent on purpose: writing, and whole objects: a caller strips what it doesn't need, because a Node with its images has 20 KiB.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource};
use shoal_telemetry::{Condition, with_causes};
use tokio::sync::watch;

use crate::error::StartError;

/// Who has written a field, as the API server remembers it.
pub(crate) const FIELD_MANAGER: &str = "shoal-operator";

/// A client of the API server. Nothing is asked yet.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> Result<Client, StartError> {
    let config = match kubeconfig {
        Some(path) => {
            let unusable = |error: &dyn std::error::Error| {
                StartError::Setting(format!("{}: {}: check the kubeconfig", path.display(), with_causes(error)))
            };
            let read = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            config.map_err(|error| unusable(&error))?
        }
        None => kube::Config::incluster().map_err(|error| {
            let error = with_causes(&error);
            StartError::Setting(format!(
                "no API server is known ({error}): run in a pod with a service account, or give --kubeconfig FILE"
            ))
        })?,
    };
    Client::try_from(config)
        .map_err(|error| StartError::Setting(format!("no API server can be asked: {}", with_causes(&error))))
}

/// All objects of a kind, or those that were asked for.
pub(crate) struct Watched<K: Resource + 'static>
where
    K::DynamicType: std::hash::Hash + Eq,
{
    store: Store<K>,
    /// Counts changes; zero until all objects were listed.
    changes: watch::Receiver<u64>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Watched<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), changes: self.changes.clone() }
    }
}

impl<K> Watched<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    /// Follows what the configuration selects, each object as `strip` leaves it, as long as the future runs. The condition holds from
    /// the first list on; before that it says what is wrong.
    pub(crate) fn follow(
        api: Api<K>,
        config: Config,
        strip: fn(&mut K),
        known: Condition,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (store, writer) = store();
        let (count, changes) = watch::channel(0);
        let events = watcher(api, config).default_backoff().modify(strip);
        let following = async move {
            let mut events = std::pin::pin!(reflector(writer, events));
            while let Some(event) = events.next().await {
                let listed = *count.borrow() > 0;
                match event {
                    Ok(Event::InitDone) => {
                        known.holds();
                        count.send_modify(|count| *count += 1);
                    }
                    Ok(Event::Apply(_) | Event::Delete(_)) if listed => count.send_modify(|count| *count += 1),
                    Ok(_) => {}
                    Err(error) if listed => {
                        let kind = K::kind(&());
                        tracing::warn!(%kind, error = with_causes(&error), "objects can't be watched: what was known holds");
                    }
                    Err(error) => known.fails(format!("{}s can't be listed: {}", K::kind(&()), with_causes(&error))),
                }
            }
        };
        (Self { store, changes }, following)
    }

    /// These objects, which nobody follows any more.
    #[cfg(test)]
    pub(crate) fn listed_once(objects: impl IntoIterator<Item = K>) -> Self {
        let (store, mut writer) = store();
        let applied = objects.into_iter().map(Event::InitApply);
        for event in std::iter::once(Event::Init).chain(applied).chain([Event::InitDone]) {
            writer.apply_watcher_event(&event);
        }
        Self { store, changes: watch::channel(1).1 }
    }

    /// The object of this name, for kinds without a namespace.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name))
    }

    /// The object of this name in a namespace.
    pub(crate) fn get_in(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Whether they were listed.
    pub(crate) fn is_listed(&self) -> bool {
        *self.changes.borrow() > 0
    }

    /// Returns when they were listed.
    pub(crate) async fn listed(&mut self) {
        while !self.is_listed() {
            self.changed().await;
        }
    }

    /// Returns when they were listed, or have changed since the last call; never, when nobody follows them any more. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
