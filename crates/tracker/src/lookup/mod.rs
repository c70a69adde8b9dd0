//! Finding a blob's peers without a tracker: a one-hop Kademlia over the members that every agent knows (Decision 8).
//!
//! Nodes and digests share one space of 128 bits, and distance is XOR. The k nodes closest to a digest keep a record of who
//! provides it; the closest live one stands in as the blob's tracker: a [`Tracker`](crate::Tracker) runs there. Every agent knows
//! all members, so whoever looks asks those k directly, and no routing table is needed. Those who know the same members and see the
//! same ones alive agree on the stand-in.
//!
//! - [`Members`]: who there is, and who hasn't answered lately.
//! - [`Lookup`]: whom to ask for one digest, and what came of it.
//! - [`ProviderRecords`]: what an asked node answers from.

mod members;
mod providers;
mod query;

use std::time::Duration;

pub use members::Members;
pub use providers::ProviderRecords;
pub use query::Lookup;

/// Settings of the trackerless lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// Members that keep a digest's records. With three of them a record survives two crashes between two announces.
    pub closest: usize,
    /// Members that one lookup asks at most: beyond so many silent ones the fault is the asker's own network.
    pub max_asked: usize,
    /// A member that hasn't answered after this time is taken for dead: hundreds of round trips.
    pub answer_within: Duration,
    /// A member that didn't answer isn't asked for so long.
    pub avoid_for: Duration,
    /// Members known: several times the largest cluster that Kubernetes supports (5,000).
    pub max_members: usize,
    /// A provider that doesn't announce again is forgotten after this time.
    pub record_ttl: Duration,
    /// Digests with records.
    pub max_digests: usize,
    /// Providers of one digest: as many as a tracker's reply has peers.
    pub max_providers: usize,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            closest: 3,
            max_asked: 12,
            answer_within: Duration::from_millis(250),
            avoid_for: Duration::from_secs(10),
            max_members: 1 << 16,
            record_ttl: Duration::from_secs(60),
            max_digests: 1 << 14,
            max_providers: 50,
        }
    }
}

#[cfg(test)]
mod tests;
