//! Whose fault a wrong chunk is.
//!
//! State: per blob the wrong chunks seen under links that prove nothing yet; for all blobs who is to be accused.
//!
//! A chunk that fails under an open chain proves nothing about its sender: false links make honest seeds look like liars. So its
//! sender is merely not asked again for this blob, and the failure is kept as evidence. When the chain closes, the links were
//! right all along, the evidence has become proof, and the senders are banned here and accused before the tracker. When the chain is
//! withdrawn, the evidence is worthless and the senders are asked again. Only where the sender has signed the links itself does
//! one failure settle something: bytes and links come from the same hand and don't fit. That its bytes are wrong is as likely as that its
//! links are, so who got right bytes keeps them, and it is reported as no lead. A successor that has seen it fetches first what nobody
//! has of its chunks, and sees whether the links hold. Where a link may have been inherited, or is the digest, the links are reported.
//!
//! Invariants: nobody is accused without a closed chain; the evidence is bounded by the number of neighbours.
//! Absent on purpose: bans across the cluster. Those are the tracker's, and take several accusers.

use shoal_types::{ChunkIndex, NodeId, Time};

use crate::engine::Engine;
use crate::peer::{BlobSlot, PeerHandle};
use crate::requests::FALSE_CLAIMS;

/// A wrong chunk from somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) sender: NodeId,
    pub(crate) chunk: ChunkIndex,
}

/// So many senders of one failing chunk make its links suspect rather than the senders. With a tenth of liars that many wrong ones in a
/// row are one in 10^8. Three are one in a thousand: of the thousands of chunks that thousands of nodes get it happens to enough of them
/// to withdraw a right chain.
const SENDERS_AGAINST_LINKS: usize = 8;

/// So many do where nobody else is left to ask.
const LAST_SENDERS_AGAINST_LINKS: usize = 3;

impl Engine {
    /// A chunk was wrong: its sender isn't asked again for this blob, and perhaps its links are reported.
    pub(crate) fn blame(&mut self, now: Time, slot: BlobSlot, chunk: ChunkIndex, from: PeerHandle) {
        self.counters.chunks_wrong += 1;
        let bytes = self.transfer(slot).chunk_bytes(chunk);
        let Some(peer) = self.peers.get_mut(from) else { return };
        // It has given nothing.
        peer.bytes_from = peer.bytes_from.saturating_sub(bytes);
        peer.merit = peer.merit.saturating_sub(bytes);
        let sender = peer.node;
        let bound = usize::from(self.config.max_peers) * 2;
        let transfer = self.transfer_mut(slot);
        let Some(member) = transfer.member(from.slot) else { return };
        transfer.members[member].suspect = true;
        // Everybody hears of a withdrawal by its next announce, and joins again then. Until then honest ones pass on what they
        // verified before: nothing follows from it, and their next join clears them.
        if transfer.withdrawn.is_some_and(|at| now.since(at) < transfer.announce.interval) {
            return;
        }
        let evidence = Evidence { sender, chunk };
        if transfer.evidence.len() < bound && !transfer.evidence.contains(&evidence) {
            transfer.evidence.push(evidence);
        }
        if let Some((epoch, publisher)) = transfer.chain.sole_author_of(chunk)
            && publisher == sender
        {
            transfer.announce.corrupt_lead = Some(epoch);
            self.announce_soon(now, slot);
            self.test_links(now, slot);
            return;
        }
        let senders = transfer.evidence.iter().filter(|other| other.chunk == chunk).count();
        let enough = if transfer.is_to_be_had(chunk) { SENDERS_AGAINST_LINKS } else { LAST_SENDERS_AGAINST_LINKS };
        if let Some((epoch, publisher)) = transfer.chain.author_of(chunk)
            && (publisher == sender || senders >= enough)
        {
            transfer.announce.false_chain = Some(epoch);
            self.announce_soon(now, slot);
        }
    }

    /// A neighbour takes part, perhaps again: leaving and coming back clears nobody of what there is evidence for.
    pub(crate) fn remember_blame(&mut self, slot: BlobSlot, peer: PeerHandle) {
        let node = self.peers.at(peer.slot).node;
        let transfer = self.transfer_mut(slot);
        let blamed = transfer.evidence.iter().any(|evidence| evidence.sender == node);
        if let Some(member) = transfer.member(peer.slot) {
            let member = &mut transfer.members[member];
            member.suspect = blamed || member.false_claims >= FALSE_CLAIMS;
        }
    }

    /// The chain has closed: whoever sent a wrong chunk under it is a liar.
    pub(crate) fn settle_evidence(&mut self, now: Time, slot: BlobSlot) {
        let evidence = std::mem::take(&mut self.transfer_mut(slot).evidence);
        for Evidence { sender, .. } in evidence {
            if !self.banned.contains(&sender) {
                self.accusations.push(sender);
                self.ban(now, sender);
            }
        }
    }
}
