//! Who may ask at all: the places that a sender keeps and the neighbours that take them up.
//!
//! State: when tit-for-tat deals its places next and who has the optimistic one. Who is choked stands with each neighbour.
//!
//! With credit, a place goes to a neighbour that lacks something of ours: another zone's gateway first, then those that gave, then
//! those that few serve, ties at random. A neighbour gives it back when enough others serve it or when there is nothing to get.
//! Thus about as many flows reach each node as leave it, and the links fill without any of them being crowded.
//!
//! Slow sources count by what they bring, so that a slow uplink's places don't take the room of fast ones.
//!
//! Invariants: at most `slots` neighbours are unchoked, unless everybody is; at most twice `sources` neighbours serve us.
//! Absent on purpose: the order in which those who may ask are served (`serve`).

use shoal_types::{NodeId, Time};
use shoal_wire::PeerMessage;

use crate::action::{Action, Recipients};
use crate::config::Serving;
use crate::engine::Engine;
use crate::peer::{Peer, PeerHandle};
use crate::transfer::Transfer;

/// So many chunks behind the neighbours' average is more than chance: nodes of one swarm differ by a few.
const BEHIND: u32 = 12;

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
        let taken = self.peers.served().len();
        for _ in taken..slots {
            let Some((best, _)) = self.next_for_a_slot(now) else { return };
            self.set_choked(best, false);
        }
    }

    /// Somebody takes part: from now on credit looks from time to time who has a place and only takes.
    pub(crate) fn watch_slots(&mut self, now: Time) {
        if let Serving::Credit { rechoke, .. } = self.config.serving {
            self.timers.rechoke = self.timers.rechoke.min(now + rechoke);
        }
    }

    /// Who gets the next free place, and how many chunks it lacks.
    fn next_for_a_slot(&mut self, now: Time) -> Option<(PeerHandle, u32)> {
        let mut best = None;
        let leads = self.is_leading();
        let start = self.rng.below(self.peers.places().max(1));
        for handle in self.peers.handles_from(start) {
            let peer = self.peers.at(handle.slot);
            // Other zones get what they get through their gateway; who is left without says so (`Hungry`).
            let foreign = !peer.near && !self.is_far_gateway(handle.slot);
            if !peer.choked() || peer.declined_until > now || foreign {
                continue;
            }
            let lacks = self.lacks(handle);
            if lacks == 0 {
                continue;
            }
            let rank = (
                self.only_takes(now, handle.slot),
                !self.comes_first(handle.slot),
                // Whoever is known to pass on what only we have spreads it; of the others it is to be seen.
                leads && !peer.passes_on,
                peer.load.sources,
                u32::MAX - lacks,
            );
            if best.is_none_or(|(least, _, _)| rank < least) {
                best = Some((rank, handle, lacks));
            }
        }
        best.map(|(_, handle, lacks)| (handle, lacks))
    }

    /// Moves a place from a neighbour that only takes to one that gives.
    pub(crate) fn rebalance(&mut self, now: Time) {
        let Some((to, _)) = self.next_for_a_slot(now).filter(|(to, _)| !self.only_takes(now, to.slot)) else { return };
        let mut served = self.peers.served().iter().copied();
        if let Some(rider) = served.find(|peer| self.only_takes(now, *peer)) {
            self.set_choked(self.peers.handle_at(rider), true);
            self.set_choked(to, false);
        }
    }

    /// Few serve us although there is something to get: asks one of those that have it for somebody else's place.
    fn complain(&mut self, now: Time) {
        let Serving::Credit { sources, idle, .. } = self.config.serving else { return };
        let now_serving = self.source_count();
        // One less than there could be is no misfortune by itself, and a place that moves costs a round trip.
        let few = now_serving == 0;
        if now_serving >= self.enough_sources(sources) || !(few || self.brings_to_zone() || self.is_behind()) {
            return;
        }
        let start = self.rng.below(self.peers.places().max(1));
        let helper = self.peers.handles_from(start).find(|handle| {
            self.peers.at(handle.slot).chokes_us()
                && self.transfers.iter().flatten().any(|transfer| {
                    transfer.member(handle.slot).is_some_and(|member| {
                        !transfer.members[member].suspect
                            && (self.peers.at(handle.slot).near || self.may_ask_across(now, transfer))
                            && transfer
                                .member_words(member)
                                .iter()
                                .zip(&transfer.wanted)
                                .any(|(has, want)| has & want != 0)
                    })
                })
        });
        if let Some(helper) = helper {
            let sources = u8::try_from(now_serving).unwrap_or(u8::MAX);
            self.act(Action::Send { to: Recipients::One(helper), message: PeerMessage::Hungry { sources } });
            self.timers.slots = self.timers.slots.min(now + idle);
        }
    }

    /// Whether the neighbours are ahead of us, on average, by more than chance.
    fn is_behind(&self) -> bool {
        self.transfers.iter().flatten().filter(|transfer| !transfer.is_served()).any(|transfer| {
            let members = u32::try_from(transfer.members.len()).unwrap_or(u32::MAX).max(1);
            let theirs: u32 = transfer.members.iter().map(|member| member.count).sum();
            theirs / members > transfer.have.len() + BEHIND
        })
    }

    /// A neighbour whom few serve wants a place: it gets a free one, or that of the one who is furthest ahead.
    pub(crate) fn handle_hungry(&mut self, now: Time, from: PeerHandle, sources: u8) {
        let Serving::Credit { slots, .. } = self.config.serving else { return };
        self.peers.at_mut(from.slot).load.sources = sources;
        if !self.peers.at(from.slot).choked() || self.lacks(from) == 0 {
            return;
        }
        if self.peers.served().len() >= usize::from(slots) {
            let lacks = self.lacks(from);
            let giving = !self.only_takes(now, from.slot);
            let served = self.peers.served().iter().filter(|peer| self.peers.at(**peer).load.sources > sources);
            let served = served.map(|peer| self.peers.handle_at(*peer)).map(|handle| (self.lacks(handle), handle));
            // Another zone waits for its gateway.
            let gateway = self.comes_first(from.slot);
            let entitled = |least: &u32| giving && (gateway || least + BEHIND / 2 < lacks);
            let Some((_, richest)) = served.min().filter(|(least, _)| entitled(least)) else {
                return;
            };
            self.set_choked(richest, true);
        }
        self.set_choked(from, false);
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
            let near = self.peers.at(from.slot).near;
            let mut unfinished = self.transfers.iter().flatten().filter(|transfer| !transfer.is_served());
            // Who sent wrong bytes is asked for nothing: its place would be in the way of others'.
            let trusted =
                |transfer: &Transfer| !transfer.member(from.slot).is_some_and(|at| transfer.members[at].suspect);
            let wanting = unfinished.any(|transfer| trusted(transfer) && (near || self.may_ask_across(now, transfer)));
            // Half a source more or less is within the measurement's error.
            let enough = self.source_quarters() + 2 >= 4 * self.enough_sources(sources);
            if !wanting || enough || self.source_count() >= 2 * usize::from(sources) {
                self.act(Action::Send { to: Recipients::One(from), message: PeerMessage::Decline });
                return;
            }
            self.timers.slots = self.timers.slots.min(now + idle);
        }
        self.tell_partner(from);
        self.peers.note_chokes_us(from.slot, false);
        self.peers.at_mut(from.slot).useless_since = Some(now);
        self.fill(now);
    }

    /// Gives back places that have been of no use for a while.
    pub(crate) fn return_idle_slots(&mut self, now: Time) {
        self.timers.slots = Time::MAX;
        let Serving::Credit { idle, .. } = self.config.serving else { return };
        let chunk_bytes = u64::from(self.largest_chunk());
        let time = |peer: &Peer| peer.pace.time_for(chunk_bytes);
        let serving = || self.peers.sources().iter().map(|slot| (self.peers.handle_at(*slot), self.peers.at(*slot)));
        let quickest = serving().filter_map(|(_, peer)| time(peer)).min();
        let longest = quickest.map_or(idle, |quickest| idle.max(2 * quickest));
        let mut next = Time::MAX;
        let useless: Vec<PeerHandle> = serving()
            .filter_map(|(handle, peer)| {
                let since = peer.useless_since?;
                // Whoever sends slowly gets slowly: it will have something before another place has been taken up. Of those that are much
                // slower than others no place is worth that.
                let due = since + time(peer).map_or(idle, |chunk| chunk.clamp(idle, longest));
                if due > now {
                    next = next.min(due);
                    return None;
                }
                Some(handle)
            })
            .collect();
        for peer in useless {
            self.peers.note_chokes_us(peer.slot, true);
            self.peers.at_mut(peer.slot).useless_since = None;
            self.act(Action::Send { to: Recipients::One(peer), message: PeerMessage::Decline });
        }
        self.timers.slots = self.timers.slots.min(next);
        self.complain(now);
        self.fill_slots(now);
    }

    /// Nothing is wanted any more: every place is given back at once.
    pub(crate) fn return_all_slots(&mut self) {
        if !matches!(self.config.serving, Serving::Credit { .. }) {
            return;
        }
        for peer in self.peers.sources().to_vec() {
            self.peers.note_chokes_us(peer, true);
            let to = Recipients::One(self.peers.handle_at(peer));
            self.act(Action::Send { to, message: PeerMessage::Decline });
        }
    }

    /// How many sources are enough: a gateway gets what its whole zone waits for, and takes up twice as many as others do.
    fn enough_sources(&self, sources: u16) -> usize {
        usize::from(sources) * if self.brings_to_zone() { 2 } else { 1 }
    }

    fn brings_to_zone(&self) -> bool {
        self.transfers.iter().flatten().any(|transfer| !transfer.is_served() && transfer.gateway == Some(self.me))
    }

    /// How many neighbours serve us, in quarters of the fastest of them: beside a slow uplink there is room for another source. Those
    /// that differ by less than chance count as equal.
    pub(crate) fn source_quarters(&self) -> usize {
        let paces = || self.peers.sources().iter().map(|peer| self.peers.at(*peer).pace.bytes_per_second());
        let fastest = paces().max().unwrap_or_default();
        let quarters = |pace: u64| if pace == 0 || pace * 5 > fastest * 2 { 4 } else { (pace * 4 / fastest).max(1) };
        paces().map(|pace| usize::try_from(quarters(pace)).unwrap_or(4)).sum()
    }

    /// How many neighbours serve us.
    pub(crate) fn source_count(&self) -> usize {
        self.peers.sources().len()
    }

    /// Deals tit-for-tat's places anew.
    pub(crate) fn rechoke(&mut self, now: Time) {
        let (slots, rechoke, optimistic) = match self.config.serving {
            Serving::TitForTat { slots, rechoke, optimistic } => (slots, rechoke, optimistic),
            Serving::Credit { rechoke, .. } => {
                let busy = self.transfers.iter().flatten().any(|transfer| !transfer.members.is_empty());
                self.timers.rechoke = if busy { now + rechoke } else { Time::MAX };
                return self.rebalance(now);
            }
            Serving::Open => {
                self.timers.rechoke = Time::MAX;
                return;
            }
        };
        self.timers.rechoke = now + rechoke;
        let interested: Vec<PeerHandle> = self.peers.handles().filter(|peer| self.lacks(*peer) > 0).collect();
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
        if self.peers.get(handle).is_none_or(|peer| peer.choked() == choked) {
            return;
        }
        let message = if choked { PeerMessage::Choke } else { PeerMessage::Unchoke };
        if choked {
            self.set_choked_silently(handle);
        } else {
            self.tell_partner(handle);
            self.peers.note_choked(handle.slot, false);
        }
        self.act(Action::Send { to: Recipients::One(handle), message });
    }

    fn set_choked_silently(&mut self, handle: PeerHandle) {
        self.peers.note_choked(handle.slot, true);
        self.drop_waiting(|waiting| waiting.peer == handle.slot);
    }

    /// How many chunks we have that the neighbour lacks, in the blobs that it takes part in.
    fn lacks(&self, peer: PeerHandle) -> u32 {
        let lacks = |transfer: &Transfer| {
            // A seed wants nothing, also before it shows all that it has.
            let member = transfer.member(peer.slot).filter(|member| !transfer.members[*member].flags.seed)?;
            let theirs = transfer.member_words(member);
            Some(
                transfer
                    .have
                    .words()
                    .iter()
                    .zip(theirs)
                    .map(|(ours, theirs)| (ours & !theirs).count_ones())
                    .sum::<u32>(),
            )
        };
        self.transfers.iter().flatten().filter_map(lacks).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_types::Zone;

    use super::*;
    use crate::config::Config;

    /// What neighbours of these paces, in chunks of 1 MB a second, are worth as sources.
    fn quarters(paces: &[u64]) -> usize {
        let mut engine = Engine::new(NodeId::new(1), Zone::default(), Config::default(), 1);
        for (pace, node) in paces.iter().zip(2..) {
            let peer = engine.handle_connected(Time::ZERO, NodeId::new(node), &Zone::default()).unwrap();
            engine.peers.note_chokes_us(peer.slot, false);
            let peer = engine.peers.at_mut(peer.slot);
            peer.pace.received(Time::ZERO + Duration::from_secs(1), pace * 1_000_000);
        }
        engine.source_quarters()
    }

    #[test]
    fn a_slow_source_is_worth_what_it_brings() {
        assert_eq!(quarters(&[]), 0);
        assert_eq!(quarters(&[0, 0]), 8, "not measured yet");
        assert_eq!(quarters(&[100, 90, 60, 45]), 16, "chance");
        assert_eq!(quarters(&[100, 100, 100, 25]), 13);
        assert_eq!(quarters(&[100, 1, 0]), 9);
    }
}
