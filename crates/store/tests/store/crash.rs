//! Whatever a process did and wherever it ended: no wrong byte, and next to nothing lost.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use proptest::prelude::*;
use shoal_store::{BootId, DiskStore, Store};
use shoal_types::{BlobKey, ChunkIndex, ChunkSet};

use crate::support::{Content, NO_QUOTA, TempDir, blob_files, limits, set};

const CHUNKS: u32 = 6;
const BLOBS: usize = 3;

static CONTENTS: LazyLock<Vec<Content>> =
    LazyLock::new(|| (0..BLOBS as u64).map(|seed| Content::chunks(seed, u64::from(CHUNKS))).collect());

#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    Keep(usize, u32),
    Links(usize, u8),
    Seal(usize),
    Recheck(usize, u32),
    Remove(usize),
    /// The process ends without a word and starts again.
    Restart,
    /// As a restart, but its last record was torn: the journal ends within so many bytes of its end, as they are, or as zeros.
    Torn {
        blob: usize,
        bytes: usize,
        zeros: bool,
    },
    /// The node was started anew; where some bytes of a chunk were not written before that, they are others now.
    Reboot {
        lost: Option<(usize, u32)>,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let blob = 0..BLOBS;
    let op = prop_oneof![
        2 => blob.clone().prop_map(Op::Begin),
        12 => (blob.clone(), 0..CHUNKS).prop_map(|(blob, chunk)| Op::Keep(blob, chunk)),
        2 => (blob.clone(), any::<u8>()).prop_map(|(blob, byte)| Op::Links(blob, byte)),
        1 => blob.clone().prop_map(Op::Seal),
        2 => (blob.clone(), 0..CHUNKS).prop_map(|(blob, chunks)| Op::Recheck(blob, chunks)),
        1 => blob.clone().prop_map(Op::Remove),
        2 => Just(Op::Restart),
        2 => (blob.clone(), 0_usize..120, any::<bool>()).prop_map(|(blob, bytes, zeros)| Op::Torn { blob, bytes, zeros }),
        1 => prop::option::of((blob, 0..CHUNKS)).prop_map(|lost| Op::Reboot { lost }),
    ];
    prop::collection::vec(op, 1..60)
}

/// What must be there.
#[derive(Clone, Debug)]
struct Expected {
    /// Readable now, or after a recheck.
    kept: ChunkSet,
    /// Not readable before a recheck.
    suspect: ChunkSet,
    /// What the journal says was kept. A recheck's bad news isn't in it: a process that starts later hears them from its own recheck.
    recorded: ChunkSet,
    links: Vec<Vec<u8>>,
}

impl Expected {
    fn restart(&mut self) {
        let forgotten: Vec<_> = self.recorded.iter().filter(|chunk| !self.kept.contains(*chunk)).collect();
        for chunk in forgotten {
            self.kept.insert(chunk);
            self.suspect.insert(chunk);
        }
    }
}

fn path_of(dir: &TempDir, content: &Content, extension: &str) -> Option<std::path::PathBuf> {
    let name = content.info.digest.to_string().replace(':', "-");
    blob_files(dir.path(), extension).into_iter().find(|path| path.to_str().is_some_and(|path| path.contains(&name)))
}

/// What is left of a blob whose journal lost `lost` bytes at its end: what the records before them said. A record of a chunk takes 81
/// bytes, so at most two are hit.
fn forget_torn(expected: &mut Expected, store: &DiskStore, key: &BlobKey, lost: usize) {
    let stored = store.stored(key).unwrap();
    let gone =
        expected.kept.iter().filter(|chunk| !stored.verified.contains(*chunk) && !stored.suspect.contains(*chunk));
    assert!(gone.count() <= lost.div_ceil(81).min(2), "more was lost than the torn records");
    assert!(stored.verified.iter().chain(stored.suspect.iter()).all(|chunk| expected.kept.contains(chunk)));
    expected.kept = stored.verified.clone();
    expected.kept.union_with(&stored.suspect);
    expected.suspect = stored.suspect;
    expected.recorded = expected.kept.clone();
    let links = store.links(key).unwrap();
    assert!(expected.links.starts_with(&links), "links are lost from the end only");
    expected.links = links;
}

