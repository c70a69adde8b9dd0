//! What every store does, whatever it is made of.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use shoal_store::{
    DiskStore, Faults, FaultyStore, Limits, MemoryStore, RuntimeStore, Shortage, Standing, Store, StoreError,
};
use shoal_types::{BlobInfo, ChunkIndex, ChunkSet, Geometry};

use crate::support::{CHUNK, Content, NO_QUOTA, TempDir, limits, set};

type Make<'a> = &'a dyn Fn(Limits) -> Arc<dyn Store>;
type Case = fn(Make<'_>);

const SUITE: &[(&str, Case)] = &[
    ("a chunk that was kept is read back, the others are refused", chunks_are_kept_and_read),
    ("ranges may cross chunks and end anywhere", ranges),
    ("blobs of no bytes and of a byte", tiny_blobs),
    ("what doesn't fit the blob is refused", misfits),
    ("a verified chunk never changes", verified_chunks_stay),
    ("links come back in order", links),
    ("more links than a swarm has are refused", too_many_links),
    ("a blob is sealed when its proofs join", sealing),
    ("a chain that doesn't join isn't sealed", false_chains),
    ("a removed blob is gone and may come again", removal),
    ("the quota holds, and what failed doesn't count", quota),
    ("there are so many blobs", blob_count),
    ("room is made by evicting what is worth least", making_room),
    ("room that can't be made evicts nothing", making_no_room),
    ("unfinished blobs that nobody uses are removed", abandoned),
    ("recheck has nothing to do", recheck),
    ("threads don't get into each other's way", threads),
];

fn run_suite(make: Make<'_>) {
    for (name, case) in SUITE {
        eprintln!("{name}");
        case(make);
    }
}

#[test]
fn memory() {
    run_suite(&|limits| Arc::new(MemoryStore::new(limits)));
}

#[test]
fn disk() {
    let dirs = TempDir::new();
    let count = std::cell::Cell::new(0_u32);
    run_suite(&|limits| {
        count.set(count.get() + 1);
        Arc::new(DiskStore::open(&dirs.path().join(count.get().to_string()), limits).unwrap())
    });
}

#[test]
fn faulty_without_faults() {
    run_suite(&|limits| Arc::new(FaultyStore::new(MemoryStore::new(limits), Faults::default())));
}

#[test]
fn beside_a_runtime_that_lends_nothing() {
    run_suite(&|limits| Arc::new(RuntimeStore::new(Arc::new(MemoryStore::new(limits)))));
}

fn chunks_are_kept_and_read(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::new(1, 5 * CHUNK + 100);
    assert!(store.stored(&content.key()).is_none());
    assert!(matches!(content.keep_in(&*store, 0), Err(StoreError::Absent)));
    let begun = store.begin(content.info).unwrap();
    assert_eq!((begun.verified.len(), begun.suspect.len(), begun.sealed), (0, 0, false));
    let mut expected = ChunkSet::empty(content.count());
    for chunk in [5, 0, 3, 1] {
        content.check_in(&*store, &expected);
        content.keep_in(&*store, chunk).unwrap();
        expected.insert(ChunkIndex::new(chunk));
        assert_eq!(store.stored(&content.key()).unwrap().verified, expected);
    }
    content.check_in(&*store, &expected);
    assert_eq!(store.begin(content.info).unwrap().verified, expected, "going on");
    let listed = store.list();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].blob, &listed[0].verified), (content.info, &expected));
    assert!(listed[0].own_bytes >= 3 * CHUNK + 100);
    assert!(listed[0].own_bytes < 4 * CHUNK, "a sparse file's holes don't count");
    assert_eq!(store.usage().own_bytes, listed[0].own_bytes);
}

