//! Batches of links as they travel: signed by who computed them, so that a false link has an author.

use shoal_types::{BlobInfo, NodeId};

use crate::LinkRun;

/// Links of a blob and the lease under which they were computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkBatch {
    /// The blob and how it is cut.
    pub blob: BlobInfo,
    /// The lease's epoch: a later lead's links outrank an earlier one's.
    pub epoch: u64,
    /// The links.
    pub run: LinkRun,
}

impl LinkBatch {
    /// What the signature is over: a domain separator, then every field at a fixed place.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let digest = self.blob.digest.as_bytes();
        let geometry = self.blob.geometry;
        let mut bytes = Vec::with_capacity(64 + digest.len() + self.run.as_bytes().len());
        bytes.extend_from_slice(b"shoal links v1\0");
        bytes.extend_from_slice(self.blob.digest.algorithm().name().as_bytes());
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&geometry.size_bytes().to_be_bytes());
        bytes.extend_from_slice(&geometry.chunk_size().bytes().to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.run.first().get().to_be_bytes());
        bytes.extend_from_slice(self.run.as_bytes());
        bytes
    }
}

/// A signature of a node's certificate key, in the 64-byte form that Ed25519 and fixed-length P-256 share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// Checks signatures: the driver knows the certificates.
pub trait LinkVerifier {
    /// Whether `publisher`'s key made `signature` over `bytes`.
    fn is_signed_by(&self, publisher: NodeId, bytes: &[u8], signature: &Signature) -> bool;
}

/// A batch as it comes from outside: whoever sent it says that `publisher` signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLinks {
    /// The links.
    pub batch: LinkBatch,
    /// Who is said to have signed them.
    pub publisher: NodeId,
    /// The signature.
    pub signature: Signature,
}

impl SignedLinks {
    /// The batch, if the signature is the publisher's.
    ///
    /// # Errors
    /// If it isn't: the sender forged it or passed it on unchecked.
    pub fn verify(self, verifier: &dyn LinkVerifier) -> Result<VerifiedLinks, ForgedLinks> {
        if verifier.is_signed_by(self.publisher, &self.batch.signed_bytes(), &self.signature) {
            Ok(VerifiedLinks(self))
        } else {
            Err(ForgedLinks { publisher: self.publisher })
        }
    }
}

/// A batch whose signature was checked. Its links may still be false, but then its publisher is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLinks(SignedLinks);

impl VerifiedLinks {
    /// A batch that this process signed itself, or kept since it checked it.
    #[must_use]
    pub const fn trusted(links: SignedLinks) -> Self {
        Self(links)
    }

    /// The batch with its signature.
    #[must_use]
    pub const fn get(&self) -> &SignedLinks {
        &self.0
    }

    /// The batch with its signature, to keep or to send on.
    #[must_use]
    pub fn into_inner(self) -> SignedLinks {
        self.0
    }
}

/// A batch's signature is not its publisher's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("links that {publisher} is said to have signed carry another signature")]
pub struct ForgedLinks {
    publisher: NodeId,
}
