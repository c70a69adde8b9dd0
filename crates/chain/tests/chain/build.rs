//! Chains built from bytes in order, against the ordinary hash.

use crate::common::{Blob, edge_sizes, ordinary_digest};
use proptest::prelude::*;
use shoal_chain::{Chain, ChainBuilder, ChainError, ChunkProof, FinishError, Link, LinkRun, OpenChain, StartError};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Digest, Rng};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// Pushes the bytes in random pieces, from single bytes to several chunks, and gives all proofs.
fn build(mut builder: ChainBuilder, bytes: &[u8], rng: &mut Rng) -> Result<Vec<ChunkProof>, FinishError> {
    let mut proofs = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let longest = 1 << rng.below(19);
        let (piece, after) = rest.split_at(rng.below(longest + 1).min(rest.len()));
        assert_eq!(builder.missing_bytes(), rest.len() as u64);
        builder.push(piece, |proof| proofs.push(proof)).unwrap();
        rest = after;
    }
    proofs.push(builder.finish()?);
    Ok(proofs)
}

fn blobs() -> impl Strategy<Value = (Blob, Rng)> {
    let size = prop_oneof![
        0_usize..600_000,
        (0_usize..5, -1_isize..=1).prop_map(|(chunks, more)| { (chunks << 16).saturating_add_signed(more) })
    ];
    (any::<bool>(), size, 16_u32..19, any::<u64>()).prop_map(|(long, size, chunk_bits, seed)| {
        let mut rng = Rng::new(seed);
        let chunk_size = ChunkSize::new(1 << chunk_bits).unwrap();
        (Blob::random(ALGORITHMS[usize::from(long)], size, chunk_size, &mut rng), rng)
    })
}

proptest! {
    #[test]
    fn any_pieces_give_the_ordinary_digest((blob, mut rng) in blobs()) {
        let mut proofs = build(ChainBuilder::new(blob.info), &blob.bytes, &mut rng).unwrap();
        prop_assert_eq!(proofs.iter().map(ChunkProof::chunk).collect::<Vec<_>>(), blob.info.geometry.chunks().collect::<Vec<_>>());
        prop_assert_eq!(proofs.last().unwrap().link_after(), blob.info.digest.into());

        let mut open = OpenChain::new(blob.info);
        rng.shuffle(&mut proofs);
        for proof in &proofs {
            open.add(proof).unwrap();
        }
        let closed = open.close().unwrap();
        for proof in proofs {
            prop_assert_eq!(closed.chain().link_before(proof.chunk()), Some(proof.link_before()));
            prop_assert_eq!(closed.chain().link_after(proof.chunk()), Some(proof.link_after()));
        }
    }

    #[test]
    fn resuming_at_any_link_gives_the_same_rest((blob, mut rng) in blobs()) {
        let chain = blob.chain();
        let next = ChunkIndex::new(u32::try_from(rng.below(blob.info.geometry.chunk_count() as usize)).unwrap());
        let builder = ChainBuilder::resume(blob.info, next, chain.link_before(next).unwrap()).unwrap();
        let start = usize::try_from(blob.info.geometry.byte_range(next).unwrap().start).unwrap();
        for proof in build(builder, &blob.bytes[start..], &mut rng).unwrap() {
            prop_assert_eq!(chain.link_before(proof.chunk()), Some(proof.link_before()));
            prop_assert_eq!(chain.link_after(proof.chunk()), Some(proof.link_after()));
        }
    }

    #[test]
    fn other_bytes_give_their_own_digest((blob, mut rng) in blobs()) {
        let mut bytes = blob.bytes.clone();
        if bytes.is_empty() {
            return Ok(());
        }
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        let found = ordinary_digest(blob.info.digest.algorithm(), &bytes);
        prop_assert_eq!(build(ChainBuilder::new(blob.info), &bytes, &mut rng), Err(FinishError::Digest { found }));
    }
}

#[test]
fn every_edge_size_has_the_ordinary_digest() {
    let mut rng = Rng::new(1);
    for algorithm in ALGORITHMS {
        for size in edge_sizes(64 << 10) {
            let blob = Blob::random(algorithm, size, ChunkSize::MIN, &mut rng);
            let proofs = build(ChainBuilder::new(blob.info), &blob.bytes, &mut rng).unwrap();
            assert_eq!(proofs.len(), size.div_ceil(64 << 10).max(1), "{size}");
            assert_eq!(proofs.last().unwrap().link_after(), blob.info.digest.into(), "{size}");
        }
    }
}

