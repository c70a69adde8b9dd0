//! What a store in a directory adds: who may open it, what it finds there, what a restart leaves.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use shoal_store::{BootId, DiskStore, Limits, OpenError, Percent, Shortage, Standing, Store, StoreError};
use shoal_types::ChunkSet;

use crate::support::{CHUNK, Content, NO_QUOTA, TempDir, blob_files, limits, set};

const FIRST_BOOT: BootId = BootId::new(1);
const SECOND_BOOT: BootId = BootId::new(2);

fn one_line(error: &OpenError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new();
    let store = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
    let error = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(one_line(&error).contains(&format!("({})", std::process::id())), "{error}");
    drop(store);
    DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
}

#[test]
fn a_later_format_and_foreign_directories_are_refused() {
    let dir = TempDir::new();
    drop(DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap());
    let format = dir.path().join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "shoal-store 1\n");
    fs::write(&format, "shoal-store 2\n").unwrap();
    let error = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap_err();
    assert!(matches!(error, OpenError::TooNew { found: 2, .. }));
    assert!(one_line(&error).contains("has format 2, this release knows up to 1"), "{error}");
    for other in ["shoal-store 0\n", "", "something else\n"] {
        fs::write(&format, other).unwrap();
        assert!(matches!(DiskStore::open(dir.path(), limits(NO_QUOTA)), Err(OpenError::NotAStore { .. })), "{other:?}");
    }
    fs::remove_file(&format).unwrap();
    let error = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap_err();
    assert!(one_line(&error).contains("isn't a store's directory"), "{error}");
}

#[test]
fn a_directory_that_cant_be_written_to_is_named() {
    let dir = TempDir::new();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DiskStore::open(&file.join("store"), limits(NO_QUOTA)).unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }));
    assert!(one_line(&error).contains("can't be written to"), "{error}");
}

#[test]
fn nobody_else_may_read_what_is_stored() {
    let dir = TempDir::new();
    let root = dir.path().join("store");
    let store = DiskStore::open(&root, limits(NO_QUOTA)).unwrap();
    Content::chunks(1, 1).store_in(&store, [0]);
    for path in [root.clone(), root.join("blobs"), blob_files(&root, "data")[0].clone()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn a_restart_finds_everything_again() {
    let dir = TempDir::new();
    let (partial, whole) = (Content::new(1, 5 * CHUNK + 7), Content::chunks(2, 3));
    let before = {
        let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
        partial.store_in(&store, [5, 2]);
        store.keep_links(&partial.key(), b"links").unwrap();
        whole.store_in(&store, 0..3);
        store.seal(&whole.key()).unwrap();
        store.list()
    };
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
    let after = store.list();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.blob, &before.verified, before.sealed), (after.blob, &after.verified, after.sealed));
        assert_eq!((before.links_bytes, before.own_bytes), (after.links_bytes, after.own_bytes));
    }
    assert_eq!(store.links(&partial.key()).unwrap(), [b"links"]);
    partial.check_in(&store, &set(6, [2, 5]));
    whole.check_in(&store, &ChunkSet::full(3));
    for chunk in [0, 1, 3, 4] {
        partial.keep_in(&store, chunk).unwrap();
    }
    store.seal(&partial.key()).unwrap();
}

#[test]
fn after_a_crash_of_the_node_chunks_are_hashed_again_before_use() {
    let dir = TempDir::new();
    let content = Content::new(3, 5 * CHUNK + 7);
    {
        let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
        content.store_in(&store, 0..6);
        store.seal(&content.key()).unwrap();
    }
    // What a crash leaves where pages were not written: zeros.
    let data = fs::OpenOptions::new().write(true).open(&blob_files(dir.path(), "data")[0]).unwrap();
    data.write_all_at(&[0; 100], 2 * CHUNK + 50).unwrap();

    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), SECOND_BOOT).unwrap();
    let stored = store.stored(&content.key()).unwrap();
    assert!(stored.verified.is_empty() && stored.suspect.is_full() && !stored.sealed);
    content.check_in(&store, &ChunkSet::empty(6));
    assert!(matches!(store.seal(&content.key()), Err(StoreError::Incomplete { missing: 6 })));

    // Broken off after two chunks, and gone on with after a restart.
    let mut left = 2;
    let stored = store
        .recheck(&content.key(), &mut |_| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(stored.verified, set(6, 0..2));
    assert_eq!(stored.suspect, set(6, 2..6));
    drop(store);
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), SECOND_BOOT).unwrap();
    content.check_in(&store, &set(6, 0..2));
    // A suspect chunk may be fetched anew instead.
    content.keep_in(&store, 4).unwrap();
    let mut hashed = 0;
    let stored = store
        .recheck(&content.key(), &mut |bytes| {
            hashed += bytes;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(hashed, 2 * CHUNK + 7);
    assert_eq!(stored.verified, set(6, [0, 1, 3, 4, 5]));
    assert!(stored.suspect.is_empty());
    content.check_in(&store, &stored.verified);
    content.keep_in(&store, 2).unwrap();
    store.seal(&content.key()).unwrap();
    drop(store);
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), SECOND_BOOT).unwrap();
    assert!(store.stored(&content.key()).unwrap().sealed);
}

#[test]
fn the_nodes_own_boot_id_is_the_same_at_the_next_start() {
    let dir = TempDir::new();
    let content = Content::chunks(4, 2);
    content.store_in(&DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap(), [1]);
    let store = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
    content.check_in(&store, &set(2, [1]));
}