fn ranges(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let size = 3 * CHUNK + 100;
    let content = Content::new(2, size);
    content.store_in(&*store, [0, 1, 3]);
    let read = |offset: u64, len: u64| {
        let mut buf = vec![0; usize::try_from(len).unwrap()];
        store.read_at(&content.key(), offset, &mut buf).map(|()| buf)
    };
    for (offset, len) in
        [(0, 0), (0, 1), (CHUNK - 1, 2), (5, 2 * CHUNK - 5), (3 * CHUNK, 100), (size - 1, 1), (size, 0)]
    {
        let (from, to) = (usize::try_from(offset).unwrap(), usize::try_from(offset + len).unwrap());
        assert!(read(offset, len).unwrap() == content.bytes[from..to], "{offset}+{len}");
    }
    for (offset, len) in [(2 * CHUNK, 1), (0, size), (2 * CHUNK - 1, 2), (3 * CHUNK - 1, 2)] {
        let error = read(offset, len).unwrap_err();
        assert!(matches!(error, StoreError::NotVerified { chunk } if chunk.get() == 2), "{offset}+{len}: {error}");
    }
    assert_eq!(read(2 * CHUNK + 5, 0).unwrap(), [], "no byte of a missing chunk");
    for (offset, len) in [(size, 1), (size - 1, 2), (u64::MAX, 1), (u64::MAX, 0), (size + 1, 0)] {
        assert!(matches!(read(offset, len), Err(StoreError::BeyondTheEnd { .. })), "{offset}+{len}");
    }
}

fn tiny_blobs(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    for size in [0, 1] {
        let content = Content::new(3, size);
        store.begin(content.info).unwrap();
        assert!(matches!(store.seal(&content.key()), Err(StoreError::Incomplete { missing: 1 })));
        content.keep_in(&*store, 0).unwrap();
        store.seal(&content.key()).unwrap();
        content.check_in(&*store, &set(1, [0]));
        assert!(store.stored(&content.key()).unwrap().sealed);
    }
}

fn misfits(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(4, 3);
    content.store_in(&*store, [0]);
    let geometry = Geometry::new(2 * CHUNK, content.info.geometry.chunk_size()).unwrap();
    let shorter = BlobInfo { geometry, ..content.info };
    assert!(matches!(store.begin(shorter), Err(StoreError::OtherSize { .. })));
    for bytes in [&content.chunk(1)[1..], &[], &content.bytes[..]] {
        assert!(matches!(store.keep(&content.proofs[1], bytes), Err(StoreError::ChunkLength { .. })));
    }
    content.check_in(&*store, &set(3, [0]));
    let absent = Content::chunks(5, 1);
    assert!(matches!(store.read_at(&absent.key(), 0, &mut [0]), Err(StoreError::Absent)));
    assert!(matches!(store.links(&absent.key()), Err(StoreError::Absent)));
    assert!(matches!(store.keep_links(&absent.key(), b"x"), Err(StoreError::Absent)));
    assert!(matches!(store.seal(&absent.key()), Err(StoreError::Absent)));
    assert!(!store.remove(&absent.key()).unwrap());
}

fn verified_chunks_stay(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(6, 2);
    content.store_in(&*store, [0]);
    let held = store.usage().own_bytes;
    let (proof, bytes) = content.false_proof(0);
    store.keep(&proof, &bytes).unwrap();
    content.check_in(&*store, &set(2, [0]));
    assert_eq!(store.usage().own_bytes, held);
    content.keep_in(&*store, 1).unwrap();
    store.seal(&content.key()).unwrap();
}

fn links(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(7, 2);
    store.begin(content.info).unwrap();
    assert!(store.links(&content.key()).unwrap().is_empty());
    let batches: [&[u8]; 3] = [b"first", b"", &[0xff; 300]];
    for batch in batches {
        store.keep_links(&content.key(), batch).unwrap();
        content.keep_in(&*store, 1).unwrap();
    }
    assert_eq!(store.links(&content.key()).unwrap(), batches);
    assert_eq!(store.stored(&content.key()).unwrap().links_bytes, 305);
}

fn too_many_links(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(8, 2);
    store.begin(content.info).unwrap();
    store.keep_links(&content.key(), &[1; 2048]).unwrap();
    let error = store.keep_links(&content.key(), b"x").unwrap_err();
    assert!(matches!(error, StoreError::TooManyLinks { limit_bytes: 2048 }));
    assert_eq!(store.links(&content.key()).unwrap().len(), 1);
}

fn sealing(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::new(9, 3 * CHUNK + 1);
    content.store_in(&*store, [2, 0, 3]);
    assert!(matches!(store.seal(&content.key()), Err(StoreError::Incomplete { missing: 1 })));
    content.keep_in(&*store, 1).unwrap();
    assert!(!store.stored(&content.key()).unwrap().sealed);
    store.seal(&content.key()).unwrap();
    store.seal(&content.key()).unwrap();
    let stored = store.stored(&content.key()).unwrap();
    assert!(stored.sealed && !stored.is_unfinished());
    content.check_in(&*store, &ChunkSet::full(4));
}

