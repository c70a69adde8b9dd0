//! Chunks verified one by one, in any order: what passes, what doesn't, and what it proves when all have passed.

use crate::common::{Blob, edge_sizes, ordinary_digest};
use proptest::prelude::*;
use shoal_chain::{
    BadChunk, Chain, ChunkProof, ChunkVerifier, Link, LinkRun, OpenChain, ProofError, StartError, verify_chunk,
};
use shoal_types::{Algorithm, BlobInfo, ChunkIndex, ChunkSize, Digest, Rng};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(&ALGORITHMS[..])
}

/// One to five chunks; the last of any length.
fn blobs() -> impl Strategy<Value = (Blob, Rng)> {
    (algorithms(), 0_usize..5 << 16, 16_u32..18, any::<u64>()).prop_map(|(algorithm, size, chunk_bits, seed)| {
        let mut rng = Rng::new(seed);
        (Blob::random(algorithm, size, ChunkSize::new(1 << chunk_bits).unwrap(), &mut rng), rng)
    })
}

fn random_chunk(blob: &BlobInfo, rng: &mut Rng) -> ChunkIndex {
    ChunkIndex::new(u32::try_from(rng.below(blob.geometry.chunk_count() as usize)).unwrap())
}

/// Whether every chunk of `data` passes under these links.
fn all_pass(blob: &BlobInfo, data: &[u8], links: &[Link]) -> bool {
    blob.geometry.chunks().all(|chunk| {
        let range = blob.geometry.byte_range(chunk).unwrap();
        let start = usize::try_from(range.start).unwrap();
        // What is cut off is missing from the chunks that it was in; what is added makes the last one longer.
        let end = if chunk == blob.geometry.last_chunk() { data.len() } else { start + range.len as usize };
        let bytes = data.get(start.min(data.len())..end.min(data.len())).unwrap_or_default();
        passes(blob, chunk, bytes, links)
    })
}

fn passes(blob: &BlobInfo, chunk: ChunkIndex, bytes: &[u8], links: &[Link]) -> bool {
    let before = chunk.as_usize().checked_sub(1).map_or_else(|| Link::initial(blob.digest.algorithm()), |at| links[at]);
    verify_chunk(blob, chunk, bytes, before, links[chunk.as_usize()]).is_ok()
}

fn links_of(chain: &Chain) -> Vec<Link> {
    chain.links().iter().map(|(_, link)| link).collect()
}

/// The link with one bit changed.
fn flipped(link: Link, bit: usize) -> Link {
    let mut bytes = link.as_bytes().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Link::from_bytes(link.algorithm(), &bytes).unwrap()
}