#[test]
fn what_a_killed_process_left_is_cleared_and_what_is_foreign_stays() {
    let dir = TempDir::new();
    let [kept, headless, empty, cut] = [5, 6, 7, 8].map(|seed| Content::chunks(seed, 2));
    {
        let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
        for content in [&kept, &headless, &empty, &cut] {
            content.store_in(&store, 0..2);
        }
    }
    let file = |content: &Content, extension: &str| {
        let name = content.info.digest.to_string().replace(':', "-");
        let files = blob_files(dir.path(), extension);
        files.into_iter().find(|path| path.to_str().unwrap().contains(&name)).unwrap()
    };
    // Removed as far as its journal; begun as far as the journal's creation; and cut short by somebody else.
    fs::remove_file(file(&headless, "journal")).unwrap();
    fs::write(file(&empty, "journal"), "").unwrap();
    fs::write(file(&cut, "data"), "short").unwrap();
    let foreign = dir.path().join("blobs").join("notes.txt");
    fs::write(&foreign, "mine").unwrap();

    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
    assert_eq!(store.list().len(), 1);
    kept.check_in(&store, &ChunkSet::full(2));
    assert_eq!(blob_files(dir.path(), "data").len(), 1);
    assert_eq!(blob_files(dir.path(), "journal").len(), 1);
    assert!(foreign.exists());
    headless.store_in(&store, 0..2);
    headless.check_in(&store, &ChunkSet::full(2));
}

#[test]
fn of_a_blob_that_began_twice_the_later_one_holds() {
    let dir = TempDir::new();
    let content = Content::chunks(9, 3);
    let open = || DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
    let store = open();
    content.store_in(&store, [0, 1]);
    let old = [blob_files(dir.path(), "data").remove(0), blob_files(dir.path(), "journal").remove(0)];
    let saved = old.clone().map(|path| (fs::read(&path).unwrap(), path));
    store.remove(&content.key()).unwrap();
    content.store_in(&store, [2]);
    drop(store);
    // The removal hadn't reached the disk's directory when the process ended.
    for (bytes, path) in saved {
        fs::write(path, bytes).unwrap();
    }
    let store = open();
    content.check_in(&store, &set(3, [2]));
    assert_eq!(blob_files(dir.path(), "data").len(), 1);
    assert_eq!(store.usage().own_bytes, store.list()[0].own_bytes);
}

#[test]
fn a_reader_of_a_blob_that_is_removed_gets_its_bytes_or_none() {
    let dir = TempDir::new();
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
    let content = Content::chunks(10, 4);
    content.store_in(&store, 0..4);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buf = vec![0; content.bytes.len()];
            let mut reads = 0;
            while reads < 200 {
                match store.read_at(&content.key(), 0, &mut buf) {
                    Ok(()) => assert!(buf == content.bytes),
                    Err(StoreError::Absent | StoreError::NotVerified { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                reads += 1;
            }
        });
        while !reader.is_finished() {
            store.remove(&content.key()).unwrap();
            content.store_in(&store, 0..4);
        }
    });
}

#[test]
fn more_blobs_than_files_may_be_open() {
    let dir = TempDir::new();
    let store = DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap();
    let contents: Vec<Content> = (0..150).map(|seed| Content::new(100 + seed, 1000)).collect();
    for content in &contents {
        content.store_in(&store, [0]);
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = entry.as_ref().ok().and_then(|entry| fs::read_link(entry.path()).ok());
        target.is_some_and(|target| target.starts_with(dir.path().join("blobs")))
    });
    assert!(open.count() <= 128);
    contents.iter().for_each(|content| content.check_in(&store, &ChunkSet::full(1)));
}

#[test]
fn what_is_here_stays_useful_under_a_smaller_quota() {
    let dir = TempDir::new();
    let content = Content::chunks(12, 3);
    content.store_in(&DiskStore::open_on_boot(dir.path(), limits(NO_QUOTA), FIRST_BOOT).unwrap(), 0..3);
    let full = Limits { keep_free: Percent::new(100).unwrap(), ..limits(CHUNK) };
    let store = DiskStore::open_on_boot(dir.path(), full, SECOND_BOOT).unwrap();
    store.recheck(&content.key(), &mut |_| ControlFlow::Continue(())).unwrap();
    store.seal(&content.key()).unwrap();
    content.check_in(&store, &ChunkSet::full(3));
    // With nothing more to come, what is too much goes.
    drop(store);
    let store = DiskStore::open_on_boot(dir.path(), limits(CHUNK), SECOND_BOOT).unwrap();
    assert_eq!(store.make_room(0, &|_| Standing::default()).unwrap(), [content.key()]);
}

#[test]
fn the_file_system_keeps_its_free_part() {
    let dir = TempDir::new();
    // Nothing can be free of a file system that this very store is on, to the last block.
    let everything = Limits { keep_free: Percent::new(100).unwrap(), ..limits(NO_QUOTA) };
    let store = DiskStore::open(dir.path(), everything).unwrap();
    let content = Content::chunks(11, 1);
    let refused = store.begin(content.info).unwrap_err();
    assert!(matches!(refused, StoreError::Full { shortage: Shortage::KeepFree, lacking_bytes: 1.. }), "{refused}");
    assert_eq!(store.usage().own_bytes, 0);
    assert!(blob_files(dir.path(), "journal").is_empty());
    let refused = store.make_room(1, &|_| Standing::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Full { shortage: Shortage::KeepFree, .. }));
}