fn false_chains(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(10, 4);
    content.store_in(&*store, [0, 1, 3]);
    let (proof, bytes) = content.false_proof(2);
    store.keep(&proof, &bytes).unwrap();
    let error = store.seal(&content.key()).unwrap_err();
    assert!(matches!(error, StoreError::FalseChain { chunk } if chunk.get() == 2), "{error}");
    assert!(!store.stored(&content.key()).unwrap().sealed);
    // What the agent does then.
    assert!(store.remove(&content.key()).unwrap());
    content.store_in(&*store, 0..4);
    store.seal(&content.key()).unwrap();
}

fn removal(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let (content, other) = (Content::chunks(11, 3), Content::chunks(12, 3));
    content.store_in(&*store, [0, 1]);
    other.store_in(&*store, [2]);
    store.keep_links(&content.key(), b"links").unwrap();
    assert!(store.remove(&content.key()).unwrap());
    assert!(!store.remove(&content.key()).unwrap());
    assert!(store.stored(&content.key()).is_none());
    assert!(matches!(store.read_at(&content.key(), 0, &mut [0]), Err(StoreError::Absent)));
    assert!(matches!(content.keep_in(&*store, 0), Err(StoreError::Absent)));
    assert_eq!(store.usage().own_bytes, store.stored(&other.key()).unwrap().own_bytes);
    // Again: nothing of its first life is left.
    content.store_in(&*store, [1]);
    content.check_in(&*store, &set(3, [1]));
    assert!(store.links(&content.key()).unwrap().is_empty());
    other.check_in(&*store, &set(3, [2]));
    assert_eq!(store.list().len(), 2);
}

fn quota(make: Make<'_>) {
    // Three chunks and what is known of them.
    let store = make(limits(3 * CHUNK + 20_000));
    let content = Content::chunks(13, 5);
    content.store_in(&*store, 0..3);
    let held = store.usage().own_bytes;
    for _ in 0..3 {
        let error = content.keep_in(&*store, 3).unwrap_err();
        assert!(matches!(error, StoreError::Full { shortage: Shortage::Quota, lacking_bytes: 1.. }), "{error}");
        assert!(error.is_full());
        assert_eq!(store.usage().own_bytes, held);
    }
    assert!(store.usage().own_bytes <= store.usage().quota_bytes);
    content.check_in(&*store, &set(5, 0..3));
    assert!(store.remove(&content.key()).unwrap());
    assert_eq!(store.usage().own_bytes, 0);
    content.store_in(&*store, 2..5);
}

fn blob_count(make: Make<'_>) {
    let store = make(Limits { max_blobs: 2, ..limits(NO_QUOTA) });
    let contents: Vec<Content> = (0..3).map(|seed| Content::chunks(20 + seed, 1)).collect();
    contents[0].store_in(&*store, [0]);
    contents[1].store_in(&*store, [0]);
    let refused = store.begin(contents[2].info).unwrap_err();
    assert!(matches!(refused, StoreError::Full { shortage: Shortage::Blobs, .. }));
    store.begin(contents[1].info).unwrap();
    let evicted = store.make_room(0, &|_| Standing::default()).unwrap();
    assert_eq!(evicted.len(), 1);
    contents[2].store_in(&*store, [0]);
    let in_use = Standing { in_use: true, ..Standing::default() };
    let refused = store.make_room(0, &|_| in_use).unwrap_err();
    assert!(matches!(refused, StoreError::Full { shortage: Shortage::Blobs, .. }));
}

fn making_room(make: Make<'_>) {
    let store = make(limits(7 * CHUNK));
    let contents: Vec<Content> = (0..3).map(|seed| Content::chunks(30 + seed, 2)).collect();
    contents.iter().for_each(|content| content.store_in(&*store, 0..2));
    assert!(store.make_room(1, &|_| Standing::default()).unwrap().is_empty(), "there is room");
    let standing = |at: usize| match at {
        0 => Standing { popularity: 9, ..Standing::default() },
        1 => Standing { popularity: 9, replicas: 5, ..Standing::default() },
        _ => Standing { in_use: true, ..Standing::default() },
    };
    let evicted = store
        .make_room(2 * CHUNK, &|stored| {
            standing(contents.iter().position(|content| content.info == stored.blob).unwrap())
        })
        .unwrap();
    assert_eq!(evicted, [contents[1].key()]);
    assert!(store.stored(&contents[1].key()).is_none());
    assert_eq!(store.list().len(), 2);
    contents[1].store_in(&*store, 0..1);
}

