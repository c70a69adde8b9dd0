//! Who provides what, as a node keeps it for the digests that it is close to.
//!
//! State: per digest its providers and until when each record holds.
//! Invariants: bounded numbers of digests and of providers each; what is over isn't given out.
//! Absent on purpose: trust. A record says where to ask, not what is true there.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_types::{Digest, NodeId, Time};

use super::LookupConfig;

/// Records by digest.
#[derive(Clone, Debug)]
pub struct ProviderRecords {
    ttl: Duration,
    max_digests: usize,
    max_providers: usize,
    records: BTreeMap<Digest, BTreeMap<NodeId, Time>>,
}

impl ProviderRecords {
    /// No records.
    #[must_use]
    pub const fn new(config: &LookupConfig) -> Self {
        let (ttl, max_digests, max_providers) = (config.record_ttl, config.max_digests, config.max_providers);
        Self { ttl, max_digests, max_providers, records: BTreeMap::new() }
    }

    /// A node says that it has a blob, or a part of it, or still has it. Whether there was a place for the record.
    pub fn add(&mut self, now: Time, digest: Digest, provider: NodeId) -> bool {
        if !self.records.contains_key(&digest) && self.records.len() >= self.max_digests {
            self.expire(now);
            if self.records.len() >= self.max_digests {
                return false;
            }
        }
        let providers = self.records.entry(digest).or_default();
        providers.retain(|_, until| *until > now);
        if !providers.contains_key(&provider) && providers.len() >= self.max_providers {
            // The one that has been silent for longest is the likeliest to be gone.
            let oldest = providers.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node);
            oldest.and_then(|oldest| providers.remove(&oldest));
        }
        providers.insert(provider, now + self.ttl);
        true
    }

    /// A node says that it no longer has it.
    pub fn remove(&mut self, digest: Digest, provider: NodeId) {
        if let Some(providers) = self.records.get_mut(&digest) {
            providers.remove(&provider);
            if providers.is_empty() {
                self.records.remove(&digest);
            }
        }
    }

    /// Who provides it.
    #[must_use]
    pub fn get(&self, now: Time, digest: Digest) -> Vec<NodeId> {
        let providers = self.records.get(&digest).into_iter().flatten();
        providers.filter(|(_, until)| **until > now).map(|(node, _)| *node).collect()
    }

    /// Drops what is over.
    pub fn expire(&mut self, now: Time) {
        self.records.retain(|_, providers| {
            providers.retain(|_, until| *until > now);
            !providers.is_empty()
        });
    }

    /// How many digests have records, those that are over included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::Sha256([byte; 32])
    }

    #[test]
    fn records_expire_and_are_bounded() {
        let config = LookupConfig { max_digests: 2, max_providers: 2, ..LookupConfig::default() };
        let mut records = ProviderRecords::new(&config);
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let [a, b, c] = [1, 2, 3].map(NodeId::new);
        assert!(records.add(at(0), digest(1), a));
        assert!(records.add(at(1), digest(1), b));
        assert_eq!(records.get(at(2), digest(1)), [a, b]);
        // A third one takes the place of the one that was heard of first.
        assert!(records.add(at(2), digest(1), c));
        assert_eq!(records.get(at(2), digest(1)), [b, c]);
        assert!(records.add(at(2), digest(2), a));
        assert!(!records.add(at(3), digest(3), a));
        assert_eq!(records.get(at(61), digest(1)), [c]);
        // By then the others are over and make place.
        assert!(records.add(at(62), digest(3), a));
        assert_eq!((records.len(), records.get(at(62), digest(1))), (1, vec![]));
        records.remove(digest(3), a);
        assert!(records.is_empty());
    }
}