proptest! {
    #[test]
    fn chunks_verify_in_any_order_and_close_the_chain((blob, mut rng) in blobs()) {
        let built = blob.closed_chain();
        let mut order: Vec<ChunkIndex> = blob.info.geometry.chunks().collect();
        rng.shuffle(&mut order);
        let mut open = OpenChain::new(blob.info);
        for chunk in order {
            prop_assert!(open.clone().close().is_err());
            let proof = built.chain().verify(chunk, blob.chunk(chunk)).unwrap();
            open.add(&proof).unwrap();
            prop_assert_eq!(open.link(chunk), built.chain().link_after(chunk));
            prop_assert!(open.proven().contains(chunk));
        }
        prop_assert_eq!(open.close().unwrap(), built);
    }

    #[test]
    fn a_chunk_verifies_while_it_arrives_in_any_pieces((blob, mut rng) in blobs()) {
        let chain = blob.chain();
        let chunk = random_chunk(&blob.info, &mut rng);
        let (before, after) = (chain.link_before(chunk).unwrap(), chain.link_after(chunk).unwrap());
        let mut verifier = ChunkVerifier::new(&blob.info, chunk, before, after).unwrap();
        let mut rest = blob.chunk(chunk);
        while !rest.is_empty() {
            prop_assert_eq!(verifier.missing_bytes() as usize, rest.len());
            let too_short = BadChunk::TooShort { chunk, missing: rest.len() };
            prop_assert_eq!(verifier.clone().finish(), Err(too_short));
            let longest = 1 << rng.below(17);
            let (piece, after) = rest.split_at(rng.below(longest + 1).min(rest.len()));
            verifier.update(piece).unwrap();
            rest = after;
        }
        prop_assert_eq!(verifier.update(&[0]), Err(BadChunk::TooLong { chunk }));
        prop_assert_eq!(verifier.finish(), verify_chunk(&blob.info, chunk, blob.chunk(chunk), before, after));
    }

    #[test]
    fn a_flipped_bit_of_a_chunk_fails_that_chunk((blob, mut rng) in blobs()) {
        let chain = blob.chain();
        for _ in 0..8 {
            let chunk = random_chunk(&blob.info, &mut rng);
            let mut bytes = blob.chunk(chunk).to_vec();
            if !bytes.is_empty() {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
                prop_assert_eq!(chain.verify(chunk, &bytes), Err(BadChunk::Mismatch { chunk }));
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_a_link_fails_the_chunks_beside_it((blob, mut rng) in blobs()) {
        let links = links_of(&blob.chain());
        for _ in 0..8 {
            let at = random_chunk(&blob.info, &mut rng);
            let bit = rng.below(links[0].as_bytes().len() * 8);
            check_flipped_link(&blob, &links, at, bit);
        }
    }

    /// What the whole design rests on. Data and links are falsified in every way that keeps or nearly keeps them together; the
    /// chunks all pass only if the bytes have the digest.
    #[test]
    fn a_blob_whose_chunks_all_pass_has_the_digest((blob, mut rng) in blobs(), falsities in prop::collection::vec(0_u8..7, 0..3)) {
        let mut data = blob.bytes.clone();
        let mut links = links_of(&blob.chain());
        for falsity in falsities {
            falsify(falsity, &blob, &mut data, &mut links, &mut rng);
        }
        let has_digest = ordinary_digest(blob.info.digest.algorithm(), &data) == blob.info.digest;
        prop_assert_eq!(has_digest, data == blob.bytes);
        let all_pass = all_pass(&blob.info, &data, &links);
        // The last link isn't needed to verify anything: the digest takes its place.
        let needed = links.len() - 1;
        prop_assert_eq!(all_pass, has_digest && links[..needed] == links_of(&blob.chain())[..needed]);
    }
}

/// One falsification: of the data, of the links, or of both so that they still fit.
fn falsify(kind: u8, blob: &Blob, data: &mut Vec<u8>, links: &mut [Link], rng: &mut Rng) {
    let (one, other) = (random_chunk(&blob.info, rng).as_usize(), random_chunk(&blob.info, rng).as_usize());
    let chunk_bytes = blob.info.geometry.chunk_size().bytes() as usize;
    match kind {
        0 if !data.is_empty() => {
            let at = rng.below(data.len());
            data[at] ^= 1 << rng.below(8);
        }
        1 => links[one] = flipped(links[one], rng.below(256)),
        2 => links.swap(one, other),
        3 => data.truncate(rng.below(data.len() + 1)),
        4 => data.push(0),
        5 => {
            let (from, to) = (one.min(other) * chunk_bytes, one.max(other) * chunk_bytes);
            if to + chunk_bytes <= data.len() && from != to {
                let (head, tail) = data.split_at_mut(to);
                head[from..from + chunk_bytes].swap_with_slice(&mut tail[..chunk_bytes]);
            }
        }
        // A lead that lies: wrong bytes, and links that fit them from there on.
        6 if !data.is_empty() && data.len() == blob.bytes.len() => {
            let at = rng.below(data.len());
            data[at] ^= 1 << rng.below(8);
            let lie = Blob::of(blob.info.digest.algorithm(), data.clone(), blob.info.geometry.chunk_size());
            links.copy_from_slice(&links_of(&lie.chain()));
        }
        _ => {}
    }
}

/// A chunk's link is checked by the chunk, and by the one after it. The last one is the digest, which the last chunk checks.
fn check_flipped_link(blob: &Blob, links: &[Link], at: ChunkIndex, bit: usize) {
    let mut false_links = links.to_vec();
    false_links[at.as_usize()] = flipped(links[at.as_usize()], bit);
    if at == blob.info.geometry.last_chunk() {
        let bytes = false_links.iter().flat_map(|link| link.as_bytes().to_vec()).collect();
        let run = LinkRun::new(blob.info.digest.algorithm(), ChunkIndex::new(0), bytes).unwrap();
        assert!(Chain::new(blob.info, run).is_err(), "the link of chunk {at}, bit {bit}");
        let false_blob = BlobInfo { digest: digest(false_links[at.as_usize()]), ..blob.info };
        assert!(!passes(&false_blob, at, blob.chunk(at), links), "the digest, bit {bit}");
    } else {
        for chunk in [at, at.next()] {
            assert!(!passes(&blob.info, chunk, blob.chunk(chunk), &false_links), "chunk {chunk}, link {at}, bit {bit}");
        }
    }
}

fn digest(link: Link) -> Digest {
    match link {
        Link::Sha256(bytes) => Digest::Sha256(bytes),
        Link::Sha512(bytes) => Digest::Sha512(bytes),
    }
}

#[test]
fn every_flipped_bit_of_every_link_is_found() {
    for algorithm in ALGORITHMS {
        let blob = Blob::random(algorithm, (2 << 16) + 1, ChunkSize::MIN, &mut Rng::new(1));
        let links = links_of(&blob.chain());
        for at in blob.info.geometry.chunks() {
            (0..algorithm.digest_bytes() * 8).for_each(|bit| check_flipped_link(&blob, &links, at, bit));
        }
    }
}

#[test]
fn every_edge_size_verifies_backwards() {
    let mut rng = Rng::new(2);
    for algorithm in ALGORITHMS {
        for size in edge_sizes(64 << 10) {
            let blob = Blob::random(algorithm, size, ChunkSize::MIN, &mut rng);
            let chain = blob.chain();
            let mut open = OpenChain::new(blob.info);
            for chunk in blob.info.geometry.chunks().rev() {
                open.add(&chain.verify(chunk, blob.chunk(chunk)).unwrap()).unwrap();
            }
            assert_eq!(*open.close().unwrap().chain(), chain, "{size}");
        }
    }
}

#[test]
fn the_ends_of_a_chain_are_nobodys_word() {
    let blob = Blob::random(Algorithm::Sha256, 2 << 16, ChunkSize::MIN, &mut Rng::new(3));
    let chain = blob.chain();
    let [first, last] = [0, 1].map(ChunkIndex::new);
    let middle = chain.link_after(first).unwrap();
    let lie = Link::Sha512([1; 64]);
    let proof = verify_chunk(&blob.info, first, blob.chunk(first), lie, middle).unwrap();
    assert_eq!(proof.link_before(), Link::initial(Algorithm::Sha256));
    let proof = verify_chunk(&blob.info, last, blob.chunk(last), middle, lie).unwrap();
    assert_eq!(proof.link_after(), blob.info.digest.into());
}

#[test]
fn what_cannot_be_verified_is_told_from_what_is_wrong() {
    let blob = Blob::random(Algorithm::Sha256, (2 << 16) + 9, ChunkSize::MIN, &mut Rng::new(4));
    let chain = blob.chain();
    let [one, two, three] = [1, 2, 3].map(ChunkIndex::new);
    let none = StartError::NoSuchChunk { chunk: three, chunks: 3 };
    assert_eq!(chain.verify(three, &[]), Err(BadChunk::Start(none)));
    assert_eq!((chain.link_before(three), chain.link_after(three)), (None, None));
    let (before, after) = (chain.link_before(one).unwrap(), chain.link_after(one).unwrap());
    let other = BadChunk::Start(StartError::Algorithm { link: Algorithm::Sha512, blob: Algorithm::Sha256 });
    for (before, after) in [(Link::Sha512([0; 64]), after), (before, Link::Sha512([0; 64]))] {
        assert_eq!(verify_chunk(&blob.info, one, blob.chunk(one), before, after), Err(other.clone()));
    }
    assert_eq!(chain.verify(two, &blob.chunk(two)[1..]), Err(BadChunk::TooShort { chunk: two, missing: 1 }));
    assert_eq!(chain.verify(two, blob.chunk(one)), Err(BadChunk::TooLong { chunk: two }));
    assert_eq!(chain.verify(two, &[0; 9]), Err(BadChunk::Mismatch { chunk: two }));
}

/// Two blobs that share their first chunk and no other: the chunk after it proves one thing in each.
#[test]
fn proofs_that_contradict_each_other_do_not_close_a_chain() {
    let mut rng = Rng::new(5);
    let blob = Blob::random(Algorithm::Sha256, 3 << 16, ChunkSize::MIN, &mut rng);
    let [zero, one, two] = [0, 1, 2].map(ChunkIndex::new);
    let chain = blob.chain();
    let right = |chunk| chain.verify(chunk, blob.chunk(chunk)).unwrap();

    // A lie of the kind that passes for a while: other bytes for chunk 1, and a link that fits them.
    let mut data = blob.bytes.clone();
    data[1 << 16] ^= 1;
    let lie = Blob::of(Algorithm::Sha256, data, ChunkSize::MIN);
    let (before, after) = (chain.link_before(one).unwrap(), lie.chain().link_after(one).unwrap());
    let wrong: ChunkProof = verify_chunk(&blob.info, one, lie.chunk(one), before, after).unwrap();

    let mut open = OpenChain::new(blob.info);
    open.add(&right(zero)).unwrap();
    open.add(&wrong).unwrap();
    assert_eq!(open.add(&right(two)), Err(ProofError::Contradiction { chunk: two, link_of: one }));
    assert!(!open.proven().contains(two));
    assert_eq!(open.link(one), Some(after));
    assert_eq!(open.add(&right(one)), Err(ProofError::Contradiction { chunk: one, link_of: one }));

    assert!(open.forget(one));
    assert_eq!(open.link(one), None);
    assert_eq!(open.clone().close().unwrap_err().to_string(), "2 chunks are not proven yet, the first is 1");
    open.add(&right(two)).unwrap();
    assert_eq!(open.add(&wrong), Err(ProofError::Contradiction { chunk: one, link_of: one }));
    open.add(&right(one)).unwrap();
    assert_eq!(*open.close().unwrap().chain(), chain);
}

#[test]
fn a_proof_of_another_blob_is_refused() {
    let mut rng = Rng::new(6);
    let blob = Blob::random(Algorithm::Sha256, 1 << 17, ChunkSize::MIN, &mut rng);
    let recut = Blob::of(Algorithm::Sha256, blob.bytes.clone(), ChunkSize::new(1 << 17).unwrap());
    let zero = ChunkIndex::new(0);
    let proof = recut.chain().verify(zero, &recut.bytes).unwrap();
    assert_eq!(OpenChain::new(blob.info).add(&proof), Err(ProofError::OtherBlob));
}
