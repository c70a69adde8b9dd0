//! A mirror's client, as containerd is one: resolve a name, read its manifest by digest, stream its blobs.
//!
//! State: none. Invariants: a manifest is returned, and a blob's last bytes are reported as written, only if the digest is right; a body
//! that was cut is asked for again from where it ended. Absent on purpose: files. A blob goes into whatever takes bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use shoal_oci::manifest::{self, Descriptor, Manifest};
use shoal_oci::{ImageName, Reference, range};
use shoal_types::Digest;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Progress;
use super::checksum::Checksum;
use super::error::PullError;
use super::platform::Platform;
use super::request::{Answer, Ask, MirrorUrl};
use crate::mirror::Settings;

/// How many blobs are fetched at a time: containerd's default.
pub const PARALLEL_BLOBS: usize = 3;

/// How often in a row a body may be cut without a byte. The second time could be the agent's restart; more are a fault that stays.
const CUTS_WITHOUT_PROGRESS: u32 = 3;

/// A mirror on loopback that takes longer to say that it is one is of no use to a runtime.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What containerd says that it takes.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";

/// A client of one mirror.
#[derive(Clone, Debug)]
pub struct Client {
    mirror: MirrorUrl,
    token: Option<HeaderValue>,
}

/// An image of one platform: its manifest, and what is in it.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest.
    pub body: Bytes,
    /// Configuration and layers, each once.
    pub blobs: Vec<Descriptor>,
}

impl Image {
    /// The bytes of all blobs.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size_bytes).sum()
    }
}

impl Client {
    /// A client. `token` is the secret that the mirror asks for, if it does.
    #[must_use]
    pub const fn new(mirror: MirrorUrl, token: Option<HeaderValue>) -> Self {
        Self { mirror, token }
    }

