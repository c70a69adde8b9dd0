//! Writes the resource's definition as YAML, or compares it with what is written: `cargo xtask generate` and `cargo xtask check`.
//!
//! State: `shoal.dev_swarms.yaml` in the directories that are named. Invariant: what is checked in is what this writes, byte for byte.

use std::path::Path;
use std::process::ExitCode;

use kube::CustomResourceExt as _;
use shoal_api::kube::Swarm;

const HEADER: &str = "# Written by `cargo xtask generate` from crates/api. Don't edit it.\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", ref directories @ ..] => directories.iter().try_for_each(|directory| write(Path::new(directory))),
        ["check", ref directories @ ..] => directories.iter().try_for_each(|directory| check(Path::new(directory))),
        _ => Err("usage: crds write|check DIRECTORY…".to_owned()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn write(directory: &Path) -> Result<(), String> {
    let path = directory.join(file_name());
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, text()?))
        .map_err(|error| format!("{} can't be written: {error}", path.display()))
}

fn check(directory: &Path) -> Result<(), String> {
    let path = directory.join(file_name());
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let expected = text().map_err(|error| error.to_string())?;
    if written == expected {
        return Ok(());
    }
    let same = written.lines().zip(expected.lines()).take_while(|(written, expected)| written == expected).count();
    Err(format!("{} isn't what crates/api says, from line {} on", path.display(), same + 1))
}

/// As other projects' generators name it.
fn file_name() -> String {
    format!("{}_swarms.yaml", shoal_api::GROUP)
}

fn text() -> std::io::Result<String> {
    let yaml = serde_saphyr::to_string(&Swarm::crd()).map_err(std::io::Error::other)?;
    Ok(format!("{HEADER}{yaml}"))
}
