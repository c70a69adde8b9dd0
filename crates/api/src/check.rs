//! From a specification as it is written to one whose every value is typed and that doesn't contradict itself.
//!
//! State: none. Invariant: a [`Swarm`] comes from [`Swarm::check`] alone; what it lists is bounded by [`MAX_ENTRIES`].
//! Absent on purpose: what only the world can refute (a host that doesn't resolve, a tag that isn't there).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{
    Access, ArtifactSpec, Endpoint, Glob, HostPattern, LabelSelector, Mode, Operator, OutagePolicy, Placement,
    Reference, RegistryHost, RegistrySpec, RuleSpec, SecretRef, SwarmSpec, Transfer,
};

/// Entries of each list. A request is compared with every rule of its Swarm; 256 comparisons take microseconds.
const MAX_ENTRIES: usize = 256;

// Messages that the API server gives as well: see `rules`.
pub(crate) const NO_REGISTRIES: &str = "none, so this Swarm answers for nothing: write - host: \"*\" for all";
pub(crate) const PUSHED_FROM_ORIGIN: &str =
    "OriginOnly by mode or rule, so every node would fetch it from the registry: write another mode";
pub(crate) const SHARED_WITHOUT_SECRET: &str =
    "Shared serves what the Swarm's secret may read: add secretRef, or write Public";
pub(crate) const ENDPOINT_OF_MANY: &str =
    "\"*\" stands for many registries, which can't all be there: write the host, or leave endpoint out";
pub(crate) const BUNDLE_WITHOUT_TLS: &str = "the endpoint has no TLS: write https:// there, or leave caBundle out";
pub(crate) const NOT_LOWER_CASE: &str = "upper case, in which no runtime asks for it: write it in lower case";
pub(crate) const NOT_BASE64: &str = "not base64: write the output of base64 -w0 ca.pem";
pub(crate) const NOT_A_SECRET: &str = "not a Secret's name: write lower-case letters, digits, \"-\" and \".\"";
pub(crate) const NOT_A_NAMESPACE: &str = "not a namespace: write lower-case letters, digits and \"-\"";
pub(crate) const NOT_A_NAME: &str = "not a name: write up to 63 lower-case letters, digits and \"-\"";
pub(crate) const NOT_ON_HUB: &str =
    "nothing at Docker Hub is called so: write docker.io/library/ and the name for the official ones";
pub(crate) const VALUES_MISSING: &str = "In and NotIn compare with values: write one at least";
pub(crate) const VALUES_UNUSED: &str =
    "Exists and DoesNotExist compare with nothing: leave values out, or write In or NotIn";

/// A Swarm that was checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Swarm {
    /// Its name.
    pub name: Arc<str>,
    /// When it was made; of two the smaller one is older. Seconds since the epoch in a cluster, the position in the file elsewhere.
    pub created: u64,
    /// The nodes that take part.
    pub node_selector: LabelSelector,
    /// The mode of what no rule matches.
    pub mode: Mode,
    /// The registries that it answers for; no two of the same host.
    pub registries: Vec<Arc<Registry>>,
    /// Other modes, first match wins.
    pub rules: Vec<Rule>,
    /// What is pushed.
    pub artifacts: Vec<Artifact>,
    /// How often a pushed tag is looked up.
    pub resolve_interval: Duration,
    /// How nodes exchange content.
    pub transfer: Transfer,
}

/// A registry of a [`Swarm`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Registry {
    /// Which one.
    pub host: HostPattern,
    /// Who may have a manifest.
    pub access: Access,
    /// The Secret to fetch with.
    pub secret: Option<SecretRef>,
    /// Where it is, if not at its host.
    pub endpoint: Option<Endpoint>,
    /// PEM certificates that sign for it.
    pub ca_bundle: Option<Vec<u8>>,
    /// What a tag means while the registry is down.
    pub outage_policy: OutagePolicy,
}

/// A rule of a [`Swarm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The repositories.
    pub repository: Glob,
    /// What happens to their pulls.
    pub mode: Mode,
}

/// A pushed artifact of a [`Swarm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// What it is.
    pub reference: Reference,
    /// Where it goes.
    pub placement: Placement,
    /// Whether caches keep it.
    pub pin: bool,
}

/// Something wrong in a Swarm, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    message: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    pub(crate) fn within(self, prefix: &str) -> Self {
        Self { path: format!("{prefix}{}", self.path), ..self }
    }

    /// Where: `spec.registries[0].host`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong and what to write instead.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

