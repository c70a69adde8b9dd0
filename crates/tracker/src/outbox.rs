//! Directives on their way to the driver.
//!
//! State: a queue and the number of those that found no place in it.
//! Invariants: never longer than its limit.
//! Absent on purpose: retries. A directive that is lost is repaired by the reply to the node's next announce, which says the same.

use std::collections::VecDeque;

use shoal_types::NodeId;
use shoal_wire::Directive;

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<(NodeId, Directive)>,
    limit: usize,
    dropped: u64,
}

impl Outbox {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { queue: VecDeque::new(), limit, dropped: 0 }
    }

    /// Whether there was a place for it.
    pub(crate) fn push(&mut self, to: NodeId, directive: Directive) -> bool {
        let fits = self.queue.len() < self.limit;
        if fits {
            self.queue.push_back((to, directive));
        } else {
            self.dropped += 1;
        }
        fits
    }

    pub(crate) fn pop(&mut self) -> Option<(NodeId, Directive)> {
        self.queue.pop_front()
    }

    /// Drops what waits for a node whose connection closed.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.queue.retain(|(to, _)| *to != node);
    }

    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.queue.len() <= self.limit, "the queue is bounded");
    }
}
