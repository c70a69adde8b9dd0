//! The little that Shoal reads of a manifest: what it points to, in order, with sizes.
//!
//! State: none.
//! Invariants: nothing is filtered by media type; a manifest that can't be understood is opaque and served all the same.
//! Absent on purpose: configurations, annotations, and judging whether a manifest is well formed: that is for its reader.

use oci_client::manifest::{ImageIndexEntry, OciDescriptor};
use serde::Deserialize;
use shoal_types::Digest;

/// The largest manifest that is taken: containerd's own limit, and the specification's for registries. It bounds what is read from an
/// origin for one, and the number of descriptors: 4 MiB have room for some 30,000.
pub const MAX_BYTES: usize = 4 << 20;

/// What a manifest points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// An image or another artifact: blobs.
    Image {
        /// The configuration. Artifacts may have none.
        config: Option<Descriptor>,
        /// The layers, in the order in which a runtime unpacks them.
        layers: Vec<Descriptor>,
    },
    /// An index: other manifests.
    Index {
        /// They, in the index's order.
        children: Vec<Child>,
    },
    /// Anything else: there is nothing to fetch ahead.
    Opaque,
}

/// Something that a manifest points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type, as the manifest says.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// It has URLs of its own (a foreign layer): the registry may not have it.
    pub elsewhere: bool,
}

/// A manifest in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The manifest.
    pub descriptor: Descriptor,
    /// What it runs on, if the index says.
    pub platform: Option<Platform>,
}

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`.
    pub variant: Option<String>,
}

impl Manifest {
    /// Reads a manifest. What it is shows in its shape, not in its media type: indexes have `manifests`, images `config` or `layers`
    /// (`blobs` in an early artifact manifest). One that has both could be read in two ways by two readers, so it is opaque.
    ///
    /// # Errors
    /// If it is longer than [`MAX_BYTES`].
    pub fn parse(body: &[u8]) -> Result<Self, TooLarge> {
        if body.len() > MAX_BYTES {
            return Err(TooLarge { bytes: body.len() });
        }
        let Ok(document) = serde_json::from_slice::<Document>(body) else { return Ok(Self::Opaque) };
        Ok(match document {
            Document { config: None, layers: None, manifests: Some(children) } => {
                Self::Index { children: children.into_iter().filter_map(child).collect() }
            }
            Document { manifests: None, config, layers } if config.is_some() || layers.is_some() => Self::Image {
                config: config.and_then(descriptor),
                layers: layers.unwrap_or_default().into_iter().filter_map(descriptor).collect(),
            },
            _ => Self::Opaque,
        })
    }

    /// The blobs that a runtime will ask for, in its order: the configuration, then the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match self {
            Self::Image { config, layers } => (config.as_ref(), layers.as_slice()),
            Self::Index { .. } | Self::Opaque => (None, [].as_slice()),
        };
        config.into_iter().chain(layers)
    }
}

#[derive(Deserialize)]
struct Document {
    config: Option<OciDescriptor>,
    #[serde(alias = "blobs")]
    layers: Option<Vec<OciDescriptor>>,
    manifests: Option<Vec<ImageIndexEntry>>,
}

/// A descriptor whose digest we can't name (another algorithm) or whose size is negative is left out: it can't be fetched ahead.
fn descriptor(raw: OciDescriptor) -> Option<Descriptor> {
    Some(Descriptor {
        media_type: raw.media_type,
        digest: raw.digest.parse().ok()?,
        size_bytes: raw.size.try_into().ok()?,
        elsewhere: raw.urls.is_some_and(|urls| !urls.is_empty()),
    })
}

fn child(raw: ImageIndexEntry) -> Option<Child> {
    let platform = raw.platform.map(|platform| Platform {
        os: platform.os.to_string(),
        architecture: platform.architecture.to_string(),
        variant: platform.variant,
    });
    let descriptor = Descriptor {
        media_type: raw.media_type,
        digest: raw.digest.parse().ok()?,
        size_bytes: raw.size.try_into().ok()?,
        elsewhere: false,
    };
    Some(Child { descriptor, platform })
}

/// A manifest above the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a manifest has at most 4 MiB, this one has {bytes} bytes")]
pub struct TooLarge {
    /// Its length.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(byte: &str) -> String {
        format!("sha256:{}", byte.repeat(32))
    }

    #[test]
    fn an_images_blobs_come_in_order() {
        let body = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.example.anything",
            "config": {"mediaType": "application/x", "digest": digest("00"), "size": 7},
            "layers": [
                {"mediaType": "application/vnd.example.model", "digest": digest("22"), "size": 2, "annotations": {"a": "b"}},
                {"mediaType": "foreign", "digest": digest("11"), "size": 1, "urls": ["https://example.com/x"]},
                {"mediaType": "x", "digest": "sha384:00", "size": 1},
                {"mediaType": "x", "digest": digest("33"), "size": -1},
            ],
        });
        let manifest = Manifest::parse(body.to_string().as_bytes()).unwrap();
        let blobs: Vec<_> =
            manifest.blobs().map(|blob| (blob.digest.to_string(), blob.size_bytes, blob.elsewhere)).collect();
        assert_eq!(blobs, [(digest("00"), 7, false), (digest("22"), 2, false), (digest("11"), 1, true)]);
    }

    #[test]
    fn an_indexs_children_have_their_platforms() {
        let body = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": "m", "digest": digest("01"), "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
                {"mediaType": "m", "digest": digest("02"), "size": 2, "platform": {"os": "plan10", "architecture": "z81"}},
                {"mediaType": "m", "digest": digest("03"), "size": 3},
            ],
        });
        let Manifest::Index { children } = Manifest::parse(body.to_string().as_bytes()).unwrap() else {
            panic!("an index")
        };
        let platforms: Vec<_> = children.into_iter().map(|child| child.platform).collect();
        let platform = |os: &str, architecture: &str, variant: Option<&str>| {
            Some(Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) })
        };
        assert_eq!(platforms, [platform("linux", "arm", Some("v7")), platform("plan10", "z81", None), None]);
    }

    #[test]
    fn everything_else_is_opaque_and_too_much_is_refused() {
        let both = serde_json::json!({"manifests": [], "layers": []}).to_string();
        for body in
            ["", "{}", "[]", "not json", "{\"layers\": 3}", both.as_str(), "{\"schemaVersion\": 1, \"fsLayers\": []}"]
        {
            assert_eq!(Manifest::parse(body.as_bytes()), Ok(Manifest::Opaque), "{body}");
        }
        assert_eq!(Manifest::parse(&vec![b' '; MAX_BYTES + 1]), Err(TooLarge { bytes: MAX_BYTES + 1 }));
        let artifact =
            serde_json::json!({"blobs": [{"mediaType": "x", "digest": digest("44"), "size": 1}]}).to_string();
        assert_eq!(Manifest::parse(artifact.as_bytes()).unwrap().blobs().count(), 1);
    }

    proptest! {
        #[test]
        fn a_registry_can_send_anything(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&body);
        }
    }
}
