//! What an image is to run on: choosing from an index.
//!
//! State: none. Absent on purpose: containerd's list of platforms that run each other's images; the first entry that is what was asked for
//! is taken.

use std::fmt;
use std::str::FromStr;

use shoal_oci::manifest::{self, Child};

/// An operating system and an architecture, in Go's words, and a variant where it matters: `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform(manifest::Platform);

impl Platform {
    /// Linux on this machine's architecture.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self(manifest::Platform { os: "linux".into(), architecture: architecture.into(), variant: None })
    }

    /// The architecture, in Go's word.
    pub(crate) fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// The first manifest for this platform. One that asks for no variant takes any.
    pub(crate) fn choose<'a>(&self, children: &'a [Child]) -> Option<&'a Child> {
        children.iter().find(|child| {
            child.platform.as_ref().is_some_and(|found| {
                (&found.os, &found.architecture) == (&self.0.os, &self.0.architecture)
                    && (self.0.variant.is_none() || self.0.variant == found.variant)
            })
        })
    }
}

impl From<manifest::Platform> for Platform {
    fn from(platform: manifest::Platform) -> Self {
        Self(platform)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.os, self.0.architecture)?;
        self.0.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err("write OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64"),
        };
        if !parts.iter().all(|part| word(part)) {
            return Err("write OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64");
        }
        let variant = variant.map(str::to_owned);
        Ok(Self(manifest::Platform { os: os.into(), architecture: architecture.into(), variant }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_written_as_they_are_read() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert!(Platform::of_this_machine().to_string().starts_with("linux/"));
    }
}
