//! The state machine: what comes in, what goes out, and where each of it is handled.
//!
//! | in | handled in | out |
//! |---|---|---|
//! | `handle_connected`, `handle_disconnected` | `membership.rs` | directives |
//! | `handle_announce` | `announce.rs`, which calls the others in a fixed order | the reply, directives |
//! | `handle_timeout` | `membership.rs` | directives |
//!
//! After each `handle_*` the driver polls directives until there are none, and `poll_timeout` for when to call `handle_timeout`.
//!
//! State: the tables of nodes and of blobs, the ledger of accusations, timers, directives to be sent, counters.
//! Invariants: [`Tracker::check_invariants`]; in debug builds it runs after each step, or so often that it costs each step about as
//! much as a few members' worth of checks.
//! Absent on purpose: storage (all of it is soft state, rebuilt from announces), and any knowledge of addresses or certificates.

use std::collections::BTreeMap;

use shoal_types::{Digest, NodeId, Rng, Time};
use shoal_wire::{Announce, AnnounceReply, Directive, PeerInfo};

use crate::bans::Ledger;
use crate::blob::Blob;
use crate::config::Config;
use crate::error::AnnounceError;
use crate::nodes::Nodes;
use crate::outbox::Outbox;
use crate::pool::Draw;
use crate::slab::{BlobIx, Slab, Slot};
use crate::snapshot::Counters;
use crate::timers::{Subject, Timers};

/// Membership, leases, chains and bans of all blobs that belong to one tracker.
#[derive(Debug)]
pub struct Tracker {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) nodes: Nodes,
    pub(crate) blobs: Slab<BlobIx, Blob>,
    /// A blob's size is its announcers' word. Those who say different sizes never meet, so that a false one stops nobody.
    pub(crate) by_content: BTreeMap<(Digest, u64), BlobIx>,
    pub(crate) ledger: Ledger,
    pub(crate) timers: Timers,
    pub(crate) bans_armed: Time,
    pub(crate) outbox: Outbox,
    pub(crate) counters: Counters,
    /// Live members of all blobs: what the intervals are made from.
    pub(crate) live_memberships: usize,
    /// No blob's epochs start below this: a blob that was forgotten and comes back goes on counting.
    pub(crate) epoch_floor: u64,
    /// Steps since the last check, each worth a few members.
    unchecked: usize,
}

