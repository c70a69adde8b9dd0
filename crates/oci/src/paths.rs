//! Requests of the distribution API's pull side, from path and query to typed values.
//!
//! State: none.
//! Invariants: a parsed request has valid names; what a query passes on to the origin is bounded.
//! Absent on purpose: methods (a mirror answers GET and HEAD, and says so itself), uploads, the catalog.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use shoal_types::Digest;

use crate::names::{NameError, Reference, Registry, Repository, parse_digest};

/// The longest path and the longest query that are looked at. The longest honest path has two names of 255 bytes and a SHA-512 digest,
/// 700 bytes, and three times that if all of it is percent-encoded.
const MAX_BYTES: usize = 2100;

/// The longest value of a query that is passed on: a media type has at most 255 bytes, a tag 128.
const MAX_PASSED_BYTES: usize = 255;

/// A request to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `/v2/`: is this a registry?
    Base,
    /// Something in a repository.
    In {
        /// The registry meant: `ns`, or the path's first part, or the default.
        registry: Registry,
        /// The repository.
        repository: Repository,
        /// What of it.
        target: Target,
    },
}

/// What is asked for in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Digest),
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The manifest that is referred to.
        digest: Digest,
        /// `artifactType`: only these.
        artifact_type: Option<String>,
    },
    /// `/v2/<name>/tags/list`
    Tags(Page),
}

/// Which part of a list of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// `n`: at most so many.
    pub limit: Option<u32>,
    /// `last`: those after this one.
    pub after: Option<String>,
}

/// Reads a request. Without `ns` the registry is the path's first part if that looks like one, else `default`.
///
/// # Errors
/// If it isn't a request of the pull API, or a name in it isn't one.
pub fn parse(path: &str, query: Option<&str>, default: Option<&Registry>) -> Result<Request, PathError> {
    let query = query.unwrap_or_default();
    if path.len() > MAX_BYTES || query.len() > MAX_BYTES {
        return Err(PathError::TooLong);
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| PathError::NotFound)?;
    if matches!(path.as_ref(), "/v2" | "/v2/") {
        return Ok(Request::Base);
    }
    // From the end: a repository may well have a part called "manifests".
    let (head, last) = path.strip_prefix("/v2/").and_then(|rest| rest.rsplit_once('/')).ok_or(PathError::NotFound)?;
    let (name, kind) = head.rsplit_once('/').ok_or(PathError::NotFound)?;
    let query = Query::read(query)?;
    let target = match kind {
        "manifests" => Target::Manifest(last.parse()?),
        "blobs" => Target::Blob(parse_digest(last)?),
        "referrers" => Target::Referrers { digest: parse_digest(last)?, artifact_type: query.artifact_type },
        "tags" if last == "list" => Target::Tags(query.page),
        _ => return Err(PathError::NotFound),
    };
    let (registry, repository) = match (query.ns, name.split_once('/'), default) {
        (Some(ns), _, _) => (ns.parse()?, name),
        (None, Some((first, rest)), _) if Registry::is_first_part(first) => (first.parse()?, rest),
        (None, _, Some(default)) => (default.clone(), name),
        (None, _, None) => return Err(PathError::NoRegistry),
    };
    Ok(Request::In { registry, repository: repository.parse()?, target })
}

/// The parts of a query that mean something; everything else is ignored, as servers do.
#[derive(Default)]
struct Query<'a> {
    ns: Option<Cow<'a, str>>,
    artifact_type: Option<String>,
    page: Page,
}

