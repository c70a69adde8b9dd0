//! The journal's records: how they are written, and what is left of them after whatever happened.
//!
//! State: none; a journal is bytes.
//! Invariants: reading never panics and never goes past the first record that isn't exactly as it was written at that place of that
//! blob's journal.
//! Absent on purpose: files; see `blob`.

use std::fmt;

use sha2::{Digest as _, Sha256};
use shoal_chain::Link;
use shoal_types::{BlobInfo, BlobKey, ChunkIndex, ChunkSet, Geometry};

use crate::proofs::Ends;

/// Kind and length before a record's payload.
const HEAD_BYTES: usize = 5;
/// 64 bits of SHA-256 behind it: a torn record passes once in 10^19.
const CHECK_BYTES: usize = 8;

/// Which run of the node's kernel: after a crash it is another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; 16]);

impl BootId {
    /// The boot id of these bits.
    #[must_use]
    pub const fn new(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// The kernel's boot id, as `/proc/sys/kernel/random/boot_id` has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex: String = text.trim().chars().filter(|digit| *digit != '-').collect();
        (hex.len() == 32).then(|| u128::from_str_radix(&hex, 16).ok()).flatten().map(Self::new)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Blob { size_bytes: u64 },
    Boot(BootId),
    Proven { chunk: ChunkIndex, ends: Ends },
    Links(&'a [u8]),
    Sealed,
}

impl Record<'_> {
    /// The record as it stands at `offset` of the journal of `key`.
    pub(super) fn encode(&self, key: &BlobKey, offset: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        let kind = match self {
            Self::Blob { size_bytes } => {
                payload.extend_from_slice(&size_bytes.to_le_bytes());
                1
            }
            Self::Boot(boot) => {
                payload.extend_from_slice(&boot.0);
                2
            }
            Self::Proven { chunk, ends } => {
                payload.extend_from_slice(&chunk.get().to_le_bytes());
                payload.extend_from_slice(ends.before.as_bytes());
                payload.extend_from_slice(ends.after.as_bytes());
                3
            }
            Self::Links(bytes) => {
                payload.extend_from_slice(bytes);
                4
            }
            Self::Sealed => 5,
        };
        let length = u32::try_from(payload.len()).expect("links are bounded far below 4 GiB");
        let mut record = Vec::with_capacity(HEAD_BYTES + payload.len() + CHECK_BYTES);
        record.push(kind);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&payload);
        let check = check(key, offset, &record);
        record.extend_from_slice(&check);
        record
    }
}

/// The records of a journal, in order, as far as it is whole. Each comes with the offset behind it.
pub(super) fn records<'a>(key: &'a BlobKey, journal: &'a [u8]) -> impl Iterator<Item = (Record<'a>, u64)> {
    let mut offset = 0_usize;
    std::iter::from_fn(move || {
        let (record, bytes) = decode(key, offset as u64, journal.get(offset..)?)?;
        offset += bytes;
        Some((record, offset as u64))
    })
}

fn decode<'a>(key: &BlobKey, offset: u64, bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_le_bytes(head[1..].try_into().ok()?) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    let found = rest.get(..CHECK_BYTES)?;
    if check(key, offset, &bytes[..HEAD_BYTES + length]) != found {
        return None;
    }
    let record = match head[0] {
        1 => Record::Blob { size_bytes: u64::from_le_bytes(payload.try_into().ok()?) },
        2 => Record::Boot(BootId(payload.try_into().ok()?)),
        3 => {
            let (chunk, links) = payload.split_first_chunk::<4>()?;
            let algorithm = key.digest.algorithm();
            let (before, after) = links.split_at_checked(algorithm.digest_bytes())?;
            let ends = Ends {
                before: Link::from_bytes(algorithm, before).ok()?,
                after: Link::from_bytes(algorithm, after).ok()?,
            };
            Record::Proven { chunk: ChunkIndex::new(u32::from_le_bytes(*chunk)), ends }
        }
        4 => Record::Links(payload),
        5 => Record::Sealed,
        _ => return None,
    };
    Some((record, HEAD_BYTES + length + CHECK_BYTES))
}

