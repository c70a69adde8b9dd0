//! Which Swarm answers for a repository, and what it says.
//!
//! State: the Swarms of a node. Invariants: a decision depends on nothing but the Swarms, the registry and the repository; and it is total: where two
//! Swarms are equally specific the older one wins, and of two of the same age the one whose name comes first.
//! Absent on purpose: the node's labels. Who compiles a policy takes the Swarms whose selector names the node.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::repository_path;
use crate::{
    Access, Endpoint, Glob, HostPattern, Mode, OutagePolicy, Registry, RegistryHost, SecretRef, Swarm, Transfer,
};

/// The Swarms of a node, ready to be asked. Asking costs a comparison for each rule of each Swarm that names the registry.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The oldest first.
    swarms: Vec<Arc<Swarm>>,
    overruled: Vec<Overruled>,
}

/// What holds for a repository.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The Swarm that answers.
    pub swarm: Arc<str>,
    /// What happens to the pull.
    pub mode: Mode,
    /// Where the registry is.
    pub endpoint: Endpoint,
    /// How nodes exchange its content, verification included.
    pub transfer: Transfer,
    registry: Arc<Registry>,
}

impl Decision {
    /// Who may have a manifest.
    #[must_use]
    pub fn access(&self) -> Access {
        self.registry.access
    }

    /// What a tag means while the registry is down.
    #[must_use]
    pub fn outage_policy(&self) -> OutagePolicy {
        self.registry.outage_policy
    }

    /// PEM certificates that sign for the registry; `None`: those that the node trusts.
    #[must_use]
    pub fn ca_bundle(&self) -> Option<&[u8]> {
        self.registry.ca_bundle.as_deref()
    }

    /// The Secret to fetch with.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretRef> {
        self.registry.secret.as_ref()
    }
}

/// Two Swarms claim the same repositories: the younger one has no say there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overruled {
    /// The Swarm without a say.
    pub loser: Arc<str>,
    /// The one that is followed.
    pub winner: Arc<str>,
    /// The repositories, as a pattern.
    pub repositories: String,
}

impl Policy {
    /// A policy of these Swarms, in any order.
    pub fn compile(swarms: impl IntoIterator<Item = Arc<Swarm>>) -> Self {
        let mut swarms: Vec<_> = swarms.into_iter().collect();
        swarms.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut claimed: BTreeMap<String, Arc<str>> = BTreeMap::new();
        let mut overruled = Vec::new();
        for swarm in &swarms {
            for repositories in swarm.claims() {
                match claimed.get(&repositories) {
                    None => {
                        claimed.insert(repositories, Arc::clone(&swarm.name));
                    }
                    // A rule for the whole of a registry says the same as the registry's own entry.
                    Some(winner) if *winner == swarm.name => {}
                    Some(winner) => {
                        overruled.push(Overruled {
                            loser: Arc::clone(&swarm.name),
                            winner: Arc::clone(winner),
                            repositories,
                        });
                    }
                }
            }
        }
        Self { swarms, overruled }
    }

    /// What holds for a repository; `None` if no Swarm answers for it, so that the mirror has nothing to say.
    #[must_use]
    pub fn decide(&self, host: &RegistryHost, repository: &str) -> Option<Decision> {
        let path = repository_path(host, repository);
        let mut best: Option<(Glob, Mode, &Arc<Registry>, &Swarm)> = None;
        for swarm in &self.swarms {
            let Some((claim, mode, registry)) = claim(swarm, host, &path) else { continue };
            // The oldest comes first: a younger one must be more specific.
            if best.as_ref().is_none_or(|(other, ..)| claim.cmp_specificity(other) == Ordering::Greater) {
                best = Some((claim, mode, registry, swarm));
            }
        }
        best.map(|(_, mode, registry, swarm)| Decision {
            swarm: Arc::clone(&swarm.name),
            mode,
            endpoint: registry.endpoint.clone().unwrap_or_else(|| host.endpoint()),
            transfer: swarm.transfer,
            registry: Arc::clone(registry),
        })
    }

    /// Whether some Swarm answers for the registry at all.
    #[must_use]
    pub fn knows(&self, host: &RegistryHost) -> bool {
        self.swarms.iter().any(|swarm| registry_of(swarm, host).is_some())
    }

    /// The registries that Swarms name, `*` among them: those that a runtime is configured for.
    pub fn registries(&self) -> impl Iterator<Item = &HostPattern> {
        let hosts = self.swarms.iter().flat_map(|swarm| swarm.registries.iter().map(|registry| &registry.host));
        hosts.collect::<std::collections::BTreeSet<_>>().into_iter()
    }

    /// Who claims the same repositories as an older Swarm and has no say there.
    #[must_use]
    pub fn overruled(&self) -> &[Overruled] {
        &self.overruled
    }
}

impl Swarm {
    /// The repositories that it speaks of, as patterns: each registry's, and each rule's. Of two Swarms with the same claim the older one is followed.
    pub fn claims(&self) -> impl Iterator<Item = String> {
        let registries = self.registries.iter().map(|registry| whole_registry(&registry.host));
        let rules = self.rules.iter().map(|rule| rule.repository.clone());
        registries.chain(rules).map(|glob| glob.to_string())
    }
}

/// How specifically a Swarm speaks of a repository, and what it says; `None` if it doesn't answer for the registry.
fn claim<'a>(swarm: &'a Swarm, host: &RegistryHost, path: &str) -> Option<(Glob, Mode, &'a Arc<Registry>)> {
    let registry = registry_of(swarm, host)?;
    let whole = whole_registry(&registry.host);
    Some(match swarm.rules.iter().find(|rule| rule.repository.matches(path)) {
        Some(rule) => {
            // A Swarm that names the registry isn't less specific for a rule such as **/cuda.
            let more = rule.repository.cmp_specificity(&whole) == Ordering::Greater;
            (if more { rule.repository.clone() } else { whole }, rule.mode, registry)
        }
        None => (whole, swarm.mode, registry),
    })
}

/// The entry for this host, or else the one for the rest.
fn registry_of<'a>(swarm: &'a Swarm, host: &RegistryHost) -> Option<&'a Arc<Registry>> {
    let named = |registry: &&Arc<Registry>| matches!(&registry.host, HostPattern::Exactly(own) if own == host);
    let rest = |registry: &&Arc<Registry>| registry.host == HostPattern::Rest;
    swarm.registries.iter().find(named).or_else(|| swarm.registries.iter().find(rest))
}

fn whole_registry(host: &HostPattern) -> Glob {
    Glob::whole_registry(&host.to_string())
}
