//! Waits until every node has an artifact.
//!
//! State: what is shown. Invariant: it ends: when all have it, when nobody will, or when the time is over.

use std::time::Duration;

use kube::Client;
use shoal_api::kube::Swarm;
use tokio::time::timeout;

use crate::failure::{Failure, one_line};
use crate::follow::Follow;
use crate::outlook::{Outlook, artifact, is_complete, is_current, outlook};
use crate::status::{Show, not_yet};

pub(super) async fn until_there(client: Client, swarm: &str, name: &str, within: Duration) -> Result<(), Failure> {
    let mut follow = Follow::new(client, Some(swarm));
    let mut show = Show::new(Some(name.to_owned()));
    let there = async {
        loop {
            let known = follow.changed().await?.get(swarm);
            let known = known.ok_or_else(|| Failure::Failed(format!("Swarm {swarm} is gone: somebody deleted it")))?;
            show.update(std::iter::once(known))?;
            if is_there(known, name)? {
                return Ok(());
            }
        }
    };
    timeout(within, there).await.unwrap_or_else(|_| Err(not_yet(within)))
}

/// Whether every node has it; an error if none ever will.
fn is_there(swarm: &Swarm, name: &str) -> Result<bool, Failure> {
    let Some(status) = swarm.status.as_ref().filter(|_| is_current(swarm)) else { return Ok(false) };
    let known = artifact(swarm, name);
    if known.is_some_and(|artifact| artifact.desired > 0 && is_complete(artifact)) {
        return Ok(true);
    }
    // What is being distributed goes on, whatever else of the Swarm can't.
    let is_under_way = known.is_some_and(|artifact| !artifact.digest.is_empty() && artifact.desired > 0);
    match outlook(swarm) {
        Outlook::Stalled(why) if !is_under_way => Err(Failure::Failed(one_line(&format!("it is stalled: {why}")))),
        _ if known.is_some() && status.nodes.desired == 0 => Err(Failure::Failed(
            "no node has the labels that are asked for: see `kubectl get nodes --show-labels`".to_owned(),
        )),
        _ => Ok(false),
    }
}
