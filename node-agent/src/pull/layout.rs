//! An OCI image layout: `oci-layout`, `index.json`, `blobs/ALGORITHM/HEX`.
//!
//! State: the directory. Invariants: a file gets its name in `blobs` when all of it is written, and `index.json` is replaced in one step.
//! Absent on purpose: locks. Two pulls into one directory share its blobs; of two that end in the same moment one may miss in `index.json`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shoal_oci::{ImageName, Reference};
use shoal_types::{Algorithm, Digest};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::checksum::Checksum;
use super::client::Image;
use super::error::PullError;

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const NAME: &str = "org.opencontainers.image.ref.name";

/// A directory in the layout's form.
pub(super) struct Layout {
    directory: PathBuf,
}

/// A blob that isn't complete. Unless it is kept, nothing of it stays.
pub(super) struct Incoming {
    file: File,
    path: PathBuf,
    name: Option<PathBuf>,
}

impl Layout {
    /// Opens a layout, or makes one where there is nothing.
    pub(super) fn open(directory: &Path) -> Result<Self, PullError> {
        let marker = directory.join(MARKER);
        let io = |action| PullError::io(directory, action);
        match std::fs::read_dir(directory) {
            Ok(mut entries) => {
                if entries.next().is_some() && !marker.exists() {
                    return Err(PullError::NoLayout { path: directory.to_owned() });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("reading")(error)),
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            std::fs::create_dir_all(directory.join("blobs").join(algorithm.name())).map_err(io("making"))?;
        }
        std::fs::write(&marker, json!({"imageLayoutVersion": "1.0.0"}).to_string()).map_err(io("writing"))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Whether a blob is here with the right bytes. One with wrong bytes will be replaced.
    pub(super) async fn has(&self, digest: &Digest, size_bytes: u64) -> Result<bool, PullError> {
        let path = self.path(digest);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.len() == size_bytes => {}
            _ => return Ok(false),
        }
        let (digest, read) = (*digest, path.clone());
        let found = tokio::task::spawn_blocking(move || digest_of(&read, digest.algorithm())).await;
        let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
        Ok(found.map_err(PullError::io(&path, "reading"))? == digest)
    }

    /// Begins a blob.
    pub(super) async fn begin(&self, digest: &Digest) -> Result<Incoming, PullError> {
        Incoming::replacing(self.path(digest)).await
    }

    /// Writes a whole blob.
    pub(super) async fn put(&self, digest: &Digest, body: &[u8]) -> Result<(), PullError> {
        let mut incoming = self.begin(digest).await?;
        incoming.file.write_all(body).await.map_err(PullError::io(&incoming.path, "writing"))?;
        incoming.keep().await
    }

    /// Lists an image under its tag, in the place of the one that had it.
    pub(super) async fn list(&self, name: &ImageName, image: &Image) -> Result<(), PullError> {
        let path = self.directory.join(INDEX);
        let mut descriptor =
            json!({"mediaType": image.media_type, "digest": image.digest.to_string(), "size": image.body.len()});
        if let Reference::Tag(tag) = &name.reference {
            descriptor["annotations"] = json!({NAME: tag.as_str()});
        }
        let old = match tokio::fs::read(&path).await {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
            Err(error) => Err(error),
        };
        let old = old.map_err(PullError::io(&path, "reading"))?;
        let kept = old["manifests"].as_array().into_iter().flatten().filter(|other| {
            let (old, new) = (&other["annotations"][NAME], &descriptor["annotations"][NAME]);
            old != new || (new.is_null() && other["digest"] != descriptor["digest"])
        });
        let manifests: Vec<Value> = kept.cloned().chain([descriptor.clone()]).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let mut incoming = Incoming::replacing(path).await?;
        incoming
            .file
            .write_all(index.to_string().as_bytes())
            .await
            .map_err(PullError::io(&incoming.path, "writing"))?;
        incoming.keep().await
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        let hex = text.split_once(':').map_or("", |(_, hex)| hex);
        self.directory.join("blobs").join(digest.algorithm().name()).join(hex)
    }
}

impl Incoming {
    async fn replacing(name: PathBuf) -> Result<Self, PullError> {
        // Hidden, and with this process's number: another pull may be writing the same.
        let hidden = name.file_name().map(|name| format!(".{}.{}", name.display(), std::process::id()));
        let path = name.with_file_name(hidden.unwrap_or_default());
        let file = File::create(&path).await.map_err(PullError::io(&path, "making"))?;
        Ok(Self { file, path, name: Some(name) })
    }

    /// What to write into.
    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It is complete and right: it gets its name.
    pub(super) async fn keep(mut self) -> Result<(), PullError> {
        self.file.sync_all().await.map_err(PullError::io(&self.path, "writing"))?;
        if let Some(name) = &self.name {
            tokio::fs::rename(&self.path, name).await.map_err(PullError::io(&self.path, "renaming"))?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.name.is_some() {
            // What can't be removed is overwritten by the next pull with this number, at worst it stays: a hidden file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn digest_of(path: &Path, algorithm: Algorithm) -> io::Result<Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut checksum = Checksum::new(algorithm);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum.finish()),
            read => checksum.update(&buffer[..read]),
        }
    }
}
