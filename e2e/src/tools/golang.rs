//! Programs built from Go modules, static, by the machine's Go.
//!
//! State: none beyond the cache. Invariant: a module's version is exact, and Go checks its sums. Absent on purpose: other sources of Go itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{cache, run};

/// Programs of one module.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// What they are kept as.
    pub name: &'static str,
    /// The module's path.
    pub path: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Packages below the path, each of which is a program of its last part's name.
    pub programs: &'static [&'static str],
    /// A variable that is to hold the version: what the program tells of itself.
    pub version_variable: &'static str,
}

impl Module {
    /// The directory with the programs, built first if this machine doesn't have them yet.
    ///
    /// # Errors
    /// If they can't be built; in one line, with what to do.
    pub fn programs(&self) -> Result<PathBuf> {
        cache::provide(&self.cached_name(), |directory| {
            let mut go = go();
            go.args(["install", "-trimpath", "-ldflags", &self.linker_flags()])
                .args(self.packages())
                .env("GOBIN", directory);
            run(&mut go, REMEDY)
        })
    }

    /// Whether they are in the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        cache::is_cached(&self.cached_name())
    }

    fn cached_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn linker_flags(&self) -> String {
        format!("-s -w -X {}={}", self.version_variable, self.version)
    }

    fn packages(&self) -> impl Iterator<Item = String> {
        self.programs.iter().map(|program| format!("{}/{program}@{}", self.path, self.version))
    }
}

/// A program for which Go must be told more than a module and its version: it is built in a module of ours.
pub(super) struct OwnModule<'a> {
    /// What the program is called.
    pub(super) program: &'a str,
    /// The module's go.mod. Go completes it with what the requirement brings.
    pub(super) go_mod: String,
    /// Its main package, unless `package` is somebody else's.
    pub(super) main: Option<&'a str>,
    /// What is built.
    pub(super) package: &'a str,
    /// Go's -ldflags.
    pub(super) linker_flags: String,
}

impl OwnModule<'_> {
    /// Builds it into a directory.
    pub(super) fn build(&self, directory: &Path) -> Result<()> {
        let module = directory.join("module");
        let written = fs::create_dir(&module).and_then(|()| fs::write(module.join("go.mod"), &self.go_mod));
        let written = written.and_then(|()| self.main.map_or(Ok(()), |main| fs::write(module.join("main.go"), main)));
        written.context("a module for the build can't be written")?;
        let mut go = go();
        go.args(["build", "-mod=mod", "-trimpath", "-ldflags", &self.linker_flags, "-o"])
            .args([directory.join(self.program).as_os_str(), self.package.as_ref()])
            .current_dir(&module);
        run(&mut go, REMEDY)?;
        fs::remove_dir_all(&module).context("the build's directory can't be removed")
    }
}

/// What a build takes.
const REMEDY: &str = "it takes Go (1.24 or newer) and its module proxy";

/// The go command. Without cgo what it builds is static: no C library has to fit, and no C compiler has to be there.
fn go() -> Command {
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env_remove("GOFLAGS");
    go
}
