//! Links: hash states between chunks.

use std::fmt;

use shoal_types::{Algorithm, ChunkIndex, Digest};

/// A hash's state after a chunk, as big-endian bytes: what the digest would be if there were no padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Eight 32-bit words.
    Sha256([u8; 32]),
    /// Eight 64-bit words.
    Sha512([u8; 64]),
}

impl Link {
    /// The link of these bytes.
    ///
    /// # Errors
    /// If there are more or fewer than the algorithm's state has.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, LinkError> {
        let error = || LinkError { algorithm, bytes: bytes.len() };
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

/// The bytes aren't a whole number of links.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not a whole number of {} states", algorithm.name())]
pub struct LinkError {
    algorithm: Algorithm,
    bytes: usize,
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
    /// If the bytes are not a whole number of links, or none.
    pub fn new(algorithm: Algorithm, first: ChunkIndex, bytes: Vec<u8>) -> Result<Self, LinkError> {
        if bytes.is_empty() || bytes.len() % algorithm.digest_bytes() != 0 {
            return Err(LinkError { algorithm, bytes: bytes.len() });
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
    #[allow(clippy::cast_possible_truncation, reason = "a frame's length, which bounds the bytes, is a u32")]
    pub const fn count(&self) -> u32 {
        (self.bytes.len() / self.algorithm.digest_bytes()) as u32
    }

    /// Every link with its chunk, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ChunkIndex, Link)> + '_ {
        let links = self.bytes.chunks_exact(self.algorithm.digest_bytes());
        (self.first.get()..).map(ChunkIndex::new).zip(links.map(|bytes| match self.algorithm {
            Algorithm::Sha256 => Link::Sha256(std::array::from_fn(|at| bytes[at])),
            Algorithm::Sha512 => Link::Sha512(std::array::from_fn(|at| bytes[at])),
        }))
    }
}

impl fmt::Debug for LinkRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "links {}+{}", self.first, self.count())
    }
}
