//! Debian's docker-registry with a generated image in it: the origin as people run it.
//!
//! ```text
//!   docker/registry/v2/blobs/sha256/AB/ABCD…/data
//!                     /repositories/NAME/_layers/sha256/ABCD…/link                        "sha256:ABCD…"
//!                                       /_manifests/revisions/sha256/ABCD…/link
//!                                       /_manifests/tags/TAG/current/link
//!                                       /_manifests/tags/TAG/index/sha256/ABCD…/link
//! ```
//!
//! State: a directory; the process belongs to who starts the command. Invariant: what it serves was written before it starts.
//! Absent on purpose: pushing (a real client can). The registry's storage is a format of its own that has stayed the same for ten years.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use shoal_oci::testing::{Content, Image};
use shoal_types::Digest;

use crate::tools::debian;

/// How much is generated at a time.
const PIECE: usize = 1 << 20;

/// Who may read it.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everybody.
    Open,
    /// Who has a name and a password: a line as `htpasswd -B` writes it.
    Htpasswd(String),
    /// Who has a token of a token server.
    Token(TokenIssuer),
}

/// A token server, as its registry knows it.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    /// Where tokens are to be had.
    pub realm: String,
    /// What it calls itself in them.
    pub issuer: String,
    /// For whom they are.
    pub service: String,
    /// The certificate whose key signs them.
    pub certificate_pem: String,
}

/// A registry that can be started.
#[derive(Clone, Debug)]
pub struct DockerRegistry {
    program: PathBuf,
    directory: PathBuf,
}

impl DockerRegistry {
    /// An empty one in a directory of its own, which is made.
    ///
    /// # Errors
    /// If the program can't be had, or the directory not be written.
    pub fn new(directory: &Path, listen: SocketAddr) -> Result<Self> {
        Self::with_auth(directory, listen, &Auth::Open)
    }

    /// The program, fetched first if this machine doesn't have it yet.
    ///
    /// # Errors
    /// If it can't be had; in one line, with what to do.
    pub fn program() -> Result<PathBuf> {
        Ok(debian::package("docker-registry")?.join("usr/bin/docker-registry"))
    }

    /// The same for those who may read it.
    ///
    /// # Errors
    /// If the program can't be had, or the directory not be written.
    pub fn with_auth(directory: &Path, listen: SocketAddr, auth: &Auth) -> Result<Self> {
        let registry = Self { program: Self::program()?, directory: directory.to_owned() };
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: \"{}\", maxthreads: 200}}\n  cache: {{blobdescriptor: inmemory}}\n\
             http: {{addr: \"{listen}\"}}\n",
            registry.storage().display()
        ) + &registry.auth(auth)?;
        write(&registry.configuration(), text.as_bytes())?;
        Ok(registry)
    }

    /// Generates an image and writes it into the storage.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn store(&self, repository: &str, tag: &str, layer_bytes: &[u64], seed: u64) -> Result<Image> {
        self.store_image(repository, tag, Image::generate(layer_bytes, seed))
    }

    /// Writes an image into the storage.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn store_image(&self, repository: &str, tag: &str, image: (Image, Vec<(Digest, Content)>)) -> Result<Image> {
        let (image, blobs) = image;
        for (digest, content) in &blobs {
            self.store_blob(repository, digest, content)?;
        }
        self.store_manifest(repository, tag, image.manifest.clone())?;
        Ok(image)
    }

    /// Writes a manifest into the storage, whose parts are there already: an index.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn store_manifest(&self, repository: &str, tag: &str, manifest: impl Into<Bytes>) -> Result<Digest> {
        let content = Content::bytes(manifest);
        let digest = content.digest();
        self.store_blob(repository, &digest, &content)?;
        let manifests = self.repository(repository).join("_manifests");
        link(&manifests.join("revisions"), &digest)?;
        let of_tag = manifests.join("tags").join(tag);
        link(&of_tag.join("index"), &digest)?;
        write(&of_tag.join("current/link"), digest.to_string().as_bytes())?;
        Ok(digest)
    }

    fn store_blob(&self, repository: &str, digest: &Digest, content: &Content) -> Result<()> {
        write_content(&self.blob(digest), content)?;
        link(&self.repository(repository).join("_layers"), digest)
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.storage().join("docker/registry/v2/repositories").join(name)
    }

    /// Where a blob that was stored is.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = hex(digest);
        self.storage().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data")
    }

    /// Requests for manifests, in what it has logged.
    #[must_use]
    pub fn manifest_requests(log: &str) -> u64 {
        // 10.77.0.2 - - [21/Nov/2026:20:46:10 +0000] "HEAD /v2/lab/image/manifests/1 HTTP/1.1" 200 0 "" "containerd/1.6"
        let requests = log.lines().filter(|line| !line.starts_with("time=")).filter_map(|line| line.split('"').nth(1));
        requests.map(|request| u64::from(request.contains("/manifests/"))).sum()
    }

    /// Bytes of blobs that were sent, in what it has logged.
    #[must_use]
    pub fn blob_bytes(log: &str) -> u64 {
        let requests = log.lines().filter(|line| !line.starts_with("time="));
        let bytes = requests.filter_map(|line| {
            let mut parts = line.split('"');
            let request = parts.nth(1).filter(|request| request.starts_with("GET ") && request.contains("/blobs/"))?;
            let (status, bytes) = parts.next()?.trim().split_once(' ')?;
            (!request.is_empty() && status.starts_with("20")).then(|| bytes.trim().parse::<u64>().ok())?
        });
        bytes.sum()
    }

    /// Requests of a program (`containerd/`, `shoal/`) that weren't refused for want of credentials, in what it has logged.
    #[must_use]
    pub fn admitted(log: &str, program: &str) -> u64 {
        let requests = log.lines().filter(|line| !line.starts_with("time="));
        let admitted = requests.filter(|line| {
            let mut parts = line.split('"');
            let status = parts.nth(2).unwrap_or_default().trim();
            // Of what is behind the status there is the referrer first.
            let agent = parts.nth(2).unwrap_or_default();
            agent.starts_with(program) && !status.starts_with("401")
        });
        admitted.map(|_| 1).sum()
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Vec<OsString> {
        vec![self.program.clone().into(), "serve".into(), self.configuration().into()]
    }

    /// That part of the configuration.
    fn auth(&self, auth: &Auth) -> Result<String> {
        Ok(match auth {
            Auth::Open => String::new(),
            Auth::Htpasswd(line) => {
                let file = self.directory.join("htpasswd");
                write(&file, line.as_bytes())?;
                format!("auth: {{htpasswd: {{realm: registry, path: \"{}\"}}}}\n", file.display())
            }
            Auth::Token(TokenIssuer { realm, issuer, service, certificate_pem }) => {
                let file = self.directory.join("tokens.crt");
                write(&file, certificate_pem.as_bytes())?;
                format!(
                    "auth: {{token: {{realm: \"{realm}\", service: \"{service}\", issuer: \"{issuer}\", rootcertbundle: \"{}\"}}}}\n",
                    file.display()
                )
            }
        })
    }

    fn storage(&self) -> PathBuf {
        self.directory.join("storage")
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("registry.yaml")
    }
}

