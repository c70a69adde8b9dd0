//! What must hold between two calls, of everything that spans a blob and a neighbour.
//!
//! State: none. Invariants: those that are checked here; each module's opening says why.
//! Absent on purpose: what one blob or its chain can tell of itself (`transfer`, `chain_state`).

use crate::config::Serving;
use crate::engine::Engine;
use crate::peer::{BlobSlot, Peer};
use crate::transfer::ChunkState;

impl Engine {
    /// Checks what must hold between two calls.
    ///
    /// # Panics
    /// If something doesn't.
    pub fn check_invariants(&self) {
        self.check_neighbours();
        self.check_uploads();
        self.check_places();
        for slot in self.slots() {
            self.transfer(slot).check_invariants();
            self.check_promises(slot);
        }
    }

    fn check_neighbours(&self) {
        for (handle, peer) in self.peers.iter() {
            assert!(peer.outstanding.len() <= usize::from(self.config.inflight_per_peer), "requests at one peer");
            for (at, owed) in peer.outstanding.iter().enumerate() {
                assert!(self.transfer(owed.blob).member(handle.slot).is_some(), "who owes a chunk takes part");
                let same = |other: &&crate::peer::Outstanding| (other.blob, other.chunk) == (owed.blob, owed.chunk);
                assert!(peer.outstanding[..at].iter().find(same).is_none(), "asked once: {}", owed.chunk);
            }
        }
    }

    fn check_uploads(&self) {
        let uploads = &self.uploads;
        assert!(uploads.sending.len() <= usize::from(self.config.uploads_at_once), "chunks on the link");
        for sent in &uploads.sending {
            assert!(self.peers.get(sent.peer).is_some(), "a chunk on the link goes to a neighbour");
        }
        for (handle, peer) in self.peers.iter() {
            let waiting = uploads.waiting.iter().filter(|waiting| waiting.peer == handle.slot).count();
            assert_eq!(usize::from(peer.queued), waiting, "requests that wait for {:?}", peer.node);
            assert!(peer.queued <= self.config.queued_per_peer, "requests of {:?}", peer.node);
            let sending = uploads.sending.iter().filter(|sent| sent.peer == handle).count();
            assert_eq!(usize::from(peer.sending), sending, "chunks on the link to {:?}", peer.node);
            assert!(peer.sending <= self.config.uploads_per_link, "chunks on the link to {:?}", peer.node);
        }
        for waiting in &uploads.waiting {
            let transfer = self.transfer(waiting.blob);
            let promised = transfer.promises.gave(waiting.chunk);
            assert!(promised || transfer.have.contains(waiting.chunk), "what waits is here, or was promised");
            assert!(transfer.member(waiting.peer).is_some(), "who waits takes part");
        }
    }

    fn check_places(&self) {
        let places = |of: fn(&Peer) -> bool| -> Vec<u16> {
            self.peers.iter().filter(|(_, peer)| of(peer)).map(|(handle, _)| handle.slot).collect()
        };
        assert_eq!(self.peers.sources(), places(|peer| !peer.chokes_us()), "those that serve us");
        assert_eq!(self.peers.served(), places(|peer| !peer.choked()), "those that we serve");
        let unchoked = self.peers.served().len();
        match self.config.serving {
            Serving::Credit { slots, sources, .. } => {
                assert!(unchoked <= usize::from(slots), "places that are given");
                assert!(self.source_count() <= 2 * usize::from(sources), "places that are taken");
            }
            Serving::TitForTat { slots, .. } => assert!(unchoked <= usize::from(slots), "slots"),
            Serving::Open => {}
        }
    }

    /// The chunks' states and the neighbours' outstanding lists say the same.
    fn check_promises(&self, slot: BlobSlot) {
        let transfer = self.transfer(slot);
        for chunk in transfer.blob.geometry.chunks() {
            let state = transfer.state(chunk);
            let fetched = transfer.lead.run().is_some_and(|run| run.contains(&chunk.get()));
            assert_eq!(state == ChunkState::Origin, fetched, "the run is what comes from the origin: {chunk}");
            match state {
                ChunkState::Requested { peer } | ChunkState::Arriving { peer } => {
                    assert!(self.peers.at(peer).owes(slot, chunk).is_some(), "{chunk} is owed by whom it is asked of");
                }
                ChunkState::Held { peer } => {
                    assert!(transfer.member(peer).is_some(), "who sent {chunk}, which waits for links, takes part");
                }
                ChunkState::Missing => {
                    let owes = self.peers.iter().find(|(_, peer)| peer.owes(slot, chunk).is_some());
                    assert!(owes.is_none(), "nobody owes {chunk}, which is missing");
                }
                ChunkState::Verifying { .. } | ChunkState::Origin | ChunkState::Have => {}
            }
        }
        for member in &transfer.members {
            let owed = self.peers.at(member.peer).outstanding.iter().filter(|owed| owed.blob == slot).count();
            assert_eq!(usize::from(member.outstanding), owed, "requests of this blob");
        }
        assert!(transfer.evidence.len() <= 2 * usize::from(self.config.max_peers), "evidence");
        assert!(!transfer.finished || !transfer.lead.is_leading(), "who has everything fetches nothing");
    }
}
