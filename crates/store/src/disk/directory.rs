//! A store's directory: whose it is, which format it has, who uses it.
//!
//! State: the lock, held as long as the value lives.
//! Invariants: one process at a time; nothing is deleted in a directory that isn't known to be a store's.
//! Absent on purpose: what lies in `blobs`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::limits::Space;

/// The format that this code writes, and the latest that it reads.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "shoal-store ";

/// Why a directory can't be opened as a store: one line for whoever configured it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{dir}: another process ({holder}) uses this store: give each agent a directory of its own", dir = dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process's id, as it wrote it down.
        holder: String,
    },
    /// It can't be created or written to.
    #[error("{dir}: can't be written to: {source}", dir = dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later release wrote it.
    #[error("{dir}: has format {found}, this release knows up to {FORMAT}: use the later release, or empty the directory", dir = dir.display())]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It has something else in it.
    #[error("{dir}: isn't a store's directory: it has {what}", dir = dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What tells.
        what: &'static str,
    },
    /// Reading what is in it failed.
    #[error("{dir}: can't be read: {source}", dir = dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory that this process holds.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    blobs: PathBuf,
    lock: File,
}

impl Drop for Directory {
    /// Closing the file isn't enough: a child that this process is just starting shares it until it executes its program.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "the store's lock ends with the process");
        }
    }
}

impl Directory {
    /// Takes hold of the directory; creates it where there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let not_writable = |source| OpenError::NotWritable { dir: dir.to_owned(), source };
        private_dir(dir).map_err(not_writable)?;
        let lock = lock(dir)?;
        let blobs = dir.join("blobs");
        match fs::read_to_string(dir.join("format")) {
            Ok(text) => check_format(dir, &text)?,
            // The format comes before everything else but the lock: without it, what is in `blobs` is somebody else's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if blobs.exists() {
                    return Err(OpenError::NotAStore {
                        dir: dir.to_owned(),
                        what: "a directory blobs and no file format",
                    });
                }
                write_format(dir).map_err(not_writable)?;
            }
            Err(source) => return Err(OpenError::Unreadable { dir: dir.to_owned(), source }),
        }
        private_dir(&blobs).map_err(not_writable)?;
        Ok(Self { dir: dir.to_owned(), blobs, lock })
    }

    /// Where the blobs' files are.
    pub(super) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// The file system's size and what of it is left.
    pub(super) fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// Private images' bytes are nobody else's business: directories and files are for their owner alone.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let not_writable = |source| OpenError::NotWritable { dir: dir.to_owned(), source };
    let mut file = private_file().create(true).truncate(false).open(dir.join("lock")).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The id is a hint for the reader of the message, and may be cut off while it is being written.
            let _ = (&mut file).take(20).read_to_string(&mut holder);
            let holder = if holder.trim().is_empty() { "unknown".to_owned() } else { holder.trim().to_owned() };
            return Err(OpenError::Locked { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(not_writable(source)),
    }
    file.set_len(0).map_err(not_writable)?;
    // On a full disk the id has no room; the lock holds all the same.
    let _ = writeln!(file, "{}", std::process::id());
    Ok(file)
}

fn check_format(dir: &Path, text: &str) -> Result<(), OpenError> {
    let number = text.trim_end().strip_prefix(FORMAT_PREFIX).and_then(|number| number.parse::<u32>().ok());
    match number {
        Some(found) if found > FORMAT => Err(OpenError::TooNew { dir: dir.to_owned(), found }),
        Some(FORMAT) => Ok(()),
        _ => Err(OpenError::NotAStore { dir: dir.to_owned(), what: "a file format with another content" }),
    }
}

/// Renamed into place: a process killed here leaves no format or a whole one. The one file that is synced, once in a store's life: were it
/// torn when the node crashes, nobody would open the store again.
fn write_format(dir: &Path) -> io::Result<()> {
    let new = dir.join("format.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
    file.sync_all()?;
    fs::rename(new, dir.join("format"))
}
