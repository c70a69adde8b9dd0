//! `cargo xtask images`: the operator's and the agent's images as OCI layouts, without a daemon.
//!
//! Purpose: what the tests of a cluster and people without Docker install. `Dockerfile` makes the same for those who have it.
//! State: `images/NAME` in cargo's target directory. Invariants: an image has a static program, the authorities of the web's certificates and nothing
//! else; what is in it depends on the commit, the lock file and the toolchain, not on the time, the user or where the checkout is.
//! Absent on purpose: several platforms in one image. Only the machine's own target can be taken for granted to be there.

mod layout;
mod tar;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use pem::{EncodeConfig, LineEnding, Pem};
use serde_json::json;

use crate::step::Step;
use layout::Image;
use tar::Archive;

/// What images are built of.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The target whose programs are built: x86_64-unknown-linux-gnu. By default this machine's.
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Their tag; by default the version.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
}

/// An image to be built.
#[derive(Debug)]
struct Program {
    name: &'static str,
    title: &'static str,
    /// The agent is root: the runtime's directories are.
    user: Option<&'static str>,
}

const PROGRAMS: [Program; 2] = [
    Program { name: "shoal-operator", title: "Shoal's operator", user: Some("65532:65532") },
    Program { name: "shoal-agent", title: "Shoal's node agent", user: None },
];

/// No C library has to be there. Names are resolved by what is linked in: files and DNS, which glibc has had in itself since 2.34.
const STATIC: &str = "-C target-feature=+crt-static -C strip=symbols";

/// Where programs look for the authorities of certificates.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// Builds both and says where they are, by name and digest.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in the workspace")?;
    let target = match &options.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    build(root, &target).run("mend the build shown above; it takes the target's C library as a static one")?;
    let commit = Commit::of(root)?;
    let base = base();
    for program in &PROGRAMS {
        let path = target_dir.join(&target).join("release").join(program.name);
        let bytes = fs::read(&path).with_context(|| format!("{} can't be read: build it", path.display()))?;
        ensure!(
            is_static(&bytes),
            "{} isn't static: it asks for an interpreter, which the image hasn't",
            path.display()
        );
        let directory = target_dir.join("images").join(program.name);
        let digest = program.write(&directory, &base, &bytes, &target, &options.tag, &commit)?;
        println!("{}:{} {digest} {}", program.name, options.tag, directory.display());
    }
    Ok(())
}

/// With the target named, the flags hold for the programs alone and not for what runs while they are built.
fn build(root: &Path, target: &str) -> Step {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo"))).unwrap_or_default();
    let (root, home) = (root.display(), home.display());
    let flags = format!("{STATIC} --remap-path-prefix={root}=/shoal --remap-path-prefix={home}=/cargo");
    Step::cargo(["build", "--release", "--locked", "--bins", "-p", "shoal-agent", "-p", "shoal-operator"])
        .args(["--target", target])
        .env("RUSTFLAGS", flags)
}

impl Program {
    fn write(
        &self,
        directory: &Path,
        base: &[u8],
        bytes: &[u8],
        target: &str,
        tag: &str,
        commit: &Commit,
    ) -> Result<String> {
        let mut own = Archive::default();
        own.file(self.name, true, bytes);
        let image = Image {
            architecture: architecture(target)?,
            created: &commit.time,
            tag,
            user: self.user,
            entrypoint: &format!("/{}", self.name),
            labels: json!({
                "org.opencontainers.image.title": self.title,
                "org.opencontainers.image.version": tag,
                "org.opencontainers.image.revision": commit.name,
                "org.opencontainers.image.created": commit.time,
                "org.opencontainers.image.licenses": "Apache-2.0",
            }),
            layers: &[base.to_vec(), own.finish()],
        };
        layout::write(directory, &image)
    }
}

/// The layer below the programs: Mozilla's authorities, and where names are looked up first.
fn base() -> Vec<u8> {
    let roots: Vec<Pem> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|root| Pem::new("CERTIFICATE", root.as_ref())).collect();
    let roots = pem::encode_many_config(&roots, EncodeConfig::new().set_line_ending(LineEnding::LF));
    let mut archive = Archive::default();
    archive.directory("etc/");
    archive.file("etc/nsswitch.conf", false, b"hosts: files dns\n");
    archive.directory("etc/ssl/");
    archive.directory("etc/ssl/certs/");
    archive.file(ROOTS, false, roots.as_bytes());
    archive.finish()
}

