//! What names mean, asked of the origins for all nodes at once.
//!
//! State: the policy that holds now, behind a `watch`, and the clients.
//! Invariants: only what a Swarm answers for is asked for; anonymously, so what is found is readable for everyone.
//! Absent on purpose: caching and coalescing: the tracker's.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_api::{Decision, Mode, Policy, RegistryHost};
use shoal_oci::origin::{Cause, OriginError};
use shoal_oci::{Reference, Registry, Repository};
use shoal_tracker_server::{Anonymous, ImageName, OriginResolver, OutagePolicy, ResolveError, ResolvePolicy, Resolved};
use tokio::sync::watch;

use crate::Clients;

/// Asks the origins that the policy names.
#[derive(Debug)]
pub struct SwarmResolver {
    policy: watch::Receiver<Arc<Policy>>,
    clients: Clients,
}

/// A name that may be asked for.
struct Allowed {
    registry: Registry,
    repository: Repository,
    reference: Reference,
    decision: Decision,
}

impl SwarmResolver {
    /// One that follows this policy. It is all nodes': a tracker answers for each of them, whichever Swarm selects it.
    #[must_use]
    pub const fn new(policy: watch::Receiver<Arc<Policy>>, clients: Clients) -> Self {
        Self { policy, clients }
    }

    fn allowed(&self, name: &ImageName) -> Result<Allowed, ResolveError> {
        let not_allowed = |why: String| ResolveError::NotAllowed(why);
        let registry: Registry = name.registry().parse().map_err(|error| not_allowed(format!("{error}")))?;
        let repository: Repository = name.repository().parse().map_err(|error| not_allowed(format!("{error}")))?;
        let reference = name.reference().parse().map_err(|error| not_allowed(format!("{error}")))?;
        // A registry's name is a host of the Swarms' grammar, which is the wider one.
        let host: RegistryHost = registry.as_str().parse().map_err(|error| not_allowed(format!("{error}")))?;
        match self.policy.borrow().decide(&host, repository.as_str()) {
            Some(decision) if decision.mode != Mode::Suspended => {
                Ok(Allowed { registry, repository, reference, decision })
            }
            _ => Err(not_allowed("no Swarm answers for it".to_owned())),
        }
    }

    async fn ask(&self, name: &ImageName) -> Result<Resolved, ResolveError> {
        let Allowed { registry, repository, reference, decision } = self.allowed(name)?;
        let client = self.clients.client(&registry, &decision);
        let origin = client.map_err(|error| ResolveError::NotAllowed(error.to_string()))?;
        let head = origin.head_manifest(&repository, &reference).await.map_err(|error| failure_of(&error))?;
        Ok(Resolved {
            digest: head.digest,
            media_type: head.media_type,
            size_bytes: head.size_bytes,
            anonymous: Anonymous::Readable,
        })
    }
}

impl OriginResolver for SwarmResolver {
    fn resolve<'a>(&'a self, name: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        self.ask(name).boxed()
    }

    fn policy(&self, name: &ImageName) -> ResolvePolicy {
        let outage = match self.allowed(name).map(|allowed| allowed.decision.outage_policy()) {
            Ok(shoal_api::OutagePolicy::LastResolved) => OutagePolicy::LastResolved,
            Ok(shoal_api::OutagePolicy::Deny) | Err(_) => OutagePolicy::Deny,
        };
        ResolvePolicy { outage, ..ResolvePolicy::default() }
    }
}

fn failure_of(error: &OriginError) -> ResolveError {
    match error.cause() {
        Cause::Unauthorized { .. } => ResolveError::Denied(error.to_string()),
        Cause::NotFound { .. } => ResolveError::NotFound(error.to_string()),
        Cause::Busy { retry_after, .. } => ResolveError::Busy { retry_after: *retry_after },
        Cause::Refused(_) => ResolveError::NotAllowed(error.to_string()),
        _ => ResolveError::Unreachable(error.to_string()),
    }
}
