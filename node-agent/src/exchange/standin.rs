//! Without a tracker: the closest live member to a blob's digest stands in as its tracker, and this node does where it is the closest.
//!
//! ```text
//!   announce ──> closest member that isn't avoided ──┬── this node: its own core answers
//!                        ^                           ├── connected: asked over the connection
//!                        │                           └── else: connected to first
//!                        └── refused, gone, silent: avoided for a while, the next one is asked
//! ```
//!
//! State: a tracker's core for the digests that fall to this node; the members; what was asked and not answered.
//! Invariants: a directive counts only from the member that answered the last announce of its digest; a ban never does. What waits is
//! bounded by one announce a blob.
//! Absent on purpose: agreement. Members that see others alive may ask another one: the blob then has two leads for a while, which costs
//! the origin a copy and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use shoal_tracker::{Config, LookupConfig, Members, Tracker};
use shoal_tracker_server::client::AnnounceFailure;
use shoal_tracker_server::first_epoch;
use shoal_types::{Digest, NodeId, Time, Zone};
use shoal_wire::{Accepted, Announce, AnnounceOutcome, Directive, Notice, PeerFrame, Refusal};

use super::announces::{Announced, Carried};
use super::room::Room;
use crate::transport::PeerId;

/// A tracker may be away for so long before members stand in: a restart, or this node's own start. Two that are in charge at once name two
/// leads.
const GRACE: Duration = Duration::from_secs(2);

/// A member that doesn't answer within this time is passed over: long against any round trip, short against a pull.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Standing in, and asking who does.
pub(super) struct StandIn {
    core: Tracker,
    members: Members,
    config: LookupConfig,
    asked: BTreeMap<u32, Asked>,
    next_id: u32,
    /// Announces that wait for a connection.
    waiting: BTreeMap<NodeId, Vec<(Time, Announce)>>,
    /// Who answered last for a digest.
    answers: BTreeMap<Digest, NodeId>,
}

struct Asked {
    node: NodeId,
    until: Time,
    announce: Announce,
}