/// Bound to blob and offset, so that neither a block of another journal nor a record that links have in them passes for one.
fn check(key: &BlobKey, offset: u64, head_and_payload: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update(key.digest.algorithm().name());
    hash.update(key.digest.as_bytes());
    hash.update(key.chunk_size.bytes().to_le_bytes());
    hash.update(offset.to_le_bytes());
    hash.update(head_and_payload);
    let hash: [u8; 32] = hash.finalize().into();
    *hash.first_chunk().expect("32 bytes have 8")
}

/// What a journal says of its blob.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) blob: BlobInfo,
    pub(super) verified: ChunkSet,
    pub(super) suspect: ChunkSet,
    pub(super) sealed: bool,
    pub(super) links_bytes: u64,
    /// Where the next record goes.
    pub(super) len: u64,
    /// Whether that will be under the boot id that was recorded last.
    pub(super) same_boot: bool,
}

/// Reads a blob's journal on the node's present boot. None if not even the first record is whole: the blob had not begun.
pub(super) fn replay(key: &BlobKey, journal: &[u8], now: BootId) -> Option<Replayed> {
    let mut records = records(key, journal);
    let (Record::Blob { size_bytes }, len) = records.next()? else { return None };
    let geometry = Geometry::new(size_bytes, key.chunk_size).ok()?;
    let mut replayed = Replayed {
        blob: BlobInfo { digest: key.digest, geometry },
        verified: ChunkSet::empty_of(geometry),
        suspect: ChunkSet::empty_of(geometry),
        sealed: false,
        links_bytes: 0,
        len,
        same_boot: false,
    };
    let mut boot = None;
    for (record, len) in records {
        match record {
            Record::Boot(next) => {
                if boot != Some(next) {
                    replayed.doubt();
                }
                boot = Some(next);
            }
            Record::Proven { chunk, .. } if geometry.contains(chunk) => {
                replayed.verified.insert(chunk);
                replayed.suspect.remove(chunk);
            }
            Record::Links(bytes) => replayed.links_bytes += bytes.len() as u64,
            Record::Sealed => replayed.sealed = true,
            // Our own check fits it, but we never write such a thing: go no further.
            Record::Blob { .. } | Record::Proven { .. } => break,
        }
        replayed.len = len;
    }
    replayed.same_boot = boot == Some(now);
    if !replayed.same_boot {
        replayed.doubt();
    }
    Some(replayed)
}

