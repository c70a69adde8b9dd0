//! containerd's content store, read in place.
//!
//! ```text
//! <containerd's root>/io.containerd.content.v1.content/    the plugin's own directory
//!     blobs/sha256/<hex>                                   a blob that was committed
//!     ingest/<id>/data, ref                                one that is growing, and what it is to become
//! ```
//!
//! State: the plugin's directory, open.
//! Invariants: nothing is ever written. Every path is walked from the open directory, one name at a time and never through a symlink, so
//! whatever lies in the content store, nothing outside it is read.
//! Absent on purpose: digests of the content: a blob's name is containerd's word, and [`crate::compute_chain`] checks it. Finding the
//! root: containerd's introspection service tells it.

mod follow;
mod ingest;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, openat};
use shoal_types::{Algorithm, Digest};

pub use follow::{Change, Follower};
pub use ingest::{Growth, Ingest};

const PLUGIN: &str = "io.containerd.content.v1.content";

/// No more blobs are listed. A node has hundreds; a quarter of a million would take 20 MiB to remember.
pub const MAX_LISTED: usize = 1 << 18;

/// containerd's content store.
#[derive(Clone, Debug)]
pub struct ContentStore {
    /// For messages, and for the watch.
    path: PathBuf,
    root: Arc<OwnedFd>,
}

impl ContentStore {
    /// The content store at `root`: containerd's root directory, or the content plugin's own.
    ///
    /// # Errors
    /// If there is neither.
    pub fn open(root: &Path) -> Result<Self, ContentStoreError> {
        let error = |source| ContentStoreError { root: root.to_owned(), source };
        // What the administrator names may be a symlink; what lies below it may not.
        let canonical = fs::canonicalize(root).map_err(error)?;
        let given = open_root(&canonical).map_err(error)?;
        if let Ok(plugin) = open_dir(&given, PLUGIN) {
            return Ok(Self { path: canonical.join(PLUGIN), root: Arc::new(plugin) });
        }
        // The plugin creates both when it starts.
        let own = ["blobs", "ingest"].iter().any(|name| open_dir(&given, *name).is_ok());
        if own || canonical.file_name() == Some(OsStr::new(PLUGIN)) {
            Ok(Self { path: canonical, root: Arc::new(given) })
        } else {
            Err(error(io::Error::new(io::ErrorKind::NotFound, format!("neither {PLUGIN} nor blobs is in it"))))
        }
    }

    /// The plugin's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A blob, to read; none if it isn't there, or what has its name is no file.
    ///
    /// # Errors
    /// If it is there and can't be opened.
    pub fn blob(&self, digest: &Digest) -> io::Result<Option<ContentBlob>> {
        let Some(dir) = absent(self.blobs_dir(digest.algorithm()))? else { return Ok(None) };
        let Some(file) = open_file(&dir, OsStr::new(&hex(digest)))? else { return Ok(None) };
        let size_bytes = file.metadata()?.len();
        Ok(Some(ContentBlob { file, size_bytes }))
    }

    /// Every blob with its size, in the digests' order; [`MAX_LISTED`] at most.
    ///
    /// # Errors
    /// If a directory can't be read.
    pub fn list(&self) -> io::Result<Vec<(Digest, u64)>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(dir) = absent(self.blobs_dir(algorithm))? else { continue };
            for entry in Dir::read_from(&dir)? {
                let entry = entry?;
                let Some(digest) = digest_of(algorithm, entry.file_name().to_bytes()) else { continue };
                // One that vanishes meanwhile isn't there.
                let Ok(stat) = rustix::fs::statat(&dir, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                else {
                    continue;
                };
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile {
                    blobs.push((digest, u64::try_from(stat.st_size).unwrap_or(0)));
                }
                if blobs.len() >= MAX_LISTED {
                    tracing::warn!(path = %self.path.display(), "more than {MAX_LISTED} blobs: the rest isn't looked at");
                    break;
                }
            }
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Says what comes and what goes.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower::new(self.clone())
    }

    /// The ingests that name what they will be, with their ids: at most 1,024. containerd downloads three blobs at a time; others that
    /// lie around are what broken-off downloads left.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn ingests(&self) -> io::Result<Vec<Ingest>> {
        ingest::list(self)
    }

    /// The ingest that will be this blob; the one that has come furthest, if there are several.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn ingest(&self, digest: &Digest) -> io::Result<Option<Ingest>> {
        let of_digest = self.ingests()?.into_iter().filter(|ingest| ingest.digest() == digest);
        Ok(of_digest.max_by_key(|ingest| ingest.len_bytes().unwrap_or(0)))
    }

    fn blobs_dir(&self, algorithm: Algorithm) -> io::Result<OwnedFd> {
        open_dir(&open_dir(&self.root, "blobs")?, algorithm.name())
    }
}

/// A blob in the content store. It stays readable when containerd deletes it.
#[derive(Debug)]
pub struct ContentBlob {
    file: File,
    size_bytes: u64,
}

impl ContentBlob {
    /// Its size.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Fills `buf` with the blob's bytes from `offset` on.
    ///
    /// # Errors
    /// If there aren't so many, or they can't be read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// All of it from the first byte on, for [`crate::compute_chain`].
    #[must_use]
    pub fn into_reader(self) -> impl io::Read + Send + 'static {
        self.file
    }
}

/// There is no content store.
#[derive(Debug, thiserror::Error)]
#[error("{root}: isn't containerd's content store: {source}", root = root.display())]
pub struct ContentStoreError {
    root: PathBuf,
    source: io::Error,
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_dir(parent: &OwnedFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// A regular file; none if there is no file of this name. `NONBLOCK`, so that a pipe of this name doesn't hold us.
fn open_file(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(parent, name, flags, Mode::empty()).map_err(io::Error::from);
    let Some(file) = absent(opened)?.map(File::from) else { return Ok(None) };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// What isn't there, or is something else, a symlink above all, is not there.
fn absent<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => match rustix::io::Errno::from_io_error(&error) {
            Some(
                rustix::io::Errno::NOENT
                | rustix::io::Errno::LOOP
                | rustix::io::Errno::NOTDIR
                | rustix::io::Errno::NXIO,
            ) => Ok(None),
            _ => Err(error),
        },
    }
}

fn hex(digest: &Digest) -> String {
    digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest that a file's name is the hex of; none for names that containerd doesn't give to a committed blob.
fn digest_of(algorithm: Algorithm, name: &[u8]) -> Option<Digest> {
    format!("{}:{}", algorithm.name(), std::str::from_utf8(name).ok()?).parse().ok()
}
