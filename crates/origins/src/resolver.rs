//! What names mean, asked of the origins for all nodes at once.
//!
//! ```text
//!   VerifyAtOrigin ── anonymously ──> Readable
//!                         └─ refused ── with credentials ──> Denied: it exists, and isn't for everyone
//!   Public ────────── anonymously ──> Readable
//!   Shared ────────── with credentials ──> Unknown
//! ```
//!
//! State: the policy that holds now, behind a `watch`, and the clients.
//! Invariants: only what a Swarm answers for is asked for. What is called readable was read anonymously.
//! Absent on purpose: caching and coalescing: the tracker's.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_api::{Access, Decision, Mode, Policy, RegistryHost};
use shoal_oci::origin::{Cause, Origin, OriginError};
use shoal_oci::{Credentials, Reference, Registry, Repository};
use shoal_tracker_server::{
    Anonymous, ImageName, OriginResolver, OutagePolicy, PullSecret, ResolveError, ResolvePolicy, Resolved, SecretKind,
};
use tokio::sync::watch;

use crate::{Clients, CredentialSource};

/// What doesn't expire is asked for again after this time: when it is taken back, nodes follow.
const PASSWORD_HOLDS: Duration = Duration::from_secs(300);

/// Asks the origins that the policy names.
#[derive(Debug)]
pub struct SwarmResolver {
    policy: watch::Receiver<Arc<Policy>>,
    credentials: Arc<dyn CredentialSource>,
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
    pub const fn new(
        policy: watch::Receiver<Arc<Policy>>,
        credentials: Arc<dyn CredentialSource>,
        clients: Clients,
    ) -> Self {
        Self { policy, credentials, clients }
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
        let allowed = self.allowed(name)?;
        let credentials = self.credentials.credentials(&allowed.registry, &allowed.decision);
        match (allowed.decision.access(), credentials) {
            (Access::Shared, Some(credentials)) => self.head(&allowed, credentials, Anonymous::Unknown).await,
            (Access::Shared, None) => {
                Err(ResolveError::Denied("it is Shared, and there are no credentials for the registry".to_owned()))
            }
            // That nothing there is private isn't leave to show what is.
            (Access::Public, _) => self.head(&allowed, Credentials::Anonymous, Anonymous::Readable).await,
            (Access::VerifyAtOrigin, credentials) => {
                let answer = self.head(&allowed, Credentials::Anonymous, Anonymous::Readable).await;
                match (answer, credentials) {
                    // Some registries say of what they don't show that it isn't there.
                    (Err(refusal @ (ResolveError::Denied(_) | ResolveError::NotFound(_))), Some(credentials)) => {
                        let private = self.head(&allowed, credentials, Anonymous::Denied).await;
                        private.map_err(|error| match error {
                            // What the credentials don't open either is what it is to everyone.
                            ResolveError::Denied(_) | ResolveError::NotFound(_) => refusal,
                            error => error,
                        })
                    }
                    (answer, _) => answer,
                }
            }
        }
    }

    async fn head(
        &self,
        allowed: &Allowed,
        credentials: Credentials,
        anonymous: Anonymous,
    ) -> Result<Resolved, ResolveError> {
        let origin = self.client(allowed, credentials)?;
        let head = origin.head_manifest(&allowed.repository, &allowed.reference).await;
        let head = head.map_err(|error| failure_of(&error))?;
        Ok(Resolved { digest: head.digest, media_type: head.media_type, size_bytes: head.size_bytes, anonymous })
    }

    fn client(&self, allowed: &Allowed, credentials: Credentials) -> Result<Origin, ResolveError> {
        let client = self.clients.client_with(&allowed.registry, &allowed.decision, credentials);
        client.map_err(|error| ResolveError::NotAllowed(error.to_string()))
    }

    /// What a lead is handed: a token for this repository alone, where the registry gives such.
    async fn secret(&self, name: &ImageName) -> Result<Option<PullSecret>, ResolveError> {
        let allowed = self.allowed(name)?;
        if allowed.decision.mode == Mode::OriginOnly || allowed.decision.access() == Access::Public {
            return Err(ResolveError::NotAllowed("its Swarm lets nobody fetch it with credentials".to_owned()));
        }
        let Some(credentials) = self.credentials.credentials(&allowed.registry, &allowed.decision) else {
            return Ok(None);
        };
        let (user, password) = match credentials.clone() {
            Credentials::Anonymous => return Ok(None),
            Credentials::Bearer(token) => {
                return Ok(Some(PullSecret { kind: SecretKind::Token(token), holds: PASSWORD_HOLDS }));
            }
            Credentials::Basic(user, password) => (user, password),
        };
        // A client of its own asks for a token of its own: one that is kept may be revoked, and who comes again comes because it was refused.
        let client = self.clients.own_client(&allowed.registry, &allowed.decision, credentials);
        let client = client.map_err(|error| ResolveError::NotAllowed(error.to_string()))?;
        let token = client.pull_token(&allowed.repository).await;
        Ok(Some(match token.map_err(|error| failure_of(&error))? {
            Some(token) => PullSecret { kind: SecretKind::Token(token.secret().to_owned()), holds: token.holds() },
            None => PullSecret { kind: SecretKind::Password(user, password), holds: PASSWORD_HOLDS },
        }))
    }
}

impl OriginResolver for SwarmResolver {
    fn resolve<'a>(&'a self, name: &'a ImageName) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        self.ask(name).boxed()
    }

    fn pull_secret<'a>(&'a self, name: &'a ImageName) -> BoxFuture<'a, Result<Option<PullSecret>, ResolveError>> {
        self.secret(name).boxed()
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
