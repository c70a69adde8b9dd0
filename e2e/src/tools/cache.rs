//! The directory in which tools are kept.
//!
//! State: `NAME-VERSION/` for each tool, `NAME-VERSION.lock` beside it. Invariants: who makes a directory holds its lock, makes it under
//! another name and renames it when it is whole. Absent on purpose: eviction; there are a handful, and all of them can be made again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directory of a tool; `make` fills one that isn't there yet, and may take minutes.
pub(super) fn provide(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    provide_in(&tools()?, name, make)
}

/// Whether a tool's directory is there, so that it costs no time.
#[must_use]
pub fn is_cached(name: &str) -> bool {
    tools().is_ok_and(|tools| tools.join(name).is_dir())
}

fn provide_in(tools: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let whole = tools.join(name);
    if whole.is_dir() {
        return Ok(whole);
    }
    let (lock, partial) = (tools.join(format!("{name}.lock")), tools.join(format!("{name}.partial")));
    let cant = || format!("{} can't be written", tools.display());
    fs::create_dir_all(tools).with_context(cant)?;
    let held = File::create(&lock).with_context(cant)?;
    held.lock().with_context(cant)?;
    // Whoever held the lock before has made it.
    if whole.is_dir() {
        return Ok(whole);
    }
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(cant)?;
    }
    fs::create_dir(&partial).with_context(cant)?;
    eprintln!("{name} is not in {} yet: making it, once", tools.display());
    make(&partial).with_context(|| format!("{name} can't be had"))?;
    fs::rename(&partial, &whole).with_context(cant)?;
    Ok(whole)
}

fn tools() -> Result<PathBuf> {
    Ok(cache_home(|name| std::env::var_os(name))?.join("shoal/tools"))
}

/// The base directory for caches, as the XDG specification has it: a relative `XDG_CACHE_HOME` counts as unset.
fn cache_home(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("there is nowhere to keep tools: set HOME or XDG_CACHE_HOME to an absolute path")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_tool_is_made_once_also_by_many_and_what_failed_leaves_nothing() {
        let tools = std::env::temp_dir().join(format!("shoal-e2e-tools-{}", std::process::id()));
        let made = AtomicU32::new(0);
        let make = |path: &Path| {
            made.fetch_add(1, Ordering::Relaxed);
            Ok(fs::write(path.join("program"), "whole")?)
        };
        let failed = provide_in(&tools, "tool-1", |path| {
            fs::write(path.join("program"), "half")?;
            bail!("no network")
        });
        assert_eq!(format!("{:#}", failed.unwrap_err()), "tool-1 can't be had: no network");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let path = provide_in(&tools, "tool-1", make).unwrap();
                    assert_eq!(fs::read_to_string(path.join("program")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        fs::remove_dir_all(tools).unwrap();
    }

    #[test]
    fn the_cache_is_where_xdg_says() {
        let of = |variables: &[(&str, &str)]| {
            cache_home(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())).ok()
        };
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some("/c".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]), Some("/h/.cache".into()));
        assert_eq!(of(&[("HOME", "")]), None);
    }
}
