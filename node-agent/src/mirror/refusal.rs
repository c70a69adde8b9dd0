//! Requests that the mirror refuses without asking the core, and what it answers.
//!
//! State: none.
//! Invariants: never a 5xx for what a client did (but for being one too many), never a status that a runtime retries here (408, 429) or answers
//! with credentials (401).
//! Absent on purpose: the rules of names, paths and ranges. They are `shoal_oci`'s.

use http::StatusCode;
use oci_client::errors::OciErrorCode;
use shoal_oci::paths::PathError;
use shoal_oci::range::RangeError;
use shoal_oci::{ErrorBody, NameError};

/// What is wrong with a request.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// Too many connections.
    Overloaded,
    /// No token, or a wrong one.
    Token,
    /// Neither `GET` nor `HEAD`.
    Method,
    /// Not a request of the pull API.
    Path(PathError),
    /// A registry that isn't configured.
    NotServed,
    /// A range that isn't one, that has no byte of the blob, or several of them: no runtime asks for those.
    Range {
        /// What is wrong with it.
        error: RangeError,
        /// The blob's size, which a client may want to know.
        size_bytes: u64,
    },
}

impl Refusal {
    pub(super) fn body(&self) -> ErrorBody {
        match self {
            Self::Overloaded => ErrorBody::not_now("the mirror has too many connections"),
            // Says nothing to those who guess, and sends a misconfigured runtime to the origin.
            Self::Token => ErrorBody::not_here("the mirror has nothing of that name"),
            Self::NotServed => ErrorBody::not_here("the mirror is not configured for this registry"),
            Self::Method => ErrorBody::read_only(),
            // The conformance suite's manifest that doesn't exist is called `.INVALID_MANIFEST_NAME`, and it expects 404.
            Self::Path(PathError::Name(error @ NameError::Tag { .. })) => {
                ErrorBody::new(StatusCode::NOT_FOUND, OciErrorCode::ManifestUnknown, error.to_string())
            }
            Self::Path(error) => error.into(),
            Self::Range { error, .. } => error.into(),
        }
    }

    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Token => "token",
            Self::Method => "method",
            Self::NotServed => "not_served",
            Self::Path(error) => match error {
                PathError::NotFound => "path",
                PathError::TooLong => "too_long",
                PathError::NoRegistry => "no_registry",
                PathError::TwoRegistries => "two_registries",
                PathError::Limit => "page_limit",
                PathError::Name(error) => match error {
                    NameError::TooLong { .. } => "too_long",
                    NameError::Registry { .. } => "registry",
                    NameError::Repository { .. } | NameError::Image { .. } => "repository",
                    NameError::Tag { .. } => "tag",
                    NameError::Digest { .. } => "digest",
                    NameError::ForeignDigest { .. } => "foreign_digest",
                },
            },
            Self::Range { error, .. } => match error {
                RangeError::Malformed => "range_malformed",
                RangeError::Unsatisfiable { .. } => "range_beyond_end",
                RangeError::Several => "several_ranges",
            },
        }
    }
}
