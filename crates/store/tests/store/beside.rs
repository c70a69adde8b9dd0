//! What containerd lends: read where it lies, as far as it was hashed.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use shoal_chain::ClosedChain;
use shoal_store::{MemoryStore, RuntimeStore, Store, StoreError, compute_chain};
use shoal_types::{BlobInfo, ChunkSet, ChunkSize, Geometry};

use crate::containerd::Containerd;
use crate::support::{CHUNK, Content, NO_QUOTA, limits, set};

fn store() -> RuntimeStore {
    RuntimeStore::new(Arc::new(MemoryStore::new(limits(NO_QUOTA))))
}

fn chain(store: &RuntimeStore, containerd: &Containerd, content: &Content) -> ClosedChain {
    let bytes = containerd.open().blob(&content.info.digest).unwrap().expect("it is there").into_reader();
    compute_chain(bytes, content.info, &mut |proof| store.hashed(proof), &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn what_is_hashed_is_read_in_place_and_takes_nothing_of_the_quota() {
    let (containerd, store) = (Containerd::new(), store());
    let content = Content::new(1, 3 * CHUNK + 100);
    containerd.add(&content);
    store.borrow(&containerd.open(), content.info);
    content.check_in(&store, &ChunkSet::empty(content.count()));
    store.hashed(&content.proofs[0]);
    store.hashed(&content.proofs[2]);
    content.check_in(&store, &set(content.count(), [0, 2]));
    assert!(matches!(store.seal(&content.key()), Err(StoreError::Incomplete { missing: 2 })));
    chain(&store, &containerd, &content);
    content.check_in(&store, &ChunkSet::full(content.count()));
    store.seal(&content.key()).unwrap();
    let listed = store.list();
    assert_eq!((listed.len(), listed[0].sealed, store.usage().own_bytes), (1, true, 0));
    // It goes when containerd lets it go, and at once where nobody has told yet.
    fs::remove_file(containerd.path_of(&content.info.digest)).unwrap();
    assert!(matches!(store.read_at(&content.key(), 0, &mut [0; 10]), Err(StoreError::Absent)));
    assert!(store.give_back(&content.key()) && store.list().is_empty());
}

#[test]
fn our_own_copy_goes_when_containerds_is_hashed() {
    let (containerd, store) = (Containerd::new(), store());
    let content = Content::new(2, 3 * CHUNK);
    content.store_in(&store, 0..3);
    store.seal(&content.key()).unwrap();
    assert!(store.usage().own_bytes > 0);
    containerd.add(&content);
    let chain = chain(&store, &containerd, &content);
    store.replace(&containerd.open(), &chain).unwrap();
    assert_eq!(store.usage().own_bytes, 0);
    content.check_in(&store, &ChunkSet::full(3));
    assert!(store.remove(&content.key()).unwrap());
    assert!(containerd.path_of(&content.info.digest).exists(), "containerd's is containerd's");
}

#[test]
fn another_size_is_no_copy_and_another_cut_begins_anew() {
    let (containerd, store) = (Containerd::new(), store());
    let content = Content::new(3, 4 * CHUNK);
    containerd.add(&content);
    let longer = Geometry::new(4 * CHUNK + 1, ChunkSize::MIN).unwrap();
    let lie = BlobInfo { geometry: longer, ..content.info };
    store.borrow(&containerd.open(), lie);
    store.hashed(&content.proofs[0]);
    assert!(matches!(store.read_at(&lie.key(), 0, &mut [0; 10]), Err(StoreError::NotVerified { .. })));
    store.give_back(&lie.key());
    store.borrow(&containerd.open(), content.info);
    chain(&store, &containerd, &content);
    let coarse =
        BlobInfo { geometry: Geometry::new(4 * CHUNK, ChunkSize::new(128 << 10).unwrap()).unwrap(), ..content.info };
    assert!(store.recut(&content.key(), coarse));
    assert!(!store.recut(&content.key(), coarse));
    assert_eq!(store.stored(&coarse.key()).unwrap().verified.len(), 0);
    assert!(store.stored(&content.key()).is_none());
}
