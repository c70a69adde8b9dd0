//! What can go wrong with a runtime's configuration, one line each.

use std::io;
use std::path::{Path, PathBuf};

/// Why a runtime's configuration wasn't changed, or not wholly. What was done so far is undone by `restore`, and `install` goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The directory can't be used.
    #[error("{}: not a readable directory ({source}): create it, and name it as config_path in the runtime's configuration", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is at it.
    #[error("{}: another process is changing it: wait until it has ended", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// Something in it can't be read or written.
    #[error("{}: {action} failed ({source}): check its permissions and the space that is left", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The journal can't be trusted.
    #[error("{}: {reason}: put the files beside it back by hand, then remove the directory", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The header can't be written down.
    #[error(
        "the mirror's header has letters, digits and \"-\" as its name, and visible ASCII without spaces as its value"
    )]
    Header,
}

impl HostsError {
    /// For `map_err`: what was tried with which path.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}
