//! How a blob is cut into chunks.

use std::fmt;

use crate::Digest;

/// The position of a chunk in its blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(u32);

impl ChunkIndex {
    /// The chunk at this position. Whether a blob has it is the geometry's word: [`Geometry::contains`].
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The position as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The position for indexing memory.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The chunk after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A chunk's size in bytes: a power of two from 64 KiB to 4 MiB.
///
/// 64 KiB is the floor because a chunk's bookkeeping (a link, a have, a request) stays under 1 % of it; 4 MiB is the ceiling
/// because a chunk is the unit of memory held before it is verified. Both are multiples of every hash's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSize(u32);

impl ChunkSize {
    /// The smallest one, 64 KiB.
    pub const MIN: Self = Self(64 << 10);
    /// The largest one, 4 MiB.
    pub const MAX: Self = Self(4 << 20);
    /// How many chunks a blob is cut into, where the limits allow.
    pub const TARGET_CHUNKS: u64 = 2048;

    /// A chunk size of so many bytes.
    ///
    /// # Errors
    /// If it isn't a power of two between [`Self::MIN`] and [`Self::MAX`].
    pub const fn new(bytes: u32) -> Result<Self, GeometryError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Ok(Self(bytes))
        } else {
            Err(GeometryError::ChunkSize { bytes })
        }
    }

    /// The size that a blob of `size_bytes` is cut by, unless someone fixed another: size / 2048, rounded up to a power of two.
    #[must_use]
    pub fn for_blob(size_bytes: u64) -> Self {
        Self::for_blob_with(size_bytes, Self::TARGET_CHUNKS)
    }

    /// As [`Self::for_blob`], with another number of chunks in mind.
    #[must_use]
    pub fn for_blob_with(size_bytes: u64, target_chunks: u64) -> Self {
        let bytes = size_bytes.div_ceil(target_chunks.max(1));
        let bytes = bytes.clamp(u64::from(Self::MIN.0), u64::from(Self::MAX.0)).next_power_of_two();
        Self(u32::try_from(bytes).unwrap_or(Self::MAX.0))
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// Bytes `start..start + len` of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte's offset.
    pub start: u64,
    /// How many bytes.
    pub len: u32,
}

/// A blob's size and the size of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Geometry {
    size_bytes: u64,
    chunk_size: ChunkSize,
}

impl Geometry {
    /// No blob has more chunks: 1 Mi chunks of 4 MiB are 4 TiB. It bounds every per-chunk table that a peer's word can make us allocate.
    pub const MAX_CHUNKS: u32 = 1 << 20;

    /// A blob of `size_bytes` in chunks of `chunk_size`.
    ///
    /// # Errors
    /// If that makes more than [`Self::MAX_CHUNKS`].
    pub const fn new(size_bytes: u64, chunk_size: ChunkSize) -> Result<Self, GeometryError> {
        if size_bytes.div_ceil(chunk_size.0 as u64) > Self::MAX_CHUNKS as u64 {
            return Err(GeometryError::TooManyChunks { size_bytes });
        }
        Ok(Self { size_bytes, chunk_size })
    }

    /// The blob's size.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    /// The size of all its chunks but the last.
    #[must_use]
    pub const fn chunk_size(self) -> ChunkSize {
        self.chunk_size
    }

    /// How many chunks. An empty blob has one, of no bytes: its digest is still to be proven.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_CHUNKS, checked by new")]
    pub const fn chunk_count(self) -> u32 {
        let count = self.size_bytes.div_ceil(self.chunk_size.0 as u64) as u32;
        if count == 0 { 1 } else { count }
    }

    /// Whether the blob has this chunk.
    #[must_use]
    pub const fn contains(self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.chunk_count()
    }

    /// The last chunk.
    #[must_use]
    pub const fn last_chunk(self) -> ChunkIndex {
        ChunkIndex(self.chunk_count() - 1)
    }

    /// The bytes of a chunk; none if the blob doesn't have it.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most a chunk's size, which is a u32")]
    pub fn byte_range(self, chunk: ChunkIndex) -> Option<ByteRange> {
        if !self.contains(chunk) {
            return None;
        }
        let start = u64::from(chunk.0) * u64::from(self.chunk_size.0);
        let len = (self.size_bytes - start).min(u64::from(self.chunk_size.0)) as u32;
        Some(ByteRange { start, len })
    }

    /// The chunk that holds the byte at `offset`; none beyond the end.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_CHUNKS, checked by new")]
    pub const fn chunk_at(self, offset: u64) -> Option<ChunkIndex> {
        if offset < self.size_bytes { Some(ChunkIndex((offset / self.chunk_size.0 as u64) as u32)) } else { None }
    }

    /// All chunks in order.
    pub fn chunks(self) -> impl DoubleEndedIterator<Item = ChunkIndex> + ExactSizeIterator {
        (0..self.chunk_count()).map(ChunkIndex)
    }
}

/// What a blob's chunks are keyed by: agents that cut a blob differently can't exchange its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// The blob.
    pub digest: Digest,
    /// How it is cut.
    pub chunk_size: ChunkSize,
}

/// A blob and how it is cut: all that has to be known to exchange its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob.
    pub digest: Digest,
    /// Its size and its chunks' size.
    pub geometry: Geometry,
}

impl BlobInfo {
    /// The key of the blob's chunks.
    #[must_use]
    pub const fn key(&self) -> BlobKey {
        BlobKey { digest: self.digest, chunk_size: self.geometry.chunk_size }
    }
}

/// Why a size can't be cut into chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Not a power of two within the limits.
    #[error("a chunk has a power of two of bytes between 64 KiB and 4 MiB, not {bytes}")]
    ChunkSize {
        /// What was given.
        bytes: u32,
    },
    /// More chunks than anybody tracks.
    #[error("a blob of {size_bytes} bytes has more than {} chunks", Geometry::MAX_CHUNKS)]
    TooManyChunks {
        /// The blob's size.
        size_bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_chunk_size_is_a_2048th_within_the_limits() {
        let cases = [
            (0, 64 << 10),
            (1, 64 << 10),
            (32 << 20, 64 << 10),
            (128 << 20, 64 << 10),
            ((128 << 20) + 1, 128 << 10),
            (1 << 30, 512 << 10),
            (1 << 40, 4 << 20),
        ];
        for (size, chunk) in cases {
            assert_eq!(ChunkSize::for_blob(size).bytes(), chunk, "{size}");
        }
        assert!(ChunkSize::new(3 << 20).is_err());
        assert!(ChunkSize::new(32 << 10).is_err());
    }

    #[test]
    fn chunks_cover_the_blob_once() {
        for size in [0, 1, 65_535, 65_536, 65_537, 1 << 20, (1 << 20) + 17] {
            let geometry = Geometry::new(size, ChunkSize::MIN).unwrap();
            let mut next = 0;
            for chunk in geometry.chunks() {
                let range = geometry.byte_range(chunk).unwrap();
                assert_eq!(range.start, next);
                next += u64::from(range.len);
                if range.len > 0 {
                    assert_eq!(geometry.chunk_at(range.start), Some(chunk));
                    assert_eq!(geometry.chunk_at(next - 1), Some(chunk));
                }
            }
            assert_eq!(next, size);
            assert_eq!(geometry.chunk_at(size), None);
            assert_eq!(geometry.byte_range(geometry.last_chunk().next()), None);
        }
    }

    #[test]
    fn a_size_beyond_the_bound_is_refused() {
        assert!(Geometry::new(u64::MAX, ChunkSize::MAX).is_err());
        assert!(Geometry::new(4 << 40, ChunkSize::MAX).is_ok());
    }
}