impl Swarm {
    /// Checks a specification. `created` orders Swarms by age: see [`Swarm::created`].
    ///
    /// # Errors
    /// All that is wrong, in the order in which it is written.
    pub fn check(name: &str, created: u64, spec: &SwarmSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems(Vec::new());
        check_selector(&spec.node_selector, &mut problems);
        let registries = check_registries(&spec.registries, &mut problems);
        let rules = check_rules(&spec.rules, &registries, &mut problems);
        let artifacts = check_artifacts(spec, &registries, &rules, &mut problems);
        if !(10..=86_400).contains(&spec.resolve_seconds) {
            problems.add("spec.resolveSeconds", format!("{} is out of range: write 10 to 86400", spec.resolve_seconds));
        }
        let transfer = spec.transfer.check("spec.transfer", &mut problems.0);
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        Ok(Self {
            name: name.into(),
            created,
            node_selector: spec.node_selector.clone(),
            mode: spec.mode,
            registries: registries.into_iter().map(Arc::new).collect(),
            rules,
            artifacts,
            resolve_interval: Duration::from_secs(spec.resolve_seconds.into()),
            transfer,
        })
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(path, message));
    }

    /// The value, or its error's text noted.
    fn take<T, E: fmt::Display>(&mut self, path: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(path, error.to_string())).ok()
    }

    /// One spelling of each name, so that two entries for one are seen as such by comparing texts.
    fn lower_case(&mut self, path: &str, text: &str) {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.add(path, NOT_LOWER_CASE);
        }
    }

    fn bound(&mut self, path: &str, entries: usize) {
        if entries > MAX_ENTRIES {
            self.add(path, format!("{entries} entries: write at most {MAX_ENTRIES}, and another Swarm for the rest"));
        }
    }
}

fn check_selector(selector: &LabelSelector, problems: &mut Problems) {
    problems.bound("spec.nodeSelector.matchExpressions", selector.match_expressions.len());
    for (at, requirement) in selector.match_expressions.iter().enumerate().take(MAX_ENTRIES) {
        let path = format!("spec.nodeSelector.matchExpressions[{at}].values");
        problems.bound(&path, requirement.values.len());
        match (requirement.operator, requirement.values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => problems.add(path, VALUES_MISSING),
            (Operator::Exists | Operator::DoesNotExist, false) => {
                problems.add(path, VALUES_UNUSED);
            }
            _ => {}
        }
    }
}

fn check_registries(specs: &[RegistrySpec], problems: &mut Problems) -> Vec<Registry> {
    if specs.is_empty() {
        problems.add("spec.registries", NO_REGISTRIES);
    }
    problems.bound("spec.registries", specs.len());
    let mut seen = BTreeSet::new();
    let mut registries = Vec::new();
    for (at, spec) in specs.iter().enumerate().take(MAX_ENTRIES) {
        let path = format!("spec.registries[{at}]");
        let host: Option<HostPattern> = problems.take(format!("{path}.host"), spec.host.parse());
        problems.lower_case(&format!("{path}.host"), &spec.host);
        if host.as_ref().is_some_and(|host| !seen.insert(host.clone())) {
            problems.add(format!("{path}.host"), format!("{} is here twice: write one entry", spec.host));
        }
        if spec.access == Access::Shared && spec.secret_ref.is_none() {
            problems.add(format!("{path}.access"), SHARED_WITHOUT_SECRET);
        }
        if let Some(secret) = &spec.secret_ref {
            check_secret(secret, &format!("{path}.secretRef"), problems);
        }
        let endpoint = check_endpoint(spec, host.as_ref(), &path, problems);
        let ca_bundle = check_ca_bundle(spec, endpoint.as_ref(), &path, problems);
        let Some(host) = host else { continue };
        registries.push(Registry {
            host,
            access: spec.access,
            secret: spec.secret_ref.clone(),
            endpoint,
            ca_bundle,
            outage_policy: spec.outage_policy,
        });
    }
    registries
}

fn check_secret(secret: &SecretRef, path: &str, problems: &mut Problems) {
    if !is_dns_name(&secret.name) {
        problems.add(format!("{path}.name"), NOT_A_SECRET);
    }
    if !secret.namespace.is_empty() && !is_label(&secret.namespace) {
        problems.add(format!("{path}.namespace"), NOT_A_NAMESPACE);
    }
}

fn check_endpoint(
    spec: &RegistrySpec,
    host: Option<&HostPattern>,
    path: &str,
    problems: &mut Problems,
) -> Option<Endpoint> {
    if spec.endpoint.is_empty() {
        return None;
    }
    let path = format!("{path}.endpoint");
    if host == Some(&HostPattern::Rest) {
        problems.add(path, ENDPOINT_OF_MANY);
        return None;
    }
    problems.take(path, spec.endpoint.parse())
}

