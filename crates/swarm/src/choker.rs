//! Tit-for-tat: who may ask at all.
//!
//! State: when the slots are dealt next, and who has the optimistic one.
//! Invariants: with tit-for-tat at most `slots` neighbours are unchoked; with the other rules nobody is choked.
//! Absent on purpose: the order in which those who may ask are served (`serve`).

use shoal_types::{NodeId, Time};
use shoal_wire::PeerMessage;

use crate::action::{Action, Recipients};
use crate::config::Serving;
use crate::engine::Engine;
use crate::peer::PeerHandle;

/// The slots' clock.
#[derive(Debug, Default)]
pub(crate) struct Choker {
    optimistic: Option<NodeId>,
    optimistic_until: Time,
}

impl Engine {
    /// A neighbour has come or has begun to want something: it gets a slot at once if one is free.
    pub(crate) fn slot_for_newcomer(&mut self, peer: PeerHandle) {
        let Serving::TitForTat { slots, .. } = self.config.serving else { return };
        let unchoked = self.peers.iter().filter(|(_, peer)| !peer.choked).count();
        if unchoked < usize::from(slots) && self.wants_something(peer) {
            self.set_choked(peer, false);
        }
    }

    /// Deals the slots anew.
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

    fn set_choked(&mut self, handle: PeerHandle, choked: bool) {
        let Some(peer) = self.peers.get_mut(handle) else { return };
        if std::mem::replace(&mut peer.choked, choked) == choked {
            return;
        }
        if choked {
            self.drop_waiting(|waiting| waiting.peer == handle.slot);
        }
        let message = if choked { PeerMessage::Choke } else { PeerMessage::Unchoke };
        self.act(Action::Send { to: Recipients::One(handle), message });
    }

    /// Whether we have a chunk that the neighbour lacks.
    fn wants_something(&self, peer: PeerHandle) -> bool {
        self.transfers.iter().flatten().any(|transfer| {
            transfer.member(peer.slot).is_some_and(|member| {
                let theirs = transfer.member_words(member);
                transfer.have.words().iter().zip(theirs).any(|(ours, theirs)| ours & !theirs != 0)
            })
        })
    }
}
