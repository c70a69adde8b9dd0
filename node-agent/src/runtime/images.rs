//! CRI's image service, as much of it as pulling ahead takes: what the kubelet calls.
//!
//! State: a connection. Invariants: a pull ends within [`PULLED_WITHIN`]. It goes where the runtime is configured to go, so through the mirror in front.
//! Absent on purpose: credentials (the runtime's own configuration may have some), listing and removing images.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use shoal_types::Digest;

use super::grpc::{CallError, Channel};

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const STATUS: &str = "/runtime.v1.ImageService/ImageStatus";

/// The runtime itself gives up a pull that doesn't move for minutes; 100 GiB at 1 Gbit/s and 100 MB/s of unpacking take 35 minutes.
const PULLED_WITHIN: Duration = Duration::from_secs(2 * 3_600);

/// A connection to a runtime's image service.
pub(crate) struct Images(Channel);

/// Why the runtime doesn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the runtime: {0}")]
pub(crate) struct ImageError(#[from] CallError);

impl Images {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, ImageError> {
        Ok(Self(Channel::connect(socket).await?))
    }

    /// Pulls an image, as a kubelet would without a pull secret.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), ImageError> {
        let request = ImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        Ok(self.0.call_within::<()>(PULLED_WITHIN, PULL, &HeaderMap::new(), &request).await?)
    }

    /// The digests of the manifests under which the runtime has an image; none, if it doesn't have it.
    pub(crate) async fn digests(&self, image: &str) -> Result<Vec<Digest>, ImageError> {
        let request = ImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let answer: StatusResponse = self.0.call(STATUS, &HeaderMap::new(), &request).await?;
        let digests = answer.image.map(|image| image.repo_digests).unwrap_or_default();
        Ok(digests.iter().filter_map(|name| name.split_once('@')?.1.parse().ok()).collect())
    }
}

/// Of both calls.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, repeated, tag = "3")]
    repo_digests: Vec<String>,
}
