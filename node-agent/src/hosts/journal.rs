//! What of a tree is ours.
//!
//! State: for each registry's directory that was touched, whether we made it and what its `hosts.toml` may say that we wrote. It is in `.shoal/journal`, for
//! root alone, because it repeats the mirror's secret.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::HostsError;
use super::disk::Disk;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    pub(super) directories: BTreeMap<String, Entry>,
    #[serde(skip)]
    state: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Nobody had this directory before us.
    pub(super) made: bool,
    /// The file is ours if it says one of these: what it was, and what it was about to be when a crash came.
    pub(super) written: Vec<String>,
}

/// Below the certificates' directory; no registry is called so.
pub(super) const STATE: &str = ".shoal";
const VERSION: u32 = 1;

impl Journal {
    pub(super) fn load(root: &std::path::Path) -> Result<Self, HostsError> {
        let state = root.join(STATE);
        let path = state.join("journal");
        let failed = |reason: String| HostsError::Journal { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut files = std::fs::read_dir(&state).into_iter().flatten().flatten();
                // They are there only while the journal is: somebody removed it.
                if files.any(|file| file.file_name().to_string_lossy().ends_with(SAVED)) {
                    return Err(failed("missing, though there are saved files".to_owned()));
                }
                return Ok(Self { version: VERSION, directories: BTreeMap::new(), state });
            }
            Err(error) => return Err(HostsError::io(&path, "reading it")(error)),
        };
        let journal: Self = serde_json::from_slice(&text).map_err(|error| failed(format!("unreadable ({error})")))?;
        if journal.version != VERSION {
            return Err(failed(format!("of version {}, which this release doesn't know", journal.version)));
        }
        if let Some(name) = journal.directories.keys().find(|name| !is_plain_name(name)) {
            return Err(failed(format!("names {name:?}, which is no directory's name")));
        }
        Ok(Self { state, ..journal })
    }

    /// Writes it down, or removes it with its directory if nothing is ours any more.
    pub(super) fn store(&self, disk: &Disk) -> Result<(), HostsError> {
        let path = self.state.join("journal");
        if self.directories.is_empty() {
            disk.remove_file(&self.scratch())?;
            disk.remove_file(&path)?;
            return disk.remove_dir_if_empty(&self.state);
        }
        disk.make_dir(&self.state)?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| HostsError::Journal { path: path.clone(), reason: error.to_string() })?;
        disk.replace(&path, &self.scratch(), &text, None)
    }

    /// Where what was in a directory before is kept.
    pub(super) fn saved(&self, directory: &str) -> PathBuf {
        self.state.join(format!("{directory}{SAVED}"))
    }

    /// Where files are written before they get their names.
    pub(super) fn scratch(&self) -> PathBuf {
        self.state.join("scratch")
    }
}

const SAVED: &str = ".saved";

/// A journal is read from the disk: it must not lead out of the tree.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name != STATE && !name.contains('/') && !name.contains('\0')
}
