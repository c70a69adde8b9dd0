//! What people have in a runtime's directory of registries, made up from a seed; and what is there, to be compared later.
//!
//! State: none. Invariant: a seed always gives the same tree. Absent on purpose: the directory of a registry that is to be pulled from: what is made up
//! leads nowhere.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Somebody who isn't root.
const STRANGER: u32 = 1_000;

const ONE_HOST: &str = "server = \"https://harbor.example\"\n\n# Ours first.\n[host.\"https://harbor.example\"]\n  capabilities = [\"pull\"]\n  ca = \"ca.crt\"\n";
const SEVERAL_HOSTS: &str = "# written by hand\r\nserver = \"https://registry-1.docker.io\"\r\n\r\n[host.\"https://a.example\"]\r\n  capabilities = [\"pull\", \"resolve\"]\r\n\
     \r\n  # The second.\r\n[host.\"https://b.example/v2/hub\"]\r\n  override_path = true\r\n[host.\"https://b.example/v2/hub\".header]\r\n  x-team = [\"1\", \"2\"]";
const NO_TOML: &str = "[host.\"https://a.example\"\nserver";

/// One thing that people have.
type Habit = fn(&Path) -> Result<()>;

const HABITS: [Habit; 16] = [
    |root| file(root, "_default/hosts.toml", ONE_HOST, 0o644),
    |root| file(root, "docker.io/hosts.toml", SEVERAL_HOSTS, 0o644),
    |root| file(root, "registry.example:5000/hosts.toml", ONE_HOST, 0o400),
    |root| file(root, "registry.example_5000_/hosts.toml", "", 0o600),
    |root| file(root, "certs.example/ca.crt", "PEM", 0o444),
    |root| {
        file(root, "client.example/me.cert", "PEM", 0o644)?;
        file(root, "client.example/me.key", "PEM", 0o600)
    },
    |root| file(root, "broken.example/hosts.toml", NO_TOML, 0o644),
    |root| directory(root, "empty.example", 0o700),
    |root| link(root, "dangling.example", "nowhere"),
    |root| {
        file(root, "shared.toml", SEVERAL_HOSTS, 0o644)?;
        directory(root, "linked.example", 0o755)?;
        link(root, "linked.example/hosts.toml", "../shared.toml")
    },
    |root| {
        file(root, "real.example/hosts.toml", ONE_HOST, 0o640)?;
        link(root, "alias.example", "real.example")
    },
    |root| file(root, "not a host\n/hosts.toml", ONE_HOST, 0o644),
    |root| file(root, ".hidden/deep/er/hosts.toml", "x = 1", 0o644),
    // A container's root without capabilities may not write here, …
    |root| {
        file(root, "closed.example/hosts.toml", ONE_HOST, 0o444)?;
        fs::set_permissions(root.join("closed.example"), Permissions::from_mode(0o555)).context("a mode stays")
    },
    // … not read this, …
    |root| {
        file(root, "foreign.example/hosts.toml", ONE_HOST, 0o600)?;
        give_away(root, "foreign.example/hosts.toml")
    },
    // … and not look in here.
    |root| {
        file(root, "shut.example/hosts.toml", ONE_HOST, 0o644)?;
        fs::set_permissions(root.join("shut.example"), Permissions::from_mode(0o700)).context("a mode stays")?;
        give_away(root, "shut.example")
    },
];

/// Makes up a tree in a directory that is there.
///
/// # Errors
/// If it can't be written; it takes root.
pub fn make_up(root: &Path, seed: u64) -> Result<()> {
    chosen(seed).into_iter().try_for_each(|number| HABITS[number](root))
}

/// Each habit in a third of the trees, and in one of as many trees as there are habits.
fn chosen(seed: u64) -> Vec<usize> {
    let mut state = seed;
    let is_chosen = |number: &usize| {
        state = mixed(state);
        state.is_multiple_of(3) || *number as u64 == seed % HABITS.len() as u64
    };
    (0..HABITS.len()).filter(is_chosen).collect()
}

/// splitmix64: neighbouring seeds have nothing in common.
const fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// All that is below a directory: of each entry its kind and mode, its owner, and its bytes, its target or nothing; of files when they were changed.
/// What goes while this reads, as a writer's scratch file does, isn't among it.
///
/// # Errors
/// If it can't be read.
pub fn entries(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let listed = fs::read_dir(&directory);
        if directory != root && is_gone(&listed) {
            continue;
        }
        for entry in listed.with_context(|| format!("{} can't be listed", directory.display()))? {
            let path = entry?.path();
            let described = described(&path);
            if is_gone(&described) {
                continue;
            }
            let (is_dir, text) = described.with_context(|| format!("{} can't be read", path.display()))?;
            if is_dir {
                left.push(path.clone());
            }
            found.insert(path.strip_prefix(root)?.to_owned(), text);
        }
    }
    Ok(found)
}

fn is_gone<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether it is a directory, and what there is to compare.
fn described(path: &Path) -> io::Result<(bool, String)> {
    let metadata = fs::symlink_metadata(path)?;
    let what = if metadata.is_symlink() {
        format!("-> {:?}", fs::read_link(path)?)
    } else if metadata.is_dir() {
        String::new()
    } else {
        format!("{:?} {:?}", metadata.modified()?, fs::read(path)?.escape_ascii().to_string())
    };
    Ok((metadata.is_dir(), format!("{:o} {} {} {what}", metadata.mode(), metadata.uid(), metadata.gid())))
}

/// Whether a registry's file has this in it. What an agent remembers of them has it sooner.
///
/// # Errors
/// If it can't be read.
pub fn mentions(root: &Path, text: &str) -> Result<bool> {
    Ok(entries(root)?.iter().any(|(path, entry)| !path.starts_with(".shoal") && entry.contains(text)))
}

fn file(root: &Path, path: &str, text: &str, mode: u32) -> Result<()> {
    let path = root.join(path);
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    write().with_context(|| format!("{} can't be written", path.display()))
}

fn directory(root: &Path, path: &str, mode: u32) -> Result<()> {
    let path = root.join(path);
    let make = || {
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    make().with_context(|| format!("{} can't be made", path.display()))
}

fn link(root: &Path, path: &str, target: &str) -> Result<()> {
    symlink(target, root.join(path)).with_context(|| format!("{path} can't be linked"))
}

fn give_away(root: &Path, path: &str) -> Result<()> {
    chown(root.join(path), Some(STRANGER), Some(STRANGER)).with_context(|| format!("{path} can't be given away"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn twenty_trees_differ_and_have_all_habits() {
        let trees: BTreeSet<Vec<usize>> = (0..20).map(chosen).collect();
        assert!(trees.len() >= 19, "{trees:?}");
        assert_eq!(trees.iter().flatten().collect::<BTreeSet<_>>().len(), HABITS.len());
    }
}
