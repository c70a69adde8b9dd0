//! Whether what a lead gives away goes any further.
//!
//! Nobody gives a lead anything, so it can't go by that when it deals its places. It goes by what spreads: a chunk that one neighbour had
//! from it alone, and that another one has got since. A neighbour with too many of the other kind keeps them to itself: its uplink is slow,
//! or it gives nothing.
//!
//! State: with each lease, which neighbours had which chunks first; with each neighbour, what follows from it.
//! Invariants: bounded by [`FED_AT_ALL`]; it ends with the lease.
//! Absent on purpose: dealing the places (`choker`).

use std::collections::VecDeque;

use shoal_types::ChunkIndex;

use crate::engine::Engine;
use crate::peer::BlobSlot;

/// Chunks that a neighbour may have from us alone before it counts as one that keeps them to itself. In a swarm of thousands one of our
/// other neighbours has a chunk only after it has spread to hundreds of nodes, seven hops or so: that is four chunks for each of them.
const FED: usize = 32;
/// The same for one that has never passed anything on: it costs the swarm these chunks.
const FED_UNPROVEN: usize = 8;
/// All those chunks together, the latest ones: of four neighbours with a place all that count. Who has had too many is remembered.
const FED_AT_ALL: usize = 128;

/// What neighbours had from us alone and nobody else has got yet.
#[derive(Debug, Default)]
pub(crate) struct Fed(VecDeque<(u16, ChunkIndex)>);

impl Fed {
    /// A neighbour gets a chunk that nobody else has from us.
    fn feed(&mut self, peer: u16, chunk: ChunkIndex) {
        if self.0.len() == FED_AT_ALL {
            self.0.pop_front();
        }
        self.0.push_back((peer, chunk));
    }

    /// Somebody else has a chunk now that this neighbour was the only one to have; whether it had it from us.
    fn passed_on(&mut self, peer: u16, chunk: ChunkIndex) -> bool {
        let at = self.0.iter().position(|fed| *fed == (peer, chunk));
        at.and_then(|at| self.0.remove(at)).is_some()
    }

    /// How many chunks a neighbour has from us alone.
    fn to(&self, peer: u16) -> usize {
        self.0.iter().filter(|(to, _)| *to == peer).count()
    }

    /// A neighbour takes no part any more.
    pub(crate) fn forget(&mut self, peer: u16) {
        self.0.retain(|(to, _)| *to != peer);
    }

    /// What this occupies on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u16, ChunkIndex)>()
    }
}

impl Engine {
    /// A neighbour gets a chunk that nobody else has from us: it may have had too many of those.
    pub(crate) fn feed(&mut self, slot: BlobSlot, peer: u16, chunk: ChunkIndex) {
        let fed = &mut self.transfer_mut(slot).lead.fed;
        fed.feed(peer, chunk);
        let fed = fed.to(peer);
        let peer = self.peers.at_mut(peer);
        peer.hoards |= fed >= if peer.passes_on { FED } else { FED_UNPROVEN };
    }

    /// Somebody else has a chunk now that this neighbour was the only one to have.
    pub(crate) fn passed_on(&mut self, slot: BlobSlot, peer: u16, chunk: ChunkIndex) {
        if self.transfer_mut(slot).lead.fed.passed_on(peer, chunk) {
            let peer = self.peers.at_mut(peer);
            peer.passes_on = true;
            peer.hoards = false;
        }
    }

    /// There is nothing to pass on any more.
    pub(crate) fn forget_fed(&mut self, slot: BlobSlot) {
        self.transfer_mut(slot).lead.fed = Fed::default();
        self.peers.iter_mut().for_each(|peer| peer.hoards = false);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use shoal_types::{BlobInfo, ChunkSet, ChunkSize, Digest, Geometry, NodeId, Time, Zone};

    use super::*;
    use crate::config::Config;
    use crate::transfer::Transfer;

    #[test]
    fn who_passes_nothing_on_hoards() {
        let mut engine = Engine::new(NodeId::new(1), Zone::default(), Config::default(), 1);
        let peer = engine.handle_connected(Time::ZERO, NodeId::new(2), &Zone::default()).unwrap().slot;
        let geometry = Geometry::new(8 << 16, ChunkSize::MIN).unwrap();
        let blob = BlobInfo { digest: Digest::Sha256([0; 32]), geometry };
        engine.transfers.push(Some(Transfer::new(blob, ChunkSet::empty(8), 0, Time::ZERO)));
        let slot = BlobSlot(0);
        let feed = |engine: &mut Engine, chunks: Range<u32>| {
            chunks.for_each(|chunk| engine.feed(slot, peer, ChunkIndex::new(chunk)));
            engine.peers.at(peer).hoards
        };
        let passes = |engine: &mut Engine, chunk| {
            engine.passed_on(slot, peer, ChunkIndex::new(chunk));
            !engine.peers.at(peer).hoards
        };
        assert!(!feed(&mut engine, 0..7));
        assert!(feed(&mut engine, 7..8));
        assert!(!passes(&mut engine, 30), "it never had this from us");
        assert!(passes(&mut engine, 3) && engine.peers.at(peer).passes_on);
        assert!(!feed(&mut engine, 8..32), "a few hops' worth");
        assert!(feed(&mut engine, 32..33));
        feed(&mut engine, 0..1000);
        assert_eq!(engine.transfers[0].as_ref().unwrap().lead.fed.to(peer), FED_AT_ALL);
        engine.forget_fed(slot);
        assert!(!engine.peers.at(peer).hoards);
        assert_eq!(engine.transfers[0].as_ref().unwrap().lead.fed.to(peer), 0);
    }
}
