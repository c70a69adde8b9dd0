//! Content that is generated from a seed, at any offset.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use shoal_types::{Digest, Rng};

/// Random bytes come in blocks with a seed each, so that any offset can be reached. A page: seeding costs little against filling it.
const BLOCK_BYTES: u64 = 4096;

/// A blob's bytes.
#[derive(Clone, Debug)]
pub struct Content {
    segments: Arc<[Segment]>,
    len: u64,
}

#[derive(Clone, Debug)]
enum Segment {
    Bytes(Bytes),
    Random { seed: u64, len: u64 },
    Zeros { len: u64 },
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Random { len, .. } | Self::Zeros { len } => *len,
        }
    }
}

impl Content {
    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::of(vec![Segment::Bytes(bytes.into())])
    }

    /// Random bytes: the same for the same seed.
    #[must_use]
    pub fn random(seed: u64, len: u64) -> Self {
        Self::of(vec![Segment::Random { seed, len }])
    }

    /// A layer of exactly `len` bytes that a runtime can unpack: a tar archive with one file of random bytes. Where no archive can have that
    /// length (below 2 KiB, and from 8 GiB on, where the format changes), random bytes.
    #[must_use]
    pub fn layer(seed: u64, len: u64) -> Self {
        // A header, the file in whole blocks, at least two blocks of zeros.
        const BLOCK: u64 = 512;
        if !(4 * BLOCK..8 << 30).contains(&len) {
            return Self::random(seed, len);
        }
        let file = (len - 3 * BLOCK) / BLOCK * BLOCK;
        let header = Bytes::copy_from_slice(&tar_header(&format!("shoal/{seed:016x}"), 0o644, file));
        Self::of(vec![
            Segment::Bytes(header),
            Segment::Random { seed, len: file },
            Segment::Zeros { len: len - BLOCK - file },
        ])
    }

    /// A layer with these files, each with a path of at most 100 bytes; all may be executed.
    #[must_use]
    pub fn files_layer(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        const BLOCK: u64 = 512;
        let mut segments = Vec::new();
        for (path, bytes) in files {
            let len = bytes.len() as u64;
            segments.push(Segment::Bytes(Bytes::copy_from_slice(&tar_header(&path, 0o755, len))));
            segments.push(Segment::Bytes(bytes));
            segments.push(Segment::Zeros { len: len.next_multiple_of(BLOCK) - len });
        }
        segments.push(Segment::Zeros { len: 2 * BLOCK });
        Self::of(segments)
    }

    fn of(segments: Vec<Segment>) -> Self {
        let len = segments.iter().map(Segment::len).sum();
        Self { segments: segments.into(), len }
    }

    /// How many bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Up to `max` bytes from `offset` on; none only at the end.
    #[must_use]
    pub fn read(&self, offset: u64, max: usize) -> Bytes {
        let mut start = 0;
        for segment in &*self.segments {
            let end = start + segment.len();
            if offset < end {
                let within = offset - start;
                let len = usize::try_from(end - offset).unwrap_or(max).min(max);
                return read_segment(segment, within, len);
            }
            start = end;
        }
        Bytes::new()
    }

    /// All of it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::new();
        self.pieces().for_each(|piece| all.extend_from_slice(&piece));
        all.freeze()
    }

    /// Its SHA-256 digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        self.pieces().for_each(|piece| hasher.update(&piece));
        Digest::Sha256(hasher.finalize().into())
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let piece = self.read(offset, 64 << 10);
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

fn read_segment(segment: &Segment, offset: u64, len: usize) -> Bytes {
    match segment {
        Segment::Bytes(bytes) => {
            let start = usize::try_from(offset).unwrap_or(bytes.len());
            bytes.slice(start..start + len)
        }
        Segment::Zeros { .. } => Bytes::from(vec![0; len]),
        Segment::Random { seed, .. } => {
            let (first, skip) = (offset / BLOCK_BYTES, usize::try_from(offset % BLOCK_BYTES).unwrap_or_default());
            let mut bytes = BytesMut::with_capacity(skip + len + 4096);
            for block in first.. {
                if bytes.len() >= skip + len {
                    break;
                }
                let mut rng = Rng::new(seed.rotate_left(32) ^ block);
                (0..BLOCK_BYTES / 8).for_each(|_| bytes.extend_from_slice(&rng.next_u64().to_le_bytes()));
            }
            bytes.freeze().slice(skip..skip + len)
        }
    }
}

/// A header in the ustar format.
fn tar_header(name: &str, mode: u32, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}\0"));
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // The checksum counts itself as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_offset_gives_the_same_bytes(seed in any::<u64>(), len in 0_u64..20_000, offset in 0_u64..20_000, max in 1_usize..9000) {
            let content = Content::layer(seed, len);
            let all = content.to_bytes();
            prop_assert_eq!(all.len() as u64, len);
            let read = content.read(offset, max);
            let start = usize::try_from(offset.min(len)).unwrap();
            prop_assert_eq!(&read[..], &all[start..start + read.len()]);
            prop_assert_eq!(read.is_empty(), offset >= len);
        }
    }

    #[test]
    fn a_layer_is_an_archive_that_ends_as_archives_do() {
        let all = Content::layer(7, 10_000).to_bytes();
        assert_eq!(&all[257..262], b"ustar");
        let size = u64::from_str_radix(std::str::from_utf8(&all[124..135]).unwrap(), 8).unwrap();
        assert_eq!(size, 8192);
        assert!(all[512 + 8192..].iter().all(|byte| *byte == 0));
        assert!(all.len() - 512 - 8192 >= 1024);
    }
}
