//! Images of programs of this machine.
//!
//! State: none. Invariant: what a program loads is in its image. Absent on purpose: small images: `cargo xtask images` makes those that people install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::json;
use shoal_oci::testing::{Content, Image};
use shoal_types::Digest;

use crate::tools::cluster::Tool;

/// An image and the contents of its blobs.
pub type Stored = (Image, Vec<(Digest, Content)>);

/// An image whose containers sleep, with generated layers of these sizes above the program.
///
/// # Errors
/// If this machine doesn't have the program.
pub fn sleeping_image(layer_bytes: &[u64], seed: u64) -> Result<Stored> {
    let (_, mut blobs) = Image::generate(layer_bytes, seed);
    blobs.truncate(layer_bytes.len());
    sleeping(&Tool::Busybox.program()?, blobs.into_iter().map(|(_, content)| content).collect())
}

/// An image whose containers sleep, with further layers.
pub(super) fn sleeping(busybox: &Path, layers: Vec<Content>) -> Result<Stored> {
    let first = Content::files_layer([("bin/busybox".to_owned(), read(busybox)?)]);
    let config = json!({"Entrypoint": ["/bin/busybox", "sleep", "2147483647"], "Env": ["PATH=/bin"]});
    Ok(Image::of_layers(std::iter::once(first).chain(layers), &config))
}

/// An image of a program that is built beside this one: in the same directory, or above it if this is a test.
///
/// Without what debuggers want where there is a linker's `strip`: it is most of what is built unoptimised, and every node has it in memory twice.
pub(super) fn of_program(name: &str, scratch: &Path) -> Result<Stored> {
    let own = std::env::current_exe().context("this program's own path is unknown")?;
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    let program = beside.with_context(|| format!("{name} isn't built: cargo build --bins, or cargo test"))?;
    let stripped = scratch.join(name);
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&program).output();
    let is_stripped = strip.is_ok_and(|output| output.status.success());
    let mut files = vec![(format!("usr/bin/{name}"), read(if is_stripped { &stripped } else { &program })?)];
    for library in libraries(&program)? {
        files.push((library.display().to_string().trim_start_matches('/').to_owned(), read(&library)?));
    }
    Ok(Image::of_layers([Content::files_layer(files)], &json!({"Entrypoint": [format!("/usr/bin/{name}")]})))
}

/// What the loader would load, itself too.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd can't be started: install libc-bin")?;
    ensure!(output.status.success(), "ldd fails at {}", program.display());
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader by its path alone
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn read(path: &Path) -> Result<Bytes> {
    std::fs::read(path).map(Bytes::from).with_context(|| format!("{} can't be read", path.display()))
}
