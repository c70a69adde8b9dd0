//! Putting the mirror in front, and taking it back.
//!
//! State: the tree and its journal, under a lock. The order of each directory's changes is what makes a crash harmless:
//!
//! ```text
//! install   journal: the directory, whether we make it, what we are about to write
//!           .shoal/<directory>.saved: what was there, as a second link to it
//!           the directory, if there was none
//!           hosts.toml, by a rename
//! restore   hosts.toml: the saved file comes back by a rename; without one ours is removed
//!           the directory, if we made it and it is empty
//!           journal: without the directory
//! ```
//!
//! After a crash the file says what is true: it is ours, or it isn't; what is saved counts only while it is ours.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use shoal_api::{Endpoint, RegistryHost};

use super::disk::Disk;
use super::journal::{Journal, STATE};
use super::tree::{self, Current, DEFAULT, Found, HOSTS};
use super::{HostsError, Mirror, Targets, text};

/// A runtime's directory of registries, for one process at a time.
#[derive(Debug)]
pub struct CertsDir {
    root: PathBuf,
    pub(super) disk: Disk,
    /// Held for as long as this lives.
    lock: File,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Directories that now have the mirror in front, or are as they were before it: by name, in order.
    pub directories: Vec<String>,
    /// How many files were written, replaced or removed to get there.
    pub changed: usize,
    /// What was left alone.
    pub skipped: Vec<Skipped>,
}

/// Something that was left alone. Pulls from its registries don't go through the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// What.
    pub path: PathBuf,
    /// Why, and what to do.
    pub reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// What is to be installed in a directory.
#[derive(Debug, Default)]
struct Plan<'a> {
    /// The registry, unless the directory is for several.
    host: Option<&'a RegistryHost>,
    endpoint: Option<&'a Endpoint>,
}

impl Drop for CertsDir {
    /// Closing the file isn't enough: a child that this process is just starting shares it until it executes its program.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "the directory's lock ends with the process");
        }
    }
}

