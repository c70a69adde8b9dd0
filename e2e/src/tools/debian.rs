//! Packages of the machine's Debian, unpacked into the cache. Installing them would start services and stay.
//!
//! State: none beyond the cache. Invariant: nothing is installed. Absent on purpose: dependencies. What is used of these packages needs the C
//! library and, for runc, libseccomp, which apt itself depends on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{cache, run};

/// The root of a package's files: `usr/bin` and so on are below it.
///
/// # Errors
/// If apt can't get it; in one line, with what to do.
pub fn package(name: &str) -> Result<PathBuf> {
    cache::provide(&cached_name(name)?, |root| unpack(name, root))
}

/// Whether a package is in the cache.
#[must_use]
pub fn is_cached(name: &str) -> bool {
    cached_name(name).is_ok_and(|name| cache::is_cached(&name))
}

fn unpack(name: &str, root: &Path) -> Result<()> {
    let remedy = "it takes a Debian whose lists are there (apt-get update)";
    run(Command::new("apt-get").args(["download", "-q", name]).current_dir(root), remedy)?;
    let files = fs::read_dir(root).context("the download can't be read")?.flatten();
    let archive = files.map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.context("apt-get says that it has it, and there is no file")?;
    run(Command::new("dpkg-deb").arg("-x").args([&archive, root]), "remove it and try again")?;
    fs::remove_file(&archive).context("the archive can't be removed")
}

/// The release stands for the version: a stable one changes a package's by security fixes alone.
fn cached_name(name: &str) -> Result<String> {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = codename(&system).with_context(|| format!("{name} comes from Debian, and this system isn't one"))?;
    Ok(format!("{name}-{release}"))
}

fn codename(os_release: &str) -> Option<&str> {
    let value = |key| os_release.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    value("VERSION_CODENAME=").filter(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_known_by_its_codename() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\""), Some("trixie"));
        assert_eq!(codename("ID=alpine\n"), None);
    }
}