impl Replayed {
    /// The node has been restarted since: nothing is sure any more.
    fn doubt(&mut self) {
        self.suspect.union_with(&self.verified);
        self.verified = ChunkSet::empty(self.verified.capacity());
        self.sealed = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_types::{Algorithm, ChunkSize, Digest};

    use super::*;

    fn key(byte: u8) -> BlobKey {
        BlobKey { digest: Digest::Sha256([byte; 32]), chunk_size: ChunkSize::MIN }
    }

    fn write(key: &BlobKey, records: &[Record<'_>]) -> Vec<u8> {
        let mut journal = Vec::new();
        for record in records {
            let bytes = record.encode(key, journal.len() as u64);
            journal.extend_from_slice(&bytes);
        }
        journal
    }

    fn ends() -> Ends {
        let link = Link::initial(Algorithm::Sha256);
        Ends { before: link, after: link }
    }

    fn proven(chunk: u32) -> Record<'static> {
        Record::Proven { chunk: ChunkIndex::new(chunk), ends: ends() }
    }

    const SIZE: Record<'static> = Record::Blob { size_bytes: 5 << 16 };
    const FIRST: BootId = BootId::new(1);
    const SECOND: BootId = BootId::new(2);

    fn indices(set: &ChunkSet) -> Vec<u32> {
        set.iter().map(ChunkIndex::get).collect()
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let written = [SIZE, Record::Boot(FIRST), proven(3), Record::Links(b"abc"), Record::Links(b""), Record::Sealed];
        let journal = write(&key(1), &written);
        assert_eq!(records(&key(1), &journal).map(|(record, _)| record).collect::<Vec<_>>(), written);
        assert_eq!(records(&key(2), &journal).count(), 0, "another blob's journal says nothing");
    }

    #[test]
    fn another_boot_makes_chunks_suspect_until_they_are_proven_again() {
        let (boot, again) = (Record::Boot(FIRST), Record::Boot(SECOND));
        type Case<'a> = (&'a [Record<'a>], BootId, &'a [u32], &'a [u32], bool);
        let cases: [Case<'_>; 6] = [
            (&[SIZE], FIRST, &[], &[], false),
            (&[SIZE, boot.clone(), proven(0), proven(3)], FIRST, &[0, 3], &[], true),
            (&[SIZE, boot.clone(), proven(0), proven(3)], SECOND, &[], &[0, 3], false),
            (&[SIZE, boot.clone(), proven(0), proven(3), again.clone(), proven(3)], SECOND, &[3], &[0], true),
            (&[SIZE, boot.clone(), proven(0), again.clone(), proven(3)], FIRST, &[], &[0, 3], false),
            (&[SIZE, boot.clone(), proven(0), boot, proven(3)], FIRST, &[0, 3], &[], true),
        ];
        for (records, now, verified, suspect, same_boot) in cases {
            let journal = write(&key(1), records);
            let replayed = replay(&key(1), &journal, now).unwrap();
            assert_eq!(indices(&replayed.verified), verified, "{records:?}");
            assert_eq!(indices(&replayed.suspect), suspect, "{records:?}");
            assert_eq!(replayed.same_boot, same_boot, "{records:?}");
            assert_eq!(replayed.len, journal.len() as u64);
        }
    }

    #[test]
    fn a_journal_ends_at_what_is_not_whole() {
        let journal = write(&key(1), &[SIZE, Record::Boot(FIRST), proven(0), Record::Links(&[7; 100]), proven(1)]);
        let ends: Vec<u64> = records(&key(1), &journal).map(|(_, end)| end).collect();
        for cut in 0..journal.len() {
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(records(&key(1), &journal[..cut]).count(), whole, "cut at {cut}");
            let mut torn = journal.clone();
            torn[cut] ^= 0x10;
            assert_eq!(records(&key(1), &torn).count(), whole, "torn at {cut}");
            torn.truncate(cut);
            torn.resize(journal.len(), 0);
            assert_eq!(records(&key(1), &torn).count(), whole, "zeros from {cut} on");
        }
    }

    #[test]
    fn a_record_inside_links_is_not_read_even_where_a_torn_one_ended() {
        let head = write(&key(1), &[SIZE, Record::Boot(FIRST)]);
        // What a malicious publisher could put into links: a record that claims a chunk.
        let forged = proven(4).encode(&key(1), 0);
        let mut journal = head;
        journal.extend_from_slice(&forged);
        assert!(replay(&key(1), &journal, FIRST).unwrap().verified.is_empty());
    }

    #[test]
    fn what_no_blob_has_ends_the_journal() {
        let journal = write(&key(1), &[SIZE, Record::Boot(FIRST), proven(4), proven(5), proven(0)]);
        let replayed = replay(&key(1), &journal, FIRST).unwrap();
        assert_eq!(indices(&replayed.verified), [4]);
        assert!(replay(&key(1), &write(&key(1), &[Record::Boot(FIRST), SIZE]), FIRST).is_none());
        assert!(replay(&key(1), &write(&key(1), &[Record::Blob { size_bytes: u64::MAX }]), FIRST).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_journal_that_ends_somewhere(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(records(&key(1), &bytes).count(), 0);
            prop_assert!(replay(&key(1), &bytes, FIRST).is_none());
        }
    }

    #[test]
    fn a_boot_id_is_32_hex_digits() {
        let id = BootId::parse("0123abcd-0000-4000-8000-00000000ffff\n").unwrap();
        assert_eq!(format!("{id:?}"), "0123abcd00004000800000000000ffff");
        assert_eq!(BootId::parse(""), None);
        assert_eq!(BootId::parse("0123abcd-0000-4000-8000-00000000fffg"), None);
    }
}