/// What the images are built from.
#[derive(Debug)]
struct Commit {
    name: String,
    time: String,
}

impl Commit {
    fn of(root: &Path) -> Result<Self> {
        let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(root).args(args));
        let name = git(&["rev-parse", "HEAD"])?;
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        // In UTC, wherever it was committed.
        let time = git(&["show", "--no-patch", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd", "HEAD"])?;
        Ok(Self { name: if changed { format!("{name}-changed") } else { name }, time })
    }
}

fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host: give --target")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("TZ", "UTC").stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("{name} can't be started: install it"))?;
    ensure!(output.status.success(), "{name} failed ({}): mend what it says above", output.status);
    Ok(String::from_utf8(output.stdout).with_context(|| format!("{name} doesn't write text"))?.trim().to_owned())
}

fn architecture(target: &str) -> Result<&'static str> {
    match target.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => anyhow::bail!("{target} is no target of Shoal's: x86_64 and aarch64 are"),
    }
}

/// Whether an ELF file of 64 bits asks for no interpreter.
fn is_static(bytes: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, width: usize| {
        let field = bytes.get(at..at + width)?;
        Some(field.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((offset, size, count)) = headers().filter(|_| bytes.starts_with(b"\x7fELF\x02")) else { return false };
    (0..count).all(|at| number(offset + at * size, 4).is_some_and(|kind| kind != INTERPRETER as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, program: &Program) -> Vec<(PathBuf, Vec<u8>)> {
        let commit = Commit { name: "0".repeat(40), time: "2026-01-01T00:00:00Z".to_owned() };
        program.write(directory, &base(), b"program", "x86_64-unknown-linux-gnu", "1.0", &commit).unwrap();
        let mut files = Vec::new();
        let mut directories = vec![directory.to_owned()];
        while let Some(next) = directories.pop() {
            for entry in fs::read_dir(next).unwrap().flatten() {
                if entry.path().is_dir() {
                    directories.push(entry.path());
                } else {
                    let path = entry.path().strip_prefix(directory).unwrap().to_owned();
                    files.push((path, fs::read(entry.path()).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn the_same_commit_gives_the_same_image() {
        let scratch = std::env::temp_dir().join(format!("shoal-images-{}", std::process::id()));
        for program in &PROGRAMS {
            let (one, two) = (written(&scratch.join("one"), program), written(&scratch.join("two"), program));
            assert_eq!(one.len(), 6, "index, layout, manifest, configuration, two layers");
            assert_eq!(one, two);
            let again = written(&scratch.join("one"), program);
            assert_eq!(one, again, "what was there before is gone");
        }
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_program_that_needs_a_loader_is_known() {
        let program = |kinds: &[u8]| {
            let mut elf = vec![0; 64 + 56 * kinds.len()];
            elf[..5].copy_from_slice(b"\x7fELF\x02");
            (elf[32], elf[54], elf[56]) = (64, 56, u8::try_from(kinds.len()).unwrap());
            kinds.iter().enumerate().for_each(|(at, kind)| elf[64 + 56 * at] = *kind);
            elf
        };
        assert!(is_static(&program(&[1, 2])));
        assert!(!is_static(&program(&[1, 3])));
        assert!(!is_static(b"#!/bin/sh") && !is_static(&program(&[1, 2])[..100]));
    }

    #[test]
    fn the_dockerfile_makes_the_same() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        let (dockerfile, toolchain) = (read("Dockerfile"), read("rust-toolchain.toml"));
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
        let mut wanted = vec![format!("FROM rust:{channel}-"), format!("RUSTFLAGS=\"{STATIC}\""), ROOTS.to_owned()];
        for Program { name, user, .. } in &PROGRAMS {
            wanted.push(format!("FROM base AS {}", name.trim_start_matches("shoal-")));
            wanted.push(format!("ENTRYPOINT [\"/{name}\"]"));
            wanted.extend(user.map(|user| format!("USER {user}")));
        }
        for line in wanted {
            assert!(dockerfile.contains(&line), "the Dockerfile has no {line}");
        }
    }
}
