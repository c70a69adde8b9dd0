//! What a containerd keeps, hashed and counted: whether it is right, and whether the image is unpacked.
//!
//! State: none. Invariants: it reads and changes nothing; what vanishes while it looks wasn't kept.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// The directories in which a containerd keeps things.
#[derive(Clone, Debug)]
pub struct Kept {
    content: PathBuf,
    snapshots: PathBuf,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Blobs that are what their names say.
    pub right_blobs: usize,
    /// Blobs that aren't.
    pub wrong_blobs: usize,
    /// Bytes of files that were unpacked.
    pub unpacked_bytes: u64,
    /// Downloads that aren't committed: failed ones, when nothing is being pulled.
    pub ingests: usize,
}

impl Audit {
    /// Whether there is an image with generated layers of these sizes, all of it, unpacked, and nothing else.
    #[must_use]
    pub fn is_whole(&self, layer_bytes: &[u64]) -> bool {
        // A layer is a file of whole blocks with a header before it and two or more empty blocks behind.
        let files: u64 = layer_bytes.iter().map(|bytes| bytes.saturating_sub(3 * 512) / 512 * 512).sum();
        // Besides the layers there are the configuration and the manifest.
        *self == Self { right_blobs: layer_bytes.len() + 2, unpacked_bytes: files, ..Self::default() }
    }
}

impl Kept {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            content: root.join("io.containerd.content.v1.content"),
            snapshots: root.join("io.containerd.snapshotter.v1.overlayfs/snapshots"),
        }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn audit(&self) -> Result<Audit> {
        let mut audit = Audit { ingests: self.ingests()?.len(), ..Audit::default() };
        for blob in entries(&self.content.join("blobs/sha256"))? {
            let name = blob.file_name().map(|name| name.to_string_lossy().into_owned());
            let Some(digest) = digest(&blob)? else { continue };
            if name == Some(digest) { audit.right_blobs += 1 } else { audit.wrong_blobs += 1 }
        }
        for snapshot in entries(&self.snapshots)? {
            audit.unpacked_bytes += file_bytes(&snapshot.join("fs"))?;
        }
        Ok(audit)
    }

    /// The files of downloads that aren't committed.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn ingests(&self) -> Result<Vec<PathBuf>> {
        let ingests = entries(&self.content.join("ingest"))?.into_iter().map(|ingest| ingest.join("data"));
        Ok(ingests.filter(|data| data.exists()).collect())
    }
}

/// None if it has vanished.
fn digest(path: &Path) -> Result<Option<String>> {
    let Some(mut file) = there(File::open(path), path)? else { return Ok(None) };
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut piece).with_context(|| path.display().to_string())?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
    }
    Ok(Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn file_bytes(path: &Path) -> Result<u64> {
    let Some(about) = there(fs::symlink_metadata(path), path)? else { return Ok(0) };
    if about.is_dir() {
        entries(path)?.iter().map(|entry| file_bytes(entry)).sum()
    } else {
        Ok(if about.is_file() { about.len() } else { 0 })
    }
}

/// None for a directory that isn't there.
fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(entries) = there(fs::read_dir(path), path)? else { return Ok(Vec::new()) };
    let entries: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    Ok(there(entries, path)?.unwrap_or_default())
}

fn there<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_judged_by_its_name() {
        let root = std::env::temp_dir().join(format!("shoal-e2e-audit-{}", std::process::id()));
        let kept = Kept::new(&root);
        assert_eq!(kept.audit().unwrap(), Audit::default(), "nothing is there");
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blobs = "io.containerd.content.v1.content/blobs/sha256";
        write(&format!("{blobs}/{of_abc}"), "abc");
        write(&format!("{blobs}/{}", of_abc.replace('b', "c")), "abc");
        write("io.containerd.content.v1.content/ingest/1/data", "ab");
        write("io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/shoal/file", "12345");
        let audit = Audit { right_blobs: 1, wrong_blobs: 1, unpacked_bytes: 5, ingests: 1 };
        assert_eq!(kept.audit().unwrap(), audit);
        assert!(!audit.is_whole(&[2048]));
        let whole = Audit { right_blobs: 4, unpacked_bytes: 512 + 1024, ..Audit::default() };
        assert!(whole.is_whole(&[2048, 3000]));
        assert!(!Audit { ingests: 1, ..whole }.is_whole(&[2048, 3000]));
        fs::remove_dir_all(root).unwrap();
    }
}
