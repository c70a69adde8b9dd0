//! What passes between nodes: connections, messages, chunks and their verification.
//!
//! State: the chunks on their way.
//! Invariants: messages and chunks of one connection keep their order as far as the engine relies on it: links come before the
//! chunk they were sent ahead of; nothing arrives over a connection that has closed.
//! Absent on purpose: the bandwidth of messages. A have is 60 bytes for a chunk of at least 65,536.

use std::rc::Rc;

use shoal_chain::{Link, VerifiedLinks};
use shoal_swarm::{PeerHandle, Recipients, VerifyTicket};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet, NodeId, Time};
use shoal_wire::{PeerMessage, RejectReason};

use super::World;
use super::event::{Event, NodeIx};
use super::node::Conn;
use crate::content::{self, Variant};
use crate::net::FlowId;
use crate::setup::{Costs, Role};

/// What the liars send instead of a chunk.
const LIE: Variant = 1;

/// A chunk on its way.
#[derive(Clone, Debug)]
pub(crate) struct Send {
    serial: u64,
    flow: Option<FlowId>,
    from: NodeIx,
    to: NodeIx,
    /// The sender's handle of the receiver, and the other way round.
    to_handle: PeerHandle,
    from_handle: PeerHandle,
    key: BlobKey,
    chunk: ChunkIndex,
    variant: Variant,
    /// Its first bytes reached the receiver.
    began: Time,
}

/// The chunks on their way, in places that are reused.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    slots: Vec<Option<Send>>,
    free: Vec<usize>,
    serial: u64,
}

impl Sends {
    fn insert(&mut self, mut send: Send) -> (usize, u64) {
        self.serial += 1;
        send.serial = self.serial;
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[at] = Some(send);
        (at, self.serial)
    }

    fn remove(&mut self, at: usize) -> Option<Send> {
        let send = self.slots[at].take()?;
        self.free.push(at);
        Some(send)
    }
}

impl World {
    /// The neighbours that stand before anything is pulled: each node has asked the tracker for half as many members as it may
    /// have neighbours, so that with those that asked for it there are about as many.
    pub(super) fn connect_mesh(&mut self) {
        if !self.setup.standing_mesh {
            return;
        }
        let want = usize::from(self.setup.config.max_peers).div_ceil(2);
        for ix in 0..self.nodes.len() as NodeIx {
            for other in self.mesh_for(ix, want) {
                self.connect(ix, other);
            }
        }
        for ix in 0..self.nodes.len() as NodeIx {
            self.drain(ix);
        }
    }

    pub(super) fn send(&mut self, ix: NodeIx, to: Recipients, message: PeerMessage) {
        let at = self.now + self.latency();
        let message = match (self.nodes[ix as usize].role, message) {
            (Role::Framer, PeerMessage::Join { blob, flags, .. }) => {
                PeerMessage::Join { blob, have: ChunkSet::full_of(blob.geometry).into(), flags }
            }
            (_, message) => message,
        };
        let message = Rc::new(message);
        let node = &self.nodes[ix as usize];
        match to {
            Recipients::One(peer) => {
                if let Some(conn) = node.conn(peer) {
                    self.queue.push_in_line(at, Event::Deliver { to: conn.node, from: conn.remote, message });
                }
            }
            Recipients::Many(peers) => {
                let conns = peers.into_iter().filter_map(|peer| node.conn(peer));
                let to: Box<[_]> = conns.map(|conn| (conn.node, conn.remote)).collect();
                self.queue.push_in_line(at, Event::DeliverMany { to, message });
            }
        }
    }

    pub(super) fn deliver(&mut self, to: NodeIx, from: PeerHandle, message: &PeerMessage) {
        let now = self.now;
        let node = &mut self.nodes[to as usize];
        if !node.alive || node.conn(from).is_none() {
            return;
        }
        match message {
            PeerMessage::Request { key, chunk, .. } if node.role == Role::Rider => {
                let message = PeerMessage::Reject { key: *key, chunk: *chunk, reason: RejectReason::Choked };
                self.send(to, Recipients::One(from), message);
                return;
            }
            PeerMessage::Links { key, batches } => {
                // Signatures are taken as checked: nobody here forges one, and a driver refuses a forged batch before its engine.
                let verified: Vec<_> = batches.iter().cloned().map(VerifiedLinks::trusted).collect();
                node.engine.handle_links(now, *key, &verified);
            }
            _ => node.engine.handle_message(now, from, message),
        }
        self.drain(to);
    }

