//! The tracker's host: the real tracker's core behind a queue.
//!
//! State: the core, when it is done with what waits, whether it lives.
//! Invariants: announces are worked on one after the other, each for its cost; answers and directives take a one-way trip.
//! Absent on purpose: replicas. One tracker is the harder case.

use std::collections::BTreeSet;

use shoal_chain::VerifiedLinks;
use shoal_tracker::{Config, Tracker};
use shoal_types::{ChunkSet, NodeId, Time, Zone};
use shoal_wire::{Announce, AnnounceEvent, AnnounceReply, Directive};

use super::World;
use super::event::{Event, NodeIx};
use crate::setup::{Costs, Role, Setup};

/// Honest nodes that a framer accuses in one announce.
const ACCUSED_AT_ONCE: usize = 2;

/// The tracker and what is around it.
#[derive(Debug)]
pub(crate) struct TrackerHost {
    core: Tracker,
    pub(crate) alive: bool,
    free_at: Time,
    timer_at: Time,
    ids: Vec<NodeId>,
    zones: Vec<Zone>,
    banned: BTreeSet<NodeId>,
}

impl TrackerHost {
    pub(crate) fn new(setup: &Setup, seed: u64, ids: impl Iterator<Item = (NodeId, NodeIx)>, zones: Vec<Zone>) -> Self {
        let mut by_ix = vec![NodeId::new(0); setup.nodes.len()];
        ids.for_each(|(id, ix)| by_ix[ix as usize] = id);
        let mut core = Tracker::new(Config::default(), seed);
        for (id, node) in by_ix.iter().zip(&setup.nodes) {
            core.handle_connected(Time::ZERO, *id, zones[node.zone].clone());
        }
        Self { core, alive: true, free_at: Time::ZERO, timer_at: Time::MAX, ids: by_ix, zones, banned: BTreeSet::new() }
    }

    pub(crate) fn id(&self, ix: NodeIx) -> NodeId {
        self.ids[ix as usize]
    }

    pub(crate) fn zone(&self, zone: usize) -> Zone {
        self.zones[zone].clone()
    }
}

impl World {
    /// Members for a node's standing neighbours.
    pub(super) fn mesh_for(&mut self, ix: NodeIx, want: usize) -> Vec<NodeIx> {
        let members = self.tracker.core.members(self.tracker.id(ix), want);
        members.iter().filter_map(|member| self.ids.get(&member.node).copied()).collect()
    }

    pub(super) fn announce(&mut self, ix: NodeIx, mut announce: Announce) {
        if self.nodes[ix as usize].role == Role::Framer {
            self.frame(ix, &mut announce);
        }
        let at = self.now + self.latency();
        self.queue.push(at, Event::AnnounceArrives { node: ix, announce: Box::new(announce) });
    }

    /// A framer claims to be complete and accuses whoever comes to its mind.
    fn frame(&mut self, ix: NodeIx, announce: &mut Announce) {
        announce.event = AnnounceEvent::Completed;
        announce.lease = shoal_wire::LeaseRequest::Declined;
        announce.have = announce.have.as_ref().map(|have| ChunkSet::full(have.capacity()).into());
        for _ in 0..ACCUSED_AT_ONCE {
            let victim = self.rng.below(self.nodes.len());
            if victim != ix as usize && self.nodes[victim].role == Role::Honest {
                announce.accused.push(self.tracker.ids[victim]);
            }
        }
    }

    pub(super) fn announce_arrives(&mut self, node: NodeIx, announce: Box<Announce>) {
        if self.tracker.alive {
            self.tracker.free_at = self.tracker.free_at.max(self.now) + Costs::ANNOUNCE_CPU;
            self.queue.push(self.tracker.free_at, Event::AnnounceDone { node, announce });
        }
    }

    pub(super) fn announce_done(&mut self, ix: NodeIx, announce: &Announce) {
        if !self.tracker.alive {
            return;
        }
        let at = self.now + self.latency();
        if let Ok(mut reply) = self.tracker.core.handle_announce(self.now, self.tracker.id(ix), announce) {
            if let Some(every) = self.setup.announce_every {
                reply.interval = every;
            }
            self.queue.push(at, Event::Reply { node: ix, reply: Box::new(reply) });
        }
        self.direct();
    }

    pub(super) fn reply(&mut self, ix: NodeIx, reply: &AnnounceReply) {
        let now = self.now;
        let node = &mut self.nodes[ix as usize];
        if node.alive {
            let links: Vec<_> = reply.links.iter().cloned().map(VerifiedLinks::trusted).collect();
            node.engine.handle_announce_reply(now, reply);
            node.engine.handle_links(now, reply.key, &links);
            self.drain(ix);
        }
    }

    pub(super) fn directive(&mut self, ix: NodeIx, directive: &Directive) {
        let now = self.now;
        let node = &mut self.nodes[ix as usize];
        if node.alive {
            node.engine.handle_directive(now, directive);
            self.drain(ix);
        }
    }

    pub(super) fn tracker_loses(&mut self, ix: NodeIx) {
        if self.tracker.alive {
            self.tracker.core.handle_disconnected(self.now, self.tracker.ids[ix as usize]);
            self.direct();
        }
    }

    pub(super) fn tracker_timer(&mut self) {
        if self.tracker.alive && self.tracker.timer_at <= self.now {
            self.tracker.timer_at = Time::MAX;
            self.tracker.core.handle_timeout(self.now);
            self.direct();
        }
    }

    /// Sends what the tracker has to say, and sees to its timer.
    fn direct(&mut self) {
        let at = self.now + self.latency();
        while let Some((to, directive)) = self.tracker.core.poll_directive() {
            if let Directive::Ban { nodes } = &directive {
                self.tracker.banned.extend(nodes);
            }
            if let Some(&node) = self.ids.get(&to) {
                self.queue.push(at, Event::Directive { node, directive: Box::new(directive) });
            }
        }
        if let Some(next) = self.tracker.core.poll_timeout()
            && next < self.tracker.timer_at
        {
            self.tracker.timer_at = next.max(self.now);
            self.queue.push(self.tracker.timer_at, Event::TrackerTimer);
        }
    }

    /// Nodes that were banned although they did nothing wrong.
    pub(super) fn honest_bans(&self) -> usize {
        let honest = |id: &&NodeId| {
            self.ids.get(id).is_some_and(|ix| matches!(self.nodes[*ix as usize].role, Role::Honest | Role::Rider))
        };
        self.tracker.banned.iter().filter(honest).count()
    }
}
