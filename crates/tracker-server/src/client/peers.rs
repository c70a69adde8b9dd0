//! What a node remembers of others, so that it finds them when no tracker answers: replicas, and nodes' contacts.
//!
//! State: both, in memory and in a file that is written now and then.
//! Invariants: bounded; what was heard of last stays.
//! Absent on purpose: whether they are there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shoal_types::NodeId;
use shoal_wire::Contact;

use crate::protocol::{ContactText, Replica};
use crate::secret_file;

const FILE: &str = "peers.json";
/// As many as a tracker knows nodes ([`shoal_tracker::Limits`]).
const MAX_CONTACTS: usize = 1 << 16;
/// Replicas of one tracker: a handful.
pub(super) const MAX_REPLICAS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Peers {
    replicas: Vec<Replica>,
    /// With the number of the moment at which it was heard of.
    contacts: BTreeMap<NodeId, (u64, Contact)>,
    clock: u64,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct PeersText {
    replicas: Vec<Replica>,
    contacts: Vec<ContactText>,
}

impl Peers {
    pub(super) fn load(dir: &Path) -> io::Result<Self> {
        let Some(text) = secret_file::read(&dir.join(FILE))? else { return Ok(Self::default()) };
        let text: PeersText = serde_json::from_str(&text)?;
        let mut peers = Self::default();
        peers.set_replicas(&text.replicas);
        peers.learn(&text.contacts.iter().filter_map(ContactText::parse).collect::<Vec<_>>());
        peers.changed = false;
        Ok(peers)
    }

    /// What is to be saved; nothing, if nothing has changed.
    pub(super) fn take_changes(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let contacts = self.contacts.values().map(|(_, contact)| ContactText::from(contact)).collect();
        let text = PeersText { replicas: self.replicas.clone(), contacts };
        Some(serde_json::to_vec(&text).expect("there are no maps in it"))
    }

    pub(super) fn save(dir: &Path, content: &[u8]) -> io::Result<()> {
        secret_file::replace(&dir.join(FILE), content)
    }

    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// An empty list is no news: without replicas nobody could have sent it.
    pub(super) fn set_replicas(&mut self, replicas: &[Replica]) {
        if !replicas.is_empty() && self.replicas != replicas {
            self.replicas = replicas.iter().take(MAX_REPLICAS).cloned().collect();
            self.changed = true;
        }
    }

    pub(super) fn learn(&mut self, contacts: &[Contact]) {
        for contact in contacts {
            self.clock += 1;
            let before = self.contacts.insert(contact.node(), (self.clock, contact.clone()));
            self.changed |= before.is_none_or(|(_, before)| before != *contact);
        }
        if self.contacts.len() > MAX_CONTACTS {
            // A quarter goes at once, so that this is rare.
            let oldest = self.clock.saturating_sub(MAX_CONTACTS as u64 * 3 / 4);
            self.contacts.retain(|_, (heard, _)| *heard > oldest);
        }
    }

    pub(super) fn contact(&self, node: NodeId) -> Option<Contact> {
        self.contacts.get(&node).map(|(_, contact)| contact.clone())
    }

    pub(super) fn contacts(&self) -> Vec<Contact> {
        self.contacts.values().map(|(_, contact)| contact.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_bounded_and_the_last_heard_of_stay() {
        let mut peers = Peers::default();
        let contact =
            |at: usize| Contact::new(format!("n{at}").parse().unwrap(), Default::default(), ([10, 0, 0, 1], 7).into());
        for at in 0..=MAX_CONTACTS {
            peers.learn(&[contact(at)]);
        }
        assert!(peers.contacts().len() <= MAX_CONTACTS);
        assert!(peers.contact(contact(0).node()).is_none());
        assert!(peers.contact(contact(MAX_CONTACTS).node()).is_some());
        assert!(peers.take_changes().is_some());
        peers.learn(&[contact(MAX_CONTACTS)]);
        assert!(peers.take_changes().is_none(), "nothing new");
    }
}