    pub(super) fn send_chunk(&mut self, ix: NodeIx, to: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let now = self.now;
        let node = &self.nodes[ix as usize];
        let Some(conn) = node.conn(to) else { return };
        let blob = self.blob_ix[&key];
        let bytes = self.blobs[blob].geometry.byte_range(chunk).map_or(0, |range| u64::from(range.len));
        let variant = if node.role == Role::Liar { LIE } else { node.variant(blob, chunk) };
        let receiver = &self.nodes[conn.node as usize];
        let mut path = vec![node.up, receiver.down];
        if let Some(link) = self.zone_links.get(&(node.zone, receiver.zone)) {
            path.insert(1, *link);
        }
        let (to_handle, from_handle) = (conn.local, conn.remote);
        let began = now + self.latency();
        let send =
            Send { serial: 0, flow: None, from: ix, to: conn.node, to_handle, from_handle, key, chunk, variant, began };
        let (at, serial) = self.sends.insert(send);
        let flow = self.net.start(now, &path, bytes, None, Tag::Chunk(at).encode());
        if let Some(send) = &mut self.sends.slots[at] {
            send.flow = Some(flow);
        }
        self.queue.push_in_line(now + self.latency(), Event::PieceStarts { send: at, serial });
    }

    /// A flow has carried its last byte into the network.
    pub(super) fn flow_ended(&mut self, tag: u64) {
        match Tag::decode(tag) {
            Tag::Chunk(at) => {
                let Some(send) = &mut self.sends.slots[at] else { return };
                send.flow = None;
                let (from, to_handle, key, chunk) = (send.from, send.to_handle, send.key, send.chunk);
                self.queue.push_in_line(self.now + self.latency(), Event::PieceEnds { send: at });
                if self.nodes[from as usize].alive {
                    self.nodes[from as usize].engine.handle_sent(self.now, to_handle, key, chunk);
                    self.drain(from);
                }
            }
            Tag::Origin(stream) => self.origin_flow_ended(stream),
        }
    }

    pub(super) fn piece_starts(&mut self, at: usize, serial: u64) {
        let now = self.now;
        let Some(send) = self.sends.slots[at].as_ref().filter(|send| send.serial == serial) else { return };
        let (to, from_handle, key, chunk) = (send.to, send.from_handle, send.key, send.chunk);
        let node = &mut self.nodes[to as usize];
        if node.alive && node.conn(from_handle).is_some() {
            node.engine.handle_piece_started(now, from_handle, key, chunk);
            self.drain(to);
        }
    }

    pub(super) fn piece_ends(&mut self, at: usize) {
        let now = self.now;
        let Some(send) = self.sends.remove(at) else { return };
        let node = &mut self.nodes[send.to as usize];
        if !node.alive || node.conn(send.from_handle).is_none() {
            return;
        }
        let blob = self.blob_ix[&send.key];
        if node.engine.handle_piece(now, send.from_handle, send.key, send.chunk) {
            node.unverified.insert((blob, send.chunk, send.from_handle), (send.variant, send.began));
        }
        self.drain(send.to);
    }

    pub(super) fn verify(&mut self, ix: NodeIx, ticket: VerifyTicket, before: Option<Link>, after: Link) {
        let blob = self.blob_ix[&ticket.key()];
        let chunk = ticket.chunk();
        let node = &mut self.nodes[ix as usize];
        let variant = node.unverified.get(&(blob, chunk, ticket.from())).copied();
        // Content that went with its connection can't be right.
        let right =
            variant.is_some_and(|(variant, _)| content::link_after(blob as u64, before, chunk, variant) == after);
        let began = variant.map_or(self.now, |(_, began)| began);
        let bytes = self.blobs[blob].geometry.byte_range(chunk).map_or(0, |range| u64::from(range.len));
        let done = node.hash(began, self.now, bytes);
        self.queue.push(done, Event::Verified { node: ix, ticket, right });
    }

