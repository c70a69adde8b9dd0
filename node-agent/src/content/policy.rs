//! What the Swarms say about a request.
//!
//! State: the policy that holds now, behind a `watch`: whoever reads the Swarms sends it.
//! Invariants: a [`Course`] exists only where a Swarm answers for the repository, doesn't suspend it, and the mirror can judge who may
//! have it.
//! Absent on purpose: where Swarms come from (`agent`), and credentials (`private`).

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_api::{Access, Decision, HostPattern, Mode, OutagePolicy, Policy, RegistryHost, Verification};
use shoal_oci::{Registry, Repository};
use tokio::sync::watch;

use crate::check::is_bait;
use crate::mirror::{Failure, Reason, Registries};

/// The policy that holds now. A clone follows the same one.
#[derive(Clone, Debug)]
pub struct Policies {
    current: watch::Receiver<Arc<Policy>>,
}

/// What is to be done with a request.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) decision: Decision,
    /// Nothing is exchanged, nothing is stored.
    pub(super) origin_only: bool,
    /// Only what the origin shows to anonymous clients may be served.
    pub(super) verify_access: bool,
    /// Everyone in the cluster may have it, and only the Swarm's credentials open it.
    pub(super) shared: bool,
    /// What a tag meant last is what it means while the origin is down.
    pub(super) last_will_do: bool,
    /// Nothing is served before its digest is proven.
    pub(super) strict: bool,
}

impl Policies {
    /// Follows the policy that this receiver is sent.
    #[must_use]
    pub const fn new(current: watch::Receiver<Arc<Policy>>) -> Self {
        Self { current }
    }

    /// What holds for a repository; none if no Swarm answers for it.
    #[must_use]
    pub fn decide(&self, registry: &Registry, repository: &Repository) -> Option<Decision> {
        // A registry's name is a host of the Swarms' grammar, which is the wider one.
        let host: RegistryHost = registry.as_str().parse().ok().filter(|_| !is_bait(repository))?;
        self.current.borrow().decide(&host, repository.as_str())
    }

    /// The registries that Swarms name.
    pub(crate) fn registries(&self) -> Vec<HostPattern> {
        self.current.borrow().registries().cloned().collect()
    }

    /// Whether what was pulled from these repositories may go to other nodes: a Swarm says so of one of them, and none says no. containerd
    /// names registries without their ports, so those of every port are meant.
    pub(crate) fn let_out(&self, sources: &[(Registry, Repository)]) -> bool {
        let policy = Arc::clone(&self.current.borrow());
        let modes: Vec<Mode> = sources
            .iter()
            .flat_map(|(registry, repository)| {
                let named = policy.registries().filter_map(|pattern| match pattern {
                    HostPattern::Exactly(host) if is_of(host, registry) => Some(host.clone()),
                    HostPattern::Exactly(_) | HostPattern::Rest => None,
                });
                let hosts: BTreeSet<RegistryHost> = named.chain(registry.as_str().parse().ok()).collect();
                if is_bait(repository) {
                    return Vec::new();
                }
                let modes = hosts.into_iter().filter_map(|host| Some(policy.decide(&host, repository.as_str())?.mode));
                modes.collect::<Vec<_>>()
            })
            .collect();
        !modes.is_empty() && modes.iter().all(|mode| matches!(mode, Mode::Auto | Mode::PeerFirst))
    }

    /// Returns when another policy holds; never, if none ever will. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What is to be done with a request for this repository. `PeerFirst` is as `Auto`: the exchange asks peers before it takes a lease in
    /// both.
    pub(super) fn course(&self, registry: &Registry, repository: &Repository) -> Result<Course, Failure> {
        let withheld = |why| Failure::new(Reason::Withheld).with_detail(why);
        let decision = self.decide(registry, repository).ok_or_else(|| withheld("no Swarm answers for it"))?;
        let origin_only = match decision.mode {
            Mode::Suspended => return Err(withheld("its Swarm is suspended")),
            Mode::OriginOnly => true,
            Mode::Auto | Mode::PeerFirst => false,
        };
        let (verify_access, shared) = match decision.access() {
            Access::VerifyAtOrigin => (true, false),
            Access::Public => (false, false),
            Access::Shared => (false, true),
        };
        if shared && origin_only {
            // Only a lead has the Swarm's credentials, and there is none.
            return Err(withheld("what is Shared has to be exchanged, and its Swarm says OriginOnly"));
        }
        let last_will_do = decision.outage_policy() == OutagePolicy::LastResolved;
        let strict = decision.transfer.verification == Verification::Strict;
        Ok(Course { decision, origin_only, verify_access, shared, last_will_do, strict })
    }
}

