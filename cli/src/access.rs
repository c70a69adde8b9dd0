//! The way to the API server: the one that kubectl takes.
//!
//! 1. `--kubeconfig`; else the files of KUBECONFIG, merged, of which some may be missing; else `~/.kube/config`.
//! 2. In a pod, its service account, if there is none of these.
//!
//! State: none. Invariant: TLS is rustls with ring. Credential plugins (`exec`) are run by kube.

use std::env;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::args::ClusterArgs;
use crate::failure::{Failure, one_line};

/// An answer takes milliseconds; of 5,000 nodes seconds, over a slow line.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the cluster that the arguments and the environment name.
pub(crate) async fn client(args: &ClusterArgs) -> Result<Client, Failure> {
    let config = config(args).await?;
    Client::try_from(config).map_err(|error| {
        Failure::Usage(one_line(&format!("no client can be made of the kubeconfig ({error}): correct its user")))
    })
}

async fn config(args: &ClusterArgs) -> Result<Config, Failure> {
    let Some(kubeconfig) = kubeconfig(args)? else {
        if args.context.is_some() {
            return Err(Failure::Usage(format!("there is no kubeconfig for --context: {NO_KUBECONFIG}")));
        }
        return Config::incluster().map_err(|_| Failure::Usage(format!("there is no cluster to ask: {NO_KUBECONFIG}")));
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config.map_err(|error| unusable(&error.to_string()))
}

const NO_KUBECONFIG: &str = "give --kubeconfig, or set KUBECONFIG";

fn unusable(error: &str) -> Failure {
    Failure::Usage(one_line(&format!("the kubeconfig can't be used ({error}): see `kubectl config view`")))
}

/// None if there is no file.
fn kubeconfig(args: &ClusterArgs) -> Result<Option<Kubeconfig>, Failure> {
    if let Some(file) = &args.kubeconfig {
        return read(file).map(Some);
    }
    let listed = env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
    let files: Vec<PathBuf> = match listed {
        Some(list) => env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    };
    // As kubectl does: whoever lists files may list some that come later.
    let mut merged: Option<Kubeconfig> = None;
    for file in files.iter().filter(|file| file.exists()) {
        let next = read(file)?;
        merged = Some(match merged {
            Some(before) => before.merge(next).map_err(|error| unusable(&error.to_string()))?,
            None => next,
        });
    }
    Ok(merged)
}

fn read(file: &Path) -> Result<Kubeconfig, Failure> {
    Kubeconfig::read_from(file).map_err(|error| unusable(&error.to_string()))
}

/// An answer to what was asked for, in bounded time.
pub(crate) async fn ask<T>(what: &str, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| Failure::of_request(what, &error)),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            Err(Failure::Failed(format!("{what}: no answer for {seconds} s: check the kubeconfig and the network")))
        }
    }
}

/// Objects in one answer: of 5,000 nodes' some MiB each.
const PAGE: u32 = 500;
/// Pages of one list: ten times the largest cluster that Kubernetes supports.
const MOST_PAGES: usize = 100;

/// All objects of a kind, page by page.
pub(crate) async fn list<K>(what: &str, api: &Api<K>, params: ListParams) -> Result<Vec<K>, Failure>
where
    K: Clone + DeserializeOwned + Debug,
{
    let (mut all, mut next) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let page = ListParams { limit: Some(PAGE), continue_token: next, ..params.clone() };
        let page = ask(what, api.list(&page)).await?;
        all.extend(page.items);
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(all);
        }
    }
    Err(Failure::Failed(format!("{what}: there are more than {}: narrow the list", all.len())))
}
