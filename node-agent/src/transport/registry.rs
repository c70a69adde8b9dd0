//! Which connections stand, and which of two between the same nodes is kept.
//!
//! State: one connection a node at most, and whom this node is dialling.
//! Invariants: both ends decide alike. Of two connections of the same two runs the one that the node with the smaller identity opened
//! is kept; of two that the same node opened, the newer one; and a connection of a node's earlier run never outlives one of its
//! current run. The end that accepts decides first and greets only then; the end that dialled counts a connection as standing only
//! once it was greeted.
//! Absent on purpose: handshakes and bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_types::NodeId;
use shoal_wire::CloseReason;
use tokio_util::sync::CancellationToken;

use super::event::PeerId;
use super::outgoing::Outgoing;

/// The connections of one agent.
#[derive(Debug)]
pub(crate) struct Registry<S> {
    me: NodeId,
    limit: usize,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
struct State<S> {
    next: u64,
    by_node: BTreeMap<NodeId, Standing<S>>,
    /// Also those that are ending.
    by_peer: BTreeMap<PeerId, Arc<Outgoing<S>>>,
    dialling: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Standing<S> {
    peer: PeerId,
    opener: NodeId,
    incarnation: u64,
    outgoing: Arc<Outgoing<S>>,
    gone: CancellationToken,
}

/// Who asks for a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    /// Whether this side opened the connection.
    pub(crate) dialled: bool,
}

/// A place among the connections.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) peer: PeerId,
    /// To be cancelled when its last event is out.
    pub(crate) gone: CancellationToken,
    /// The connection whose place it took, until it is gone.
    pub(crate) predecessor: Option<CancellationToken>,
}

impl<S> Registry<S> {
    pub(crate) fn new(me: NodeId, limit: usize) -> Self {
        let state = State { next: 0, by_node: BTreeMap::new(), by_peer: BTreeMap::new(), dialling: BTreeSet::new() };
        Self { me, limit, state: Mutex::new(state) }
    }

    /// Whether to dial a node: not if there is a connection, or one on its way.
    pub(crate) fn start_dialling(&self, node: NodeId) -> bool {
        let mut state = self.lock();
        node != self.me && !state.by_node.contains_key(&node) && state.dialling.insert(node)
    }

    /// This side no longer dials that node, whatever came of it.
    pub(crate) fn stop_dialling(&self, node: NodeId) {
        self.lock().dialling.remove(&node);
    }

    /// How many nodes are being dialled.
    pub(crate) fn dialling(&self) -> usize {
        self.lock().dialling.len()
    }

    /// A place for a connection whose other end is known, or why there is none.
    pub(crate) fn admit(&self, candidate: Candidate, outgoing: &Arc<Outgoing<S>>) -> Result<Place, CloseReason> {
        let Candidate { node, incarnation, dialled } = candidate;
        if node == self.me {
            return Err(CloseReason::Identity);
        }
        let opener = if dialled { self.me } else { node };
        let mut state = self.lock();
        if !dialled && self.me < node && state.dialling.contains(&node) {
            // The one on its way will be kept.
            return Err(CloseReason::Duplicate);
        }
        let predecessor = match state.by_node.get(&node) {
            Some(standing) if standing.incarnation == incarnation && standing.opener != opener => {
                if opener > standing.opener {
                    return Err(CloseReason::Duplicate);
                }
                Some(standing)
            }
            Some(standing) => Some(standing),
            None if state.by_node.len() >= self.limit => return Err(CloseReason::Full),
            None => None,
        };
        let predecessor = predecessor.map(|standing| {
            standing.outgoing.end(CloseReason::Duplicate);
            standing.gone.clone()
        });
        state.next += 1;
        let (peer, gone) = (PeerId(state.next), CancellationToken::new());
        let standing = Standing { peer, opener, incarnation, outgoing: outgoing.clone(), gone: gone.clone() };
        state.by_node.insert(node, standing);
        state.by_peer.insert(peer, outgoing.clone());
        Ok(Place { peer, gone, predecessor })
    }