impl CertsDir {
    /// Takes a directory that the runtime's `config_path` names.
    ///
    /// # Errors
    /// If it isn't there, or another process has it.
    pub fn open(path: &Path) -> Result<Self, HostsError> {
        let failed = |source| HostsError::Directory { path: path.to_owned(), source };
        let root = fs::canonicalize(path).map_err(failed)?;
        // Listing it shows that it is a readable directory.
        fs::read_dir(&root).map_err(failed)?;
        let lock = File::open(&root).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, disk: Disk::default(), lock }),
            Err(TryLockError::WouldBlock) => Err(HostsError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Puts the mirror in front for these registries, and takes it back for all others that have it. Doing so again changes nothing.
    ///
    /// # Errors
    /// If the disk or the journal fails. What can't be changed for its own reasons is skipped instead.
    pub fn install(&self, mirror: &Mirror, targets: &Targets) -> Result<Report, HostsError> {
        let mut journal = Journal::load(&self.root)?;
        let mut report = Report::default();
        let plans = self.plan(targets, &journal, &mut report)?;
        for (name, plan) in &plans {
            let put = match self.put(name, plan, mirror, &mut journal) {
                Ok(put) => put,
                Err(error) => {
                    let reason = self.refusal(&error).ok_or(error)?;
                    if journal.directories.contains_key(name) {
                        self.take_back(name, &mut journal)?;
                    }
                    Err(reason)
                }
            };
            match put {
                Ok(changed) => {
                    report.directories.push(name.clone());
                    report.changed += usize::from(changed);
                }
                Err(reason) => report.skipped.push(Skipped { path: self.root.join(name).join(HOSTS), reason }),
            }
        }
        let others: Vec<String> =
            journal.directories.keys().filter(|name| !plans.contains_key(*name)).cloned().collect();
        for name in others {
            self.take_back(&name, &mut journal)?;
            report.changed += 1;
        }
        Ok(report)
    }

    /// Takes the mirror back: each file and directory is as it was before, but for what others have changed since. Doing so again changes nothing.
    ///
    /// # Errors
    /// If the disk or the journal fails.
    pub fn restore(&self) -> Result<Report, HostsError> {
        let mut journal = Journal::load(&self.root)?;
        let mut report = Report::default();
        while let Some(name) = journal.directories.keys().next().cloned() {
            self.take_back(&name, &mut journal)?;
            report.changed += 1;
            report.directories.push(name);
        }
        // A crash may have left it empty.
        journal.store(&self.disk)?;
        Ok(report)
    }

    /// The directories that are to have the mirror, by name.
    fn plan<'a>(
        &self,
        targets: &'a Targets,
        journal: &Journal,
        report: &mut Report,
    ) -> Result<BTreeMap<String, Plan<'a>>, HostsError> {
        let mut plans = BTreeMap::new();
        if targets.rest {
            for name in self.names_here()?.into_iter().chain([DEFAULT.to_owned()]) {
                match tree::find(&self.root, &name)? {
                    Found::Directory(name) => {
                        // One that we made was there for a registry that is told apart below, if it still is.
                        if name == DEFAULT || !self.is_made(&name, journal)? {
                            plans.insert(name, Plan::default());
                        }
                    }
                    Found::Nothing if name == DEFAULT => {
                        plans.insert(name, Plan::default());
                    }
                    Found::Nothing => {}
                    Found::Unusable(reason) => report.skipped.push(Skipped { path: self.root.join(name), reason }),
                }
            }
        }
        for target in &targets.registries {
            let plan = Plan { host: Some(&target.host), endpoint: target.endpoint.as_ref() };
            let names = tree::names_of(&target.host);
            let mut own = None;
            for name in &names {
                match tree::find(&self.root, name)? {
                    Found::Nothing => {}
                    found => {
                        own = Some((name, found));
                        break;
                    }
                }
            }
            match own {
                Some((_, Found::Directory(name))) => {
                    if !(targets.rest && plan.endpoint.is_none() && self.is_made(&name, journal)?) {
                        plans.insert(name, plan);
                    }
                }
                Some((name, Found::Unusable(reason))) => {
                    let path = self.root.join(name);
                    if !report.skipped.iter().any(|skipped| skipped.path == path) {
                        report.skipped.push(Skipped { path, reason });
                    }
                }
                // The runtime finds `_default`.
                _ if targets.rest && plan.endpoint.is_none() => {}
                // The name that containerd tries last, so that one that somebody makes later under the other name counts.
                _ => {
                    plans.extend(names.last().map(|name| (name.clone(), plan)));
                }
            }
        }
        Ok(plans)
    }

    /// What somebody else's directory or file refuses. Root without capabilities, as in a container, has no say over what isn't its own.
    fn refusal(&self, error: &HostsError) -> Option<String> {
        let HostsError::Io { path, action, source } = error else { return None };
        let is_ours = *path == self.root || path.starts_with(self.root.join(STATE));
        let is_refusal = source.kind() == ErrorKind::PermissionDenied && !is_ours;
        is_refusal.then(|| {
            format!(
                "{action} failed ({source}) at {}: make file and directory root's own, and writable",
                path.display()
            )
        })
    }

    /// Whether a directory is there because we made it.
    fn is_made(&self, name: &str, journal: &Journal) -> Result<bool, HostsError> {
        match tree::original(&self.root, name, journal) {
            Ok(original) => Ok(matches!(original, Ok(None))),
            Err(error) if self.refusal(&error).is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of directories, and of links that may lead to some.
    fn names_here(&self) -> Result<Vec<String>, HostsError> {
        let failed = || HostsError::io(&self.root, "listing it");
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let kind = entry.file_type().map_err(failed())?;
            let name = entry.file_name().into_string().ok().filter(|name| name != STATE && name != DEFAULT);
            names.extend(name.filter(|_| kind.is_dir() || kind.is_symlink()));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Puts the mirror in front in one directory. Whether that changed anything.
    ///
    /// # Errors
    /// The inner one: why this directory can't have it.
    fn put(
        &self,
        name: &str,
        plan: &Plan<'_>,
        mirror: &Mirror,
        journal: &mut Journal,
    ) -> Result<Result<bool, String>, HostsError> {
        let directory = self.root.join(name);
        let path = directory.join(HOSTS);
        // One that has just got a directory to lead to is followed the next time.
        if fs::symlink_metadata(&directory).is_ok_and(|metadata| !metadata.is_dir()) {
            return Ok(Err("a symbolic link that led nowhere is in the directory's place: remove it".to_owned()));
        }
        let (desired, owner) = match self.desired(name, plan, mirror, journal)? {
            Ok(desired) => desired,
            Err(reason) => return Ok(Err(reason)),
        };
        let current = tree::current(&self.root, name, journal)?;
        let ours = match current {
            Current::Ours => Some(fs::read_to_string(&path).map_err(HostsError::io(&path, "reading it"))?),
            _ => None,
        };
        if ours.as_ref() == Some(&desired) {
            return Ok(Ok(false));
        }

        let entry = journal.directories.entry(name.to_owned()).or_default();
        entry.made |= !directory.is_dir();
        entry.written = ours.into_iter().chain([desired.clone()]).collect();
        journal.store(&self.disk)?;
        let (saved, scratch) = (journal.saved(name), journal.scratch());
        match current {
            Current::Ours => {}
            Current::Edited { rest, owner } => self.disk.replace(&saved, &scratch, rest.as_bytes(), Some(owner))?,
            Current::Foreign => self.disk.link(&path, &saved, &scratch)?,
            Current::Absent => self.disk.remove_file(&saved)?,
        }
        self.disk.make_dir(&directory)?;
        self.disk.replace(&path, &scratch, desired.as_bytes(), owner)?;
        Ok(Ok(true))
    }

    /// What a directory's file shall say, and whose it shall be.
    fn desired(
        &self,
        name: &str,
        plan: &Plan<'_>,
        mirror: &Mirror,
        journal: &Journal,
    ) -> Result<Result<(String, Option<super::disk::Owner>), String>, HostsError> {
        let original = match tree::original(&self.root, name, journal)? {
            Ok(original) => original,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(original) = original {
            let text = match &original.text {
                Some(text) => text::insert(text, mirror),
                None => Ok(text::fresh(mirror, plan.endpoint, &original.certificates(""))),
            };
            return Ok(text.map(|text| (text, original.owner)));
        }
        // A directory of its own keeps the runtime from reading `_default`: what that said is said here.
        let before = match plan.host {
            Some(host) => tree::effective(&self.root, host, journal)?,
            None => None,
        };
        let text = match before {
            Some((other, original)) => match &original.text {
                Some(text) => text::moved_from(text, &other).and_then(|text| text::insert(&text, mirror)),
                None => Ok(text::fresh(mirror, plan.endpoint, &original.certificates(&format!("../{other}/")))),
            },
            None => Ok(text::fresh(mirror, plan.endpoint, &text::Certificates::default())),
        };
        Ok(text.map(|text| (text, None)))
    }

    /// Takes the mirror back in one directory.
    fn take_back(&self, name: &str, journal: &mut Journal) -> Result<(), HostsError> {
        let directory = self.root.join(name);
        let path = directory.join(HOSTS);
        let (saved, scratch) = (journal.saved(name), journal.scratch());
        let has_saved = fs::symlink_metadata(&saved).is_ok();
        match tree::current(&self.root, name, journal)? {
            Current::Ours if has_saved => self.disk.rename(&saved, &path)?,
            Current::Ours => self.disk.remove_file(&path)?,
            Current::Edited { rest, .. } if rest.is_empty() && !has_saved => self.disk.remove_file(&path)?,
            Current::Edited { rest, owner } => self.disk.replace(&path, &scratch, rest.as_bytes(), Some(owner))?,
            Current::Foreign | Current::Absent => {}
        }
        self.disk.remove_file(&saved)?;
        self.disk.remove_file(&scratch)?;
        let made = journal.directories.remove(name).is_some_and(|entry| entry.made);
        if made {
            self.disk.remove_dir_if_empty(&directory)?;
        }
        journal.store(&self.disk)
    }
}