fn check_ca_bundle(
    spec: &RegistrySpec,
    endpoint: Option<&Endpoint>,
    path: &str,
    problems: &mut Problems,
) -> Option<Vec<u8>> {
    if spec.ca_bundle.is_empty() {
        return None;
    }
    let path = format!("{path}.caBundle");
    if endpoint.is_some_and(Endpoint::is_plain_http) {
        problems.add(path, BUNDLE_WITHOUT_TLS);
        return None;
    }
    // YAML's folded texts have line breaks in them.
    let text: String = spec.ca_bundle.split_ascii_whitespace().collect();
    let Ok(pem) = STANDARD.decode(text) else {
        problems.add(path, NOT_BASE64);
        return None;
    };
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(marker.len()).any(|window| window == marker) {
        problems.add(path, "no PEM certificate in it: write the output of base64 -w0 ca.pem");
        return None;
    }
    Some(pem)
}

fn check_rules(specs: &[RuleSpec], registries: &[Registry], problems: &mut Problems) -> Vec<Rule> {
    problems.bound("spec.rules", specs.len());
    let mut rules: Vec<Rule> = Vec::new();
    for (at, spec) in specs.iter().enumerate().take(MAX_ENTRIES) {
        let path = format!("spec.rules[{at}].repository");
        let Some(mut repository): Option<Glob> = problems.take(&path, spec.repository.parse()) else { continue };
        problems.lower_case(&path, &spec.repository);
        if let Some(host) = repository.literal_host() {
            let Some(host): Option<RegistryHost> = problems.take(&path, host.parse()) else { continue };
            if !covers(registries, &host) {
                let message =
                    format!("no registry of this Swarm is {host}: add it to spec.registries, or correct the rule");
                problems.add(&path, message);
            }
            repository = repository.with_host(host.as_str());
        }
        if let Some(["docker.io", _]) = repository.as_literal().as_deref() {
            problems.add(&path, NOT_ON_HUB);
        }
        if let Some(first) = rules.iter().position(|rule| rule.repository.covers(&repository)) {
            let message = format!(
                "never reached, rule {first} ({}) matches it all: write this one first",
                rules[first].repository
            );
            problems.add(&path, message);
        }
        rules.push(Rule { repository, mode: spec.mode });
    }
    rules
}

fn check_artifacts(
    spec: &SwarmSpec,
    registries: &[Registry],
    rules: &[Rule],
    problems: &mut Problems,
) -> Vec<Artifact> {
    problems.bound("spec.artifacts", spec.artifacts.len());
    let mut names = BTreeSet::new();
    let mut artifacts = Vec::new();
    for (at, artifact) in spec.artifacts.iter().enumerate().take(MAX_ENTRIES) {
        let ArtifactSpec { name, reference, placement, pin } = artifact;
        let path = format!("spec.artifacts[{at}]");
        if !is_label(name) {
            problems.add(format!("{path}.name"), NOT_A_NAME);
        }
        if !names.insert(name) {
            problems.add(format!("{path}.name"), format!("{name} is here twice: write another name"));
        }
        let path = format!("{path}.reference");
        problems.lower_case(&path, reference.split('/').next().unwrap_or_default());
        let Some(reference): Option<Reference> = problems.take(&path, reference.parse()) else { continue };
        if !covers(registries, reference.host()) {
            problems
                .add(&path, format!("no registry of this Swarm is {}: add it to spec.registries", reference.host()));
        }
        if mode_of(spec.mode, rules, &repository_path(reference.host(), reference.repository())) == Mode::OriginOnly {
            problems.add(&path, PUSHED_FROM_ORIGIN);
        }
        artifacts.push(Artifact { name: name.clone(), reference, placement: *placement, pin: *pin });
    }
    artifacts
}

fn covers(registries: &[Registry], host: &RegistryHost) -> bool {
    registries.iter().any(|registry| registry.host.matches(host))
}

/// What [`Glob`]s are compared with.
pub(crate) fn repository_path(host: &RegistryHost, repository: &str) -> String {
    format!("{host}/{repository}")
}

fn mode_of(mode: Mode, rules: &[Rule], path: &str) -> Mode {
    rules.iter().find(|rule| rule.repository.matches(path)).map_or(mode, |rule| rule.mode)
}

/// A DNS label, as Kubernetes writes them.
fn is_label(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| is_word(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels with dots between them: an object's name.
pub(crate) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
