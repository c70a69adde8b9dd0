//! What an operator sees of the tracker.
//!
//! State: counters; the rest is read from the tracker when asked.
//! Invariants: a snapshot is bounded by what its reader asks for.
//! Absent on purpose: names of nodes and digests as metric labels; those who export the counters have closed label sets.

use std::collections::BTreeMap;

use shoal_types::{BlobKey, NodeId, Time};

use crate::bans::BanReason;
use crate::chain::ChainState;
use crate::tracker::Tracker;

/// What has happened since the tracker started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Announces that were taken in.
    pub announces: u64,
    /// Announces that were refused, by [`crate::AnnounceError::kind`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Members that joined a swarm.
    pub joined: u64,
    /// Members that stopped announcing.
    pub expired: u64,
    /// Connections of nodes beyond the table's bound.
    pub nodes_refused: u64,
    /// Leases granted to leads.
    pub leases_granted: u64,
    /// Leases granted out of impatience.
    pub leases_impatient: u64,
    /// Leases that ended, by how.
    pub leases_ended: BTreeMap<&'static str, u64>,
    /// Batches of links that came too late, or from a holder who doesn't lead, or found no place.
    pub links_dropped: u64,
    /// Chains that a quorum completed.
    pub chains_closed: u64,
    /// Chains that were withdrawn.
    pub chains_quarantined: u64,
    /// Directives that found no place in the queue.
    pub directives_dropped: u64,
}

/// The tracker at one point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerStatus {
    /// Connected nodes that aren't banned.
    pub nodes_connected: usize,
    /// Blobs known.
    pub blobs_known: usize,
    /// Live members of all blobs together.
    pub memberships: usize,
    /// The most popular blobs.
    pub blobs: Vec<BlobStatus>,
    /// How many nodes are banned.
    pub bans: usize,
    /// Who is banned and why, in the order in which it happened.
    pub banned: Vec<(NodeId, BanReason)>,
    /// What has happened so far.
    pub counters: Counters,
}

/// A blob at one point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobStatus {
    /// The swarm.
    pub key: BlobKey,
    /// The blob's size.
    pub size_bytes: u64,
    /// Live members.
    pub members: usize,
    /// Live members that say they have everything.
    pub seeds: usize,
    /// Whole copies that can be counted on: all seeds, once a quorum or a lead vouches; else none.
    pub replicas: usize,
    /// Who fetches from the origin.
    pub lead: Option<NodeId>,
    /// The last lease's epoch.
    pub epoch: u64,
    /// What is thought of the links.
    pub chain: ChainState,
    /// How much it is wanted.
    pub popularity: f64,
}

impl Tracker {
    /// The tracker's state, with the `blobs` most popular blobs at most and the first `banned` bans.
    #[must_use]
    pub fn snapshot(&self, now: Time, blobs: usize, banned: usize) -> TrackerStatus {
        let half_life = self.config.membership.popularity_half_life;
        let quorum = self.config.quorum;
        let mut ranked: Vec<BlobStatus> = Vec::new();
        // Who wants none of them wants the counters, often.
        for (_, blob) in self.blobs.iter().filter(|_| blobs > 0) {
            ranked.push(BlobStatus {
                key: blob.info.key(),
                size_bytes: blob.info.geometry.size_bytes(),
                members: blob.live.len(),
                seeds: blob.claims(),
                replicas: blob.replicas(quorum),
                lead: blob.leases.held().map(|lease| blob.members[lease.holder].id),
                epoch: blob.leases.last_epoch(),
                chain: blob.chain.state(),
                popularity: blob.popularity.at(now, half_life),
            });
        }
        ranked.sort_by(|a, b| b.popularity.total_cmp(&a.popularity).then(a.key.cmp(&b.key)));
        ranked.truncate(blobs);
        TrackerStatus {
            nodes_connected: self.nodes.connected.len(),
            blobs_known: self.blobs.len(),
            memberships: self.live_memberships,
            blobs: ranked,
            bans: self.ledger.log().len(),
            banned: self.ledger.banned().take(banned).collect(),
            counters: Counters { directives_dropped: self.outbox.dropped(), ..self.counters.clone() },
        }
    }
}