/// A link is the digest without padding, so the state after n chunks must be where the hash of n chunks and their padding starts.
#[test]
fn a_link_does_not_depend_on_what_follows() {
    let mut rng = Rng::new(2);
    for algorithm in ALGORITHMS {
        let long = Blob::random(algorithm, 5 << 16, ChunkSize::MIN, &mut rng);
        let short = Blob::of(algorithm, long.bytes[..(3 << 16) + 7].to_vec(), ChunkSize::MIN);
        let (long, short) = (long.chain(), short.chain());
        for chunk in [0, 1, 2].map(ChunkIndex::new) {
            assert_eq!(long.link_after(chunk), short.link_after(chunk));
        }
        assert_ne!(long.link_after(ChunkIndex::new(3)), short.link_after(ChunkIndex::new(3)));
    }
}

#[test]
fn too_many_bytes_are_refused_whole() {
    for size in [0, 1, 64 << 10, (64 << 10) + 1] {
        let blob = Blob::random(Algorithm::Sha256, size, ChunkSize::MIN, &mut Rng::new(3));
        let mut longer = blob.bytes.clone();
        longer.push(0);
        let mut builder = ChainBuilder::new(blob.info);
        assert!(builder.push(&longer, |_| panic!("nothing is taken")).is_err());
        builder.push(&blob.bytes, |_| ()).unwrap();
        let error = builder.push(&[1, 2], |_| ()).unwrap_err();
        assert_eq!(error.to_string(), format!("2 bytes more than the {size} that the blob has"));
        assert!(builder.finish().is_ok());
    }
}

#[test]
fn missing_bytes_are_told_from_wrong_ones() {
    let blob = Blob::random(Algorithm::Sha256, (64 << 10) + 5, ChunkSize::MIN, &mut Rng::new(4));
    for kept in [0, 1, 64 << 10, (64 << 10) + 4] {
        let mut builder = ChainBuilder::new(blob.info);
        builder.push(&blob.bytes[..kept], |_| ()).unwrap();
        let missing = (blob.bytes.len() - kept) as u64;
        assert_eq!(builder.finish(), Err(FinishError::Incomplete { missing }));
    }
    let wrong = BlobInfo { digest: Digest::Sha256([0; 32]), ..blob.info };
    let mut builder = ChainBuilder::new(wrong);
    builder.push(&blob.bytes, |_| ()).unwrap();
    assert_eq!(builder.finish(), Err(FinishError::Digest { found: blob.info.digest }));
}

#[test]
fn resuming_wants_a_chunk_and_a_link_of_the_blob() {
    let blob = Blob::random(Algorithm::Sha256, 3 << 16, ChunkSize::MIN, &mut Rng::new(5));
    let chain = blob.chain();
    let [one, three] = [1, 3].map(ChunkIndex::new);
    let resume = |chunk, link| ChainBuilder::resume(blob.info, chunk, link).map(|_| ());
    assert_eq!(resume(three, chain.link_after(one).unwrap()), Err(StartError::NoSuchChunk { chunk: three, chunks: 3 }));
    assert_eq!(
        resume(one, Link::initial(Algorithm::Sha512)),
        Err(StartError::Algorithm { link: Algorithm::Sha512, blob: Algorithm::Sha256 })
    );
    // A false link is found out at the end, at the latest.
    let mut builder = ChainBuilder::resume(blob.info, one, chain.link_after(one).unwrap()).unwrap();
    builder.push(&blob.bytes[1 << 16..], |_| ()).unwrap();
    assert!(matches!(builder.finish(), Err(FinishError::Digest { .. })));
    // Nobody's word replaces the initial state.
    let mut builder = ChainBuilder::resume(blob.info, ChunkIndex::new(0), chain.link_after(one).unwrap()).unwrap();
    builder.push(&blob.bytes, |_| ()).unwrap();
    assert!(builder.finish().is_ok());
}

#[test]
fn links_that_cannot_be_a_blobs_chain_are_refused_with_the_reason() {
    let blob = Blob::random(Algorithm::Sha256, 3 << 16, ChunkSize::MIN, &mut Rng::new(6));
    let links = blob.chain().links().as_bytes().to_vec();
    let run = |algorithm, first, bytes: &[u8]| LinkRun::new(algorithm, ChunkIndex::new(first), bytes.to_vec()).unwrap();
    let extent = |first, count| ChainError::Extent { first: ChunkIndex::new(first), count, chunks: 3 };
    let flipped_last: Vec<u8> = links.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 95)).collect();
    let cases = [
        (run(Algorithm::Sha512, 0, &links[..64]), Some(ChainError::Algorithm)),
        (run(Algorithm::Sha256, 0, &links[..64]), Some(extent(0, 2))),
        (run(Algorithm::Sha256, 1, &links), Some(extent(1, 3))),
        (run(Algorithm::Sha256, 0, &flipped_last), Some(ChainError::LastLink)),
        (run(Algorithm::Sha256, 0, &links), None),
    ];
    for (links, error) in cases {
        assert_eq!(Chain::new(blob.info, links).err(), error);
    }
}