/// Whether a host is the registry's, on whatever port.
fn is_of(host: &RegistryHost, registry: &Registry) -> bool {
    let host = host.to_string();
    let port = host.strip_prefix(registry.as_str()).and_then(|rest| rest.strip_prefix(':'));
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

impl Registries for Policies {
    fn allows(&self, registry: &Registry) -> bool {
        registry.as_str().parse().is_ok_and(|host| self.current.borrow().knows(&host))
    }
}

#[cfg(test)]
mod tests {
    use shoal_api::read_swarms;

    use super::*;

    fn policies(spec: &str) -> Policies {
        let text = format!("apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {{name: test}}\nspec:\n{spec}");
        let swarms = read_swarms("test", &text).unwrap();
        let policy = Policy::compile(swarms.into_iter().map(Arc::new));
        Policies::new(watch::Sender::new(Arc::new(policy)).subscribe())
    }

    #[test]
    fn what_swarms_exchange_is_let_out() {
        let policies = policies(
            "  registries:
  - {host: open.example}
  - {host: \"port.example:5000\"}
  rules:
  - {repository: open.example/direct/*, mode: OriginOnly}
",
        );
        let let_out = |names: &[(&str, &str)]| {
            let parse = |(registry, name): &(&str, &str)| (registry.parse().unwrap(), name.parse().unwrap());
            policies.let_out(&names.iter().map(parse).collect::<Vec<_>>())
        };
        assert!(let_out(&[("open.example", "a/b")]) && let_out(&[("port.example", "a")]));
        assert!(!let_out(&[]) && !let_out(&[("other.example", "a")]) && !let_out(&[("ort.example", "a")]));
        assert!(let_out(&[("open.example", "a"), ("other.example", "a")]), "it may be had from the one");
        assert!(!let_out(&[("open.example", "a"), ("open.example", "direct/a")]), "never from or to a peer");
    }

    #[test]
    fn modes_and_access_make_the_course() {
        let policies = policies(
            "  registries:
  - {host: open.example, access: Public}
  - {host: shared.example, access: Shared, secretRef: {name: s}}
  - {host: verified.example, outagePolicy: Deny}
  rules:
  - {repository: open.example/direct/*, mode: OriginOnly}
  - {repository: open.example/none/*, mode: Suspended}
  - {repository: shared.example/direct/*, mode: OriginOnly}
  transfer: {verification: Strict}
",
        );
        let course = |registry: &str, repository: &str| {
            policies.course(&registry.parse().unwrap(), &repository.parse().unwrap())
        };
        let open = course("open.example", "a/b").unwrap();
        assert!(!open.origin_only && !open.verify_access && !open.shared && open.last_will_do && open.strict);
        let shared = course("shared.example", "a").unwrap();
        assert!(shared.shared && !shared.verify_access);
        assert!(course("open.example", "direct/a").unwrap().origin_only);
        let verified = course("verified.example", "a").unwrap();
        assert!(verified.verify_access && !verified.last_will_do);
        let reasons = [("open.example", "none/a"), ("shared.example", "direct/a"), ("other.example", "a")];
        let reasons = reasons.map(|(registry, repository)| course(registry, repository).unwrap_err().reason());
        assert_eq!(reasons, [Reason::Withheld; 3]);
        assert!(
            policies.allows(&"open.example".parse().unwrap()) && !policies.allows(&"other.example".parse().unwrap())
        );
    }
}
