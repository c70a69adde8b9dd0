//! An image as an OCI layout: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>.
//!
//! State: a directory with one image in it. Invariant: the same image gives the same files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one platform.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// As registries of Go's programs call it: amd64.
    pub(super) architecture: &'a str,
    /// In RFC 3339.
    pub(super) created: &'a str,
    /// The tag.
    pub(super) tag: &'a str,
    /// Whose the process is, if not root's.
    pub(super) user: Option<&'a str>,
    pub(super) entrypoint: &'a str,
    pub(super) labels: Value,
    /// Tar archives, the lowest first.
    pub(super) layers: &'a [Vec<u8>],
}

/// Writes an image in the place of whatever the directory holds, and returns its manifest's digest.
pub(super) fn write(directory: &Path, image: &Image<'_>) -> Result<String> {
    let cant = || format!("{} can't be written", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(cant)?;
    }
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(cant)?;
    let blob = |media_type: &str, bytes: &[u8]| -> Result<Value> {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), bytes).with_context(cant)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
    };
    let layers: Vec<Value> = image.layers.iter().map(|layer| blob(LAYER, layer)).collect::<Result<_>>()?;
    let mut process = json!({"Entrypoint": [image.entrypoint], "Labels": image.labels});
    if let Some(user) = image.user {
        process["User"] = user.into();
    }
    let config = json!({
        "architecture": image.architecture,
        "os": "linux",
        "created": image.created,
        "config": process,
        // An uncompressed layer's digest is its content's.
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>()},
    });
    let config = blob(CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut manifest = blob(MANIFEST, manifest.to_string().as_bytes())?;
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["platform"] = json!({"architecture": image.architecture, "os": "linux"});
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": image.tag});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(directory.join("index.json"), index.to_string()).with_context(cant)?;
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).with_context(cant)?;
    Ok(digest)
}
