//! What the agent keeps for its next start: small files in its data directory.
//!
//! State: none beyond the files.
//! Invariants: a file is replaced as a whole, so that a crash leaves the old one or the new one; one that is too large to be ours isn't read.
//! Absent on purpose: flushing. What is lost with the power is learnt again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads what [`write_json`] has written, of `max_bytes` at most.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path, max_bytes: u64) -> io::Result<T> {
    if fs::metadata(file)?.len() > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Replaces a file by this, as JSON.
pub(crate) fn write_json(file: &Path, content: &impl Serialize) -> io::Result<()> {
    write(file, &serde_json::to_vec(content)?)
}

/// Replaces a file.
pub(crate) fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut new = OsString::from(file);
    new.push(".new");
    fs::write(&new, content)?;
    fs::rename(&new, file)
}