    /// A connection is gone.
    pub(crate) fn leave(&self, node: NodeId, peer: PeerId) {
        let mut state = self.lock();
        state.by_peer.remove(&peer);
        if state.by_node.get(&node).is_some_and(|standing| standing.peer == peer) {
            state.by_node.remove(&node);
        }
    }

    /// A connection's queue, while it stands.
    pub(crate) fn outgoing(&self, peer: PeerId) -> Option<Arc<Outgoing<S>>> {
        self.lock().by_peer.get(&peer).cloned()
    }

    /// How many nodes are connected.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_node.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId::new(5);
    const SMALLER: NodeId = NodeId::new(1);
    const LARGER: NodeId = NodeId::new(9);

    fn queue() -> Arc<Outgoing<()>> {
        Outgoing::new(10, 10, CancellationToken::new()).into()
    }

    fn admit(
        registry: &Registry<()>,
        node: NodeId,
        incarnation: u64,
        dialled: bool,
    ) -> (Result<Place, CloseReason>, Arc<Outgoing<()>>) {
        let queue = queue();
        (registry.admit(Candidate { node, incarnation, dialled }, &queue), queue)
    }

    #[test]
    fn of_two_the_smaller_nodes_is_kept_and_of_one_nodes_the_newer() {
        // Who it is, which of the two is dialled by this side, is the second one kept?
        let cases = [
            (SMALLER, [false, true], false),
            (SMALLER, [true, false], true),
            (LARGER, [false, true], true),
            (LARGER, [true, false], false),
            (SMALLER, [false, false], true),
            (LARGER, [true, true], true),
        ];
        for (node, [first, second], replaced) in cases {
            let registry = Registry::new(ME, 9);
            let (one, one_queue) = admit(&registry, node, 1, first);
            let one = one.unwrap();
            let (two, _) = admit(&registry, node, 1, second);
            assert_eq!(two.is_ok(), replaced, "{node} {first} {second}");
            assert_eq!(registry.len(), 1);
            match two {
                Ok(two) => {
                    assert!(two.predecessor.is_some_and(|gone| !gone.is_cancelled()));
                    registry.leave(node, one.peer);
                    assert_eq!(registry.len(), 1, "the newer one stands");
                    assert!(registry.outgoing(one.peer).is_none() && registry.outgoing(two.peer).is_some());
                }
                Err(reason) => {
                    assert_eq!(reason, CloseReason::Duplicate);
                    assert!(registry.outgoing(one.peer).is_some_and(|queue| Arc::ptr_eq(&queue, &one_queue)));
                }
            }
        }
    }

    #[test]
    fn a_restarted_nodes_connection_replaces_the_one_before() {
        for dialled in [[true, false], [false, true]] {
            for node in [SMALLER, LARGER] {
                let registry = Registry::new(ME, 1);
                assert!(admit(&registry, node, 1, dialled[0]).0.is_ok());
                assert!(admit(&registry, node, 2, dialled[1]).0.unwrap().predecessor.is_some());
            }
        }
    }

    #[test]
    fn while_the_smaller_one_dials_the_larger_ones_connection_is_refused() {
        let registry = Registry::new(ME, 9);
        assert!(registry.start_dialling(LARGER) && registry.start_dialling(SMALLER));
        assert!(!registry.start_dialling(LARGER) && !registry.start_dialling(ME));
        assert_eq!(admit(&registry, LARGER, 1, false).0.unwrap_err(), CloseReason::Duplicate);
        assert!(admit(&registry, SMALLER, 1, false).0.is_ok());
        registry.stop_dialling(LARGER);
        assert!(admit(&registry, LARGER, 1, false).0.is_ok());
        assert!(!registry.start_dialling(LARGER), "it is connected");
    }

    #[test]
    fn there_is_a_limit_and_nobody_connects_to_itself() {
        let registry = Registry::new(ME, 1);
        assert_eq!(admit(&registry, ME, 1, true).0.unwrap_err(), CloseReason::Identity);
        assert!(admit(&registry, SMALLER, 1, true).0.is_ok());
        assert_eq!(admit(&registry, LARGER, 1, false).0.unwrap_err(), CloseReason::Full);
    }
}
