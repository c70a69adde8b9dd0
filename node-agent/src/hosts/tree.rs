//! What a tree says for a registry, seen past what we put into it.
//!
//! State: none beyond the tree and the journal. Invariant: reading follows links only to regular files of bounded size.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use shoal_api::RegistryHost;

use super::HostsError;
use super::disk::Owner;
use super::journal::{Journal, STATE};
use super::text::{self, Certificates};

/// The directory for registries without one of their own.
pub(super) const DEFAULT: &str = "_default";
/// The file in a registry's directory.
pub(super) const HOSTS: &str = "hosts.toml";
/// Real ones have some hundred bytes.
const MAX_BYTES: u64 = 256 << 10;

/// What a registry's `hosts.toml` is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Current {
    /// Nothing there.
    Absent,
    /// As we wrote it.
    Ours,
    /// Somebody changed it around our section: without that it says this.
    Edited { rest: String, owner: Owner },
    /// Somebody else's.
    Foreign,
}

/// What a directory said before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Original {
    /// The file's text; `None` if there was no file or an empty one.
    pub(super) text: Option<String>,
    /// The file's owner and mode.
    pub(super) owner: Option<Owner>,
    /// Certificates in the directory, which count where there is no file.
    pub(super) certificates: Vec<String>,
}

/// The names by which containerd looks for a registry's directory, in its order.
pub(super) fn names_of(host: &RegistryHost) -> Vec<String> {
    let host = host.as_str();
    match host.rfind(':') {
        Some(colon) if colon > 0 => vec![format!("{}_{}_", &host[..colon], &host[colon + 1..]), host.to_owned()],
        _ => vec![host.to_owned()],
    }
}

/// A directory by one of its names. A link within the tree is the directory that it leads to.
pub(super) enum Found {
    Nothing,
    Directory(String),
    /// Something that is left alone, and why.
    Unusable(String),
}

pub(super) fn find(root: &Path, name: &str) -> Result<Found, HostsError> {
    let path = root.join(name);
    let link = match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Ok(Found::Directory(name.to_owned())),
        Ok(metadata) => metadata.is_symlink(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(HostsError::io(&path, "looking at it")(error)),
    };
    if !link {
        return Ok(Found::Unusable("not a directory: remove it".to_owned()));
    }
    let target = match fs::canonicalize(&path) {
        Ok(target) => target,
        // The runtime doesn't see it, and goes on to the next name.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Ok(Found::Unusable(format!("a symbolic link that leads nowhere ({error}): correct it"))),
    };
    let name = target.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    match name {
        Some(name) if target.parent() == Some(root) && target.is_dir() && name != STATE => Ok(Found::Directory(name)),
        _ => {
            Ok(Found::Unusable("a symbolic link out of the tree, which isn't followed: make it a directory".to_owned()))
        }
    }
}

/// What is in a directory now.
pub(super) fn current(root: &Path, name: &str, journal: &Journal) -> Result<Current, HostsError> {
    let directory = root.join(name);
    // Somebody may have put a link into the directory's place since.
    if !fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Current::Absent);
    }
    let path = directory.join(HOSTS);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Current::Absent),
        Err(error) => return Err(HostsError::io(&path, "looking at it")(error)),
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Ok(Current::Foreign);
    }
    let bytes = fs::read(&path).map_err(HostsError::io(&path, "reading it"))?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Current::Foreign) };
    if journal.directories.get(name).is_some_and(|entry| entry.written.contains(&text)) {
        return Ok(Current::Ours);
    }
    Ok(text::cut(&text).map_or(Current::Foreign, |rest| Current::Edited { rest, owner: Owner::of(&metadata) }))
}

/// What a directory said before us; `None` if it wasn't there before us.
///
/// # Errors
/// The inner one: why its file can't be used, for people.
pub(super) fn original(
    root: &Path,
    name: &str,
    journal: &Journal,
) -> Result<Result<Option<Original>, String>, HostsError> {
    let directory = root.join(name);
    let current = current(root, name, journal)?;
    if current == Current::Absent && !directory.is_dir() {
        return Ok(Ok(None));
    }
    let certificates = file_names(&directory)?;
    let made = journal.directories.get(name).is_some_and(|entry| entry.made);
    let others = certificates.iter().any(|file| file != HOSTS);
    let (text, owner) = match current {
        Current::Ours => {
            let saved = journal.saved(name);
            match fs::symlink_metadata(&saved) {
                Ok(_) => match read_text(&saved, &directory)? {
                    Ok(read) => read,
                    Err(reason) => return Ok(Err(reason)),
                },
                Err(_) if made && !others => return Ok(Ok(None)),
                Err(_) => (None, None),
            }
        }
        Current::Edited { rest, owner } => (Some(rest), Some(owner)),
        Current::Foreign => match read_text(&directory.join(HOSTS), &directory)? {
            Ok(read) => read,
            Err(reason) => return Ok(Err(reason)),
        },
        Current::Absent if made && !others => return Ok(Ok(None)),
        Current::Absent => (None, None),
    };
    // A link may lead to a file that has the mirror. What is left is what that file said before.
    let text = text.map(|text| text::cut(&text).unwrap_or(text)).filter(|text| !text.is_empty());
    Ok(Ok(Some(Original { text, owner, certificates })))
}

/// The directory that holds for a registry before us: its own, or `_default`.
pub(super) fn effective(
    root: &Path,
    host: &RegistryHost,
    journal: &Journal,
) -> Result<Option<(String, Original)>, HostsError> {
    for name in names_of(host).into_iter().chain([DEFAULT.to_owned()]) {
        let Found::Directory(name) = find(root, &name)? else { continue };
        match original(root, &name, journal)? {
            Ok(Some(original)) => return Ok(Some((name, original))),
            Ok(None) => {}
            // The runtime can't read it either, and looks at the certificates beside it.
            Err(_) => {
                let certificates = file_names(&root.join(&name))?;
                return Ok(Some((name, Original { text: None, owner: None, certificates })));
            }
        }
    }
    Ok(None)
}

impl Original {
    /// The certificates that count, as paths that begin with `prefix`.
    pub(super) fn certificates(&self, prefix: &str) -> Certificates {
        Certificates::among(self.certificates.clone(), prefix)
    }
}

type ReadText = (Option<String>, Option<Owner>);

/// Reads a file that may be a link. A link kept in `.shoal` leads where it led from `directory`.
fn read_text(path: &Path, directory: &Path) -> Result<Result<ReadText, String>, HostsError> {
    let metadata = fs::symlink_metadata(path).map_err(HostsError::io(path, "looking at it"))?;
    let target: PathBuf = if metadata.is_symlink() {
        directory.join(fs::read_link(path).map_err(HostsError::io(path, "reading the link"))?)
    } else {
        path.to_owned()
    };
    let metadata = match fs::metadata(&target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok((None, None))),
        Err(error) => return Ok(Err(format!("a symbolic link that leads nowhere ({error}): correct it"))),
    };
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Ok(Err("not a file: remove it".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&target).map_err(HostsError::io(&target, "opening it"))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(HostsError::io(&target, "reading it"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Ok(Err(format!("more than {} KiB: write a shorter one", MAX_BYTES >> 10)));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Ok((Some(text), Some(Owner::of(&metadata)))),
        Err(_) => Err("not UTF-8, so the runtime reads nothing of it: correct or remove it".to_owned()),
    })
}

/// The names of a directory's files; none if there is no directory.
fn file_names(directory: &Path) -> Result<Vec<String>, HostsError> {
    let failed = || HostsError::io(directory, "listing it");
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}
