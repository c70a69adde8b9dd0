//! Batches of links as they travel: signed by who computed them, so that a false link has an author.
//!
//! State: links and a signature over them.
//! Invariants: a [`VerifiedLinks`] was signed by its publisher, as it is. Two batches that differ have different signed bytes, so
//! that nobody who passes a batch on can make its publisher seem to have said something else.
//! Absent on purpose: keys, and whether the links fit the blob, or are true.

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
    /// What the signature is over: a domain separator, then every field at a place that the two algorithms' names fix.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let digest = self.blob.digest.as_bytes();
        let geometry = self.blob.geometry;
        let mut bytes = Vec::with_capacity(72 + digest.len() + self.run.as_bytes().len());
        bytes.extend_from_slice(b"shoal links v1\0");
        bytes.extend_from_slice(self.blob.digest.algorithm().name().as_bytes());
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&geometry.size_bytes().to_be_bytes());
        bytes.extend_from_slice(&geometry.chunk_size().bytes().to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        // Two SHA-256 links are as long as one of SHA-512: without its name a run could be read in both ways.
        bytes.extend_from_slice(self.run.algorithm().name().as_bytes());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use shoal_types::{Algorithm, ChunkIndex, ChunkSize, Digest, Geometry};

    use super::*;
    use crate::Link;

    /// A toy signature: the signed bytes folded into 64, starting from the node's key.
    struct Keys(BTreeMap<NodeId, u8>);

    impl Keys {
        fn sign(&self, node: NodeId, bytes: &[u8]) -> Signature {
            let key = self.0[&node];
            let mut signature = [key; 64];
            for (at, byte) in bytes.iter().enumerate() {
                signature[at % 64] = signature[at % 64].rotate_left(3) ^ byte;
            }
            Signature(signature)
        }
    }

    impl LinkVerifier for Keys {
        fn is_signed_by(&self, publisher: NodeId, bytes: &[u8], signature: &Signature) -> bool {
            self.sign(publisher, bytes) == *signature
        }
    }

    fn digests() -> impl Strategy<Value = Digest> {
        (any::<bool>(), 0_u8..2).prop_map(|(long, byte)| match long {
            false => Digest::Sha256([byte; 32]),
            true => Digest::Sha512([byte; 64]),
        })
    }

    fn runs() -> impl Strategy<Value = LinkRun> {
        (any::<bool>(), 0_u32..2, 1_usize..3, 0_u8..2).prop_map(|(long, first, count, byte)| {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            LinkRun::new(algorithm, ChunkIndex::new(first), vec![byte; 64 * count]).unwrap()
        })
    }

    /// Few values for each field, so that pairs of batches often agree in most of them.
    fn batches() -> impl Strategy<Value = LinkBatch> {
        (digests(), 0_u64..2, 16_u32..18, 0_u64..2, runs()).prop_map(|(digest, size, chunk, epoch, run)| {
            let geometry = Geometry::new(size, ChunkSize::new(1 << chunk).unwrap()).unwrap();
            LinkBatch { blob: BlobInfo { digest, geometry }, epoch, run }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn different_batches_have_different_signed_bytes(one in batches(), other in batches()) {
            prop_assert_eq!(one == other, one.signed_bytes() == other.signed_bytes());
        }
    }

    #[test]
    fn a_run_read_as_the_other_algorithms_is_another_batch() {
        let geometry = Geometry::new(1, ChunkSize::MIN).unwrap();
        let blob = BlobInfo { digest: Digest::Sha256([1; 32]), geometry };
        let [one, other] = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| {
            let run = LinkRun::new(algorithm, ChunkIndex::new(0), vec![5; 64]).unwrap();
            LinkBatch { blob, epoch: 1, run }.signed_bytes()
        });
        assert_ne!(one, other);
    }

    #[test]
    fn only_the_publishers_signature_verifies() {
        let [lead, other] = [NodeId::new(1), NodeId::new(2)];
        let keys = Keys(BTreeMap::from([(lead, 11), (other, 22)]));
        let geometry = Geometry::new(70_000, ChunkSize::MIN).unwrap();
        let blob = BlobInfo { digest: Digest::Sha256([1; 32]), geometry };
        let run = LinkRun::single(ChunkIndex::new(0), Link::initial(Algorithm::Sha256));
        let batch = LinkBatch { blob, epoch: 3, run };
        let signature = keys.sign(lead, &batch.signed_bytes());
        let signed = SignedLinks { batch, publisher: lead, signature };

        let verified = signed.clone().verify(&keys).unwrap();
        assert_eq!(*verified.get(), signed);
        assert_eq!(verified.into_inner(), signed);
        assert_eq!(VerifiedLinks::trusted(signed.clone()).into_inner(), signed);

        let mut later = signed.clone();
        later.batch.epoch += 1;
        assert_eq!(later.verify(&keys), Err(ForgedLinks { publisher: lead }));
        let blamed = SignedLinks { publisher: other, ..signed };
        assert_eq!(blamed.verify(&keys), Err(ForgedLinks { publisher: other }));
    }
}
