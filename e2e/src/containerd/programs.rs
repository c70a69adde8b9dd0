//! Which containerd: the oldest that is met in the field, and the newest.
//!
//! State: none beyond the tools' cache.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::tools::debian;
use crate::tools::golang::Module;
use crate::tools::version_of;

const DEBIAN_PACKAGE: &str = "containerd";

const MODULE: Module = Module {
    name: "containerd",
    path: "github.com/containerd/containerd/v2",
    version: "v2.4.2",
    programs: &["cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"],
    version_variable: "github.com/containerd/containerd/v2/version.Version",
};

/// A line of releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// Debian 12's.
    #[value(name = "1.6")]
    V1_6,
    /// The current one, with the transfer service.
    #[value(name = "2")]
    V2,
}

/// containerd's programs.
#[derive(Clone, Debug)]
pub struct Programs {
    version: Version,
    directory: PathBuf,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V1_6, Self::V2];

    /// Its programs, fetched or built first if this machine doesn't have them yet.
    ///
    /// # Errors
    /// If they can't be had; in one line, with what to do.
    pub fn programs(self) -> Result<Programs> {
        let directory = match self {
            Self::V1_6 => debian::package(DEBIAN_PACKAGE)?.join("usr/bin"),
            Self::V2 => MODULE.programs()?,
        };
        let programs = Programs { version: self, directory };
        let says = version_of(programs.containerd())?;
        // "containerd github.com/containerd/containerd v1.6.20~ds1 1.6.20~ds1-1+b1"
        let wanted = match self {
            Self::V1_6 => "1.6.",
            Self::V2 => "2.",
        };
        let fits = says.split(' ').any(|word| word.trim_start_matches('v').starts_with(wanted));
        ensure!(fits, "this machine's packages have another containerd ({says}): use --containerd 2");
        Ok(programs)
    }

    /// Whether they are there already, so that they cost no minutes.
    #[must_use]
    pub fn is_cached(self) -> bool {
        match self {
            Self::V1_6 => debian::is_cached(DEBIAN_PACKAGE),
            Self::V2 => MODULE.is_cached(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_6 => "1.6",
            Self::V2 => "2",
        })
    }
}

impl Programs {
    /// Which they are.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The daemon's.
    #[must_use]
    pub fn containerd(&self) -> PathBuf {
        self.directory.join("containerd")
    }

    /// Where the shim is, too.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
