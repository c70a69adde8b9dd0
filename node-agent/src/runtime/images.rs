//! CRI, as much of it as pulling ahead and asking for its configuration takes: what the kubelet calls.
//!
//! State: a connection. Invariants: a pull ends in time. It goes where the runtime is configured to go, so through the mirror in front.
//! Absent on purpose: credentials (the runtime's own configuration may have some), listing images.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use shoal_types::Digest;

use super::grpc::{CallError, Channel};

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
const REMOVE: &str = "/runtime.v1.ImageService/RemoveImage";
const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const RUNTIME_STATUS: &str = "/runtime.v1.RuntimeService/Status";

/// The runtime itself gives up a pull that doesn't move for minutes; 100 GiB at 1 Gbit/s and 100 MB/s of unpacking take 35 minutes.
pub(crate) const PULLED_WITHIN: Duration = Duration::from_secs(2 * 3_600);

/// A connection to a runtime's image service.
pub(crate) struct Images(Channel);

/// Why the runtime doesn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the runtime: {0}")]
pub struct ImageError(#[from] CallError);

impl ImageError {
    /// Whether the runtime is there and has answered.
    pub(crate) const fn is_answer(&self) -> bool {
        self.0.is_answer()
    }
}

impl Images {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, ImageError> {
        Ok(Self(Channel::connect(socket).await?))
    }

    /// Pulls an image, as a kubelet would without a pull secret.
    pub(crate) async fn pull(&self, image: &str, within: Duration) -> Result<(), ImageError> {
        Ok(self.0.call_within::<()>(within, PULL, &HeaderMap::new(), &request_for(image)).await?)
    }

    /// Removes an image; one that isn't there is fine.
    pub(crate) async fn remove(&self, image: &str) -> Result<(), ImageError> {
        Ok(self.0.call::<()>(REMOVE, &HeaderMap::new(), &request_for(image)).await?)
    }

    /// What the runtime says of itself.
    pub(crate) async fn about(&self) -> Result<About, ImageError> {
        let version: VersionResponse = self.0.call(VERSION, &HeaderMap::new(), &()).await?;
        let status: RuntimeStatusResponse =
            self.0.call(RUNTIME_STATUS, &HeaderMap::new(), &RuntimeStatusRequest { verbose: true }).await?;
        let config = status.info.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let config_path = config.and_then(|config| Some(config.pointer("/registry/configPath")?.as_str()?.to_owned()));
        Ok(About { name: version.runtime_name, version: version.runtime_version, config_path })
    }

    /// The digests of the manifests under which the runtime has an image; none, if it doesn't have it.
    pub(crate) async fn digests(&self, image: &str) -> Result<Vec<Digest>, ImageError> {
        let answer: StatusResponse = self.0.call(STATUS, &HeaderMap::new(), &request_for(image)).await?;
        let digests = answer.image.map(|image| image.repo_digests).unwrap_or_default();
        Ok(digests.iter().filter_map(|name| name.split_once('@')?.1.parse().ok()).collect())
    }
}

/// What a runtime says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where it looks for `hosts.toml` files, if it tells.
    pub(crate) config_path: Option<String>,
}

fn request_for(image: &str) -> ImageRequest {
    ImageRequest { image: Some(ImageSpec { image: image.to_owned() }) }
}

/// Of all calls about an image.
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

#[derive(Clone, PartialEq, prost::Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatusResponse {
    /// JSON, by what it is about.
    #[prost(btree_map = "string, string", tag = "2")]
    info: std::collections::BTreeMap<String, String>,
}