impl<'a> Query<'a> {
    fn read(query: &'a str) -> Result<Self, PathError> {
        let mut read = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let known = matches!(key.as_ref(), "artifactType" | "last" | "n");
            if known && value.len() > MAX_PASSED_BYTES {
                return Err(PathError::TooLong);
            }
            match key.as_ref() {
                "ns" if read.ns.is_some() => return Err(PathError::TwoRegistries),
                "ns" => read.ns = Some(value),
                "artifactType" => read.artifact_type = Some(value.into_owned()),
                "last" => read.page.after = Some(value.into_owned()),
                "n" => read.page.limit = Some(value.parse().map_err(|_| PathError::Limit)?),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// Why a request can't be understood.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PathError {
    /// Nothing of the pull API.
    #[error("no such path in a registry's pull API")]
    NotFound,
    /// Longer than any honest request.
    #[error("the request is longer than any that a registry knows")]
    TooLong,
    /// A name isn't one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It says nowhere which registry is meant.
    #[error("the request names no registry: neither ns nor the path's first part")]
    NoRegistry,
    /// `ns` twice.
    #[error("the request names two registries")]
    TwoRegistries,
    /// `n` isn't a number.
    #[error("n isn't a number")]
    Limit,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parts(path: &str, query: Option<&str>) -> Result<(String, String, Target), PathError> {
        match parse(path, query, None)? {
            Request::In { registry, repository, target } => Ok((registry.to_string(), repository.to_string(), target)),
            Request::Base => panic!("{path} is not the base"),
        }
    }

    #[test]
    fn every_path_of_the_pull_api_is_understood() {
        let (registry, repository, target) = parts("/v2/library/alpine/manifests/3.20", Some("ns=docker.io")).unwrap();
        assert_eq!((registry.as_str(), repository.as_str()), ("docker.io", "library/alpine"));
        assert_eq!(target, Target::Manifest("3.20".parse().unwrap()));

        let path = format!("/v2/a/manifests/blobs/{DIGEST}");
        let (_, repository, target) = parts(&path, Some("x=1&ns=registry.example%3A5000")).unwrap();
        assert_eq!((repository.as_str(), target), ("a/manifests", Target::Blob(DIGEST.parse().unwrap())));

        let path = format!("/v2/a/referrers/{}", DIGEST.replace(':', "%3A"));
        let (_, _, target) = parts(&path, Some("ns=r.example&artifactType=application%2Fx")).unwrap();
        let artifact_type = Some("application/x".to_owned());
        assert_eq!(target, Target::Referrers { digest: DIGEST.parse().unwrap(), artifact_type });

        let (_, _, target) = parts("/v2/tags/tags/list", Some("n=10&last=v1&ns=r.example")).unwrap();
        assert_eq!(target, Target::Tags(Page { limit: Some(10), after: Some("v1".into()) }));

        for base in ["/v2", "/v2/"] {
            assert_eq!(parse(base, Some("ns=whatever"), None).unwrap(), Request::Base);
        }
    }

    #[test]
    fn without_ns_the_first_part_or_the_default_names_the_registry() {
        let default = "default.example".parse().unwrap();
        let registry = |path: &str, default: Option<&Registry>| match parse(path, None, default) {
            Ok(Request::In { registry, repository, .. }) => Some(format!("{registry} {repository}")),
            _ => None,
        };
        assert_eq!(registry("/v2/docker.io/library/a/tags/list", None).unwrap(), "docker.io library/a");
        assert_eq!(registry("/v2/[::1]:5000/a/tags/list", Some(&default)).unwrap(), "[::1]:5000 a");
        assert_eq!(registry("/v2/localhost/a/tags/list", Some(&default)).unwrap(), "localhost a");
        assert_eq!(registry("/v2/library/a/tags/list", Some(&default)).unwrap(), "default.example library/a");
        assert_eq!(registry("/v2/library/a/tags/list", None), None);
        // A repository of one part has no room for a registry.
        assert_eq!(registry("/v2/a.b/tags/list", Some(&default)).unwrap(), "default.example a.b");
    }

    #[test]
    fn malformed_requests_say_what_is_wrong() {
        let long_ns = format!("ns={}", "a".repeat(500));
        let long_type = format!("ns=r.example&artifactType={}", "a".repeat(500));
        let ok = Some("ns=r.example");
        let check = |path: &str, query, pattern: fn(&PathError) -> bool| {
            let error = parse(path, query, None).unwrap_err();
            assert!(pattern(&error), "{path} {query:?}: {error:?}");
        };
        check("/v2/a/manifests/x", Some(&long_ns), |e| {
            matches!(e, PathError::Name(NameError::TooLong { bytes: 500, .. }))
        });
        check(&format!("/v2/a/referrers/{DIGEST}"), Some(&long_type), |e| matches!(e, PathError::TooLong));
        check(&format!("/v2/{}/manifests/x", "a/".repeat(4000)), ok, |e| matches!(e, PathError::TooLong));
        check("/v2/a/manifests/x", Some("ns=a.example&ns=b.example"), |e| matches!(e, PathError::TwoRegistries));
        check("/v2/a/manifests/x", Some("ns="), |e| matches!(e, PathError::Name(NameError::Registry { .. })));
        check("/v2/a/tags/list", Some("ns=a.example&n=x"), |e| matches!(e, PathError::Limit));
        check("/v2/a/tags/list", None, |e| matches!(e, PathError::NoRegistry));
        check("/v2/A/manifests/x", ok, |e| matches!(e, PathError::Name(NameError::Repository { .. })));
        check("/v2/../etc/manifests/x", ok, |e| matches!(e, PathError::Name(NameError::Repository { .. })));
        check("/v2/%2e%2e/manifests/x", ok, |e| matches!(e, PathError::Name(NameError::Repository { .. })));
        check("/v2/a/blobs/latest", ok, |e| matches!(e, PathError::Name(NameError::Digest { .. })));
        check("/v2/a/blobs/sha384:00", ok, |e| matches!(e, PathError::Name(NameError::ForeignDigest { .. })));
        check("/v2/a/manifests/%ff", ok, |e| matches!(e, PathError::NotFound));
        for path in [
            "",
            "/",
            "/v1/",
            "/v2/a",
            "/v2/manifests/x",
            "/v2/a/manifests/",
            "/v2/_catalog",
            "/v2/a/blobs/uploads/",
            "/v2//manifests/x",
        ] {
            assert!(parse(path, ok, None).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_client_can_send_anything(path in "(/v2/)?[a-z:./%@\\PC]{0,60}(/(manifests|blobs|tags|referrers)/)?\\PC{0,20}", query in "(ns=)?\\PC{0,40}") {
            let _ = parse(&path, Some(&query), None);
        }
    }
}
