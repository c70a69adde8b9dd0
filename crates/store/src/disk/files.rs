//! Open files: so that a read costs no open.
//!
//! State: the files used last.
//! Invariants: a file is known by its blob's number and kind, and no number is used twice: a removed blob's file never stands for its
//! successor's. At most [`OPEN_FILES`] stay open beyond their use.
//! Absent on purpose: paths.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use super::lock;

/// Blobs in flight at a time are tens, two files each; and a process may have 1,024 open files by default, most of which are sockets.
pub(super) const OPEN_FILES: usize = 128;

/// Which of a blob's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Data,
    Journal,
}

#[derive(Debug, Default)]
pub(super) struct Files(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    open: BTreeMap<(u64, Kind), Cached>,
    uses: u64,
}

#[derive(Debug)]
struct Cached {
    file: Arc<File>,
    last_use: u64,
}

impl Files {
    /// The file, from the cache or through `open`.
    pub(super) fn get(&self, blob: u64, kind: Kind, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<File>> {
        let mut cache = lock(&self.0);
        cache.uses += 1;
        let last_use = cache.uses;
        if let Some(cached) = cache.open.get_mut(&(blob, kind)) {
            cached.last_use = last_use;
            return Ok(Arc::clone(&cached.file));
        }
        // Opened under the lock: two threads would open it twice, and it takes microseconds.
        let file = Arc::new(open()?);
        if cache.open.len() >= OPEN_FILES {
            let oldest = cache.open.iter().min_by_key(|(_, cached)| cached.last_use).map(|(id, _)| *id);
            oldest.and_then(|id| cache.open.remove(&id));
        }
        cache.open.insert((blob, kind), Cached { file: Arc::clone(&file), last_use });
        Ok(file)
    }

    /// Lets go of a blob's files: their bytes are freed once nobody reads them any more.
    pub(super) fn forget(&self, blob: u64) {
        let mut cache = lock(&self.0);
        cache.open.remove(&(blob, Kind::Data));
        cache.open.remove(&(blob, Kind::Journal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_file_is_closed() {
        let files = Files::default();
        let opened = std::cell::Cell::new(0_usize);
        let open = || {
            opened.set(opened.get() + 1);
            File::open("/dev/null")
        };
        for blob in 0..OPEN_FILES as u64 {
            files.get(blob, Kind::Data, open).unwrap();
        }
        files.get(0, Kind::Data, open).unwrap();
        assert_eq!(opened.get(), OPEN_FILES);
        // One more takes the place of blob 1, which was used before blob 0 was again.
        files.get(0, Kind::Journal, open).unwrap();
        files.get(0, Kind::Data, open).unwrap();
        assert_eq!(opened.get(), OPEN_FILES + 1);
        files.get(1, Kind::Data, open).unwrap();
        assert_eq!(opened.get(), OPEN_FILES + 2);
        assert_eq!(lock(&files.0).open.len(), OPEN_FILES);
        files.forget(0);
        assert_eq!(lock(&files.0).open.len(), OPEN_FILES - 2);
    }
}
