//! The signed batches of a chain, by the chunk that they begin with.
//!
//! A batch of one link is 68 bytes, most of which are its signature, and a chain has up to one for each chunk. So the tree that orders them
//! has numbers in it, and the records lie close together: a tree leaves almost half of its places empty.
//!
//! State: the records, and which places are free.
//! Invariants: each number in the tree is a record's, and each record has one; the others are free.
//! Absent on purpose: what batches mean (`chain_state`).

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use shoal_chain::Signature;
use shoal_types::ChunkIndex;

/// Places that are made at a time: doubling would leave up to half of them empty.
const GROWTH: usize = 64;

/// A batch without its links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRecord {
    /// A batch is a frame's worth of links: 16 bits are plenty, and a chain has thousands of these.
    pub(crate) count: u16,
    pub(crate) author: u16,
    pub(crate) signature: Signature,
}

/// Batches in the order of their first chunks.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    places: BTreeMap<ChunkIndex, u32>,
    records: Vec<BatchRecord>,
    free: Vec<u32>,
}

impl Batches {
    pub(crate) fn insert(&mut self, first: ChunkIndex, record: BatchRecord) {
        if let Some(place) = self.places.get(&first) {
            self.records[*place as usize] = record;
            return;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.records[place as usize] = record;
                place
            }
            None => {
                if self.records.len() == self.records.capacity() {
                    self.records.reserve_exact(GROWTH);
                }
                self.records.push(record);
                u32::try_from(self.records.len() - 1).expect("at most one batch begins with each chunk")
            }
        };
        self.places.insert(first, place);
    }

    pub(crate) fn remove(&mut self, first: ChunkIndex) -> Option<BatchRecord> {
        let place = self.places.remove(&first)?;
        self.free.push(place);
        Some(self.records[place as usize])
    }

    pub(crate) fn range(
        &self,
        chunks: impl RangeBounds<ChunkIndex>,
    ) -> impl DoubleEndedIterator<Item = (ChunkIndex, &BatchRecord)> {
        self.places.range(chunks).map(|(first, place)| (*first, &self.records[*place as usize]))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkIndex, &BatchRecord)> {
        self.range(..)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// What this occupies on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        // A B-tree that is filled in order leaves six of each node's eleven places taken.
        self.places.len() * size_of::<(ChunkIndex, u32)>() * 11 / 6
            + self.records.capacity() * size_of::<BatchRecord>()
            + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_records_stay_with_their_chunks() {
        let record = |author| BatchRecord { count: 1, author, signature: Signature([0; 64]) };
        let mut batches = Batches::default();
        for index in 0..100_u16 {
            batches.insert(ChunkIndex::new(u32::from(index)), record(index));
        }
        for index in (0..100).step_by(2) {
            assert_eq!(batches.remove(ChunkIndex::new(index)).map(|record| u32::from(record.author)), Some(index));
            assert!(batches.remove(ChunkIndex::new(index)).is_none());
        }
        for index in (0..100_u16).step_by(4) {
            batches.insert(ChunkIndex::new(u32::from(index)), record(1_000 + index));
        }
        batches.insert(ChunkIndex::new(1), record(7));
        assert_eq!((batches.len(), batches.records.len(), batches.free.len()), (75, 100, 25));
        for (first, record) in batches.iter() {
            let index = u16::try_from(first.get()).unwrap();
            let expected = if index == 1 {
                7
            } else if index % 4 == 0 {
                1_000 + index
            } else {
                index
            };
            assert_eq!(record.author, expected);
        }
    }
}
