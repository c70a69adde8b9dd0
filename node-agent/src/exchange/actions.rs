//! Carrying out what the engine says, and taking in what came of it.
//!
//! State: none of its own.
//! Invariants: a chunk counts as verified only when it is kept; a blob is complete only when the store has sealed it.
//! Absent on purpose: announces (`announces.rs`).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::BytesMut;
use shoal_chain::{Link, SignedLinks};
use shoal_store::StoreError;
use shoal_swarm::{Action, DisconnectReason, PeerHandle, Recipients, VerifyTicket};
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSize, Geometry, NodeId};
use shoal_wire::codec::{Decoded, decode_frame, encode_frame};
use shoal_wire::{CloseReason, OriginFailure, PeerFrame, PeerMessage};

use super::chunks::Stored;
use super::lead::{self, Errand, Fetched};
use super::links::Checked;
use super::room::{Done, Outcome, Room};
use super::start::RunTime;
use super::trace::Trace;
use super::transfer::{CameFrom, TransferError};
use super::verifying::Job;
use crate::transport::PeerId;

impl Room {
    /// Carries out everything that the engine wants done.
    pub(super) fn drain(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            self.perform(action);
        }
        if self.engine.counters().bans != self.bans_told {
            self.bans_told = self.engine.counters().bans;
            *self.desk.banned.write().unwrap_or_else(PoisonError::into_inner) = self.engine.banned().collect();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { to, message } => {
                let peers = self.peers_of(to);
                self.send(&peers, PeerFrame::Message(message));
            }
            Action::SendChunk { to, key, chunk } => self.send_chunk(to, key, chunk),
            Action::Verify { ticket, before, after } => self.verify(ticket, before, after),
            Action::FetchOrigin { key, epoch, chunks, before } => self.fetch(key, epoch, chunks, before),
            Action::StopOrigin { key } => self.stop_run(key),
            Action::Announce(announce) => self.announce(announce),
            Action::Connect { node } => self.connect(node),
            Action::Disconnect { peer, reason } => {
                let reason = match reason {
                    DisconnectReason::Violation => CloseReason::Violation,
                    DisconnectReason::Banned => CloseReason::Banned,
                    DisconnectReason::Full => CloseReason::Full,
                };
                if let Some(connection) = self.connections.remove(&peer) {
                    self.neighbours.remove(&connection);
                    self.close(connection, reason);
                }
            }
            Action::Completed { key } => self.seal(key),
            Action::ChainFailed { key } => {
                tracing::warn!(digest = %key.digest, "a blob's links were false: it is fetched anew");
                let given = self.blobs.get(&key.digest).is_some_and(|blob| blob.shared.was_given());
                self.chain_failed(key);
                // Strict readers have nothing of it. What the runtime has on its way then comes from the origin: nobody may disturb that.
                if given {
                    self.spoilt(key.digest);
                }
            }
            Action::Recut { key, chunk_size } => self.recut(key, chunk_size),
        }
    }

    pub(super) fn send(&self, to: &[PeerId], frame: PeerFrame) {
        let Some(net) = &self.net else { return };
        if let Err(error) = net.peers.send(to, &frame) {
            tracing::error!(%error, "a message is too long to be sent");
        }
    }

    pub(super) fn close(&self, peer: PeerId, reason: CloseReason) {
        if let Some(net) = &self.net {
            net.peers.close(peer, reason);
        }
    }

    fn peers_of(&self, to: Recipients) -> Vec<PeerId> {
        let handles = match to {
            Recipients::One(handle) => vec![handle],
            Recipients::Many(handles) => handles,
        };
        handles.iter().filter_map(|handle| self.connections.get(handle).copied()).collect()
    }

    fn send_chunk(&mut self, to: PeerHandle, key: BlobKey, chunk: ChunkIndex) {
        let (Some(net), Some(peer)) = (&self.net, self.connections.get(&to)) else { return };
        let Some(blob) = self.blobs.get(&key.digest) else { return };
        let Some(range) = blob.info.geometry.byte_range(chunk) else { return };
        let bytes = range.start..range.start + u64::from(range.len);
        let source = Stored::new(self.desk.reads.clone(), blob.info, bytes);
        net.peers.send_chunk(*peer, key, chunk, range.len, source);
    }

    fn verify(&mut self, ticket: VerifyTicket, before: Option<Link>, after: Link) {
        let (key, chunk) = (ticket.key(), ticket.chunk());
        let (Some(bytes), Some(blob)) = (self.held.remove(&(key, chunk)), self.blobs.get(&key.digest)) else {
            // Only what has come is to be verified, and it is dropped with its blob.
            let now = self.now();
            self.engine.handle_verified(now, ticket, false);
            return;
        };
        let (info, shelf) = (blob.info, blob.shelf(&self.desk.store));
        let before = before.unwrap_or_else(|| Link::initial(info.digest.algorithm()));
        self.verifiers.verify(Job { ticket, blob: info, bytes, before, after, shelf });
    }

    pub(super) fn verified(&mut self, ticket: VerifyTicket, outcome: Outcome) {
        let now = self.now();
        let (key, chunk) = (ticket.key(), ticket.chunk());
        match outcome {
            Outcome::Right(kept) => {
                self.publish_chunk(key, chunk, kept);
                self.engine.handle_verified(now, ticket, true);
            }
            Outcome::Wrong => self.engine.handle_verified(now, ticket, false),
            // The engine has forgotten it with the links.
            Outcome::Stale => {}
            Outcome::NoRoom => self.no_room(key),
        }
    }

    /// The disk is full: readers go on at the origin, and this node fetches for nobody.
    fn no_room(&mut self, key: BlobKey) {
        self.engine.set_can_lead(false);
        self.forget(key.digest, TransferError::NoRoom);
    }

    fn fetch(&mut self, key: BlobKey, epoch: u64, chunks: std::ops::Range<u32>, before: Option<Link>) {
        self.stop_run(key);
        let now = self.now();
        let blob = self.blobs.get(&key.digest);
        let source = blob.and_then(|blob| blob.source.clone());
        let (Some(blob), Some(source), Some(identity)) = (blob, source, &self.identity) else {
            self.engine.handle_origin_failed(now, key, epoch, OriginFailure::NotFound);
            return;
        };
        tracing::debug!(digest = %key.digest, epoch, ?chunks, "fetching from the origin");
        let (first, end) = (chunks.start, chunks.end);
        let errand = Errand {
            blob: blob.info,
            epoch,
            chunks,
            before,
            source,
            identity: Arc::clone(identity),
            origins: Arc::clone(&self.origins),
            shelf: blob.shelf(&self.desk.store),
            backlog: self.backlog.clone(),
        };
        let (time, results) = (RunTime::begin(&self.desk), self.results.clone());
        let fetch = async move {
            let _counted = time;
            lead::fetch(errand, results).await;
        };
        let fetch = blob.trace.fetch(first, end, fetch);
        self.runs.insert(key, tokio::spawn(fetch));
    }

    pub(super) fn stop_run(&mut self, key: BlobKey) {
        if let Some(run) = self.runs.remove(&key) {
            run.abort();
        }
    }

    pub(super) fn fetched(&mut self, key: BlobKey, fetched: Fetched) {
        let now = self.now();
        let blob = self.blobs.get(&key.digest).filter(|blob| blob.info.key() == key);
        match fetched {
            Fetched::Chunk { epoch, chunk, kept, links, merged, waiting, anyway } => {
                self.desk.traffic.from_origin.fetch_add(kept.bytes.len() as u64, Ordering::Relaxed);
                if let Some(blob) = self.blobs.get_mut(&key.digest) {
                    blob.trace.add_from_origin(kept.bytes.len() as u64);
                    blob.shared.came(CameFrom { peers: 0, origin: kept.bytes.len() as u64 });
                }
                self.publish_chunk(key, chunk, kept);
                if anyway {
                    self.engine.handle_comes_anyway(key, epoch);
                }
                self.engine.handle_origin_chunk(now, key, epoch, chunk, links.as_deref());
                if let Some(merged) = merged {
                    self.engine.handle_merged_links(now, key, &merged);
                }
                drop(waiting);
            }
            Fetched::Failed { epoch, failure, error } => {
                self.runs.remove(&key);
                if let Some(error) = error {
                    tracing::warn!(%error, digest = %key.digest, "the origin refuses");
                    if let Some(blob) = blob {
                        blob.shared.refused(error);
                    }
                }
                self.engine.handle_origin_failed(now, key, epoch, failure);
            }
            Fetched::Mismatch { epoch } => {
                self.runs.remove(&key);
                tracing::warn!(digest = %key.digest, "what the origin sent isn't the blob");
                self.engine.handle_origin_mismatch(now, key, epoch);
            }
            Fetched::NoRoom => self.no_room(key),
        }
    }

    pub(super) fn connect(&self, node: NodeId) {
        let Some(net) = &self.net else { return };
        if let Some(contact) = self.tracker.known_contact(node) {
            net.peers.connect(contact);
            return;
        }
        let (tracker, results) = (self.tracker.clone(), self.results.clone());
        tokio::spawn(async move {
            if let Ok(contacts) = tracker.contacts(&[node]).await {
                // The room ends before its channel does.
                let _ = results.send(Done::Members(contacts)).await;
            }
        });
    }

    fn seal(&mut self, key: BlobKey) {
        let keep_links = self.new_links(key);
        self.stop_run(key);
        let (store, results) = (Arc::clone(&self.desk.store), self.results.clone());
        tokio::task::spawn_blocking(move || {
            // Before anybody hears of it: without its links a whole blob is of little use to others.
            keep_links();
            let result = store.seal(&key);
            // The room ends before its channel does.
            let _ = results.blocking_send(Done::Sealed { key, result });
        });
    }

    pub(super) fn sealed(&mut self, key: BlobKey, result: Result<(), StoreError>) {
        let Some(blob) = self.blobs.get_mut(&key.digest).filter(|blob| blob.info.key() == key) else { return };
        match result {
            Ok(()) => {
                blob.complete = true;
                blob.trace = Trace::none();
                blob.shared.completed();
            }
            Err(error) => {
                // Every chunk was proven, so the store has lost or mixed up something: nothing of it is to be trusted.
                tracing::error!(%error, digest = %key.digest, "a complete blob can't be sealed: it is dropped");
                self.spoilt(key.digest);
                self.forget(key.digest, TransferError::ChainFailed);
                if let Err(error) = self.desk.store.remove(&key) {
                    tracing::error!(%error, digest = %key.digest, "it can't be removed either");
                }
            }
        }
    }

    /// The cluster cuts a blob otherwise: what is here of it is of no use.
    fn recut(&mut self, key: BlobKey, chunk_size: ChunkSize) {
        let now = self.now();
        let Ok(geometry) = self
            .blobs
            .get(&key.digest)
            .map_or(Err(()), |blob| Geometry::new(blob.info.geometry.size_bytes(), chunk_size).map_err(|_| ()))
        else {
            return;
        };
        self.stop_run(key);
        self.engine.stop(now, key);
        self.held.retain(|(of, _), _| *of != key);
        self.desk.reads.forget(key);
        let info = BlobInfo { digest: key.digest, geometry };
        if self.desk.lent.is_lent(&key) {
            self.recut_lent(key, info);
            return;
        }
        let begun = self.desk.store.remove(&key).and_then(|_| self.desk.store.begin(info));
        match begun {
            Ok(stored) => {
                let Some(blob) = self.blobs.get_mut(&key.digest) else { return };
                blob.info = info;
                blob.announces.clear();
                blob.shared.recut(info);
                let start =
                    shoal_swarm::StartBlob { blob: info, have: stored.verified, links: Vec::new(), priority: u32::MAX };
                self.engine.start(now, start);
            }
            Err(error) => {
                tracing::error!(%error, digest = %key.digest, "a blob can't be begun anew");
                self.forget(key.digest, TransferError::NoRoom);
            }
        }
    }

    /// A peer has said something.
    pub(super) fn frame(&mut self, peer: PeerId, frame: PeerFrame) {
        let now = self.now();
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let handle = neighbour.handle;
        match frame {
            PeerFrame::Message(PeerMessage::Links { key, batches }) => {
                if !self.blobs.contains_key(&key.digest) {
                    return;
                }
                let checked = self.links.check(key, batches);
                self.take_checked(key, checked, Some(peer));
            }
            PeerFrame::Message(message) => {
                if let PeerMessage::Join { blob, have, flags } = &message
                    && !(flags.seed || have.is_full())
                {
                    self.hash_for_others(blob.key());
                }
                self.engine.handle_message(now, handle, &message);
            }
            PeerFrame::CertificateWanted { node } => {
                if let Some(certificate) = self.links.certificate(node) {
                    let chain = certificate.chain();
                    self.send(&[peer], PeerFrame::Certificate { node, chain });
                }
            }
            PeerFrame::Certificate { node, chain } => self.take_certificate(node, &chain),
            PeerFrame::Announce { id, announce } => self.announce_of_peer(peer, id, announce),
            PeerFrame::AnnounceReply { id, outcome } => self.reply_of_peer(peer, id, outcome),
            PeerFrame::Notice(notice) => self.notice_of_peer(peer, &notice),
            // Records of providers and lists of members: announces to the stand-in say as much. The transport keeps the rest.
            _ => {}
        }
    }

    fn take_certificate(&mut self, node: NodeId, chain: &[bytes::Bytes]) {
        let Some(identity) = self.transport_identity() else { return };
        match identity.verify_chain(chain, rustls_pki_types::UnixTime::now()) {
            Ok(certificate) if certificate.node() == node => {
                self.links.certified(Arc::new(certificate));
                self.release_links();
            }
            Ok(_) => tracing::debug!(%node, "another node's certificate"),
            Err(error) => tracing::debug!(%node, %error, "a certificate that proves nothing"),
        }
    }

    /// Links whose publisher's key has become known.
    pub(super) fn release_links(&mut self) {
        for (key, checked) in self.links.released() {
            self.take_checked(key, checked, None);
        }
    }

    /// Hands on links that were checked, and asks for the keys that it takes to check the others.
    pub(super) fn take_checked(&mut self, key: BlobKey, checked: Checked, from: Option<PeerId>) {
        let now = self.now();
        if !checked.verified.is_empty() {
            self.engine.handle_links(now, key, &checked.verified);
        }
        if checked.forged > 0 {
            tracing::warn!(digest = %key.digest, count = checked.forged, "links with a wrong signature");
            if let Some(peer) = from {
                self.close(peer, CloseReason::Violation);
            }
        }
        if !checked.unknown.is_empty() {
            self.ask_for_keys(checked.unknown, from);
        }
    }

    fn ask_for_keys(&self, nodes: BTreeSet<NodeId>, from: Option<PeerId>) {
        if let Some(peer) = from {
            for node in &nodes {
                self.send(&[peer], PeerFrame::CertificateWanted { node: *node });
            }
        }
        let (tracker, results) = (self.tracker.clone(), self.results.clone());
        tokio::spawn(async move {
            let nodes: Vec<NodeId> = nodes.into_iter().collect();
            if let Ok(keys) = tracker.keys(&nodes).await {
                // The room ends before its channel does.
                let _ = results.send(Done::Keys(keys)).await;
            }
        });
    }
}

/// Links as they are kept: the frame in which they travel.
pub(super) fn encode_links(key: BlobKey, links: SignedLinks) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::new();
    let frame = PeerFrame::Message(PeerMessage::Links { key, batches: vec![links] });
    encode_frame(&frame, &mut bytes).ok()?;
    Some(bytes.to_vec())
}

/// What [`encode_links`] made.
pub(super) fn decode_links(bytes: &[u8]) -> Vec<SignedLinks> {
    match decode_frame(&mut BytesMut::from(bytes)) {
        Ok(Some(Decoded::Known(PeerFrame::Message(PeerMessage::Links { batches, .. })))) => batches,
        _ => Vec::new(),
    }
}
