//! The `Swarm` resource: its types as people write them, what they mean, and what is wrong with them.
//!
//! Three layers, each of which knows only the one before:
//! - [`SwarmSpec`] and [`SwarmStatus`] are the resource as it is written, with a schema. They are lenient (text where text is written), so that one
//!   bad object can't break the listing of all others.
//! - [`Swarm`] is a specification that was checked: every value typed, nothing contradicts itself. [`Swarm::check`] tells all problems at once.
//! - [`Policy`] answers for a registry and a repository, out of all the Swarms of a node.
//!
//! A [`Document`] is how Swarms and what their artifacts' tags mean travel to a node.
//!
//! State: none. Everything here is a value or a pure function.
//! Absent on purpose: a client of Kubernetes. The feature `kube` adds the resource `kube::Swarm` for those who have one.

mod check;
mod document;
mod file;
mod glob;
mod host;
#[cfg(feature = "kube")]
pub mod kube;
mod policy;
mod quantity;
mod reference;
mod resource;
mod rules;
mod schema;
mod selector;
mod status;
mod transfer;

pub use check::{Artifact, Problem, Registry, Rule, Swarm};
pub use document::{Document, ResolvedArtifact, WrittenSwarm};
pub use file::{FileError, read_swarms};
pub use glob::{Glob, GlobError};
pub use host::{Endpoint, EndpointError, HostError, HostPattern, RegistryHost};
pub use policy::{Decision, Overruled, Policy};
pub use quantity::{Quantity, QuantityError};
pub use reference::{Reference, ReferenceError};
pub use resource::{
    Access, ArtifactSpec, Mode, OutagePolicy, Placement, RegistrySpec, RuleSpec, SecretRef, SwarmSpec, Verification,
};
pub use selector::{LabelSelector, Operator, Requirement};
pub use status::{ArtifactStatus, Condition, ConditionStatus, NodesStatus, SummaryStatus, SwarmStatus, TrafficStatus};
pub use transfer::{ChunkSizeSpec, Preset, Transfer, TransferSpec};

/// The API group of the resource.
pub const GROUP: &str = "shoal.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Its kind.
pub const KIND: &str = "Swarm";