impl StandIn {
    /// Made when a tracker has been lost, so that its epochs are later than any of the tracker's.
    fn new(me: NodeId, zone: &Zone, now: Time, seed: u64) -> Self {
        let config = LookupConfig::default();
        let core = Config { first_epoch: first_epoch(SystemTime::now()), ..Config::default() };
        let mut core = Tracker::new(core, seed);
        core.handle_connected(now, me, zone.clone());
        let mut members = Members::new(&config);
        members.insert(me, zone.clone());
        Self {
            core,
            members,
            config,
            asked: BTreeMap::new(),
            next_id: 0,
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// When something is to be done.
    pub(super) fn wake_at(&self) -> Option<Time> {
        let asked = self.asked.values().map(|asked| asked.until).min();
        let waiting = self.waiting.values().flatten().map(|(until, _)| *until).min();
        [asked, waiting, self.core.poll_timeout()].into_iter().flatten().min()
    }
}

impl Room {
    /// There is no tracker, from now on or since the start.
    pub(super) fn tracker_lost(&mut self) {
        let now = self.now();
        self.stands_in_at.get_or_insert(now + GRACE);
    }

    /// What it takes to stand in for a tracker, for this node or for one that asks it.
    fn stand_in(&mut self) -> &mut StandIn {
        let now = self.now();
        let Self { stand_in, neighbours, config, me, .. } = self;
        stand_in.get_or_insert_with(|| {
            let mut made = StandIn::new(*me, &config.zone, now, config.seed);
            for neighbour in neighbours.values() {
                made.core.handle_connected(now, neighbour.node, neighbour.zone.clone());
            }
            made
        })
    }

    /// The member that stands in for a digest's tracker. Contacts come with every answer, so all that are known are looked at each time:
    /// with the largest cluster that is some microseconds.
    fn closest(&mut self, digest: Digest) -> Option<NodeId> {
        let now = self.now();
        let contacts = self.tracker.known_contacts();
        let members = &mut self.stand_in().members;
        for contact in contacts {
            members.insert(contact.node(), contact.zone().clone());
        }
        members.closest(now, digest.position(), 1).pop()
    }

    /// Announces to whoever stands in for the tracker.
    pub(super) fn announce_among_peers(&mut self, announce: Announce) {
        let now = self.now();
        let (me, digest) = (self.me, announce.digest);
        let Some(node) = self.closest(digest) else {
            let nobody = AnnounceFailure::Unreachable("no member that is known answers".to_owned());
            self.announced(Announced::failed(&announce, nobody));
            return;
        };
        if node == me {
            let outcome = self.answer_as_tracker(me, &announce);
            self.stand_in().answers.insert(digest, me);
            self.announced(Announced::answered(&announce, outcome));
            self.pass_on_directives();
            return;
        }
        if let Some(peer) = self.connection_of(node) {
            let stand_in = self.stand_in();
            stand_in.next_id = stand_in.next_id.wrapping_add(1);
            let id = stand_in.next_id;
            let asked = Asked { node, until: now + ANSWER_WITHIN, announce: announce.clone() };
            stand_in.asked.insert(id, asked);
            self.send(&[peer], PeerFrame::Announce { id, announce });
            return;
        }
        self.stand_in().waiting.entry(node).or_default().push((now + ANSWER_WITHIN, announce));
        self.connect(node);
    }

    /// A member announces to this node, or this node to itself.
    fn answer_as_tracker(&mut self, from: NodeId, announce: &Announce) -> AnnounceOutcome {
        let now = self.now();
        let reply = self.stand_in().core.handle_announce(now, from, announce);
        let reply = reply.map_err(|error| Refusal::new(&error.to_string()))?;
        let named: BTreeSet<NodeId> = reply.peers.iter().map(|peer| peer.node).collect();
        let contacts = named.into_iter().filter_map(|node| self.tracker.known_contact(node)).collect();
        Ok(Accepted { reply, contacts })
    }

    /// A peer takes this node for the stand-in of a blob.
    pub(super) fn announce_of_peer(&mut self, peer: PeerId, id: u32, announce: Announce) {
        let Some(from) = self.neighbours.get(&peer).map(|neighbour| neighbour.node) else { return };
        let links = announce.links.clone();
        let forged = links.into_iter().any(|links| links.publisher != from || !self.links.is_genuine(links));
        let outcome = if forged {
            Err(Refusal::new("the links' signature isn't the announcer's"))
        } else {
            self.answer_as_tracker(from, &announce)
        };
        self.send(&[peer], PeerFrame::AnnounceReply { id, outcome });
        self.pass_on_directives();
    }

    /// A member has answered.
    pub(super) fn reply_of_peer(&mut self, peer: PeerId, id: u32, outcome: AnnounceOutcome) {
        let Some(from) = self.neighbours.get(&peer).map(|neighbour| neighbour.node) else { return };
        let Some(stand_in) = &mut self.stand_in else { return };
        // An answer to what was given up, or of another one than was asked.
        let Some(asked) = stand_in.asked.remove(&id).filter(|asked| asked.node == from) else { return };
        stand_in.members.found_alive(from);
        stand_in.answers.insert(asked.announce.digest, from);
        self.announced(Announced::answered(&asked.announce, outcome));
    }

    /// A member that stands in says something unasked.
    pub(super) fn notice_of_peer(&mut self, peer: PeerId, notice: &Notice) {
        let Some(from) = self.neighbours.get(&peer).map(|neighbour| neighbour.node) else { return };
        let key = match &notice.directive {
            Directive::Lease { key, .. }
            | Directive::LeaseRevoked { key, .. }
            | Directive::Withdraw { key, .. }
            | Directive::Gateway { key, .. } => key,
            // One node's word bans nobody.
            Directive::Ban { .. } => return,
        };
        let stands_in = self.stand_in.as_ref().and_then(|stand_in| stand_in.answers.get(&key.digest)) == Some(&from);
        if stands_in && !self.tracker.has_tracker() {
            let now = self.now();
            self.engine.handle_directive(now, &notice.directive);
        }
    }

    /// A member is connected: what waited for that is asked.
    pub(super) fn member_connected(&mut self, node: NodeId, zone: &Zone) {
        let now = self.now();
        let Some(stand_in) = &mut self.stand_in else { return };
        stand_in.core.handle_connected(now, node, zone.clone());
        stand_in.members.found_alive(node);
        let waiting = stand_in.waiting.remove(&node).unwrap_or_default();
        waiting.into_iter().for_each(|(_, announce)| self.announce_among_peers(announce));
    }

    /// A member can't be reached, or is gone: others are asked.
    pub(super) fn member_lost(&mut self, node: NodeId, was_connected: bool) {
        let now = self.now();
        let Some(stand_in) = &mut self.stand_in else { return };
        if was_connected {
            stand_in.core.handle_disconnected(now, node);
        }
        let again = stand_in.give_up(now, |member| member == node);
        again.into_iter().for_each(|announce| self.announce_among_peers(announce));
        self.pass_on_directives();
    }

    /// Time has passed.
    pub(super) fn stand_in_timeout(&mut self) {
        let now = self.now();
        if self.stands_in_at.is_some_and(|at| at <= now) && !self.left_alone && self.net.is_some() {
            tracing::warn!("no tracker can be reached: the members that are known stand in");
            self.left_alone = true;
            let digests: Vec<Digest> = self.blobs.keys().copied().collect();
            digests.into_iter().for_each(|digest| self.engine.handle_tracker_changed(now, digest));
        }
        let Some(stand_in) = &mut self.stand_in else { return };
        if stand_in.core.poll_timeout().is_some_and(|due| due <= now) {
            stand_in.core.handle_timeout(now);
        }
        let mut late: BTreeSet<NodeId> =
            stand_in.asked.values().filter(|asked| asked.until <= now).map(|asked| asked.node).collect();
        let too_late = |waiting: &[(Time, Announce)]| waiting.iter().any(|(until, _)| *until <= now);
        late.extend(stand_in.waiting.iter().filter(|(_, waiting)| too_late(waiting)).map(|(node, _)| *node));
        if !late.is_empty() {
            let again = stand_in.give_up(now, |member| late.contains(&member));
            again.into_iter().for_each(|announce| self.announce_among_peers(announce));
        }
        self.pass_on_directives();
    }

    /// There is a tracker again: what is under way among peers is answered or forgotten, and the tracker is told everything.
    pub(super) fn stand_down(&mut self) {
        self.stands_in_at = None;
        self.left_alone = false;
        let Some(stand_in) = self.stand_in.take() else { return };
        let waiting = stand_in.waiting.into_values().flatten().map(|(_, announce)| announce);
        let open: Vec<Announce> = stand_in.asked.into_values().map(|asked| asked.announce).chain(waiting).collect();
        for announce in open {
            let found = AnnounceFailure::Unreachable("a tracker was found meanwhile".to_owned());
            self.announced(Announced::failed(&announce, found));
        }
    }

    fn pass_on_directives(&mut self) {
        let (now, me) = (self.now(), self.me);
        while let Some((to, directive)) = self.stand_in.as_mut().and_then(|stand_in| stand_in.core.poll_directive()) {
            if to == me {
                self.engine.handle_directive(now, &directive);
            } else if let Some(peer) = self.connection_of(to) {
                self.send(&[peer], PeerFrame::Notice(Notice { directive, contacts: Vec::new() }));
            }
        }
    }

    fn connection_of(&self, node: NodeId) -> Option<PeerId> {
        self.neighbours.iter().find(|(_, neighbour)| neighbour.node == node).map(|(peer, _)| *peer)
    }
}

impl StandIn {
    /// Avoids members for a while; what they were to be told.
    fn give_up(&mut self, now: Time, gone: impl Fn(NodeId) -> bool) -> Vec<Announce> {
        let mut again = Vec::new();
        let ids: Vec<u32> = self.asked.iter().filter(|(_, asked)| gone(asked.node)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(asked) = self.asked.remove(&id) {
                self.members.avoid(asked.node, now + self.config.avoid_for);
                again.push(asked.announce);
            }
        }
        let nodes: Vec<NodeId> = self.waiting.keys().copied().filter(|node| gone(*node)).collect();
        for node in nodes {
            self.members.avoid(node, now + self.config.avoid_for);
            again.extend(self.waiting.remove(&node).unwrap_or_default().into_iter().map(|(_, announce)| announce));
        }
        again
    }
}

impl Announced {
    fn failed(announce: &Announce, failure: AnnounceFailure) -> Self {
        Self { digest: announce.digest, told: Carried::of(announce), result: Err(failure) }
    }

    fn answered(announce: &Announce, outcome: AnnounceOutcome) -> Self {
        let result = outcome.map_err(AnnounceFailure::Refused);
        Self { digest: announce.digest, told: Carried::of(announce), result }
    }
}