fn run(ops: Vec<Op>) {
    let dir = TempDir::new();
    let contents = &*CONTENTS;
    let mut boot = 1;
    let open = |boot| DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), BootId::new(boot)).unwrap();
    let mut store = open(boot);
    let mut model: BTreeMap<usize, Expected> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Begin(at) => {
                store.begin(contents[at].info).unwrap();
                let nothing = ChunkSet::empty(CHUNKS);
                let [kept, suspect, recorded] = [(); 3].map(|()| nothing.clone());
                model.entry(at).or_insert(Expected { kept, suspect, recorded, links: Vec::new() });
            }
            Op::Keep(at, chunk) => {
                let kept = contents[at].keep_in(&store, chunk);
                assert_eq!(kept.is_ok(), model.contains_key(&at));
                if let Some(expected) = model.get_mut(&at) {
                    expected.kept.insert(ChunkIndex::new(chunk));
                    expected.recorded.insert(ChunkIndex::new(chunk));
                    expected.suspect.remove(ChunkIndex::new(chunk));
                }
            }
            Op::Links(at, byte) => {
                if let Some(expected) = model.get_mut(&at) {
                    let links = vec![byte; usize::from(byte) / 4];
                    store.keep_links(&contents[at].key(), &links).unwrap();
                    expected.links.push(links);
                }
            }
            Op::Seal(at) => {
                let sealed = store.seal(&contents[at].key());
                let whole =
                    model.get(&at).is_some_and(|expected| expected.kept.is_full() && expected.suspect.is_empty());
                assert_eq!(sealed.is_ok(), whole, "{sealed:?}");
            }
            Op::Recheck(at, chunks) => {
                if let Some(expected) = model.get_mut(&at) {
                    let mut left = chunks;
                    let mut pace = |_| {
                        left = left.saturating_sub(1);
                        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    let stored = store.recheck(&contents[at].key(), &mut pace).unwrap();
                    // Damaged chunks are found here and nowhere else.
                    expected.kept = stored.verified.clone();
                    expected.kept.union_with(&stored.suspect);
                    expected.suspect = stored.suspect;
                }
            }
            Op::Remove(at) => {
                let removed = store.remove(&contents[at].key()).unwrap();
                assert_eq!(removed, model.remove(&at).is_some());
            }
            Op::Restart => {
                drop(store);
                store = open(boot);
                model.values_mut().for_each(Expected::restart);
            }
            Op::Torn { blob, bytes, zeros } => {
                drop(store);
                let mut lost = 0;
                if let Some(journal) = path_of(&dir, &contents[blob], "journal") {
                    let mut content = fs::read(&journal).unwrap();
                    // The blob's first two records were written before anything could be lost.
                    lost = bytes.min(content.len() - 50);
                    let whole = content.len();
                    content.truncate(whole - lost);
                    if zeros {
                        content.resize(whole, 0);
                    }
                    fs::write(&journal, content).unwrap();
                }
                store = open(boot);
                model.values_mut().for_each(Expected::restart);
                if let Some(expected) = model.get_mut(&blob) {
                    forget_torn(expected, &store, &contents[blob].key(), lost);
                }
            }
            Op::Reboot { lost } => {
                drop(store);
                if let Some((at, chunk)) = lost
                    && let Some(data) = path_of(&dir, &contents[at], "data")
                {
                    let mut bytes = fs::read(&data).unwrap();
                    bytes[chunk as usize * 65_536 + 1000] ^= 0xff;
                    fs::write(&data, bytes).unwrap();
                }
                boot += 1;
                store = open(boot);
                for expected in model.values_mut() {
                    expected.restart();
                    expected.suspect = expected.kept.clone();
                }
            }
        }
        for (at, content) in contents.iter().enumerate() {
            let stored = store.stored(&content.key());
            assert_eq!(stored.is_some(), model.contains_key(&at));
            let (Some(stored), Some(expected)) = (stored, model.get(&at)) else { continue };
            let mut readable = expected.kept.clone();
            expected.suspect.iter().for_each(|chunk| assert!(readable.remove(chunk)));
            assert_eq!(stored.verified, readable);
            assert_eq!(stored.suspect, expected.suspect);
            assert_eq!(store.links(&content.key()).unwrap(), expected.links);
            content.check_in(&store, &readable);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_history_gives_a_wrong_byte_or_loses_what_was_verified(ops in ops()) {
        run(ops);
    }
}

#[test]
fn a_journal_torn_at_any_byte_loses_the_records_from_there_on() {
    let dir = TempDir::new();
    let content = Content::chunks(7, 20);
    let open = || DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), BootId::new(1)).unwrap();
    content.store_in(&open(), 0..20);
    let journal = blob_files(dir.path(), "journal").remove(0);
    let whole = fs::read(&journal).unwrap();
    // The record of a chunk: kind, length, chunk, two links, check.
    let record = 1 + 4 + 4 + 64 + 8;
    let head = whole.len() - 20 * record;
    for cut in head..whole.len() {
        let before: u32 = ((cut - head) / record).try_into().unwrap();
        let mut torn = whole.clone();
        // In turn; the journal's own tests try each at each byte.
        match cut % 3 {
            0 => torn.truncate(cut),
            1 => torn[cut] ^= 1,
            _ => torn[cut..].fill(0),
        }
        // A byte that was zero anyway is no tear.
        let before = if torn == whole { 20 } else { before };
        fs::write(&journal, &torn).unwrap();
        let store = open();
        assert_eq!(store.stored(&content.key()).unwrap().verified, set(20, 0..before), "torn at {cut}");
    }
    // One torn record of twenty is within the 5 % that may be lost; and the journal goes on behind the cut.
    fs::write(&journal, &whole[..whole.len() - 1]).unwrap();
    let store = open();
    content.check_in(&store, &set(20, 0..19));
    content.keep_in(&store, 19).unwrap();
    drop(store);
    let store = open();
    store.seal(&content.key()).unwrap();
    content.check_in(&store, &ChunkSet::full(20));
    // Torn within its first records, a blob hasn't begun.
    drop(store);
    fs::write(&journal, &whole[..10]).unwrap();
    assert!(open().list().is_empty());
    assert!(blob_files(dir.path(), "data").is_empty());
}

#[test]
fn opening_reads_no_chunk() {
    // Data files without a right byte in them: whoever hashed them again would notice.
    let dir = TempDir::new();
    let contents: Vec<Content> = (0..100).map(|seed| Content::chunks(seed, 8)).collect();
    let open = || DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), BootId::new(1)).unwrap();
    {
        let store = open();
        contents.iter().for_each(|content| content.store_in(&store, 0..8));
    }
    for data in blob_files(dir.path(), "data") {
        let len = fs::metadata(&data).unwrap().len();
        let file = fs::File::create(&data).unwrap();
        file.set_len(len).unwrap();
    }
    let store = open();
    assert_eq!(store.list().iter().filter(|stored| stored.verified.is_full()).count(), 100);
}
