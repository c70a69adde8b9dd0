//! What can go wrong with a pull, one line each.

use std::io;
use std::path::{Path, PathBuf};

use http::StatusCode;
use shoal_types::Digest;

use super::request::MirrorUrl;
use crate::mirror::TokenError;

/// Why an image wasn't pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Nobody listens there.
    #[error("there is no mirror at {mirror} ({source}): start the agent, or name its address with --mirror")]
    Unreachable {
        /// Where.
        mirror: MirrorUrl,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("{what}: the mirror answered {status}{}: a container runtime would ask the origin now", said(message))]
    Refused {
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// What it said about it.
        message: String,
    },
    /// A body ended early, and the mirror doesn't go on with it.
    #[error(
        "{what}: cut at {at} of {of} bytes, and the mirror doesn't go on ({why}): a container runtime would go on at the origin; run it again"
    )]
    Cut {
        /// What was asked for.
        what: String,
        /// Bytes that came.
        at: u64,
        /// Bytes in all.
        of: u64,
        /// What the mirror did last.
        why: String,
    },
    /// No answer.
    #[error("{what}: no answer from the mirror ({why}): see its log")]
    NoAnswer {
        /// What was asked for.
        what: String,
        /// Why.
        why: String,
    },
    /// An answer that doesn't follow the distribution specification.
    #[error("{what}: the mirror's answer {fault}: see whether {mirror} is a registry mirror")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        fault: &'static str,
        /// The mirror.
        mirror: MirrorUrl,
    },
    /// Wrong bytes.
    #[error("{digest}: {bytes} bytes came that aren't it: nothing of them was kept; run it again")]
    WrongBytes {
        /// What was asked for.
        digest: Digest,
        /// How many came.
        bytes: u64,
    },
    /// Not an image.
    #[error("{what}: neither an image nor an index of images")]
    NoImage {
        /// What was asked for.
        what: String,
    },
    /// An image for other platforms.
    #[error("{what}: nothing for {wanted} in it: choose one of {} with --platform", found.join(", "))]
    Platform {
        /// What was asked for.
        what: String,
        /// The platform.
        wanted: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// A directory that is in use for something else.
    #[error("{}: not empty, and not an OCI image layout: name another directory", path.display())]
    NoLayout {
        /// The directory.
        path: PathBuf,
    },
    /// A file.
    #[error("{}: {action} failed ({source}): check its permissions and the space that is left", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// What comes can't be written where the caller wants it.
    #[error("{digest}: it can't be written ({source}): check the space that is left")]
    Write {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Not a secret.
    #[error("{}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// Ctrl-C.
    #[error("interrupted: the blobs that were complete are kept; run it again")]
    Interrupted,
}

impl PullError {
    /// For `map_err`: what was tried with which path.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