fn link(directory: &Path, digest: &Digest) -> Result<()> {
    write(&directory.join("sha256").join(hex(digest)).join("link"), digest.to_string().as_bytes())
}

/// Generated images are SHA-256's.
fn hex(digest: &Digest) -> String {
    digest.to_string().replace("sha256:", "")
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    create(path)?.write_all(bytes).with_context(|| path.display().to_string())
}

fn write_content(path: &Path, content: &Content) -> Result<()> {
    let mut file = BufWriter::new(create(path)?);
    let mut offset = 0;
    while offset < content.len() {
        let piece = content.read(offset, PIECE);
        file.write_all(&piece).with_context(|| path.display().to_string())?;
        offset += piece.len() as u64;
    }
    file.flush().with_context(|| path.display().to_string())
}

fn create(path: &Path) -> Result<File> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(path));
    made.with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_agent::pull::{Client, Progress};
    use shoal_oci::testing::free_ports;
    use tokio::net::TcpStream;

    use super::*;
    use crate::nodes;
    use crate::processes::Fleet;

    #[test]
    fn who_was_let_in_is_in_the_log() {
        let log = "time=\"2026-11-22T06:31:15Z\" level=info msg=\"authorized request\" http.request.useragent=shoal/1\n\
            10.0.0.1 - - [22/Nov/2026:06:31:15 +0000] \"GET /v2/a/manifests/1 HTTP/1.1\" 401 144 \"\" \"shoal/0.1.0\"\n\
            10.0.0.1 - - [22/Nov/2026:06:31:16 +0000] \"GET /v2/a/manifests/1 HTTP/1.1\" 200 91 \"\" \"shoal/0.1.0\"\n\
            10.0.0.1 - - [22/Nov/2026:06:31:16 +0000] \"GET /v2/a/manifests/2 HTTP/1.1\" 404 91 \"\" \"shoal/0.1.0\"\n\
            10.0.0.1 - - [22/Nov/2026:06:31:17 +0000] \"GET /v2/a/manifests/1 HTTP/1.1\" 200 91 \"\" \"containerd/1.6\"\n";
        assert_eq!(DockerRegistry::admitted(log, "shoal/"), 2);
        assert_eq!(DockerRegistry::admitted(log, "containerd/"), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_that_is_written_into_the_storage_can_be_pulled() {
        let directory = std::env::temp_dir().join(format!("shoal-e2e-registry-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let listen = free_ports([127, 0, 0, 1].into(), 1).unwrap()[0];
        let registry = match DockerRegistry::new(&directory, listen) {
            Ok(registry) => registry,
            Err(error) => return eprintln!("SKIPPED: {error:#}"),
        };
        let image = registry.store("lab/image", "1", &[70_000, 2_000_000], 3).unwrap();
        let mut fleet = Fleet::new(&directory);
        fleet.start("registry", &registry.command()).unwrap();
        let listens = async || TcpStream::connect(listen).await.is_ok();
        fleet.until("registry", Duration::from_secs(30), listens).await.unwrap();
        let client = Client::new(format!("http://{listen}").parse().unwrap(), None);
        let progress = Progress::default();
        // Every byte is verified on its way.
        nodes::pull(&client, &format!("{listen}/lab/image:1").parse().unwrap(), &progress).await.unwrap();
        assert_eq!(image.blob_bytes(), image.config.size_bytes + 2_070_000);
        // A line is written when its answer has gone out, which its reader may have before.
        let read = || fs::read_to_string(directory.join("registry.log")).unwrap();
        let is_written = async || DockerRegistry::blob_bytes(&read()) >= image.blob_bytes();
        fleet.until("registry's log", Duration::from_secs(30), is_written).await.unwrap();
        assert_eq!(DockerRegistry::manifest_requests(&read()), 2, "{}", read());
        assert_eq!(DockerRegistry::blob_bytes(&read()), image.blob_bytes(), "{}", read());
        fleet.end().await;
        fs::remove_dir_all(directory).unwrap();
    }
}
