//! Tools that the commands need and that a fresh machine lacks: built from the registry, once per version, into the user's cache.
//!
//! State: `$XDG_CACHE_HOME/shoal/tools/NAME-VERSION/bin/NAME`, `~/.cache` in the place of an unset variable.
//! Invariants: the checkout stays clean, and all checkouts share one build. Cargo puts the program there only when it is whole, so
//! one that exists is usable.
//! Absent on purpose: prebuilt downloads and programs from PATH. The version is the one that CI has.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::step::Step;

/// A program of a crate that has its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// Checks licences, bans and sources against `deny.toml`.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

impl Tool {
    /// The program's path; it is built first if this machine doesn't have it yet.
    pub(crate) fn installed(self) -> Result<PathBuf> {
        let root = self.root(&cache_home(|name| std::env::var_os(name))?);
        let program = root.join("bin").join(self.name);
        if !program.exists() {
            eprintln!(
                "{} {} is not in the cache yet: building it takes a minute or two, once",
                self.name, self.version
            );
            self.install_step(&root).run("check that crates.io can be reached and that there is a C compiler")?;
        }
        Ok(program)
    }

    fn root(self, cache_home: &Path) -> PathBuf {
        cache_home.join("shoal/tools").join(format!("{}-{}", self.name, self.version))
    }

    /// A tool runs for a second and is built once, so its build is what costs: without the link-time and other optimisation that
    /// its authors chose for their releases, cargo-deny takes 75 s on two cores.
    fn install_step(self, root: &Path) -> Step {
        Step::cargo(["install", "--quiet", "--locked", self.name, "--version", self.version, "--root"])
            .args([root])
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
    }
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
    use super::*;

    fn cache_home_of(variables: &[(&str, &str)]) -> Option<PathBuf> {
        cache_home(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())).ok()
    }

    #[test]
    fn the_cache_is_where_xdg_says() {
        for (variables, expected) in [
            (&[("HOME", "/home/a")][..], Some("/home/a/.cache")),
            (&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/cache")], Some("/cache")),
            (&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative")], Some("/home/a/.cache")),
            (&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "")], Some("/home/a/.cache")),
            (&[("XDG_CACHE_HOME", "/cache")], Some("/cache")),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            assert_eq!(cache_home_of(variables).as_deref(), expected.map(Path::new), "{variables:?}");
        }
    }

    #[test]
    fn each_version_of_a_tool_has_its_own_directory() {
        let tool = |version| Tool { name: "tool", version }.root(Path::new("/cache"));
        assert_eq!(tool("1.0.0"), Path::new("/cache/shoal/tools/tool-1.0.0"));
        assert_ne!(tool("1.0.0"), tool("1.0.1"));
    }

    #[test]
    fn a_tool_is_installed_at_its_version_and_nowhere_else() {
        let line = CARGO_DENY.install_step(Path::new("/cache/root")).to_string();
        assert!(line.ends_with("--locked cargo-deny --version 0.20.2 --root /cache/root"), "{line}");
    }
}
