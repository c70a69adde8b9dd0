//! A hash in progress that starts at any link: whole blocks go to the compression function as they lie in the caller's memory.
//!
//! State: the eight words of the hash, and the bytes of a block that isn't complete yet.
//! Invariants: less than one block is pending; no other byte of the input is ever copied.
//! Absent on purpose: how many bytes came. The padding needs the whole message's length, which the blob's geometry knows.

use sha2::block_api::{compress256, compress512};
use shoal_types::Algorithm;

use crate::Link;

/// A hash of either algorithm.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Blocks<u32, 64>),
    Sha512(Blocks<u64, 128>),
}

impl Hasher {
    /// A hash that goes on from a state.
    pub(crate) fn new(from: Link) -> Self {
        match from {
            Link::Sha256(bytes) => Self::Sha256(Blocks::new(words256(&bytes))),
            Link::Sha512(bytes) => Self::Sha512(Blocks::new(words512(&bytes))),
        }
    }

    /// Hashes the bytes, up to the last whole block.
    pub(crate) fn absorb(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(blocks) => blocks.absorb(bytes),
            Self::Sha512(blocks) => blocks.absorb(bytes),
        }
    }

    /// The state after a whole number of blocks.
    pub(crate) fn link(&self) -> Link {
        match self {
            Self::Sha256(blocks) => link256(&blocks.at_boundary()),
            Self::Sha512(blocks) => link512(&blocks.at_boundary()),
        }
    }

    /// The state after the padding of a message of so many bytes, of which these were the last: its digest.
    pub(crate) fn padded(self, message_bytes: u64) -> Link {
        match self {
            Self::Sha256(blocks) => link256(&blocks.padded(message_bytes)),
            Self::Sha512(blocks) => link512(&blocks.padded(message_bytes)),
        }
    }
}

/// The state before a message's first block: FIPS 180-4, sections 5.3.3 and 5.3.5.
pub(crate) fn initial(algorithm: Algorithm) -> Link {
    match algorithm {
        Algorithm::Sha256 => link256(&[
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ]),
        Algorithm::Sha512 => link512(&[
            0x6a09_e667_f3bc_c908,
            0xbb67_ae85_84ca_a73b,
            0x3c6e_f372_fe94_f82b,
            0xa54f_f53a_5f1d_36f1,
            0x510e_527f_ade6_82d1,
            0x9b05_688c_2b3e_6c1f,
            0x1f83_d9ab_fb41_bd6b,
            0x5be0_cd19_137e_2179,
        ]),
    }
}

/// A word size with the compression function that works on it.
pub(crate) trait Word<const BLOCK: usize>: Copy {
    fn compress(state: &mut [Self; 8], blocks: &[[u8; BLOCK]]);
}

impl Word<64> for u32 {
    fn compress(state: &mut [Self; 8], blocks: &[[u8; 64]]) {
        compress256(state, blocks);
    }
}

impl Word<128> for u64 {
    fn compress(state: &mut [Self; 8], blocks: &[[u8; 128]]) {
        compress512(state, blocks);
    }
}

/// A state and the start of the next block.
#[derive(Clone)]
pub(crate) struct Blocks<W, const BLOCK: usize> {
    state: [W; 8],
    pending: [u8; BLOCK],
    filled: usize,
}

impl<W: Word<BLOCK>, const BLOCK: usize> Blocks<W, BLOCK> {
    const fn new(state: [W; 8]) -> Self {
        Self { state, pending: [0; BLOCK], filled: 0 }
    }

    fn absorb(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.pending[self.filled..][..head.len()].copy_from_slice(head);
            self.filled += head.len();
            if self.filled < BLOCK {
                return;
            }
            W::compress(&mut self.state, &[self.pending]);
            bytes = rest;
        }
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        if !blocks.is_empty() {
            W::compress(&mut self.state, blocks);
        }
        self.pending[..tail.len()].copy_from_slice(tail);
        self.filled = tail.len();
    }

    fn at_boundary(&self) -> [W; 8] {
        assert_eq!(self.filled, 0, "a link is a state between blocks");
        self.state
    }

    /// FIPS 180-4, section 5.1: a one bit, zeros, and the message's length in bits, which takes the last eighth of a block.
    fn padded(mut self, message_bytes: u64) -> [W; 8] {
        let length_at = BLOCK - BLOCK / 8;
        self.pending[self.filled] = 0x80;
        self.pending[self.filled + 1..].fill(0);
        if self.filled >= length_at {
            W::compress(&mut self.state, &[self.pending]);
            self.pending.fill(0);
        }
        let bits = (u128::from(message_bytes) * 8).to_be_bytes();
        self.pending[length_at..].copy_from_slice(&bits[bits.len() - BLOCK / 8..]);
        W::compress(&mut self.state, &[self.pending]);
        self.state
    }
}

fn words256(bytes: &[u8; 32]) -> [u32; 8] {
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|at| u32::from_be_bytes(words[at]))
}

fn words512(bytes: &[u8; 64]) -> [u64; 8] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(words[at]))
}

fn link256(state: &[u32; 8]) -> Link {
    let mut bytes = [0; 32];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    Link::Sha256(bytes)
}

fn link512(state: &[u64; 8]) -> Link {
    let mut bytes = [0; 64];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    Link::Sha512(bytes)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256, Sha512};

    use super::*;

    /// Every length around the first three blocks of either hash, so every place where the padding can begin.
    #[test]
    fn padding_begins_anywhere_in_a_block() {
        let message: Vec<u8> = (0..=255).cycle().take(400).collect();
        for len in 0..message.len() {
            let bytes = &message[..len];
            let expected = [Link::Sha256(Sha256::digest(bytes).into()), Link::Sha512(Sha512::digest(bytes).into())];
            for link in expected {
                let mut hasher = Hasher::new(initial(link.algorithm()));
                hasher.absorb(bytes);
                assert_eq!(hasher.padded(len as u64), link, "{len}");
            }
        }
    }

    #[test]
    fn the_cut_into_pieces_does_not_matter() {
        let message: Vec<u8> = (0..=255).cycle().take(1 << 10).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut whole = Hasher::new(initial(algorithm));
            whole.absorb(&message);
            for piece in 1..=300 {
                let mut hasher = Hasher::new(initial(algorithm));
                message.chunks(piece).for_each(|bytes| hasher.absorb(bytes));
                assert_eq!(hasher.link(), whole.link(), "{piece}");
            }
        }
    }
}