    pub(super) fn verified(&mut self, ix: NodeIx, ticket: VerifyTicket, right: bool) {
        let now = self.now;
        let blob = self.blob_ix[&ticket.key()];
        let node = &mut self.nodes[ix as usize];
        if !node.alive {
            return;
        }
        let chunk = ticket.chunk();
        let variant = node.unverified.remove(&(blob, chunk, ticket.from()));
        match variant {
            Some((content::TRUE, _)) | None => drop(node.wrong.remove(&(blob, chunk))),
            Some((variant, _)) if right => drop(node.wrong.insert((blob, chunk), variant)),
            Some(_) => {}
        }
        let key = ticket.key();
        node.engine.handle_verified(now, ticket, right);
        node.read_on(key);
        self.drain(ix);
    }

    /// A node opens a connection: two round trips, and a handshake's work at both ends.
    pub(super) fn dial(&mut self, ix: NodeIx, node: NodeId) {
        let Some(&to) = self.ids.get(&node) else { return };
        if self.nodes[ix as usize].dialing.contains(&to) {
            return;
        }
        self.nodes[ix as usize].dialing.push(to);
        let ours = self.nodes[ix as usize].handshake(self.now);
        let theirs = self.nodes[to as usize].handshake(self.now);
        let at = ours.max(theirs) + self.setup.round_trip * Costs::CONNECT_ROUND_TRIPS;
        self.queue.push(at, Event::Connected { from: ix, to });
    }

    pub(super) fn connected(&mut self, from: NodeIx, to: NodeIx) {
        self.nodes[from as usize].dialing.retain(|other| *other != to);
        if self.nodes[from as usize].alive && self.nodes[to as usize].alive {
            self.connect(from, to);
            self.drain(from);
            self.drain(to);
        }
    }

    /// Lets a connection stand, if both ends want it.
    pub(super) fn connect(&mut self, from: NodeIx, to: NodeIx) {
        let now = self.now;
        let (from_id, to_id) = (self.tracker.id(from), self.tracker.id(to));
        let (from_zone, to_zone) =
            (self.tracker.zone(self.nodes[from as usize].zone), self.tracker.zone(self.nodes[to as usize].zone));
        let Some(local) = self.nodes[from as usize].engine.handle_connected(now, to_id, &to_zone) else { return };
        let Some(remote) = self.nodes[to as usize].engine.handle_connected(now, from_id, &from_zone) else {
            self.nodes[from as usize].engine.handle_disconnected(now, local);
            return;
        };
        self.nodes[from as usize].add_conn(Conn { node: to, local, remote });
        self.nodes[to as usize].add_conn(Conn { node: from, local: remote, remote: local });
    }

    /// A node closes a connection; the other end hears of it.
    pub(super) fn hang_up(&mut self, ix: NodeIx, peer: PeerHandle) {
        if let Some(conn) = self.nodes[ix as usize].drop_conn(peer) {
            self.cancel_sends(ix, conn.node);
            self.queue.push_in_line(self.now + self.latency(), Event::Closed { node: conn.node, peer: conn.remote });
        }
    }

    pub(super) fn closed(&mut self, ix: NodeIx, peer: PeerHandle) {
        let now = self.now;
        let node = &mut self.nodes[ix as usize];
        if node.drop_conn(peer).is_some() && node.alive {
            node.engine.handle_disconnected(now, peer);
            self.drain(ix);
        }
    }

    /// Takes back the chunks on the way between two nodes.
    pub(super) fn cancel_sends(&mut self, one: NodeIx, other: NodeIx) {
        for at in 0..self.sends.slots.len() {
            let concerned = self.sends.slots[at]
                .as_ref()
                .is_some_and(|send| (send.from, send.to) == (one, other) || (send.from, send.to) == (other, one));
            // Without a flow all bytes are in the network; `PieceEnds` finds the connection gone.
            if concerned && let Some(flow) = self.sends.slots[at].as_ref().and_then(|send| send.flow) {
                self.net.cancel(self.now, flow);
                self.sends.remove(at);
            }
        }
    }
}

/// What a flow carries, in the number that the network gives back.
pub(super) enum Tag {
    /// A chunk between nodes.
    Chunk(usize),
    /// A chunk from the origin.
    Origin(usize),
}

impl Tag {
    pub(super) const fn encode(self) -> u64 {
        match self {
            Self::Chunk(at) => (at as u64) << 1,
            Self::Origin(at) => (at as u64) << 1 | 1,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "it was a usize before")]
    const fn decode(tag: u64) -> Self {
        let at = (tag >> 1) as usize;
        if tag & 1 == 0 { Self::Chunk(at) } else { Self::Origin(at) }
    }
}