    /// Whether the mirror answers, and takes the secret if it asks for one.
    pub async fn answers(&self) -> bool {
        let base = Ask {
            method: Method::GET,
            target: "/v2/".to_owned(),
            headers: self.headers(),
            what: "the mirror".to_owned(),
        };
        let asked = timeout(ANSWERS_WITHIN, self.mirror.ask(&base)).await;
        asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == StatusCode::OK))
    }

    /// Resolves a name and reads its manifest, of an index the one for this platform.
    ///
    /// # Errors
    /// If the mirror doesn't serve it, if it isn't what its digest says, or if it isn't an image.
    pub async fn image(&self, name: &ImageName, platform: &Platform) -> Result<Image, PullError> {
        let what = name.to_string();
        let digest = self.resolve(name).await?;
        let (media_type, body) = self.manifest(name, &digest).await?;
        let no_image = || PullError::NoImage { what: what.clone() };
        match Manifest::parse(&body).map_err(|_| no_image())? {
            Manifest::Opaque => Err(no_image()),
            found @ Manifest::Image { .. } => Ok(Image { digest, media_type, blobs: distinct(&found), body }),
            Manifest::Index { children } => {
                let child = platform.choose(&children).ok_or_else(|| PullError::Platform {
                    what: what.clone(),
                    wanted: platform.to_string(),
                    found: children
                        .iter()
                        .filter_map(|child| Some(Platform::from(child.platform.clone()?).to_string()))
                        .collect(),
                })?;
                let digest = child.descriptor.digest;
                let (media_type, body) = self.manifest(name, &digest).await?;
                match Manifest::parse(&body).map_err(|_| no_image())? {
                    found @ Manifest::Image { .. } => Ok(Image { digest, media_type, blobs: distinct(&found), body }),
                    Manifest::Index { .. } | Manifest::Opaque => Err(no_image()),
                }
            }
        }
    }

    /// Streams a blob into `to`, and returns when all of it is written and its digest proven. After an error `to` has bytes of no worth.
    ///
    /// # Errors
    /// If the mirror doesn't serve it or doesn't go on with it, if its bytes are wrong, or if they can't be written.
    pub async fn blob(
        &self,
        image: &ImageName,
        blob: &Descriptor,
        to: &mut (impl AsyncWrite + Unpin),
        progress: &Progress,
    ) -> Result<(), PullError> {
        let mut download = Download { blob, to, progress, at: 0, checksum: Checksum::new(blob.digest.algorithm()) };
        let mut without_progress = 0;
        while download.at < blob.size_bytes {
            let before = download.at;
            let why = match self.open(image, blob, before).await? {
                Opened::At(offset, answer) => download.read(offset, answer).await?,
                Opened::Refused(why) => return Err(download.cut(why)),
            };
            without_progress = if download.at > before { 0 } else { without_progress + 1 };
            if without_progress == CUTS_WITHOUT_PROGRESS {
                return Err(download.cut(why));
            }
        }
        let written = |source| PullError::Write { digest: blob.digest, source };
        download.to.flush().await.map_err(written)?;
        if download.checksum.finish() == blob.digest {
            Ok(())
        } else {
            Err(PullError::WrongBytes { digest: blob.digest, bytes: blob.size_bytes })
        }
    }

    /// A tag's digest, by HEAD.
    async fn resolve(&self, name: &ImageName) -> Result<Digest, PullError> {
        let ask = self.manifest_ask(Method::HEAD, name, &name.reference);
        let answer = self.mirror.ask(&ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.refusal(&ask.what).await);
        }
        let digest = answer.header("docker-content-digest").and_then(|digest| digest.parse().ok());
        digest.ok_or_else(|| self.fault(&ask.what, "has no digest in it"))
    }

    /// A manifest and its media type.
    async fn manifest(&self, name: &ImageName, digest: &Digest) -> Result<(String, Bytes), PullError> {
        let ask = self.manifest_ask(Method::GET, name, &Reference::Digest(*digest));
        let mut answer = self.mirror.ask(&ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.refusal(&ask.what).await);
        }
        let media_type = answer.header(header::CONTENT_TYPE).map(str::to_owned);
        let media_type = media_type.ok_or_else(|| self.fault(&ask.what, "has no media type"))?;
        let body = answer.whole(manifest::MAX_BYTES).await;
        let body = body.map_err(|why| PullError::NoAnswer { what: ask.what.clone(), why })?;
        let body = body.ok_or_else(|| self.fault(&ask.what, "is longer than any manifest"))?;
        if Checksum::matches(digest, &body) {
            Ok((media_type, body))
        } else {
            Err(PullError::WrongBytes { digest: *digest, bytes: body.len() as u64 })
        }
    }

    /// Asks for a blob from this offset on. What is refused at the start is an error; later it is the end of what the mirror gives.
    async fn open(&self, image: &ImageName, blob: &Descriptor, from: u64) -> Result<Opened, PullError> {
        let mut headers = self.headers();
        // As containerd: identity is not among them, and nothing that the registry stores compressed is unpacked on the way.
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (header::RANGE, range)));
        }
        let target = format!("/v2/{}/blobs/{}{}", image.repository, blob.digest, self.namespace(image));
        let ask = Ask { method: Method::GET, target, headers, what: format!("{}@{}", image.repository, blob.digest) };
        let answer = match self.mirror.ask(&ask).await {
            Ok(answer) => answer,
            Err(error) if from > 0 => return Ok(Opened::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        match answer.status() {
            // A server may ignore a range: what is there already is thrown away.
            StatusCode::OK => Ok(Opened::At(0, answer)),
            StatusCode::PARTIAL_CONTENT if from > 0 => {
                let found =
                    answer.header(header::CONTENT_RANGE).and_then(|text| range::parse_content_range(text.as_bytes()));
                match found {
                    Some((found, _)) if found.start == from => Ok(Opened::At(from, answer)),
                    _ => Err(self.fault(&ask.what, "is of another range than the one asked for")),
                }
            }
            status if from > 0 => Ok(Opened::Refused(format!("it answered {status}"))),
            _ => Err(answer.refusal(&ask.what).await),
        }
    }

    fn manifest_ask(&self, method: Method, name: &ImageName, reference: &Reference) -> Ask {
        let mut headers = self.headers();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        let target = format!("/v2/{}/manifests/{reference}{}", name.repository, self.namespace(name));
        Ask { method, target, headers, what: name.to_string() }
    }

    /// The query that names the registry: as in containerd, only where somebody else than the registry is asked.
    fn namespace(&self, name: &ImageName) -> String {
        if self.mirror.is(&name.registry) { String::new() } else { format!("?ns={}", name.registry) }
    }

    fn headers(&self) -> HeaderMap {
        let name = HeaderName::from_static(Settings::TOKEN_HEADER);
        self.token.iter().map(|token| (name.clone(), token.clone())).collect()
    }

    fn fault(&self, what: &str, fault: &'static str) -> PullError {
        PullError::Protocol { what: what.to_owned(), fault, mirror: self.mirror.clone() }
    }
}

enum Opened {
    /// A body that begins at this offset.
    At(u64, Answer),
    /// The mirror doesn't go on, and why.
    Refused(String),
}

/// A blob on its way.
struct Download<'a, W> {
    blob: &'a Descriptor,
    to: &'a mut W,
    progress: &'a Progress,
    at: u64,
    checksum: Checksum,
}

impl<W: AsyncWrite + Unpin> Download<'_, W> {
    /// Takes from a body that begins at `offset` what is still missing; why there is no more of it.
    async fn read(&mut self, offset: u64, mut answer: Answer) -> Result<String, PullError> {
        let mut skip = self.at - offset;
        loop {
            let mut piece = match answer.piece().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok("its answer ended".to_owned()),
                Err(why) => return Ok(why),
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let piece = piece.split_off(skipped);
            if piece.len() as u64 > self.blob.size_bytes - self.at {
                let bytes = self.at + piece.len() as u64;
                return Err(PullError::WrongBytes { digest: self.blob.digest, bytes });
            }
            self.to.write_all(&piece).await.map_err(|source| PullError::Write { digest: self.blob.digest, source })?;
            self.checksum.update(&piece);
            self.at += piece.len() as u64;
            self.progress.received(piece.len() as u64);
        }
    }

    fn cut(&self, why: String) -> PullError {
        PullError::Cut { what: self.blob.digest.to_string(), at: self.at, of: self.blob.size_bytes, why }
    }
}

/// Images may name a layer several times.
fn distinct(manifest: &Manifest) -> Vec<Descriptor> {
    let mut seen = BTreeSet::new();
    manifest.blobs().filter(|blob| seen.insert(blob.digest)).cloned().collect()
}
