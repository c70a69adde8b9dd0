//! The tracker's state as JSON, for people and their tools.
//!
//! State: none.
//! Invariants: bounded by the snapshot that it is made from.
//! Absent on purpose: anything that the core doesn't say.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_tracker::{BlobStatus, TrackerStatus};

#[derive(Debug, Serialize)]
pub(crate) struct StatusText {
    nodes_connected: usize,
    blobs_known: usize,
    memberships: usize,
    blobs: Vec<BlobText>,
    banned: Vec<BanText>,
    counters: CountersText,
}

#[derive(Debug, Serialize)]
struct BlobText {
    digest: String,
    chunk_size: u32,
    size_bytes: u64,
    members: usize,
    seeds: usize,
    replicas: usize,
    lead: Option<String>,
    epoch: u64,
    chain: String,
    popularity: f64,
}

#[derive(Debug, Serialize)]
struct BanText {
    node: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct CountersText {
    announces: u64,
    refused: BTreeMap<&'static str, u64>,
    joined: u64,
    expired: u64,
    nodes_refused: u64,
    leases_granted: u64,
    leases_impatient: u64,
    leases_ended: BTreeMap<&'static str, u64>,
    links_dropped: u64,
    chains_closed: u64,
    chains_quarantined: u64,
    directives_dropped: u64,
}

impl From<&TrackerStatus> for StatusText {
    fn from(status: &TrackerStatus) -> Self {
        let counters = &status.counters;
        let ban = |(node, reason): &(shoal_types::NodeId, shoal_tracker::BanReason)| BanText {
            node: node.to_string(),
            reason: format!("{reason:?}"),
        };
        Self {
            nodes_connected: status.nodes_connected,
            blobs_known: status.blobs_known,
            memberships: status.memberships,
            blobs: status.blobs.iter().map(BlobText::from).collect(),
            banned: status.banned.iter().map(ban).collect(),
            counters: CountersText {
                announces: counters.announces,
                refused: counters.refused.clone(),
                joined: counters.joined,
                expired: counters.expired,
                nodes_refused: counters.nodes_refused,
                leases_granted: counters.leases_granted,
                leases_impatient: counters.leases_impatient,
                leases_ended: counters.leases_ended.clone(),
                links_dropped: counters.links_dropped,
                chains_closed: counters.chains_closed,
                chains_quarantined: counters.chains_quarantined,
                directives_dropped: counters.directives_dropped,
            },
        }
    }
}

impl From<&BlobStatus> for BlobText {
    fn from(blob: &BlobStatus) -> Self {
        Self {
            digest: blob.key.digest.to_string(),
            chunk_size: blob.key.chunk_size.bytes(),
            size_bytes: blob.size_bytes,
            members: blob.members,
            seeds: blob.seeds,
            replicas: blob.replicas,
            lead: blob.lead.map(|lead| lead.to_string()),
            epoch: blob.epoch,
            chain: format!("{:?}", blob.chain),
            popularity: blob.popularity,
        }
    }
}
