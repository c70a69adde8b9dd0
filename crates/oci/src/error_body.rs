//! Errors as the distribution API writes them: a status and `{"errors": [{code, message, detail}]}`.
//!
//! State: none.
//! Invariants: the status is one that makes a runtime do the right thing. What may exist at the origin is 404 (what isn't there) or 503
//! (what can't be had now): runtimes go on to the next host for those. 401, 403, 408 and 429 are never said: a challenge would draw the
//! pod's credentials out, and the others are retried here instead of at the origin. What the origin said is in the message.
//! Absent on purpose: anything but JSON.

use bytes::Bytes;
use http::StatusCode;
use oci_client::errors::{OciEnvelope, OciError, OciErrorCode};

use crate::names::NameError;
use crate::origin::{Cause, OriginError};
use crate::paths::PathError;
use crate::range::RangeError;

/// The media type of an error's body.
pub const MEDIA_TYPE: &str = "application/json";

/// An error for a client of the distribution API.
#[derive(Debug)]
pub struct ErrorBody {
    status: StatusCode,
    envelope: OciEnvelope,
}

impl ErrorBody {
    /// An error with a message for humans.
    #[must_use]
    pub fn new(status: StatusCode, code: OciErrorCode, message: impl Into<String>) -> Self {
        let error = OciError { code, message: message.into(), detail: serde_json::Value::Null };
        Self { status, envelope: OciEnvelope { errors: vec![error] } }
    }

    /// 404: the mirror doesn't serve it; the origin may.
    #[must_use]
    pub fn not_here(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, OciErrorCode::NameUnknown, message)
    }

    /// 503: the mirror can't serve it now; the origin may.
    #[must_use]
    pub fn not_now(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, OciErrorCode::Other("UNAVAILABLE".into()), message)
    }

    /// 405: only GET and HEAD.
    #[must_use]
    pub fn read_only() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, OciErrorCode::Unsupported, "a mirror answers GET and HEAD only")
    }

    /// The status to answer with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The body to answer with.
    #[must_use]
    pub fn json(&self) -> Bytes {
        serde_json::to_vec(&self.envelope).map_or_else(|_| Bytes::from_static(b"{\"errors\":[]}"), Bytes::from)
    }
}

impl From<&NameError> for ErrorBody {
    fn from(error: &NameError) -> Self {
        let (status, code) = match error {
            NameError::Digest { .. } => (StatusCode::BAD_REQUEST, OciErrorCode::DigestInvalid),
            NameError::ForeignDigest { .. } => (StatusCode::NOT_FOUND, OciErrorCode::Unsupported),
            // Removed from the specification's table, and what registries go on to say.
            NameError::Tag { .. } => (StatusCode::BAD_REQUEST, OciErrorCode::TagInvalid),
            _ => (StatusCode::BAD_REQUEST, OciErrorCode::NameInvalid),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<&PathError> for ErrorBody {
    fn from(error: &PathError) -> Self {
        let (status, code) = match error {
            PathError::Name(error) => return error.into(),
            PathError::NotFound => (StatusCode::NOT_FOUND, OciErrorCode::NotFound),
            PathError::NoRegistry => (StatusCode::NOT_FOUND, OciErrorCode::NameUnknown),
            PathError::TooLong | PathError::TwoRegistries => (StatusCode::BAD_REQUEST, OciErrorCode::NameInvalid),
            PathError::Limit => (StatusCode::BAD_REQUEST, OciErrorCode::Other("PAGINATION_NUMBER_INVALID".into())),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<&RangeError> for ErrorBody {
    fn from(error: &RangeError) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, OciErrorCode::Other("RANGE_INVALID".into()), error.to_string())
    }
}

impl From<&OriginError> for ErrorBody {
    fn from(error: &OriginError) -> Self {
        let (status, code) = match error.cause() {
            Cause::Unauthorized { .. } => (StatusCode::NOT_FOUND, OciErrorCode::Denied),
            Cause::NotFound { .. } => (StatusCode::NOT_FOUND, OciErrorCode::NotFound),
            Cause::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, OciErrorCode::Toomanyrequests),
            Cause::TooLarge { .. } => (StatusCode::NOT_FOUND, OciErrorCode::ManifestInvalid),
            Cause::Refused(_) => (StatusCode::NOT_FOUND, OciErrorCode::Denied),
            Cause::Status { .. }
            | Cause::Unreachable(_)
            | Cause::Broken(_)
            | Cause::TimedOut { .. }
            | Cause::Lied(_)
            | Cause::Protocol(_) => (StatusCode::SERVICE_UNAVAILABLE, OciErrorCode::Other("ORIGIN_FAILED".into())),
        };
        Self::new(status, code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    #[test]
    fn bodies_have_the_specifications_form() {
        let error = paths::parse("/v2/A/manifests/x", Some("ns=r.example"), None).unwrap_err();
        let body = ErrorBody::from(&error);
        assert_eq!(body.status(), StatusCode::BAD_REQUEST);
        let json: serde_json::Value = serde_json::from_slice(&body.json()).unwrap();
        assert_eq!(json["errors"][0]["code"], "NAME_INVALID");
        assert!(json["errors"][0]["message"].as_str().unwrap().contains("\"A\""));
    }

    #[test]
    fn every_kind_of_bad_request_has_its_status_and_code() {
        let ns = "ns=r.example";
        let long = format!("ns={}", "a".repeat(500));
        let cases = [
            ("/v2/a/blobs/sha256:00", ns, 400, "DIGEST_INVALID"),
            ("/v2/a/blobs/sha384:00", ns, 404, "UNSUPPORTED"),
            ("/v2/a/manifests/.x", ns, 400, "TAG_INVALID"),
            ("/v2/a/manifests/x", long.as_str(), 400, "NAME_INVALID"),
            ("/v2/a/manifests/x", "", 404, "NAME_UNKNOWN"),
            ("/v2/_catalog", ns, 404, "NOT_FOUND"),
            ("/v2/a/tags/list", "ns=r.example&n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ];
        for (path, query, status, code) in cases {
            let body = ErrorBody::from(&paths::parse(path, Some(query), None).unwrap_err());
            assert_eq!(body.status().as_u16(), status, "{path}");
            assert!(
                String::from_utf8(body.json().to_vec()).unwrap().contains(&format!("\"code\":\"{code}\"")),
                "{path}"
            );
        }
        let body = ErrorBody::from(&RangeError::Several);
        assert_eq!(body.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert!(body.json().starts_with(b"{\"errors\":[{\"code\":\"RANGE_INVALID\""));
        assert_eq!(ErrorBody::read_only().status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
