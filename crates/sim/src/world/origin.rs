//! The origin registry, and the leads' streams from it.
//!
//! State: the streams. A stream has up to four ranged requests in flight where connections have a rate of their own, else one; its chunks are consumed in order and
//! hashed as they come, on one core, because a chain has one order.
//! Invariants: a chunk is handed to the engine after its last byte has come and after the chunk before it.
//! Absent on purpose: manifests, tokens and redirects.

use std::collections::BTreeMap;
use std::ops::Range;

use shoal_chain::{Link, LinkBatch, LinkRun, Signature, SignedLinks, VerifiedLinks};
use shoal_types::{BlobKey, ChunkIndex, Time};

use super::World;
use super::event::{Event, NodeIx};
use super::node::hash_time;
use super::peers::Tag;
use crate::content::{self, TRUE, Variant};
use crate::net::{FlowId, LinkId};
use crate::setup::{Costs, Role};

/// What a lying lead invents.
const INVENTION: Variant = 2;

/// Ranged requests in flight where one connection is too slow.
const PARALLEL: usize = 4;

/// Links that one signature covers once they are there.
const MERGED: u32 = 8;

/// The origin.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) link: LinkId,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    node: NodeIx,
    blob: usize,
    epoch: u64,
    end: u32,
    /// The next chunk to ask for.
    ask: u32,
    /// The next chunk to hash.
    next: u32,
    /// The next chunk to hand over, hashed.
    handed: u32,
    flows: BTreeMap<u32, FlowId>,
    arrived: BTreeMap<u32, Time>,
    hashed: Time,
    before: Option<Link>,
    /// Links since the last merged batch.
    recent: Vec<Link>,
    open: bool,
    /// Nobody exchanges anything: there is no engine to tell.
    alone: bool,
}

impl Origin {
    pub(crate) const fn new(link: LinkId) -> Self {
        Self { link, streams: Vec::new() }
    }
}

impl World {
    pub(super) fn fetch_origin(
        &mut self,
        ix: NodeIx,
        key: BlobKey,
        epoch: u64,
        chunks: Range<u32>,
        before: Option<Link>,
    ) {
        let blob = self.blob_ix[&key];
        self.open_stream(ix, blob, epoch, chunks, before, false);
    }

    /// A node of the client-server model fetches all that it wants, one blob after the other.
    pub(super) fn pull_alone(&mut self, ix: NodeIx) {
        let done = self.nodes[ix as usize].wants.len() - self.nodes[ix as usize].missing;
        let Some(blob) = self.nodes[ix as usize].wants.get(done).copied() else { return };
        let count = self.blobs[blob].geometry.chunk_count();
        self.open_stream(ix, blob, 0, 0..count, None, true);
    }

    pub(super) fn stop_origin(&mut self, ix: NodeIx, key: BlobKey) {
        let blob = self.blob_ix[&key];
        for at in 0..self.origin.streams.len() {
            if self.origin.streams[at].node == ix && self.origin.streams[at].blob == blob {
                self.close_stream(at);
            }
        }
    }

    pub(super) fn stop_streams_of(&mut self, ix: NodeIx) {
        for at in 0..self.origin.streams.len() {
            if self.origin.streams[at].node == ix {
                self.close_stream(at);
            }
        }
    }

    /// Who fetches from the origin.
    pub(super) fn current_lead(&self) -> Option<NodeIx> {
        self.origin.streams.iter().rev().find(|stream| stream.open).map(|stream| stream.node)
    }

    fn open_stream(
        &mut self,
        ix: NodeIx,
        blob: usize,
        epoch: u64,
        chunks: Range<u32>,
        before: Option<Link>,
        alone: bool,
    ) {
        let at = self.origin.streams.len();
        self.origin.streams.push(Stream {
            node: ix,
            blob,
            epoch,
            end: chunks.end,
            ask: chunks.start,
            next: chunks.start,
            handed: chunks.start,
            flows: BTreeMap::new(),
            arrived: BTreeMap::new(),
            hashed: Time::ZERO,
            before,
            recent: Vec::new(),
            open: true,
            alone,
        });
        let node = &mut self.nodes[ix as usize];
        let mut ready = self.now;
        if !std::mem::replace(&mut node.origin_connected, true) {
            ready = node.handshake(self.now) + self.setup.round_trip * Costs::CONNECT_ROUND_TRIPS;
        }
        self.queue.push(ready + self.latency(), Event::OriginBegins { stream: at });
    }

    fn close_stream(&mut self, at: usize) {
        let stream = &mut self.origin.streams[at];
        stream.open = false;
        for flow in std::mem::take(&mut stream.flows).into_values() {
            self.net.cancel(self.now, flow);
        }
    }