impl Tracker {
    /// A tracker that knows nobody yet. The same seed and the same calls give the same answers.
    ///
    /// # Panics
    /// If the configuration doesn't pass [`Config::check`].
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        if let Err(error) = config.check() {
            panic!("a tracker can't run so: {error}");
        }
        Self {
            rng: Rng::new(seed),
            nodes: Nodes::new(config.limits.nodes),
            blobs: Slab::new(),
            by_content: BTreeMap::new(),
            ledger: Ledger::default(),
            timers: Timers::default(),
            bans_armed: Time::MAX,
            outbox: Outbox::new(config.limits.directives),
            counters: Counters::default(),
            live_memberships: 0,
            epoch_floor: config.first_epoch,
            unchecked: 0,
            config,
        }
    }

    /// What it runs with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// An agent announces a blob.
    ///
    /// # Errors
    /// If the announce contradicts itself, the blob or the bounds. Then it has changed nothing but a counter.
    pub fn handle_announce(
        &mut self,
        now: Time,
        from: NodeId,
        announce: &Announce,
    ) -> Result<AnnounceReply, AnnounceError> {
        let reply = self.announce(now, from, announce);
        match &reply {
            Ok(_) => self.counters.announces += 1,
            Err(error) => *self.counters.refused.entry(error.kind()).or_default() += 1,
        }
        self.after_step();
        reply
    }

    /// When to call [`Self::handle_timeout`]; never, if there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The next directive, and for whom.
    pub fn poll_directive(&mut self) -> Option<(NodeId, Directive)> {
        self.outbox.pop()
    }

    /// Neighbours for an agent's standing mesh: a random subset of all connected nodes, biased to its zone, with some of the other
    /// zones. Fewer than `want` only if there are fewer; a node that isn't connected gets none.
    pub fn members(&mut self, asker: NodeId, want: usize) -> Vec<PeerInfo> {
        let Some(node) = self.nodes.find(asker).filter(|node| self.nodes.connected.contains(*node)) else {
            return Vec::new();
        };
        let others = want.div_ceil(self.config.membership.other_zones_one_in.into());
        let draw = Draw { home: self.nodes[node].zone, want, others, except: Some(node) };
        let drawn = self.nodes.connected.draw(&mut self.rng, draw);
        let info = |node| {
            let node = &self.nodes[node];
            PeerInfo { node: node.id, zone: self.nodes.zone_name(node.zone).clone() }
        };
        drawn.into_iter().map(info).collect()
    }

    pub(crate) fn set_live(&mut self, blob: BlobIx, slot: Slot, live: bool) {
        let blob = &mut self.blobs[blob];
        let before = blob.live.len();
        blob.set_live(slot, live);
        self.live_memberships = self.live_memberships + blob.live.len() - before;
    }

    pub(crate) fn after_step(&mut self) {
        if cfg!(debug_assertions) {
            // A check looks at every member: with more of them it is done less often.
            self.unchecked += 16;
            if self.unchecked > self.live_memberships {
                self.unchecked = 0;
                self.check_invariants();
            }
        }
    }

    /// Checks everything that must hold between two calls.
    ///
    /// # Panics
    /// If something doesn't: a fault of this crate.
    pub fn check_invariants(&self) {
        self.nodes.check_invariants();
        self.ledger.check_invariants(&self.config.ban);
        self.outbox.check_invariants();
        let mut leads = BTreeMap::new();
        let mut memberships = 0;
        for (ix, blob) in self.blobs.iter() {
            blob.check_invariants();
            blob.leases.check_invariants(&self.config.lease);
            blob.chain.check_invariants(self.config.limits.chain_bytes);
            memberships += blob.members.len();
            let key = (blob.info.digest, blob.info.geometry.size_bytes());
            assert_eq!(self.by_content.get(&key), Some(&ix), "a blob is found by its content");
            for (slot, member) in blob.members.iter() {
                let node = &self.nodes[member.node];
                assert_eq!(node.slot_in(ix), Some(slot), "a member's node knows of it");
                assert_eq!((node.id, node.banned), (member.id, false), "a member is its node, and not banned");
                assert!(
                    !member.is_live() || (node.connected && node.zone == member.zone),
                    "a live member is connected"
                );
            }
            for lease in blob.leases.held().into_iter().chain(&blob.leases.impatient) {
                assert!(blob.members[lease.holder].is_live(), "the holder of a lease is live");
            }
            if let Some(lease) = blob.leases.held() {
                let holder = &blob.members[lease.holder];
                assert!(!blob.chain.is_barred(holder.id), "who lied doesn't lead");
                *leads.entry(holder.node).or_insert(0) += 1;
            }
            for (zone, gateway) in blob.gateways.iter() {
                let member = &blob.members[gateway.member];
                assert!(member.is_live() && member.zone == zone, "a gateway is a live member of its zone");
                assert_ne!(blob.gateways.home, Some(zone), "the home zone needs no gateway");
            }
            assert!(blob.leases.last_epoch() >= self.config.first_epoch, "epochs start where they were told to");
            self.check_timer(Subject::Blob(ix), blob.armed, self.deadline(blob));
        }
        assert_eq!(self.by_content.len(), self.blobs.len(), "the index has nothing else");
        assert!(self.blobs.len() <= self.config.limits.blobs, "blobs are bounded");
        let live: usize = self.blobs.iter().map(|(_, blob)| blob.live.len()).sum();
        assert_eq!(live, self.live_memberships, "live members are counted");
        for (ix, node) in self.nodes.iter() {
            assert_eq!(node.leads, leads.get(&ix).copied().unwrap_or_default(), "a node's leases are counted");
            assert_eq!(node.banned, self.ledger.is_banned(node.id), "the ledger says who is banned");
            assert!(node.memberships.len() <= self.config.limits.memberships_per_node, "memberships are bounded");
            memberships -= node.memberships.len();
            let due = node.memberships.iter().map(|at| self.blobs[at.blob].members[at.slot].expires_at()).min();
            self.check_timer(Subject::Node(ix), node.armed, due.unwrap_or(Time::MAX));
        }
        assert_eq!(memberships, 0, "each membership is a node's");
        self.check_timer(Subject::Bans, self.bans_armed, Time::MAX);
        assert!(self.timers.len() <= self.nodes.iter().count() + self.blobs.len() + 1, "one timer per subject");
    }

    fn check_timer(&self, subject: Subject, armed: Time, due: Time) {
        assert!(armed == Time::MAX || self.timers.contains(subject, armed), "{subject:?} is armed as it thinks");
        // What was due already when it was armed waits for the next tick.
        let late = armed.since(due);
        assert!(
            due == Time::MAX || (armed != Time::MAX && late <= crate::membership::TICK),
            "{subject:?} is armed at {armed:?}, due at {due:?}"
        );
    }
}
