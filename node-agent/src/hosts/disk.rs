//! The few changes that are made to a disk, each of which is a step that a crash may follow.
//!
//! State: in tests, the steps that are left until the "crash". Invariants: a file appears under its name with all its bytes or not at all; what a call has
//! done is on the disk when it returns.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use super::HostsError;

#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) steps_left: Option<std::cell::Cell<usize>>,
}

/// A file's owner and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Owner {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

impl Disk {
    /// Writes a file by way of `scratch`. `None`: ours, for nobody else to read, because the mirror's header is a secret.
    pub(super) fn replace(
        &self,
        path: &Path,
        scratch: &Path,
        bytes: &[u8],
        owner: Option<Owner>,
    ) -> Result<(), HostsError> {
        self.remove_file(scratch)?;
        self.step(scratch)?;
        // `create_new` never opens what a link points to.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(scratch)
            .map_err(HostsError::io(scratch, "creating it"))?;
        let half = bytes.len() / 2;
        file.write_all(&bytes[..half]).map_err(HostsError::io(scratch, "writing it"))?;
        self.step(scratch)?;
        file.write_all(&bytes[half..]).map_err(HostsError::io(scratch, "writing it"))?;
        if let Some(owner) = owner {
            let own = file.metadata().map_err(HostsError::io(scratch, "reading its owner"))?;
            if (own.uid(), own.gid()) != (owner.uid, owner.gid) {
                fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(HostsError::io(path, "giving it its owner"))?;
            }
            let mode = fs::Permissions::from_mode(owner.mode);
            file.set_permissions(mode).map_err(HostsError::io(path, "giving it its mode"))?;
        }
        file.sync_all().map_err(HostsError::io(scratch, "writing it"))?;
        self.rename(scratch, path)
    }

    /// Gives a file, or a symbolic link itself, a second name; what had that name is replaced.
    pub(super) fn link(&self, path: &Path, second: &Path, scratch: &Path) -> Result<(), HostsError> {
        self.remove_file(scratch)?;
        self.step(path)?;
        fs::hard_link(path, scratch).map_err(HostsError::io(path, "linking it into .shoal"))?;
        self.rename(scratch, second)?;
        // A rename between two names of one file does nothing.
        self.remove_file(scratch)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), HostsError> {
        self.step(from)?;
        fs::rename(from, to).map_err(HostsError::io(to, "replacing it"))?;
        sync_parent(to)?;
        sync_parent(from)
    }

    /// Removes a file or a link; it's fine if there is none.
    pub(super) fn remove_file(&self, path: &Path) -> Result<(), HostsError> {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        self.step(path)?;
        fs::remove_file(path).map_err(HostsError::io(path, "removing it"))?;
        sync_parent(path)
    }

    /// Makes a directory; it's fine if it is there.
    pub(super) fn make_dir(&self, path: &Path) -> Result<(), HostsError> {
        if is_dir(path) {
            return Ok(());
        }
        self.step(path)?;
        fs::create_dir(path).map_err(HostsError::io(path, "making it"))?;
        sync_parent(path)
    }

    /// Removes a directory; it's fine if there is none, or if somebody keeps something in it.
    pub(super) fn remove_dir_if_empty(&self, path: &Path) -> Result<(), HostsError> {
        if !is_dir(path) {
            return Ok(());
        }
        self.step(path)?;
        match fs::remove_dir(path) {
            Ok(()) => sync_parent(path),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(HostsError::io(path, "removing it")(error)),
        }
    }

    /// Counts a step. In tests the one after the last is a crash.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests count"))]
    fn step(&self, _at: &Path) -> Result<(), HostsError> {
        #[cfg(test)]
        if let Some(left) = &self.steps_left {
            let Some(rest) = left.get().checked_sub(1) else {
                return Err(HostsError::io(_at, "the test's crash")(ErrorKind::Interrupted.into()));
            };
            left.set(rest);
        }
        Ok(())
    }
}

/// A link to a directory is none.
fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A name is on the disk when its directory is.
fn sync_parent(path: &Path) -> Result<(), HostsError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(HostsError::io(parent, "writing it"))
}
