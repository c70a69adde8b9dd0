//! containerd's content store, as containerd leaves it and as it never should be.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_chain::FinishError;
use shoal_store::containerd::{Change, ContentStore, Follower, Growth, Ingest};
use shoal_store::{ComputeError, DiskStore, Store, compute_chain};
use shoal_types::{BlobInfo, Digest};

use crate::support::{CHUNK, Content, NO_QUOTA, TempDir, limits};

const PLUGIN: &str = "io.containerd.content.v1.content";
/// Longer than any answer takes; nothing waits for it where all is well.
const PATIENCE: Duration = Duration::from_secs(20);

/// A content store as containerd has one.
pub(crate) struct Containerd {
    dir: TempDir,
}

impl Containerd {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        let fake = Self { dir };
        fs::create_dir_all(fake.blobs()).unwrap();
        fs::create_dir_all(fake.plugin().join("ingest")).unwrap();
        fake
    }

    fn plugin(&self) -> PathBuf {
        self.dir.path().join(PLUGIN)
    }

    fn blobs(&self) -> PathBuf {
        self.plugin().join("blobs/sha256")
    }

    pub(crate) fn path_of(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.to_string().split_once(':').unwrap().1)
    }

    pub(crate) fn open(&self) -> ContentStore {
        ContentStore::open(self.dir.path()).unwrap()
    }

    /// Begins an ingest as containerd does: its directory, then its files.
    fn begin(&self, id: &str, content: &Content) -> PathBuf {
        let dir = self.plugin().join("ingest").join(id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("ref"), format!("k8s.io/7/layer-{}", content.info.digest)).unwrap();
        fs::write(dir.join("data"), "").unwrap();
        dir
    }

    fn commit(&self, ingest: &Path, content: &Content) {
        fs::rename(ingest.join("data"), self.path_of(&content.info.digest)).unwrap();
        fs::remove_dir_all(ingest).unwrap();
    }

    /// A blob that came the usual way.
    pub(crate) fn add(&self, content: &Content) {
        let ingest = self.begin("add", content);
        fs::write(ingest.join("data"), &content.bytes).unwrap();
        self.commit(&ingest, content);
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// The next changes, however long they take.
fn next(follower: &mut Follower) -> Vec<Change> {
    for _ in 0..100 {
        let changes = follower.next(PATIENCE / 100).unwrap();
        if !changes.is_empty() {
            return changes;
        }
    }
    panic!("nothing was told");
}

fn added(content: &Content) -> Change {
    Change::Added { digest: content.info.digest, size_bytes: content.info.geometry.size_bytes() }
}

#[test]
fn both_roots_are_accepted_and_others_refused() {
    let fake = Containerd::new();
    let content = Content::new(1, 1000);
    fake.add(&content);
    for root in [fake.dir.path().to_owned(), fake.plugin()] {
        let store = ContentStore::open(&root).unwrap();
        assert_eq!(store.path(), fs::canonicalize(fake.plugin()).unwrap());
        assert_eq!(store.list().unwrap(), [(content.info.digest, 1000)]);
    }
    // A root may be a symlink: the administrator says so.
    let link = TempDir::new();
    symlink(fake.dir.path(), link.path().join("root")).unwrap();
    assert_eq!(ContentStore::open(&link.path().join("root")).unwrap().list().unwrap().len(), 1);
    let error = ContentStore::open(link.path()).unwrap_err().to_string();
    assert!(error.contains("isn't containerd's content store") && !error.contains('\n'), "{error}");
    assert!(ContentStore::open(&link.path().join("nothing")).is_err());
}

#[test]
fn a_blob_is_read_in_place_even_while_it_is_deleted() {
    let fake = Containerd::new();
    let content = Content::new(2, 3 * CHUNK);
    fake.add(&content);
    let store = fake.open();
    assert!(store.blob(&Digest::Sha256([1; 32])).unwrap().is_none());
    assert!(store.blob(&Digest::Sha512([1; 64])).unwrap().is_none());
    let blob = store.blob(&content.info.digest).unwrap().unwrap();
    assert_eq!(blob.size_bytes(), 3 * CHUNK);
    fs::remove_file(fake.path_of(&content.info.digest)).unwrap();
    assert!(store.blob(&content.info.digest).unwrap().is_none());
    let mut buf = vec![0; 1000];
    blob.read_at(CHUNK - 500, &mut buf).unwrap();
    assert!(buf == content.bytes[65_036..66_036]);
    assert!(blob.read_at(3 * CHUNK - 1, &mut buf).is_err());
    let mut all = Vec::new();
    blob.into_reader().read_to_end(&mut all).unwrap();
    assert!(all == content.bytes);
}

#[test]
fn nothing_outside_is_read_and_names_that_are_no_digests_are_no_blobs() {
    let fake = Containerd::new();
    let secret = fake.dir.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let [linked, piped, directory] = [3, 4, 5].map(|byte| Digest::Sha256([byte; 32]));
    symlink(&secret, fake.path_of(&linked)).unwrap();
    fs::create_dir(fake.path_of(&directory)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fake.plugin().join("s")).unwrap();
    fs::rename(fake.plugin().join("s"), fake.path_of(&piped)).unwrap();
    let whole = "ab".repeat(32);
    for name in ["", "x", &whole[1..], &whole.to_uppercase(), &format!("{whole}.tmp"), &format!("{whole}0")] {
        fs::write(fake.blobs().join(format!("{name}.").trim_end_matches('.')), "torn").unwrap_or_default();
    }
    let store = fake.open();
    for digest in [linked, piped, directory] {
        assert!(store.blob(&digest).unwrap().is_none(), "{digest}");
    }
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(store.follow().next(Duration::ZERO).unwrap(), []);

    // A whole directory that leads elsewhere.
    let elsewhere = TempDir::new();
    fs::write(elsewhere.path().join(&whole), "secret").unwrap();
    fs::remove_dir_all(fake.blobs()).unwrap();
    symlink(elsewhere.path(), fake.blobs()).unwrap();
    assert!(store.blob(&Digest::Sha256([0xab; 32])).unwrap().is_none());
    assert_eq!(store.list().unwrap(), []);

    // And an ingest.
    let content = Content::new(6, 100);
    let ingest = fake.begin("one", &content);
    fs::remove_file(ingest.join("data")).unwrap();
    symlink(&secret, ingest.join("data")).unwrap();
    symlink(elsewhere.path(), fake.plugin().join("ingest/two")).unwrap();
    assert!(store.ingests().unwrap().is_empty());
}

#[test]
fn what_comes_and_goes_is_told_once() {
    let fake = Containerd::new();
    let contents: Vec<Content> = (10..13).map(|seed| Content::new(seed, 500 + seed)).collect();
    fake.add(&contents[0]);
    let mut follower = fake.open().follow();
    assert_eq!(follower.next(Duration::ZERO).unwrap(), [added(&contents[0])]);
    fake.add(&contents[1]);
    assert_eq!(next(&mut follower), [added(&contents[1])]);
    // Gone again before anybody looked: nothing to tell. What is left is told.
    fake.add(&contents[2]);
    fs::remove_file(fake.path_of(&contents[2].info.digest)).unwrap();
    fs::write(fake.blobs().join("torn"), "").unwrap();
    fs::remove_file(fake.path_of(&contents[0].info.digest)).unwrap();
    assert_eq!(next(&mut follower), [Change::Removed { digest: contents[0].info.digest }]);
    assert_eq!(follower.next(Duration::ZERO).unwrap(), []);
}

#[test]
fn a_directory_that_comes_later_is_followed_too() {
    let fake = Containerd::new();
    fs::remove_dir_all(fake.plugin().join("blobs")).unwrap();
    let mut follower = fake.open().follow();
    assert_eq!(follower.next(Duration::ZERO).unwrap(), []);
    fs::create_dir_all(fake.blobs()).unwrap();
    let content = Content::new(20, 700);
    fake.add(&content);
    assert_eq!(next(&mut follower), [added(&content)]);
    // All of it away and there again: a new directory of the same name.
    fs::remove_dir_all(fake.blobs()).unwrap();
    assert_eq!(next(&mut follower), [Change::Removed { digest: content.info.digest }]);
    fs::create_dir_all(fake.blobs()).unwrap();
    fake.add(&content);
    assert_eq!(next(&mut follower), [added(&content)]);
}

/// Reads what there is, from where it has got to.
fn drain(ingest: &mut Ingest, got: &mut Vec<u8>) -> Growth {
    let mut buf = [0; 300];
    loop {
        match ingest.read_at(got.len() as u64, &mut buf).unwrap() {
            Growth::Bytes(read) => got.extend_from_slice(&buf[..read]),
            other => return other,
        }
    }
}

#[test]
fn an_ingest_is_followed_to_its_commit() {
    let fake = Containerd::new();
    let store = fake.open();
    let content = Content::new(30, 1000);
    assert!(store.ingest(&content.info.digest).unwrap().is_none());
    let dir = fake.begin("one", &content);
    let mut ingest = store.ingest(&content.info.digest).unwrap().unwrap();
    assert_eq!(*ingest.digest(), content.info.digest);
    let mut got = Vec::new();
    assert_eq!(drain(&mut ingest, &mut got), Growth::Waiting);
    append(&dir.join("data"), &content.bytes[..450]);
    assert_eq!(drain(&mut ingest, &mut got), Growth::Waiting);
    assert_eq!(got.len(), 450);
    // Started again from the beginning, and further: no byte is given twice.
    fs::write(dir.join("data"), &content.bytes[..100]).unwrap();
    assert_eq!(drain(&mut ingest, &mut got), Growth::Waiting);
    append(&dir.join("data"), &content.bytes[100..700]);
    assert_eq!(drain(&mut ingest, &mut got), Growth::Waiting);
    append(&dir.join("data"), &content.bytes[700..]);
    fake.commit(&dir, &content);
    assert_eq!(drain(&mut ingest, &mut got), Growth::End);
    assert!(got == content.bytes);
    assert_eq!(drain(&mut ingest, &mut got), Growth::End);
}

#[test]
fn an_ingest_that_is_given_up_vanishes_and_one_that_lost_the_race_goes_on_in_the_blob() {
    let fake = Containerd::new();
    let store = fake.open();
    let [given_up, late] = [31, 32].map(|seed| Content::new(seed, 1000));
    let dir = fake.begin("one", &given_up);
    append(&dir.join("data"), &given_up.bytes[..100]);
    let mut ingest = store.ingest(&given_up.info.digest).unwrap().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let mut got = Vec::new();
    assert_eq!(drain(&mut ingest, &mut got), Growth::Vanished);
    assert_eq!(got.len(), 100);

    let (first, second) = (fake.begin("first", &late), fake.begin("second", &late));
    append(&first.join("data"), &late.bytes[..100]);
    append(&second.join("data"), &late.bytes[..400]);
    let mut ingest = store.ingest(&late.info.digest).unwrap().unwrap();
    assert_eq!(ingest.len_bytes().unwrap(), 400, "the one that has come furthest");
    let mut got = Vec::new();
    assert_eq!(drain(&mut ingest, &mut got), Growth::Waiting);
    append(&first.join("data"), &late.bytes[100..]);
    fake.commit(&first, &late);
    fs::remove_dir_all(&second).unwrap();
    assert_eq!(drain(&mut ingest, &mut got), Growth::End);
    assert!(got == late.bytes);
}

#[test]
fn ingests_that_name_no_digest_are_none() {
    let fake = Containerd::new();
    let content = Content::new(33, 10);
    for (id, reference) in [("a", "k8s.io/1/upload"), ("b", ""), ("c", "k8s.io/1/layer-sha256:12")] {
        let dir = fake.begin(id, &content);
        fs::write(dir.join("ref"), reference).unwrap();
    }
    fs::write(fake.begin("d", &content).join("ref"), [0xff, 0xfe]).unwrap();
    fs::remove_file(fake.begin("e", &content).join("ref")).unwrap();
    assert!(fake.open().ingests().unwrap().is_empty());
}

#[test]
fn the_chain_of_a_blob_in_the_content_store_is_computed_in_order() {
    let fake = Containerd::new();
    let content = Content::new(40, 5 * CHUNK + 3);
    fake.add(&content);
    let reader = || fake.open().blob(&content.info.digest).unwrap().unwrap().into_reader();
    let (mut proofs, mut paced) = (Vec::new(), 0);
    let chain = compute_chain(reader(), content.info, &mut |proof| proofs.push(proof.clone()), &mut |bytes| {
        paced += bytes;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(proofs, content.proofs);
    assert_eq!(paced, 5 * CHUNK + 3);
    assert_eq!(chain.chain().links().count(), 6);

    let stopped = compute_chain(reader(), content.info, &mut |_| {}, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ComputeError::BrokenOff)));
    let cases: [(&[u8], bool); 3] =
        [(&content.bytes[1..], false), (b"", false), (&[&content.bytes[..], b"x"].concat(), true)];
    for (bytes, too_long) in cases {
        let error = compute_chain(bytes, content.info, &mut |_| {}, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(matches!(error, ComputeError::TooLong(_)), too_long, "{error}");
    }
    let other = BlobInfo { digest: Digest::Sha256([1; 32]), ..content.info };
    let error = compute_chain(reader(), other, &mut |_| {}, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, ComputeError::NotTheBlob(FinishError::Digest { .. })), "{error}");
}

#[test]
fn links_of_a_blob_that_lies_in_the_content_store_are_kept_without_its_bytes() {
    let dir = TempDir::new();
    let content = Content::chunks(41, 4);
    {
        let store = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
        store.begin(content.info).unwrap();
        store.keep_links(&content.key(), b"signed").unwrap();
    }
    let store = DiskStore::open(dir.path(), limits(NO_QUOTA)).unwrap();
    assert_eq!(store.links(&content.key()).unwrap(), [b"signed"]);
    assert!(store.usage().own_bytes <= 4096);
}
