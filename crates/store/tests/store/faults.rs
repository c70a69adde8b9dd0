//! Stores that are slow, corrupt or full, and a device that really is full.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use shoal_store::{BootId, DiskStore, Faults, FaultyStore, MemoryStore, Shortage, Standing, Store, StoreError};
use shoal_types::ChunkSet;

use crate::support::{CHUNK, Content, NO_QUOTA, TempDir, limits, set};

#[test]
fn a_full_store_keeps_what_it_has_and_takes_nothing() {
    let store = FaultyStore::new(MemoryStore::new(limits(NO_QUOTA)), Faults::default());
    let content = Content::chunks(1, 3);
    content.store_in(&store, [0]);
    let held = store.usage();
    store.set(Faults { full: true, ..Faults::default() });
    let refusals = [
        content.keep_in(&store, 1),
        store.keep_links(&content.key(), b"links"),
        store.begin(Content::chunks(2, 1).info).map(|_| ()),
        store.make_room(1, &|_| Standing::default()).map(|_| ()),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Err(StoreError::Full { shortage: Shortage::Device, .. })), "{refusal:?}");
    }
    store.begin(content.info).unwrap();
    content.check_in(&store, &set(3, [0]));
    assert_eq!(store.usage(), held);
    store.set(Faults::default());
    content.keep_in(&store, 1).unwrap();
}

#[test]
fn a_corrupt_store_gives_other_bytes() {
    let store =
        FaultyStore::new(MemoryStore::new(limits(NO_QUOTA)), Faults { corrupt_reads: true, ..Faults::default() });
    let content = Content::chunks(3, 1);
    content.store_in(&store, [0]);
    let mut buf = vec![0; content.bytes.len()];
    store.read_at(&content.key(), 0, &mut buf).unwrap();
    assert_eq!(buf[0], content.bytes[0] ^ 1);
    assert!(buf[1..] == content.bytes[1..]);
}

#[test]
fn a_slow_store_takes_its_time() {
    let delay = Duration::from_millis(5);
    let store = FaultyStore::new(MemoryStore::new(limits(NO_QUOTA)), Faults { delay, ..Faults::default() });
    let content = Content::chunks(4, 1);
    let start = Instant::now();
    content.store_in(&store, [0]);
    content.check_in(&store, &ChunkSet::full(1));
    assert!(start.elapsed() >= 4 * delay);
}

/// A file system of its own, unmounted when this goes.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    /// None where that isn't allowed.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn a_device_that_is_full_refuses_and_nothing_half_written_counts() {
    let dir = TempDir::new();
    // Not a whole number of chunks with their journals: the last write breaks off in the middle.
    let Some(_tmpfs) = Tmpfs::mount(dir.path(), "size=1000k") else {
        eprintln!("SKIPPED: a full device takes root, to mount a small tmpfs; only FaultyStore's was tested");
        return;
    };
    let boot = BootId::new(1);
    let content = Content::chunks(5, 40);
    let mut kept = ChunkSet::empty(40);
    {
        let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), boot).unwrap();
        store.begin(content.info).unwrap();
        for chunk in content.info.geometry.chunks() {
            let before = store.usage().own_bytes;
            match content.keep_in(&store, chunk.get()) {
                Ok(()) => assert!(kept.insert(chunk)),
                Err(error) => {
                    assert!(matches!(error, StoreError::Full { .. }), "{error}");
                    assert_eq!(store.usage().own_bytes, before, "chunk {chunk} left something");
                }
            }
        }
        assert!((10..=15).contains(&kept.len()), "{} chunks on 1000 KiB", kept.len());
        content.check_in(&store, &kept);
    }
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), boot).unwrap();
    content.check_in(&store, &kept);
    // There is room again once it is removed.
    assert!(store.remove(&content.key()).unwrap());
    assert_eq!(store.usage().own_bytes, 0);
    content.store_in(&store, 20..30);
    content.check_in(&store, &set(40, 20..30));
    assert!(store.usage().own_bytes >= 10 * CHUNK);
}

#[test]
fn a_nearly_full_device_keeps_its_free_part() {
    let dir = TempDir::new();
    let Some(_tmpfs) = Tmpfs::mount(dir.path(), "size=4m") else {
        eprintln!("SKIPPED: a nearly full device takes root, to mount a small tmpfs");
        return;
    };
    let store = DiskStore::open(dir.path(), shoal_store::Limits::new(NO_QUOTA)).unwrap();
    let content = Content::chunks(6, 64);
    store.begin(content.info).unwrap();
    let refused = (0..64).map(|chunk| content.keep_in(&store, chunk)).find_map(Result::err).unwrap();
    assert!(matches!(refused, StoreError::Full { shortage: Shortage::KeepFree, .. }), "{refused}");
    let held = store.usage().own_bytes;
    assert!((2_800_000..=3_150_000).contains(&held), "{held} of 4 MiB");
    // What goes makes room, and what is in use doesn't go.
    let in_use = Standing { in_use: true, ..Standing::default() };
    assert!(store.make_room(CHUNK, &|_| in_use).is_err());
    assert_eq!(store.make_room(CHUNK, &|_| Standing::default()).unwrap(), [content.key()]);
    content.store_in(&store, 0..10);
}
