//! The net's tracker: one lease a blob, members as they announce, everything that it was told.
//!
//! State: leases, members, links, verdicts. Invariants: one lease of a blob at a time, each with a higher epoch.
//! Absent on purpose: an honest tracker's caution. One word is enough here where the test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_chain::SignedLinks;
use shoal_types::{BlobKey, NodeId, Time};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, Directive, LeaseGrant, LeaseRequest, LeaseState, PeerInfo};

use super::{Event, Net};
use crate::common::chunk;

/// What the tracker keeps.
#[derive(Default)]
pub(crate) struct Tracker {
    pub(super) members: BTreeMap<BlobKey, Vec<usize>>,
    pub(super) holders: BTreeMap<BlobKey, (usize, u64)>,
    finished: Vec<(BlobKey, usize)>,
    links: BTreeMap<BlobKey, Vec<SignedLinks>>,
    withdrawn: BTreeMap<BlobKey, u64>,
    barred: Vec<usize>,
    last_epoch: u64,
    pub(crate) gateways: BTreeMap<&'static str, usize>,
    /// Who called which epoch's chain false.
    pub(crate) false_chains: Vec<(usize, u64)>,
    /// Who called the lead of which epoch corrupt.
    pub(crate) corrupt_leads: Vec<(usize, u64)>,
    /// Who accused whom.
    pub(crate) accused: Vec<(usize, NodeId)>,
    pub(crate) announces: Vec<(Time, usize, Announce)>,
}

impl Net {
    pub(super) fn announced(&mut self, node: usize, announce: Announce) {
        let content = self.contents.iter().find(|content| content.blob.digest == announce.digest);
        let key = content.expect("a blob of this net").key();
        self.tracker.announces.push((self.now, node, announce.clone()));
        self.tracker.accused.extend(announce.accused.iter().map(|accused| (node, *accused)));
        self.tracker.links.entry(key).or_default().extend(announce.links);
        let members = self.tracker.members.entry(key).or_default();
        if announce.event == AnnounceEvent::Stopped {
            members.retain(|member| *member != node);
        } else if !members.contains(&node) {
            members.push(node);
        }
        if announce.event == AnnounceEvent::Completed {
            self.tracker.finished.push((key, node));
        }
        if let Some(epoch) = announce.false_chain {
            self.tracker.false_chains.push((node, epoch));
            if self.withdraws && self.tracker.withdrawn.get(&key).is_none_or(|withdrawn| *withdrawn < epoch) {
                self.withdraw(key, epoch);
            }
        }
        if let Some(epoch) = announce.corrupt_lead {
            self.tracker.corrupt_leads.push((node, epoch));
            if let Some((holder, _)) = self.tracker.holders.get(&key).copied().filter(|(_, held)| *held == epoch) {
                self.tracker.barred.push(holder);
                self.end_lease_of(key, holder);
            }
        }
        let gives_up = announce.event == AnnounceEvent::Stopped
            || matches!(announce.lease, LeaseRequest::Yielded { .. } | LeaseRequest::Failed { .. });
        if gives_up {
            self.end_lease_of(key, node);
        }
        let willing = matches!(announce.lease, LeaseRequest::Willing | LeaseRequest::Impatient) && !gives_up;
        if willing && self.needs_lead(key) && !self.tracker.barred.contains(&node) {
            self.grant(key, node);
        }
        let peers = self.tracker.members[&key].iter().filter(|member| **member != node && self.nodes[**member].alive);
        let peers =
            peers.map(|member| PeerInfo { node: self.nodes[*member].id, zone: self.nodes[*member].zone.clone() });
        let reply = AnnounceReply {
            key,
            peers: peers.take(announce.want_peers.into()).collect(),
            lease: LeaseState::Nobody,
            links: self.tracker.links.get(&key).cloned().unwrap_or_default(),
            withdrawn: self.tracker.withdrawn.get(&key).copied(),
            gateway: self.tracker.gateways.get(self.nodes[node].setup.zone).map(|gateway| self.nodes[*gateway].id),
            banned: Vec::new(),
            interval: Duration::from_millis(500),
        };
        self.push(self.now + self.latency, Event::Replied { node, reply: Box::new(reply) });
    }

    fn needs_lead(&self, key: BlobKey) -> bool {
        let seeded = self.tracker.finished.iter().any(|(of, node)| *of == key && self.nodes[*node].alive);
        !seeded && !self.tracker.holders.contains_key(&key)
    }

    fn grant(&mut self, key: BlobKey, node: usize) {
        self.tracker.last_epoch += 1;
        let epoch = self.tracker.last_epoch;
        self.tracker.holders.insert(key, (node, epoch));
        let grant = LeaseGrant { epoch, frontier: chunk(0), holes: Vec::new(), impatient: false };
        self.push(self.now + self.latency, Event::Directed { node, directive: Directive::Lease { key, grant } });
    }

    /// Takes the lease from a node that holds it and gives it to another one.
    pub(super) fn end_lease_of(&mut self, key: BlobKey, node: usize) {
        let Some((_, epoch)) = self.tracker.holders.get(&key).copied().filter(|(holder, _)| *holder == node) else {
            return;
        };
        self.tracker.holders.remove(&key);
        let directive = Directive::LeaseRevoked { key, epoch };
        self.push(self.now + self.latency, Event::Directed { node, directive });
        let members = self.tracker.members.get(&key).cloned().unwrap_or_default();
        let chunks = self.contents[0].chunks();
        let fits = |other: &usize| {
            *other != node
                && self.nodes[*other].alive
                && !self.tracker.barred.contains(other)
                && self.count(*other) < chunks
        };
        if let Some(next) = members.into_iter().find(fits)
            && self.needs_lead(key)
        {
            self.grant(key, next);
        }
    }

    /// The tracker calls a chain false: its publisher leads no more, and nobody keeps it.
    fn withdraw(&mut self, key: BlobKey, epoch: u64) {
        self.tracker.withdrawn.insert(key, epoch);
        self.tracker.links.remove(&key);
        self.tracker.finished.retain(|(of, _)| *of != key);
        for node in 0..self.nodes.len() {
            self.push(self.now + self.latency, Event::Directed { node, directive: Directive::Withdraw { key, epoch } });
        }
        if let Some((holder, _)) = self.tracker.holders.get(&key).copied().filter(|(_, held)| *held <= epoch) {
            self.tracker.barred.push(holder);
            self.end_lease_of(key, holder);
        }
    }
}
