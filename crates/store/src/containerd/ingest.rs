//! A blob that containerd is downloading: a file that grows (RUNTIMES.md 18).
//!
//! State: the growing file, open; it stays the same file when containerd commits it.
//! Invariants: nothing is read but the file that was in the ingest when it was opened, and after the commit the blob.
//! Absent on purpose: waiting. The caller asks again after a while; and trust: until the digest is proven, the bytes are whatever they are.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::Dir;
use shoal_types::Digest;

use super::{ContentStore, absent, open_dir, open_file};

/// No more ingests are looked at.
const MAX_INGESTS: usize = 1024;

/// A reference is a namespace, a number and a kind with the digest: 200 bytes at most in practice.
const MAX_REF_BYTES: u64 = 4096;

/// A blob that is being downloaded.
#[derive(Debug)]
pub struct Ingest {
    store: ContentStore,
    id: Box<OsStr>,
    digest: Digest,
    data: File,
    committed: bool,
}

/// What reading a growing file gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet: the download goes on.
    Waiting,
    /// The blob is committed and has no more bytes.
    End,
    /// The download was given up: no more will come.
    Vanished,
}

impl Ingest {
    /// What it will be.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How far it has come.
    ///
    /// # Errors
    /// If the file can't be looked at.
    pub fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.data.metadata()?.len())
    }

    /// Reads what has come from `offset` on, into as much of `buf` as there is.
    ///
    /// containerd may start the file again from its beginning; then there is nothing at `offset` until it has come so far once more.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<Growth> {
        if buf.is_empty() {
            return Ok(Growth::Bytes(0));
        }
        if let read @ 1.. = self.data.read_at(buf, offset)? {
            return Ok(Growth::Bytes(read));
        }
        if !self.committed {
            // In this order: a commit moves the file first and removes its directory later.
            let in_progress = self.is_in_progress()?;
            let blob = self.store.blob(&self.digest)?;
            match (blob, in_progress) {
                (Some(blob), _) => {
                    // Another download of it may have been first; then this file ends here, and the blob goes on.
                    self.data = blob.file;
                    self.committed = true;
                }
                (None, true) => return Ok(Growth::Waiting),
                (None, false) => return Ok(Growth::Vanished),
            }
        }
        // Bytes that came between the read above and the commit.
        Ok(match self.data.read_at(buf, offset)? {
            0 => Growth::End,
            read => Growth::Bytes(read),
        })
    }

    /// Whether the ingest still has the file that is being read here.
    fn is_in_progress(&self) -> io::Result<bool> {
        let Some(dir) = absent(open_dir(&self.store.root, "ingest"))? else { return Ok(false) };
        let Some(dir) = absent(open_dir(&dir, &*self.id))? else { return Ok(false) };
        let Some(data) = open_file(&dir, OsStr::new("data"))? else { return Ok(false) };
        let (here, ours) = (data.metadata()?, self.data.metadata()?);
        Ok((here.dev(), here.ino()) == (ours.dev(), ours.ino()))
    }
}

pub(super) fn list(store: &ContentStore) -> io::Result<Vec<Ingest>> {
    let Some(dir) = absent(open_dir(&store.root, "ingest"))? else { return Ok(Vec::new()) };
    let mut ingests = Vec::new();
    for entry in Dir::read_from(&dir)?.take(MAX_INGESTS) {
        let entry = entry?;
        let id = OsStr::from_bytes(entry.file_name().to_bytes());
        if id == "." || id == ".." {
            continue;
        }
        // One that ends, or is begun, meanwhile lacks a file.
        let Some(dir) = absent(open_dir(&dir, id))? else { continue };
        let Some(reference) = open_file(&dir, OsStr::new("ref"))? else { continue };
        let mut text = String::new();
        if reference.take(MAX_REF_BYTES).read_to_string(&mut text).is_err() {
            continue;
        }
        let Some(digest) = digest_in(&text) else { continue };
        let Some(data) = open_file(&dir, OsStr::new("data"))? else { continue };
        ingests.push(Ingest { store: store.clone(), id: id.into(), digest, data, committed: false });
    }
    Ok(ingests)
}

/// What an ingest's reference names: it ends with the digest, as in `k8s.io/12/layer-sha256:…`.
fn digest_in(reference: &str) -> Option<Digest> {
    let reference = reference.trim_end();
    let at = ["sha256:", "sha512:"].iter().filter_map(|name| reference.rfind(name)).max()?;
    reference[at..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_ends_with_the_digest() {
        let hex = "ab".repeat(32);
        for before in ["", "layer-", "k8s.io/12/layer-", "k8s.io/12/manifest-latest@", "moby/1/config-"] {
            let digest = digest_in(&format!("{before}sha256:{hex}\n")).unwrap();
            assert_eq!(digest, Digest::Sha256([0xab; 32]), "{before}");
        }
        for other in ["", "k8s.io/3/layer-sha256:abc", "sha256:", "layer", &format!("sha256:{hex}-tail")] {
            assert_eq!(digest_in(other), None, "{other}");
        }
    }
}