    pub(super) fn origin_begins(&mut self, at: usize) {
        let parallel = if self.setup.origin_per_connection.is_some() { PARALLEL } else { 1 };
        (0..parallel).for_each(|_| self.ask_origin(at));
    }

    fn ask_origin(&mut self, at: usize) {
        let stream = &self.origin.streams[at];
        if !stream.open || stream.ask >= stream.end {
            return;
        }
        let chunk = stream.ask;
        let range = self.blobs[stream.blob].geometry.byte_range(ChunkIndex::new(chunk));
        let bytes = range.map_or(0, |range| u64::from(range.len));
        let path = [self.origin.link, self.nodes[stream.node as usize].down];
        let cap = self.setup.origin_per_connection;
        // Which chunk ends is the smallest one still flowing on a stream whose flows share alike; the tag names the stream and
        // the chunk.
        let tag = Tag::Origin(at << 24 | chunk as usize).encode();
        let flow = self.net.start(self.now, &path, bytes, cap, tag);
        let stream = &mut self.origin.streams[at];
        stream.ask += 1;
        stream.flows.insert(chunk, flow);
    }

    pub(super) fn origin_flow_ended(&mut self, tagged: usize) {
        let (at, chunk) = (tagged >> 24, (tagged & 0xff_ffff) as u32);
        let later = self.now + self.latency();
        let stream = &mut self.origin.streams[at];
        stream.flows.remove(&chunk);
        if !stream.open {
            return;
        }
        stream.arrived.insert(chunk, later);
        let mut due = Vec::new();
        while let Some(arrived) = stream.arrived.remove(&stream.next) {
            let geometry = self.blobs[stream.blob].geometry;
            let bytes = geometry.byte_range(ChunkIndex::new(stream.next)).map_or(0, |range| u64::from(range.len));
            // Hashed while it comes: done when its last byte is here, or when the core gets to its end.
            stream.hashed = (stream.hashed + hash_time(bytes)).max(arrived);
            stream.next += 1;
            due.push(stream.hashed);
        }
        for hashed in due {
            self.queue.push(hashed, Event::OriginChunk { stream: at });
        }
        self.ask_origin(at);
    }

    pub(super) fn origin_chunk(&mut self, at: usize) {
        let now = self.now;
        let stream = &mut self.origin.streams[at];
        if !stream.open {
            return;
        }
        let ix = stream.node;
        let blob = self.blobs[stream.blob];
        let chunk = ChunkIndex::new(stream.given());
        let lies = self.nodes[ix as usize].role == Role::LyingLead;
        let variant = if lies { INVENTION } else { TRUE };
        let link = content::link_after(stream.blob as u64, stream.before, chunk, variant);
        stream.before = Some(link);
        stream.recent.push(link);
        let last = chunk == blob.geometry.last_chunk();
        let ended = chunk.get() + 1 == stream.end;
        let epoch = stream.epoch;
        let merged = if stream.recent.len() as u32 >= MERGED {
            let run = std::mem::take(&mut stream.recent);
            (!last).then(|| (chunk.get() + 1 - run.len() as u32, run))
        } else {
            None
        };
        if ended {
            stream.open = false;
        }
        if stream.alone {
            if ended {
                self.one_done(ix);
                self.pull_alone(ix);
            }
            return;
        }
        let publisher = self.tracker.id(ix);
        let sign = |run| {
            let batch = LinkBatch { blob, epoch, run };
            VerifiedLinks::trusted(SignedLinks { batch, publisher, signature: Signature([0; 64]) })
        };
        let links = (!last).then(|| sign(LinkRun::single(chunk, link)));
        let node = &mut self.nodes[ix as usize];
        if lies {
            node.wrong.insert((self.blob_ix[&blob.key()], chunk), variant);
        } else {
            node.wrong.remove(&(self.blob_ix[&blob.key()], chunk));
        }
        if last && !lies && Link::from(blob.digest) != link {
            node.engine.handle_origin_mismatch(now, blob.key(), epoch);
            self.drain(ix);
            return;
        }
        node.engine.handle_origin_chunk(now, blob.key(), epoch, chunk, links.as_ref());
        if let Some((first, run)) = merged {
            let bytes = run.iter().flat_map(|link| link.as_bytes().to_vec()).collect();
            if let Ok(run) = LinkRun::new(blob.digest.algorithm(), ChunkIndex::new(first), bytes) {
                node.engine.handle_merged_links(now, blob.key(), &sign(run));
            }
        }
        self.drain(ix);
    }
}

impl Stream {
    /// The chunk that is handed over now: those that wait for their hash are handed over in order.
    fn given(&mut self) -> u32 {
        let chunk = self.handed;
        self.handed += 1;
        chunk
    }
}
