//! Images made of generated layers.
//!
//! State: none. Invariants: the same sizes and seed make the same image; a runtime can unpack it.
//! Absent on purpose: compression. Random bytes don't get smaller, and what a layer unpacks to is the layer itself.

use bytes::Bytes;
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use serde_json::{Value, json};
use shoal_types::Digest;

use super::content::Content;
use crate::manifest::{Descriptor, Platform};

/// A generated image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Bytes,
    /// The manifest's media type.
    pub media_type: &'static str,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, in order.
    pub layers: Vec<Descriptor>,
}

impl Image {
    /// Generates an image with layers of these sizes, and the contents of its blobs. Another seed shares no layer with it.
    #[must_use]
    pub fn generate(layer_bytes: &[u64], seed: u64) -> (Self, Vec<(Digest, Content)>) {
        let seeds = (0..).map(|at| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at));
        let layers = layer_bytes.iter().zip(seeds).map(|(len, seed)| Content::layer(seed, *len));
        Self::of_layers(layers, &json!({}))
    }

    /// Makes an image of these layers, with such a `config` in its configuration, and the contents of its blobs.
    #[must_use]
    pub fn of_layers(layers: impl IntoIterator<Item = Content>, config: &Value) -> (Self, Vec<(Digest, Content)>) {
        Self::of_platform("amd64", layers, config)
    }

    /// The same for Linux on another architecture, in Go's words.
    #[must_use]
    pub fn of_platform(
        architecture: &str,
        layers: impl IntoIterator<Item = Content>,
        config: &Value,
    ) -> (Self, Vec<(Digest, Content)>) {
        let mut blobs = Vec::new();
        let mut descriptor = |media_type: &str, content: Content| {
            let (digest, size_bytes) = (content.digest(), content.len());
            blobs.push((digest, content));
            Descriptor { media_type: media_type.into(), digest, size_bytes, elsewhere: false }
        };
        let layers: Vec<_> = layers.into_iter().map(|layer| descriptor(IMAGE_LAYER_MEDIA_TYPE, layer)).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = descriptor(IMAGE_CONFIG_MEDIA_TYPE, Content::bytes(config.to_string()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_IMAGE_MEDIA_TYPE, "config": written(&config),
            "layers": layers.iter().map(written).collect::<Vec<_>>(),
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = Content::bytes(manifest.clone()).digest();
        (Self { digest, manifest, media_type: OCI_IMAGE_MEDIA_TYPE, config, layers }, blobs)
    }

    /// The manifest of an index of images, each for its platform.
    #[must_use]
    pub fn index(images: &[(Platform, &Self)]) -> Bytes {
        let child = |(platform, image): &(Platform, &Self)| {
            let mut runs_on = json!({"os": platform.os, "architecture": platform.architecture});
            if let Some(variant) = &platform.variant {
                runs_on["variant"] = json!(variant);
            }
            json!({
                "mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.manifest.len(),
                "platform": runs_on,
            })
        };
        let children: Vec<_> = images.iter().map(child).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": children});
        index.to_string().into()
    }

    /// The bytes of all its blobs.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size_bytes).sum::<u64>() + self.config.size_bytes
    }
}

fn written(descriptor: &Descriptor) -> serde_json::Value {
    json!({
        "mediaType": descriptor.media_type, "digest": descriptor.digest.to_string(), "size": descriptor.size_bytes,
    })
}
