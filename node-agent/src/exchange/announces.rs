//! Talking to the tracker: one announce of a blob after the other.
//!
//! State: with each blob, whether an announce is under way, those that wait, and what one that failed was to tell.
//! Invariants: of one blob, an announce leaves when the one before it has been answered; what is told once is told until a tracker has
//! taken it.
//! Absent on purpose: when to announce: that is the engine's. What happens without a tracker: `standin.rs`.

use shoal_chain::SignedLinks;
use shoal_tracker_server::client::AnnounceFailure;
use shoal_types::{Digest, NodeId};
use shoal_wire::{Accepted, Announce};

use super::room::{Done, Room};

/// Announces of one blob that wait. The engine makes one at a time, and a few more when things happen at once; of two that wait the newer
/// one says everything but what is told once.
const WAITING: usize = 8;

/// What an announce tells once.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried {
    links: Vec<SignedLinks>,
    false_chain: Option<u64>,
    corrupt_lead: Option<u64>,
    accused: Vec<NodeId>,
}

/// What came of an announce.
pub(super) struct Announced {
    pub(super) digest: Digest,
    pub(super) told: Carried,
    pub(super) result: Result<Accepted, AnnounceFailure>,
}

impl Carried {
    pub(super) fn of(announce: &Announce) -> Self {
        let Announce { links, false_chain, corrupt_lead, accused, .. } = announce;
        Self { links: links.clone(), false_chain: *false_chain, corrupt_lead: *corrupt_lead, accused: accused.clone() }
    }

    /// Puts this in front of what an announce tells itself.
    fn add_to(self, announce: &mut Announce) {
        let Self { mut links, false_chain, corrupt_lead, mut accused } = self;
        links.append(&mut announce.links);
        announce.links = links;
        announce.false_chain = announce.false_chain.or(false_chain);
        announce.corrupt_lead = announce.corrupt_lead.or(corrupt_lead);
        accused.append(&mut announce.accused);
        accused.sort_unstable();
        accused.dedup();
        announce.accused = accused;
    }
}

impl Room {
    pub(super) fn announce(&mut self, mut announce: Announce) {
        let Some(blob) = self.blobs.get_mut(&announce.digest) else {
            // Of a blob that was forgotten: its leave.
            let tracker = self.tracker.clone();
            tokio::spawn(async move { tracker.announce(std::slice::from_ref(&announce)).await });
            return;
        };
        if blob.announcing {
            if blob.announces.len() >= WAITING
                && let Some(oldest) = blob.announces.pop_front()
                && let Some(next) = blob.announces.front_mut()
            {
                Carried::of(&oldest).add_to(next);
                next.have = next.have.take().or(oldest.have);
            }
            blob.announces.push_back(announce);
            return;
        }
        std::mem::take(&mut blob.carried).add_to(&mut announce);
        blob.announcing = true;
        if self.left_alone {
            self.announce_among_peers(announce);
            return;
        }
        let (tracker, results) = (self.tracker.clone(), self.results.clone());
        tokio::spawn(async move {
            let told = Carried::of(&announce);
            let digest = announce.digest;
            let result = tracker.announce(std::slice::from_ref(&announce)).await.pop();
            let result = result.unwrap_or_else(|| Err(AnnounceFailure::Unreachable("no answer".to_owned())));
            // The room ends before its channel does.
            let _ = results.send(Done::Announced(Box::new(Announced { digest, told, result }))).await;
        });
    }

    pub(super) fn announced(&mut self, Announced { digest, told, result }: Announced) {
        let now = self.now();
        let Some(blob) = self.blobs.get_mut(&digest) else { return };
        blob.announcing = false;
        let next = blob.announces.pop_front();
        match result {
            Ok(Accepted { reply, contacts }) => {
                self.tracker.learn(&contacts);
                let (key, links) = (reply.key, reply.links.clone());
                self.engine.handle_announce_reply(now, &reply);
                let checked = self.links.check(key, links);
                self.take_checked(key, checked, None);
            }
            Err(AnnounceFailure::Refused(refusal)) => {
                tracing::warn!(%digest, reason = refusal.reason(), "the tracker refuses an announce");
            }
            Err(failure) => {
                tracing::debug!(%digest, %failure, "an announce had no effect");
                blob.carried = told;
            }
        }
        if let Some(next) = next {
            self.announce(next);
        }
    }
}
