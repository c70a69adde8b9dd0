//! Which chunks of a blob: a bitmap of fixed length.

use crate::{ChunkIndex, Geometry};

/// A set of a blob's chunks. One bit a chunk; the bits beyond the last chunk are always zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkSet {
    words: Box<[u64]>,
    capacity: u32,
    len: u32,
}

impl ChunkSet {
    /// No chunk of a blob that has `len` of them.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; words_for(len)].into(), capacity: len, len: 0 }
    }

    /// Every chunk of a blob that has `len` of them.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; words_for(len)];
        if let (Some(last), tail @ 1..) = (words.last_mut(), len % 64) {
            *last = (1 << tail) - 1;
        }
        Self { words: words.into(), capacity: len, len }
    }

    /// No chunk of a blob with this geometry.
    #[must_use]
    pub fn empty_of(geometry: Geometry) -> Self {
        Self::empty(geometry.chunk_count())
    }

    /// Every chunk of a blob with this geometry.
    #[must_use]
    pub fn full_of(geometry: Geometry) -> Self {
        Self::full(geometry.chunk_count())
    }

    /// The set that a peer sent as little-endian bytes, chunk 0 in the first byte's lowest bit.
    ///
    /// # Errors
    /// If the number of bytes isn't that of `len` chunks, or a bit beyond them is set.
    pub fn from_bytes(bytes: &[u8], len: u32) -> Result<Self, ChunkSetError> {
        if bytes.len() != len.div_ceil(8) as usize {
            return Err(ChunkSetError::Length { chunks: len, bytes: bytes.len() });
        }
        let mut words = vec![0_u64; words_for(len)];
        for (at, byte) in bytes.iter().enumerate() {
            words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        if !len.is_multiple_of(64) && words.last().is_some_and(|last| last >> (len % 64) != 0) {
            return Err(ChunkSetError::BeyondTheEnd { chunks: len });
        }
        let count = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words: words.into(), capacity: len, len: count })
    }

    /// The bytes that [`Self::from_bytes`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.capacity.div_ceil(8) as usize);
        bytes
    }

    /// How many chunks the blob has.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many chunks are in the set.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether no chunk is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every chunk is in it.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Whether the chunk is in it. A chunk that the blob doesn't have is not.
    #[must_use]
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.get() < self.capacity && self.words[chunk.as_usize() / 64] >> (chunk.get() % 64) & 1 == 1
    }

    /// Puts a chunk in; whether it is new.
    ///
    /// # Panics
    /// If the blob doesn't have the chunk: an index from outside is checked where it comes in.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        assert!(chunk.get() < self.capacity, "chunk {chunk} of {}", self.capacity);
        let word = &mut self.words[chunk.as_usize() / 64];
        let bit = 1 << (chunk.get() % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u32::from(new);
        new
    }

    /// Takes a chunk out; whether it was in.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        if !self.contains(chunk) {
            return false;
        }
        self.words[chunk.as_usize() / 64] &= !(1 << (chunk.get() % 64));
        self.len -= 1;
        true
    }

    /// Adds every chunk of `other`, a set of the same blob.
    ///
    /// # Panics
    /// If the sets have different capacities.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.capacity, other.capacity, "sets of one blob");
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The first chunk that is not in the set: the end of the contiguous prefix. The capacity, if all are in.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most the capacity, which is a u32")]
    pub fn prefix_len(&self) -> u32 {
        let full_words = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let tail = self.words.get(full_words).map_or(0, |word| word.trailing_ones());
        full_words as u32 * 64 + tail
    }

    /// The chunks in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        bits(self.words.iter().copied())
    }

    /// The chunks not in the set, in order.
    pub fn iter_missing(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        let len = self.capacity;
        bits(self.words.iter().map(|word| !word)).take_while(move |chunk| chunk.get() < len)
    }

    /// The bitmap's words, for set algebra in a hot path.
    #[must_use]
    pub const fn words(&self) -> &[u64] {
        &self.words
    }

    /// What the set occupies on the heap.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.words.len() * 8
    }
}

fn words_for(len: u32) -> usize {
    len.div_ceil(64) as usize
}

#[allow(clippy::cast_possible_truncation, reason = "a set's capacity is a u32")]
fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = ChunkIndex> {
    words.enumerate().flat_map(|(at, word)| {
        std::iter::successors((word != 0).then_some(word), |rest| {
            let rest = rest & (rest - 1);
            (rest != 0).then_some(rest)
        })
        .map(move |rest| ChunkIndex::new(at as u32 * 64 + rest.trailing_zeros()))
    })
}

/// Why bytes are not a set of a blob's chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkSetError {
    /// Too few or too many bytes.
    #[error("a bitmap of {chunks} chunks doesn't have {bytes} bytes")]
    Length {
        /// The blob's chunks.
        chunks: u32,
        /// The bytes that came.
        bytes: usize,
    },
    /// A bit for a chunk that the blob doesn't have.
    #[error("a bit beyond the last of {chunks} chunks is set")]
    BeyondTheEnd {
        /// The blob's chunks.
        chunks: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(len in 1_u32..200, ops in prop::collection::vec((any::<bool>(), 0_u32..200), 0..300)) {
            let mut set = ChunkSet::empty(len);
            let mut model = BTreeSet::new();
            for (insert, index) in ops {
                let index = index % len;
                if insert {
                    prop_assert_eq!(set.insert(ChunkIndex::new(index)), model.insert(index));
                } else {
                    prop_assert_eq!(set.remove(ChunkIndex::new(index)), model.remove(&index));
                }
            }
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert_eq!(set.iter().map(ChunkIndex::get).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let missing: Vec<u32> = (0..len).filter(|index| !model.contains(index)).collect();
            prop_assert_eq!(set.iter_missing().map(ChunkIndex::get).collect::<Vec<_>>(), missing.clone());
            prop_assert_eq!(set.prefix_len(), missing.first().copied().unwrap_or(len));
            prop_assert_eq!(ChunkSet::from_bytes(&set.to_bytes(), len).unwrap(), set);
        }

        #[test]
        fn bytes_of_a_peer_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), len in 0_u32..300) {
            if let Ok(set) = ChunkSet::from_bytes(&bytes, len) {
                prop_assert!(set.iter().all(|chunk| chunk.get() < len));
            }
        }
    }

    #[test]
    fn full_is_what_inserting_everything_gives() {
        for len in [1, 63, 64, 65, 512] {
            let mut set = ChunkSet::empty(len);
            (0..len).for_each(|index| assert!(set.insert(ChunkIndex::new(index))));
            assert_eq!(set, ChunkSet::full(len));
            assert!(set.is_full());
            assert_eq!(set.prefix_len(), len);
        }
    }
}
