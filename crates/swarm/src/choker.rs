//! Who may ask at all: the places that a sender keeps and the neighbours that take them up.
//!
//! State: when tit-for-tat deals its places next and who has the optimistic one. Who is choked stands with each neighbour.
//!
//! With credit, a place goes to a neighbour that lacks something of ours: another zone's gateway first, then those that gave, then
//! those that few serve, ties at random. A neighbour gives it back when enough others serve it or when there is nothing to get.
//! Thus about as many flows reach each node as leave it, and the links fill without any of them being crowded.
//!
//! Invariants: at most `slots` neighbours are unchoked, unless everybody is; at most `sources` neighbours serve us.
//! Absent on purpose: the order in which those who may ask are served (`serve`).

use shoal_types::{NodeId, Time};
use shoal_wire::PeerMessage;

use crate::action::{Action, Recipients};
use crate::config::Serving;
use crate::engine::Engine;
use crate::peer::PeerHandle;

/// Tit-for-tat's clock.
#[derive(Debug, Default)]
pub(crate) struct Choker {
    optimistic: Option<NodeId>,
    optimistic_until: Time,
}

impl Engine {
    /// Gives free places away.
    pub(crate) fn fill_slots(&mut self, now: Time) {
        let slots = match self.config.serving {
            Serving::Credit { slots, .. } | Serving::TitForTat { slots, .. } => usize::from(slots),
            Serving::Open => return,
        };
        let taken = self.peers.iter().filter(|(_, peer)| !peer.choked).count();
        for _ in taken..slots {
            let Some(best) = self.next_for_a_slot(now) else { return };
            self.set_choked(best, false);
        }
    }

    fn next_for_a_slot(&mut self, now: Time) -> Option<PeerHandle> {
        let mut best = None;
        let start = self.rng.below(self.peers.places().max(1));
        for handle in self.peers.handles_from(start) {
            let peer = self.peers.at(handle.slot);
            if !peer.choked || peer.declined_until > now || !self.wants_something(handle) {
                continue;
            }
            let rank = (self.only_takes(now, handle.slot), !self.is_far_gateway(handle.slot), peer.load.sources);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, handle));
            }
        }
        best.map(|(_, handle)| handle)
    }

    /// A neighbour has no use for its place.
    pub(crate) fn handle_decline(&mut self, now: Time, from: PeerHandle) {
        let Serving::Credit { idle, .. } = self.config.serving else { return };
        self.peers.at_mut(from.slot).declined_until = now + idle;
        self.timers.slots = self.timers.slots.min(now + idle);
        self.set_choked_silently(from);
        self.fill_slots(now);
    }

    /// A neighbour serves us: we take it up, or leave the place to somebody else.
    pub(crate) fn handle_unchoke(&mut self, now: Time, from: PeerHandle) {
        if let Serving::Credit { sources, idle, .. } = self.config.serving {
            if self.sources() >= usize::from(sources) {
                self.act(Action::Send { to: Recipients::One(from), message: PeerMessage::Decline });
                return;
            }
            self.timers.slots = self.timers.slots.min(now + idle);
        }
        let peer = self.peers.at_mut(from.slot);
        peer.chokes_us = false;
        peer.useless_since = Some(now);
        self.fill(now);
    }

    /// Gives back places that have been of no use for a while.
    pub(crate) fn return_idle_slots(&mut self, now: Time) {
        self.timers.slots = Time::MAX;
        let Serving::Credit { idle, .. } = self.config.serving else { return };
        let mut next = Time::MAX;
        let useless: Vec<PeerHandle> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.chokes_us)
            .filter_map(|(handle, peer)| {
                let since = peer.useless_since?;
                let due = since + idle;
                if due > now {
                    next = next.min(due);
                    return None;
                }
                Some(handle)
            })
            .collect();
        for peer in useless {
            let entry = self.peers.at_mut(peer.slot);
            entry.chokes_us = true;
            entry.useless_since = None;
            self.act(Action::Send { to: Recipients::One(peer), message: PeerMessage::Decline });
        }
        self.timers.slots = self.timers.slots.min(next);
        self.fill_slots(now);
    }

    /// How many neighbours serve us.
    pub(crate) fn sources(&self) -> usize {
        self.peers.iter().filter(|(_, peer)| !peer.chokes_us).count()
    }

    /// Deals tit-for-tat's places anew.
    pub(crate) fn rechoke(&mut self, now: Time) {
        let Serving::TitForTat { slots, rechoke, optimistic } = self.config.serving else {
            self.timers.rechoke = Time::MAX;
            return;
        };
        self.timers.rechoke = now + rechoke;
        let interested: Vec<PeerHandle> = self.peers.handles().filter(|peer| self.wants_something(*peer)).collect();
        // A random order first, so that equal merits are dealt differently each time.
        let mut ranked = interested;
        self.rng.shuffle(&mut ranked);
        ranked.sort_by_key(|peer| std::cmp::Reverse(self.peers.get(*peer).map_or(0, |peer| peer.merit)));
        let regular = usize::from(slots.saturating_sub(1));
        let mut chosen: Vec<PeerHandle> = ranked.iter().copied().take(regular).collect();
        let kept = self.choker.optimistic.and_then(|node| self.peers.handle_of(node));
        let kept = kept.filter(|peer| now < self.choker.optimistic_until && ranked.contains(peer));
        let optimist = match kept.filter(|peer| !chosen.contains(peer)) {
            Some(peer) => Some(peer),
            None => {
                self.choker.optimistic_until = now + optimistic;
                self.rng.choose(&ranked[chosen.len()..]).copied()
            }
        };
        self.choker.optimistic = optimist.and_then(|peer| self.peers.get(peer)).map(|peer| peer.node);
        chosen.extend(optimist);
        let all: Vec<PeerHandle> = self.peers.handles().collect();
        for peer in all {
            self.set_choked(peer, !chosen.contains(&peer));
        }
        self.peers.iter_mut().for_each(|peer| peer.merit = 0);
    }

    pub(crate) fn set_choked(&mut self, handle: PeerHandle, choked: bool) {
        if self.peers.get(handle).is_none_or(|peer| peer.choked == choked) {
            return;
        }
        let message = if choked { PeerMessage::Choke } else { PeerMessage::Unchoke };
        if choked {
            self.set_choked_silently(handle);
        } else {
            self.peers.at_mut(handle.slot).choked = false;
        }
        self.act(Action::Send { to: Recipients::One(handle), message });
    }

    fn set_choked_silently(&mut self, handle: PeerHandle) {
        self.peers.at_mut(handle.slot).choked = true;
        self.drop_waiting(|waiting| waiting.peer == handle.slot);
    }

    /// Whether we have a chunk that the neighbour lacks and would fetch from us.
    fn wants_something(&self, peer: PeerHandle) -> bool {
        self.transfers.iter().flatten().any(|transfer| {
            transfer.member(peer.slot).is_some_and(|member| {
                let theirs = transfer.member_words(member);
                transfer.have.words().iter().zip(theirs).any(|(ours, theirs)| ours & !theirs != 0)
            })
        })
    }
}
