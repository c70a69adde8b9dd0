//! The nodes that the tracker knows: those with a connection, and those that a blob still remembers.
//!
//! State: per node its zone, whether it is connected, its memberships, how many leases it holds; the table of zones' names.
//! Invariants: a node is in the pool of the connected exactly if it is connected and not banned; its memberships are in the blobs'
//! order, and each is answered by a member of that blob; a node that is neither connected nor a member is forgotten.
//! Absent on purpose: addresses. An agent's address is its Node's, which the driver knows.

use std::collections::BTreeMap;

use shoal_types::{NodeId, Time, Zone};

use crate::pool::{ZoneIx, ZonePool};
use crate::slab::{BlobIx, NodeIx, Slab, Slot};

/// Zones by name. A region has a handful; nodes of further ones are taken as if nobody had said where they are.
const MAX_ZONES: usize = 1_024;

/// A node's place in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) blob: BlobIx,
    pub(crate) slot: Slot,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) zone: ZoneIx,
    pub(crate) connected: bool,
    pub(crate) banned: bool,
    /// When its connection closed, if it has.
    pub(crate) gone_at: Time,
    /// Leases that it holds as a lead, of all blobs.
    pub(crate) leads: u32,
    /// How much of the list of bans it has been told.
    pub(crate) bans_told: usize,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) armed: Time,
}

impl Node {
    pub(crate) fn slot_in(&self, blob: BlobIx) -> Option<Slot> {
        let at = self.memberships.binary_search_by_key(&blob, |membership| membership.blob).ok()?;
        Some(self.memberships[at].slot)
    }

    pub(crate) fn join(&mut self, membership: Membership) {
        let at = self.memberships.partition_point(|other| other.blob < membership.blob);
        self.memberships.insert(at, membership);
    }

    pub(crate) fn leave(&mut self, blob: BlobIx) {
        self.memberships.retain(|membership| membership.blob != blob);
    }
}

#[derive(Debug)]
pub(crate) struct Nodes {
    table: Slab<NodeIx, Node>,
    by_id: BTreeMap<NodeId, NodeIx>,
    zones: Vec<Zone>,
    /// Connected and not banned.
    pub(crate) connected: ZonePool<NodeIx>,
    limit: usize,
}

impl Nodes {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            table: Slab::new(),
            by_id: BTreeMap::new(),
            zones: vec![Zone::default()],
            connected: ZonePool::new(),
            limit,
        }
    }

    pub(crate) fn find(&self, id: NodeId) -> Option<NodeIx> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn zone_name(&self, zone: ZoneIx) -> &Zone {
        &self.zones[usize::from(zone.0)]
    }

    /// The node's entry, connected or not; none if there is no place for another one.
    pub(crate) fn enter(&mut self, id: NodeId) -> Option<NodeIx> {
        if let Some(node) = self.find(id) {
            return Some(node);
        }
        if self.table.len() >= self.limit {
            return None;
        }
        let node = self.table.insert(Node {
            id,
            zone: ZoneIx::default(),
            connected: false,
            banned: false,
            gone_at: Time::ZERO,
            leads: 0,
            bans_told: 0,
            memberships: Vec::new(),
            armed: Time::MAX,
        });
        self.by_id.insert(id, node);
        Some(node)
    }

    pub(crate) fn connect(&mut self, node: NodeIx, zone: &Zone) {
        let zone = self.zone_of(zone);
        let entry = &mut self.table[node];
        debug_assert!(!entry.connected, "a node connects once");
        entry.zone = zone;
        entry.connected = true;
        entry.bans_told = 0;
        if !entry.banned {
            self.connected.insert(zone, node);
        }
    }

    pub(crate) fn disconnect(&mut self, now: Time, node: NodeIx) {
        let entry = &mut self.table[node];
        debug_assert!(entry.connected, "a connection closes once");
        entry.connected = false;
        entry.gone_at = now;
        if !entry.banned {
            self.connected.remove(entry.zone, node);
        }
    }

    pub(crate) fn ban(&mut self, node: NodeIx) {
        let entry = &mut self.table[node];
        debug_assert!(!entry.banned, "a node is banned once");
        entry.banned = true;
        if entry.connected {
            self.connected.remove(entry.zone, node);
        }
    }

    /// Forgets a node that is neither connected nor a member of anything.
    pub(crate) fn forget(&mut self, node: NodeIx) {
        let entry = self.table.remove(node);
        debug_assert!(!entry.connected && entry.memberships.is_empty(), "nothing refers to a forgotten node");
        self.by_id.remove(&entry.id);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeIx, &Node)> {
        self.table.iter()
    }

    fn zone_of(&mut self, name: &Zone) -> ZoneIx {
        let at = self.zones.iter().position(|known| known == name).or_else(|| {
            (self.zones.len() < MAX_ZONES).then(|| {
                self.zones.push(name.clone());
                self.zones.len() - 1
            })
        });
        ZoneIx(at.and_then(|at| u16::try_from(at).ok()).unwrap_or_default())
    }

    pub(crate) fn check_invariants(&self) {
        self.connected.check_invariants();
        assert!(
            self.table.len() <= self.limit && self.table.len() == self.by_id.len(),
            "nodes are bounded and indexed"
        );
        for (node, entry) in self.table.iter() {
            assert_eq!(self.by_id.get(&entry.id), Some(&node), "a node is found by its name");
            assert_eq!(
                self.connected.contains(node),
                entry.connected && !entry.banned,
                "the pool holds who may be named"
            );
            assert!(entry.memberships.is_sorted_by_key(|membership| membership.blob), "memberships are in order");
        }
    }
}

impl std::ops::Index<NodeIx> for Nodes {
    type Output = Node;

    fn index(&self, node: NodeIx) -> &Node {
        &self.table[node]
    }
}

impl std::ops::IndexMut<NodeIx> for Nodes {
    fn index_mut(&mut self, node: NodeIx) -> &mut Node {
        &mut self.table[node]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_nodes_and_of_zones_is_bounded() {
        let mut nodes = Nodes::new(2);
        let [a, b] = [1, 2].map(|id| nodes.enter(NodeId::new(id)).unwrap());
        assert_eq!(nodes.enter(NodeId::new(3)), None);
        assert_eq!(nodes.enter(NodeId::new(1)), Some(a));
        nodes.forget(a);
        assert!(nodes.enter(NodeId::new(3)).is_some());
        for name in 0..MAX_ZONES + 5 {
            nodes.connect(b, &Zone::new(&format!("z{name}")).unwrap());
            nodes.disconnect(Time::ZERO, b);
        }
        assert_eq!(nodes.zones.len(), MAX_ZONES);
        assert_eq!(nodes[b].zone, ZoneIx::default());
        nodes.check_invariants();
    }
}
