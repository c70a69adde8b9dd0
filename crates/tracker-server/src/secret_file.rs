//! Files that hold keys: whole or not there, readable by their owner alone.
//!
//! State: none.
//! Invariants: a reader, and whoever comes back after a crash, finds the old content or the new one.
//! Absent on purpose: encryption at rest: the host's disk is the host's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// No file that this crate reads is larger: a bundle of certificates, a list of tokens, 65,536 contacts of about 200 bytes.
const MAX_BYTES: u64 = 32 << 20;

/// Puts the content in place of what is there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = write_beside(path, content)?;
    fs::rename(&new, path).inspect_err(|_| drop(fs::remove_file(&new)))?;
    sync_parent(path)
}

/// Puts the content where nothing is yet. If something is there, that stays, and the answer is `false`.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let new = write_beside(path, content)?;
    // A link, unlike a rename, doesn't replace: of two processes that start at once one wins and the other one reads.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The file's text; none if there is no file.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(file) if file.len() > MAX_BYTES => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large")),
        Ok(_) => fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a directory that only its owner may enter, if there is none.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{}.new", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let new = path.with_file_name(name);
    // What a process of the same number left behind when it died may lie there.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(&new)))?;
    Ok(new)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
