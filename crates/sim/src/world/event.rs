//! What happens, and when: the simulator's queue.
//!
//! State: the events to come, in a line or in a heap.
//! Invariants: events come out by time, and at one time in the order in which they were put in.
//! Absent on purpose: ends of flows; the network knows those itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

/// The events to come.
///
/// Most are messages and a chunk's pieces between neighbours: half a round trip under way, so they come in the order in which they were put
/// in and wait in a line. Of the others a heap knows the order, and their places in a table.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    line: VecDeque<(Turn, Event)>,
    heap: BinaryHeap<Reverse<(Turn, u32)>>,
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    serial: u64,
}

/// When an event's turn is: its time, and its place among those of that time.
type Turn = (Time, u64);

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        let turn = self.turn(at);
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer than 2^32 events at a time")
        });
        self.events[place as usize] = Some(event);
        self.heap.push(Reverse((turn, place)));
    }

    /// Puts in an event that comes no sooner than any that was put in this way before: one that is always as long under way.
    pub(crate) fn push_in_line(&mut self, at: Time, event: Event) {
        let turn = self.turn(at);
        assert!(self.line.back().is_none_or(|(last, _)| *last < turn), "what is in line comes in order");
        self.line.push_back((turn, event));
    }

    pub(crate) fn next_time(&self) -> Option<Time> {
        self.next_turn().map(|(at, _)| at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        let next = self.next_turn()?;
        if self.line.front().is_some_and(|(turn, _)| *turn == next) {
            return self.line.pop_front().map(|((at, _), event)| (at, event));
        }
        let Reverse(((at, _), place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }

    fn turn(&mut self, at: Time) -> Turn {
        self.serial += 1;
        (at, self.serial)
    }

    fn next_turn(&self) -> Option<Turn> {
        let first = self.line.front().map(|(turn, _)| *turn);
        let least = self.heap.peek().map(|Reverse((turn, _))| *turn);
        first.into_iter().chain(least).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_line_and_what_is_not_come_in_one_order() {
        let mut queue = Queue::default();
        let timer = |node| Event::Timer { node };
        queue.push_in_line(Time::from_nanos(5), timer(0));
        queue.push(Time::from_nanos(5), timer(1));
        queue.push(Time::from_nanos(3), timer(2));
        queue.push_in_line(Time::from_nanos(5), timer(3));
        queue.push_in_line(Time::from_nanos(9), timer(4));
        queue.push(Time::from_nanos(7), timer(5));
        let mut order = Vec::new();
        order.extend(queue.pop().map(|(at, _)| (at.as_nanos(), 2)));
        // In the place that has become free.
        queue.push(Time::from_nanos(8), timer(6));
        while let Some((at, Event::Timer { node })) = queue.pop() {
            order.push((at.as_nanos(), node));
        }
        assert_eq!(order, [(3, 2), (5, 0), (5, 1), (5, 3), (7, 5), (8, 6), (9, 4)]);
        assert_eq!((queue.next_time(), queue.free.len()), (None, 3));
    }
}
