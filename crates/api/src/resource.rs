//! What a Swarm's specification says, as it is written.
//!
//! State: none. Invariant: everything that the schema lets through can be deserialized; whether it makes sense is [`crate::Swarm::check`]'s word.
//! The doc comments of fields are the descriptions in the schema: they speak to who writes a Swarm.

#![allow(rustdoc::bare_urls, reason = "the descriptions are read in a schema, where brackets would be noise")]
#![allow(clippy::duplicated_attributes, reason = "printer columns, several of which are texts")]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LabelSelector, TransferSpec, rules};

/// What is distributed between the nodes, where, and under which policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", derive(::kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(group = "shoal.dev", version = "v1alpha1", kind = "Swarm", plural = "swarms"),
    kube(status = "crate::SwarmStatus", shortname = "sw", category = "shoal", derive = "PartialEq"),
    kube(doc = "What is distributed between the nodes, where, and under which policy; and how far it is."),
    kube(printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    )),
    kube(printcolumn(name = "Nodes", type_ = "string", json_path = ".status.summary.nodes")),
    kube(printcolumn(name = "Artifacts", type_ = "string", json_path = ".status.summary.artifacts")),
    kube(printcolumn(name = "Saved", type_ = "string", json_path = ".status.summary.saved")),
    kube(printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode")),
    kube(printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")),
    kube(printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    )),
    kube(printcolumn(name = "Origin", type_ = "string", json_path = ".status.traffic.fromOrigin", priority = 1)),
    kube(printcolumn(name = "Peers", type_ = "string", json_path = ".status.traffic.fromPeers", priority = 1))
)]
#[schemars(extend("x-kubernetes-validations" = rules::spec()))]
pub struct SwarmSpec {
    /// What happens to a pull that no rule matches. Auto: the first node fetches from the registry and the others from it as soon as there are
    /// others. PeerFirst: waits for peers before it asks the registry. OriginOnly: never from or to a peer. Suspended: the runtime asks the registry itself.
    #[serde(default)]
    pub mode: Mode,
    /// The nodes that take part; all if it says nothing.
    #[serde(default)]
    pub node_selector: LabelSelector,
    /// The registries whose pulls this Swarm answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    #[schemars(extend("x-kubernetes-validations" = rules::registries()))]
    pub registries: Vec<RegistrySpec>,
    /// Other modes for single repositories. The first rule that matches wins.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<RuleSpec>,
    /// What is brought to the nodes ahead of any pull.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub artifacts: Vec<ArtifactSpec>,
    /// How often an artifact's tag is looked up again, in seconds.
    #[serde(default = "resolve_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub resolve_seconds: u32,
    /// How nodes exchange content.
    #[serde(default)]
    pub transfer: TransferSpec,
}

/// One registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::registry()))]
pub struct RegistrySpec {
    /// The registry as image names have it, with its port if it has one: docker.io, registry.example.com:5000. "*" stands for all that no Swarm names.
    #[schemars(length(min = 1, max = 262), extend("x-kubernetes-validations" = rules::host()))]
    pub host: String,
    /// Who may have a manifest from a node. VerifyAtOrigin: everyone, if the registry shows it to anonymous clients; else the runtime asks the
    /// registry with the pod's own secret. Public: everyone, unchecked. Shared: every pod, fetched with this Swarm's secret.
    #[serde(default)]
    pub access: Access,
    /// The Secret of type kubernetes.io/dockerconfigjson with which content is fetched. Its credentials go only to hosts that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Where the registry is, if it isn't https:// and the host: "https://mirror.example.com:5000". Plain http only if it is said here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512), extend("x-kubernetes-validations" = rules::endpoint()))]
    pub endpoint: String,
    /// Base64 of the PEM certificates that sign for the registry; empty for those that the node trusts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 262_144), extend("x-kubernetes-validations" = rules::ca_bundle()))]
    pub ca_bundle: String,
    /// What a tag means while the registry can't be asked. LastResolved: what it meant last. Deny: nothing, only digests are served.
    #[serde(default)]
    pub outage_policy: OutagePolicy,
}

/// A mode for some repositories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// The repositories, with their registry: "registry.example.com:5000/payroll/*". "*" stands for anything within a path part, "**" for any number of parts.
    // As many characters as clients let a registry's and a repository's name together have, by the OCI distribution specification.
    #[schemars(length(min = 1, max = 255), extend("x-kubernetes-validations" = rules::repository()))]
    pub repository: String,
    /// What happens to their pulls: Auto, PeerFirst, OriginOnly or Suspended.
    pub mode: Mode,
}

/// Something that is brought to the nodes ahead of any pull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSpec {
    /// Its name in this Swarm: lower-case letters, digits and "-".
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::artifact_name()))]
    pub name: String,
    /// What it is, with registry and tag or digest: "registry.example.com:5000/ml/pytorch:2.9".
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::reference()))]
    pub reference: String,
    /// Where it goes. Runtime: pulled into the container runtime. Cache: its content only, as for charts and models that no container runs.
    #[serde(default)]
    pub placement: Placement,
    /// Keeps it in the nodes' caches until this Swarm lets go of it.
    #[serde(default)]
    pub pin: bool,
}

/// A Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = rules::secret_name()))]
    pub name: String,
    /// Its namespace; the one that Shoal is installed in if it says nothing. Others must be allowed at installation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63), extend("x-kubernetes-validations" = rules::secret_namespace()))]
    pub namespace: String,
}

/// What happens to a pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// The origin through one node, and from node to node as soon as a second one asks.
    #[default]
    Auto,
    /// Peers first; the origin after a wait.
    PeerFirst,
    /// Never from or to a peer.
    OriginOnly,
    /// The mirror answers 404.
    Suspended,
}

/// Who may have a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// Everyone, if anonymous clients may read it at the origin.
    #[default]
    VerifyAtOrigin,
    /// Everyone, unchecked.
    Public,
    /// Every pod of the cluster, fetched with the Swarm's secret.
    Shared,
}

/// What a tag means while its origin is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OutagePolicy {
    /// What it meant last.
    #[default]
    LastResolved,
    /// Nothing.
    Deny,
}

/// Where an artifact goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// Into the container runtime.
    #[default]
    Runtime,
    /// Into the node's cache alone.
    Cache,
}

/// When a stream may reach the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verification {
    /// As it comes, checked under the lead's links; the last chunk when the digest is proven.
    #[default]
    Eager,
    /// When the digest is proven.
    Strict,
}

impl Default for SwarmSpec {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            node_selector: LabelSelector::default(),
            registries: Vec::new(),
            rules: Vec::new(),
            artifacts: Vec::new(),
            resolve_seconds: resolve_seconds(),
            transfer: TransferSpec::default(),
        }
    }
}

/// A tag that moved is seen within five minutes; a registry that counts requests is asked 288 times a day and tag.
const fn resolve_seconds() -> u32 {
    300
}
