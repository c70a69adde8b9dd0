//! Links: hash states between chunks, and runs of them.
//!
//! State: the links' bytes.
//! Invariants: a link is as long as its algorithm's state; a run has at least one link, and one that comes as bytes has none for
//! a chunk beyond [`Geometry::MAX_CHUNKS`].
//! Absent on purpose: the blob that a link is of. Whether a run fits a blob is for [`crate::Chain`] or its receiver to check.

use std::fmt;

use shoal_types::{Algorithm, ChunkIndex, Digest, Geometry};

use crate::hasher;

/// A hash's state after a chunk, as big-endian bytes: what the digest would be if there were no padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Eight 32-bit words.
    Sha256([u8; 32]),
    /// Eight 64-bit words.
    Sha512([u8; 64]),
}

impl Link {
    /// The state at which a blob's first chunk starts.
    #[must_use]
    pub fn initial(algorithm: Algorithm) -> Self {
        hasher::initial(algorithm)
    }

    /// The link of these bytes.
    ///
    /// # Errors
    /// If there are more or fewer than the algorithm's state has.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, LinkError> {
        let error = || LinkError::Length { algorithm, bytes: bytes.len() };
        Ok(match algorithm {
            Algorithm::Sha256 => Self::Sha256(bytes.try_into().map_err(|_| error())?),
            Algorithm::Sha512 => Self::Sha512(bytes.try_into().map_err(|_| error())?),
        })
    }

    /// Its bytes, 32 or 64.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// Its hash's algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }
}

impl From<Digest> for Link {
    /// The last chunk's link is the digest: it has the padding in it.
    fn from(digest: Digest) -> Self {
        match digest {
            Digest::Sha256(bytes) => Self::Sha256(bytes),
            Digest::Sha512(bytes) => Self::Sha512(bytes),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are not links.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// They aren't a whole number of links, or none.
    #[error("{bytes} bytes are not a whole number of {} states", algorithm.name())]
    Length {
        /// The hash.
        algorithm: Algorithm,
        /// How many bytes came.
        bytes: usize,
    },
    /// They are of chunks that no blob has.
    #[error("no blob has as many chunks as {count} links from chunk {first} on are of")]
    BeyondTheEnd {
        /// The first link's chunk.
        first: ChunkIndex,
        /// How many links came.
        count: usize,
    },
}

/// The links of consecutive chunks, packed.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkRun {
    algorithm: Algorithm,
    first: ChunkIndex,
    bytes: Box<[u8]>,
}

impl LinkRun {
    /// The links of `first` and the chunks after it.
    ///
    /// # Errors
    /// If the bytes are not a whole number of links, or none, or of chunks that no blob has.
    pub fn new(algorithm: Algorithm, first: ChunkIndex, bytes: Vec<u8>) -> Result<Self, LinkError> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(algorithm.digest_bytes()) {
            return Err(LinkError::Length { algorithm, bytes: bytes.len() });
        }
        let count = bytes.len() / algorithm.digest_bytes();
        if first.as_usize().saturating_add(count) > Geometry::MAX_CHUNKS as usize {
            return Err(LinkError::BeyondTheEnd { first, count });
        }
        Ok(Self { algorithm, first, bytes: bytes.into() })
    }

    /// One chunk's link.
    #[must_use]
    pub fn single(chunk: ChunkIndex, link: Link) -> Self {
        Self { algorithm: link.algorithm(), first: chunk, bytes: link.as_bytes().into() }
    }

    /// The hash's algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The first link's chunk.
    #[must_use]
    pub const fn first(&self) -> ChunkIndex {
        self.first
    }

    /// The links' packed bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many links; at least one.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_CHUNKS, checked by new")]
    pub const fn count(&self) -> u32 {
        (self.bytes.len() / self.algorithm.digest_bytes()) as u32
    }

    /// This chunk's link, if the run has it.
    #[must_use]
    pub fn get(&self, chunk: ChunkIndex) -> Option<Link> {
        let at = chunk.get().checked_sub(self.first.get())? as usize;
        self.bytes.chunks_exact(self.algorithm.digest_bytes()).nth(at).map(|bytes| self.link(bytes))
    }

