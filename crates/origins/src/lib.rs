//! Registries as Swarms configure them: one client for each, and what names mean there, for trackers; and the Swarms' document as trackers give it.
//!
//! State: the clients ([`Clients`]).
//! Invariants: nothing is asked that no Swarm answers for. An anonymous client never has credentials: what it can read is readable for
//! everyone. Credentials go to the registry for which their source gave them, and to the token server that it names.
//! Absent on purpose: Swarms' origin (a policy comes through a `watch`).

mod clients;
mod proxy;
mod resolver;
mod secrets;
mod source;

pub use clients::Clients;
pub use proxy::ProxyArgs;
pub use resolver::SwarmResolver;
pub use secrets::{CredentialSource, DockerConfig, DockerConfigError, NoCredentials};
pub use source::source;
