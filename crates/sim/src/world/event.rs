//! What happens, and when: the simulator's queue.
//!
//! State: the events to come.
//! Invariants: events come out by time, and at one time in the order in which they were put in.
//! Absent on purpose: ends of flows; the network knows those itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use shoal_swarm::{PeerHandle, VerifyTicket};
use shoal_types::Time;
use shoal_wire::{Announce, AnnounceReply, Directive, PeerMessage};

use crate::setup::Fault;

/// A node's number.
pub(crate) type NodeIx = u32;

/// Something that happens to a node, to the tracker or to the whole.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message reaches a node.
    Deliver { to: NodeIx, from: PeerHandle, message: Rc<PeerMessage> },
    /// A message reaches several nodes.
    DeliverMany { to: Box<[(NodeIx, PeerHandle)]>, message: Rc<PeerMessage> },
    /// A chunk's first bytes reach their receiver.
    PieceStarts { send: usize, serial: u64 },
    /// A chunk's last bytes reach their receiver.
    PieceEnds { send: usize },
    /// A node has verified a chunk.
    Verified { node: NodeIx, ticket: VerifyTicket, right: bool },
    /// The origin has the request and begins to send.
    OriginBegins { stream: usize },
    /// A lead has a chunk from the origin, hashed.
    OriginChunk { stream: usize },
    /// The tracker gets an announce.
    AnnounceArrives { node: NodeIx, announce: Box<Announce> },
    /// The tracker has worked on the announce.
    AnnounceDone { node: NodeIx, announce: Box<Announce> },
    /// A node gets the tracker's answer.
    Reply { node: NodeIx, reply: Box<AnnounceReply> },
    /// A node gets the tracker's word.
    Directive { node: NodeIx, directive: Box<Directive> },
    /// A connection stands.
    Connected { from: NodeIx, to: NodeIx },
    /// A connection's other end has closed it.
    Closed { node: NodeIx, peer: PeerHandle },
    /// The tracker notices that a node's connection has closed.
    TrackerLoses { node: NodeIx },
    /// A node's engine wants to be called.
    Timer { node: NodeIx },
    /// The tracker wants to be called.
    TrackerTimer,
    /// A node begins to pull.
    Pull { node: NodeIx },
    /// Something goes wrong.
    Fault { fault: Fault },
}

#[derive(Debug)]
struct Entry {
    at: Time,
    serial: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    serial: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        self.serial += 1;
        self.heap.push(Reverse(Entry { at, serial: self.serial, event }));
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}