    /// Every link with its chunk, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkIndex, Link)> + '_ {
        // An inclusive range doesn't overflow after its last number, which may be a single link's.
        let chunks = (self.first.get()..=u32::MAX).map(ChunkIndex::new);
        chunks.zip(self.bytes.chunks_exact(self.algorithm.digest_bytes()).map(|bytes| self.link(bytes)))
    }

    fn link(&self, bytes: &[u8]) -> Link {
        Link::from_bytes(self.algorithm, bytes).expect("a run is a whole number of links")
    }
}

impl fmt::Debug for LinkRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "links {}+{}", self.first, self.count())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn algorithms() -> impl Strategy<Value = Algorithm> {
        prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)]
    }

    proptest! {
        #[test]
        fn a_run_gives_its_bytes_back(
            algorithm in algorithms(), first in 0..Geometry::MAX_CHUNKS - 6, links in prop::collection::vec(any::<[u8; 32]>(), 1..6),
        ) {
            let bytes = links.as_flattened().repeat(algorithm.digest_bytes() / 32);
            let run = LinkRun::new(algorithm, ChunkIndex::new(first), bytes.clone()).unwrap();
            prop_assert_eq!(run.as_bytes(), &bytes);
            prop_assert_eq!(run.count() as usize, links.len());
            let listed: Vec<_> = run.iter().collect();
            prop_assert_eq!(listed.iter().flat_map(|(_, link)| link.as_bytes().to_vec()).collect::<Vec<_>>(), bytes);
            for (at, (chunk, link)) in listed.into_iter().enumerate() {
                prop_assert_eq!(chunk.as_usize(), first as usize + at);
                prop_assert_eq!(run.get(chunk), Some(link));
            }
        }

        #[test]
        fn bytes_of_a_peer_never_panic(
            algorithm in algorithms(), first in any::<u32>(), bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Ok(run) = LinkRun::new(algorithm, ChunkIndex::new(first), bytes) {
                prop_assert_eq!(run.iter().count(), run.count() as usize);
            }
        }

        #[test]
        fn a_run_has_no_other_links(algorithm in algorithms(), first in 1_u32..100, count in 1_u32..5) {
            let bytes = vec![7; count as usize * algorithm.digest_bytes()];
            let run = LinkRun::new(algorithm, ChunkIndex::new(first), bytes).unwrap();
            prop_assert_eq!(run.get(ChunkIndex::new(first - 1)), None);
            prop_assert_eq!(run.get(ChunkIndex::new(first + count)), None);
        }
    }

    #[test]
    fn bytes_that_are_not_links_are_refused_with_the_reason() {
        let zero = ChunkIndex::new(0);
        for (algorithm, bytes) in [(Algorithm::Sha256, 0), (Algorithm::Sha256, 33), (Algorithm::Sha512, 32)] {
            let error = LinkError::Length { algorithm, bytes };
            assert_eq!(LinkRun::new(algorithm, zero, vec![0; bytes]), Err(error.clone()));
            assert_eq!(Link::from_bytes(algorithm, &vec![0; bytes]), Err(error));
        }
        let last = ChunkIndex::new(Geometry::MAX_CHUNKS - 1);
        assert!(LinkRun::new(Algorithm::Sha256, last, vec![0; 32]).is_ok());
        for first in [last, ChunkIndex::new(u32::MAX)] {
            let error = LinkError::BeyondTheEnd { first, count: 2 };
            assert_eq!(LinkRun::new(Algorithm::Sha256, first, vec![0; 64]), Err(error));
        }
    }

    #[test]
    fn a_single_link_is_a_run_wherever_it_is() {
        let link = Link::initial(Algorithm::Sha512);
        for chunk in [0, 5, u32::MAX].map(ChunkIndex::new) {
            let run = LinkRun::single(chunk, link);
            assert_eq!(run.iter().collect::<Vec<_>>(), [(chunk, link)]);
            assert_eq!(run.get(chunk), Some(link));
        }
    }

    #[test]
    fn a_digest_is_a_link() {
        let digest = Digest::Sha256([9; 32]);
        assert_eq!(Link::from(digest), Link::Sha256([9; 32]));
        assert_eq!(Link::from(digest).algorithm(), digest.algorithm());
    }
}
