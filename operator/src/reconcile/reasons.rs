//! The words that status and events use for machines: constant, and all of them here.
//!
//! State: none. Invariant: a word that was released keeps its meaning.

/// The condition that `kubectl wait` is told of: all nodes that are up have all that the Swarm pushes.
pub(super) const READY: &str = "Ready";
/// Something is on its way.
pub(super) const RECONCILING: &str = "Reconciling";
/// Nothing comes of it before somebody changes something, here or at the registry. It is tried again all the same, seldom.
pub(super) const STALLED: &str = "Stalled";
/// A registry can't be asked; what is known holds.
pub(super) const ORIGIN_DEGRADED: &str = "OriginDegraded";
/// Another Swarm is followed where both speak of the same.
pub(super) const CONFLICT: &str = "Conflict";
/// Runtimes pull past the mirror.
pub(super) const MIRROR_BYPASSED: &str = "MirrorBypassed";

/// Nodes are refused by the others because of what they sent.
pub(super) const PEER_BANNED: &str = "PeerBanned";

// Why it is ready.
pub(super) const DISTRIBUTED: &str = "Distributed";
pub(super) const SERVING: &str = "Serving";
pub(super) const SUSPENDED: &str = "Suspended";
pub(super) const NO_NODES: &str = "NoNodes";

// What is on its way.
pub(super) const RESOLVING: &str = "Resolving";
pub(super) const DISTRIBUTING: &str = "Distributing";
pub(super) const NODES_FAILING: &str = "NodesFailing";
pub(super) const AGENTS_MISSING: &str = "AgentsMissing";

// Why it is stalled.
pub(super) const INVALID: &str = "Invalid";
pub(super) const SECRET_UNUSABLE: &str = "SecretUnusable";
pub(super) const ARTIFACT_NOT_FOUND: &str = "ArtifactNotFound";
pub(super) const ORIGIN_REFUSED: &str = "OriginRefused";
pub(super) const ORIGIN_UNREACHABLE: &str = "OriginUnreachable";
pub(super) const NOT_ALLOWED: &str = "RegistryNotAllowed";

// The rest.
pub(super) const ORIGIN_BUSY: &str = "OriginBusy";
pub(super) const RUNTIME_CONFIGURATION: &str = "RuntimeConfiguration";
pub(super) const FALSE_CHUNKS: &str = "FalseChunks";
pub(super) const OVERRULED: &str = "Overruled";
pub(super) const NO_PROBLEM: &str = "NoProblem";

// Events that aren't conditions' reasons.
pub(super) const RESOLVED: &str = "Resolved";