fn making_no_room(make: Make<'_>) {
    let store = make(limits(7 * CHUNK));
    let contents: Vec<Content> = (0..3).map(|seed| Content::chunks(40 + seed, 2)).collect();
    contents.iter().for_each(|content| content.store_in(&*store, 0..2));
    let last_copy = Standing { pinned: true, ..Standing::default() };
    for (bytes, standing) in [(2 * CHUNK, last_copy), (8 * CHUNK, Standing::default()), (u64::MAX, Standing::default())]
    {
        let refused = store.make_room(bytes, &|_| standing).unwrap_err();
        assert!(matches!(refused, StoreError::Full { shortage: Shortage::Quota, lacking_bytes: 1.. }));
    }
    contents.iter().for_each(|content| content.check_in(&*store, &ChunkSet::full(2)));
}

fn abandoned(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let [partial, used, whole, empty, links_only] = [50, 51, 52, 53, 54].map(|seed| Content::chunks(seed, 2));
    partial.store_in(&*store, [0]);
    used.store_in(&*store, [0]);
    whole.store_in(&*store, 0..2);
    store.seal(&whole.key()).unwrap();
    store.begin(empty.info).unwrap();
    store.begin(links_only.info).unwrap();
    store.keep_links(&links_only.key(), b"links").unwrap();
    let hour = Duration::from_secs(3600);
    let in_use = |key: &_| *key == used.key();
    assert!(store.remove_abandoned(SystemTime::now(), hour, &in_use).unwrap().is_empty(), "too young");
    let mut removed = store.remove_abandoned(SystemTime::now() + 2 * hour, hour, &in_use).unwrap();
    removed.sort_unstable();
    let mut expected = [partial.key(), empty.key()];
    expected.sort_unstable();
    assert_eq!(removed, expected);
    assert_eq!(store.list().len(), 3);
}

fn recheck(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let content = Content::chunks(60, 2);
    content.store_in(&*store, [1]);
    let stored = store.recheck(&content.key(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(stored.verified, set(2, [1]));
    assert!(stored.suspect.is_empty());
    let absent = Content::chunks(61, 2);
    assert!(matches!(store.recheck(&absent.key(), &mut |_| ControlFlow::Continue(())), Err(StoreError::Absent)));
}

fn threads(make: Make<'_>) {
    let store = make(limits(NO_QUOTA));
    let contents = [Content::chunks(70, 12), Content::chunks(71, 12)];
    contents.iter().for_each(|content| content.store_in(&*store, []));
    thread::scope(|scope| {
        for worker in 0..4_u32 {
            let (store, content) = (&*store, &contents[worker as usize % 2]);
            // Two threads keep the same chunks of each blob, one upwards, one downwards, and read what is there.
            scope.spawn(move || {
                for step in 0..content.count() {
                    let chunk = if worker < 2 { step } else { content.count() - 1 - step };
                    content.keep_in(store, chunk).unwrap();
                    let verified = store.stored(&content.key()).unwrap().verified;
                    for chunk in verified.iter() {
                        let mut buf = vec![0; content.chunk(chunk.get()).len()];
                        store.read_at(&content.key(), u64::from(chunk.get()) * CHUNK, &mut buf).unwrap();
                        assert!(buf == content.chunk(chunk.get()));
                    }
                }
            });
        }
        // And one that comes and goes.
        scope.spawn(|| {
            let content = Content::chunks(72, 2);
            for _ in 0..20 {
                content.store_in(&*store, 0..2);
                store.seal(&content.key()).unwrap();
                content.check_in(&*store, &ChunkSet::full(2));
                assert!(store.remove(&content.key()).unwrap());
            }
        });
    });
    for content in &contents {
        store.seal(&content.key()).unwrap();
        content.check_in(&*store, &ChunkSet::full(12));
    }
    let own: u64 = store.list().iter().map(|stored| stored.own_bytes).sum();
    assert_eq!(store.usage().own_bytes, own);
}
