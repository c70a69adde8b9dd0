//! A digest, computed as bytes pass.
//!
//! State: the hash so far. Absent on purpose: chains; what a client gets it checks as a whole, as a runtime does.

use sha2::{Digest as _, Sha256, Sha512};
use shoal_types::{Algorithm, Digest};

/// A hash that isn't finished.
pub(super) enum Checksum {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Checksum {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }

    /// Whether these are the digest's bytes.
    pub(super) fn matches(digest: &Digest, bytes: &[u8]) -> bool {
        let mut checksum = Self::new(digest.algorithm());
        checksum.update(bytes);
        checksum.finish() == *digest
    }
}
