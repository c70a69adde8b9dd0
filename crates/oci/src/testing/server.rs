//! The HTTP server of the registry.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use oci_client::errors::OciErrorCode;
use oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use serde_json::json;
use shoal_types::Digest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::content::Content;
use super::fault::{Fault, Trouble};
use super::image::Image;
use super::state::{State, Traffic};
use crate::error_body::{self, ErrorBody};
use crate::manifest::Platform;
use crate::names::{self, Reference, Repository};
use crate::origin::{ConfigError, RegistryConfig};
use crate::paths::{self, Page, Request, Target};
use crate::range::{self, Wanted};

/// Connections at a time. A lab has a few hundred nodes with four each.
const MAX_CONNECTIONS: usize = 4096;

/// How a registry is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where it listens: by default on loopback, at a free port.
    pub listen: Option<SocketAddr>,
    /// What all its connections send together, in bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Who may read.
    pub access: Access,
    /// TLS, with this configuration.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Who may read.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who has a token from `/token`.
    Token {
        /// Who gets one: everybody, or who has this user name and password.
        user: Option<(String, String)>,
        /// For how long it holds.
        holds: Duration,
    },
    /// Who has this user name and password.
    Basic {
        /// The user name.
        user: String,
        /// The password.
        password: String,
    },
}

/// A registry that is running. It ends when it is dropped.
pub struct Registry {
    server: Arc<Server>,
    _accepting: AbortOnDropHandle<()>,
}

struct Server {
    address: SocketAddr,
    name: names::Registry,
    url: Url,
    access: Access,
    state: State,
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, io::Error>>>;

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Errors
    /// If it can't listen there.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listen = options.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{address}/")).map_err(io::Error::other)?;
        let name = address.to_string().parse().map_err(io::Error::other)?;
        let server = Arc::new(Server { address, name, url, access: options.access, state: State::default() });
        server.state.limit(options.bytes_per_second);
        let tls = options.tls.map(tokio_rustls::TlsAcceptor::from);
        let accepting = tokio::spawn(accept(Arc::clone(&server), listener, tls));
        Ok(Self { server, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Its name in images' names.
    #[must_use]
    pub fn name(&self) -> &names::Registry {
        &self.server.name
    }

    /// Where its API is.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.server.url
    }

    /// How an [`crate::origin::Origin`] reaches it; anonymously.
    ///
    /// # Errors
    /// None that a registry on loopback could cause.
    pub fn config(&self) -> Result<RegistryConfig, ConfigError> {
        let config = RegistryConfig::new(self.name().clone())?;
        Ok(RegistryConfig { endpoint: self.url().clone(), plain_http: true, ..config })
    }

    /// Changes the limit of what is sent.
    pub fn limit(&self, bytes_per_second: Option<u64>) {
        self.server.state.limit(bytes_per_second);
    }

    /// Generates an image ([`Image::generate`]) and pushes it.
    pub fn push_image(&self, repository: &Repository, tag: &str, layer_bytes: &[u64], seed: u64) -> Image {
        let (image, blobs) = Image::generate(layer_bytes, seed);
        for (digest, content) in blobs {
            self.server.state.push_generated(repository, digest, content);
        }
        self.push_manifest(repository, Some(tag), image.media_type, image.manifest.clone());
        image
    }

    /// Pushes an index of images.
    pub fn push_index(&self, repository: &Repository, tag: &str, images: &[(Platform, &Image)]) -> Digest {
        self.push_manifest(repository, Some(tag), OCI_IMAGE_INDEX_MEDIA_TYPE, Image::index(images))
    }

    /// Pushes any manifest.
    pub fn push_manifest(&self, repository: &Repository, tag: Option<&str>, media_type: &str, body: Bytes) -> Digest {
        self.server.state.push_manifest(repository, tag, media_type, body)
    }

    /// Pushes any blob.
    pub fn push_blob(&self, repository: &Repository, content: Content) -> Digest {
        self.server.state.push_blob(repository, content)
    }

    /// What was asked for and sent, over the paths that are meant.
    pub fn traffic(&self, path: impl Fn(&str) -> bool) -> Traffic {
        self.server.state.traffic(path)
    }

    /// The same for all blobs: the payload.
    #[must_use]
    pub fn blob_traffic(&self) -> Traffic {
        self.traffic(|path| path.contains("/blobs/"))
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.state.connections()
    }

    /// Waits until no body is on its way.
    pub async fn idle(&self) {
        // The sender lives as long as the registry.
        let _ = self.server.state.sending().wait_for(|bodies| *bodies == 0).await;
    }

    /// Makes something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.server.state.inject(fault);
    }

    /// Makes all tokens worthless.
    pub fn revoke_tokens(&self) {
        self.server.state.revoke();
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                server.state.count_connection();
                connections.spawn(serve(Arc::clone(&server), stream, tls.clone()));
            }
            // No descriptors left, most likely: one that is closed frees one.
            Err(_) => {
                connections.join_next().await;
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve(server: Arc<Server>, stream: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    // A connection that fails is the client's affair, and often what the test is about.
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

/// An answer before faults are applied to it.
struct Draft {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    content: Content,
    /// The bytes of the content that are meant.
    range: std::ops::Range<u64>,
}

impl Draft {
    fn whole(status: StatusCode, media_type: &str, content: Content) -> Self {
        let range = 0..content.len();
        Self { status, headers: vec![("content-type", media_type.to_owned())], content, range }
    }

    fn error(error: &ErrorBody) -> Self {
        Self::whole(error.status(), error_body::MEDIA_TYPE, Content::bytes(error.json()))
    }

    fn not_found(code: OciErrorCode) -> Self {
        Self::error(&ErrorBody::new(StatusCode::NOT_FOUND, code, "unknown to this registry"))
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What a body does at its end.
#[derive(Clone, Copy)]
enum End {
    Clean,
    Cut,
    Stall,
}

impl Server {
    async fn answer(self: Arc<Self>, request: HttpRequest<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let has = |name| u64::from(request.headers().contains_key(name));
        let (authorized, ranged) = (has(header::AUTHORIZATION), has(header::RANGE));
        self.state.count(&path, |traffic| {
            traffic.requests += 1;
            traffic.authorized += authorized;
            traffic.ranged += ranged;
        });
        let troubles = self.state.troubles(request.method(), &path);
        let ignore_range = troubles.iter().any(|trouble| matches!(trouble, Trouble::IgnoreRange));
        let mut draft = self.draft(&request, &path, ignore_range);
        let (mut end, mut stop, mut length, mut flip) = (End::Clean, draft.range.end, true, None);
        for trouble in troubles {
            match trouble {
                Trouble::Status { status, headers, body } => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    draft = Draft::whole(status, "text/plain", Content::bytes(body));
                    draft.headers.extend(headers);
                    stop = draft.range.end;
                }
                Trouble::Redirect { to } => {
                    draft = Draft::whole(StatusCode::TEMPORARY_REDIRECT, "text/plain", Content::bytes(""))
                        .with("location", to.replace("{path}", &path));
                    stop = draft.range.end;
                }
                Trouble::Cut { after } => (end, stop) = (End::Cut, stop.min(draft.range.start + after)),
                Trouble::Stall { after } => (end, stop) = (End::Stall, stop.min(draft.range.start + after)),
                Trouble::Short { after } => (length, stop) = (false, stop.min(draft.range.start + after)),
                Trouble::Long { by } => (length, stop) = (false, stop + by),
                Trouble::FlipBit { at } => flip = Some(at),
                Trouble::Header { name, value } => {
                    draft.headers.retain(|(of, _)| *of != name);
                    draft.headers.extend(value.map(|value| (name, value)));
                    length &= name != "content-length";
                }
                Trouble::Delay(span) => tokio::time::sleep(span).await,
                Trouble::IgnoreRange => {}
            }
        }
        if length {
            draft.headers.push(("content-length", (draft.range.end - draft.range.start).to_string()));
        }
        let mut response = Response::new(Body::new(stream::empty().boxed()));
        *response.status_mut() = draft.status;
        for (name, value) in draft.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().append(name, value);
            }
        }
        if request.method() != Method::HEAD {
            self.state.begin_sending();
            let sending =
                Sending { server: self, path, content: draft.content, at: draft.range.start, stop, end, flip };
            *response.body_mut() = StreamBody::new(sending.into_stream());
        }
        response
    }

    fn draft(&self, request: &HttpRequest<Incoming>, path: &str, ignore_range: bool) -> Draft {
        let query = request.uri().query().unwrap_or_default();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Draft::error(&ErrorBody::read_only());
        }
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if path == "/token" {
            return self.grant(query, authorization);
        }
        let parsed = match paths::parse(path, Some(&format!("{query}&ns={}", self.name)), None) {
            Ok(parsed) => parsed,
            Err(error) => return Draft::error(&(&error).into()),
        };
        let repository = match &parsed {
            Request::Base => None,
            Request::In { repository, .. } => Some(repository),
        };
        if let Some(challenge) = self.challenge(repository, authorization) {
            let error = ErrorBody::new(StatusCode::UNAUTHORIZED, OciErrorCode::Unauthorized, "authentication required");
            return Draft::error(&error).with("www-authenticate", challenge);
        }
        let Request::In { repository, target, .. } = parsed else {
            return Draft::whole(StatusCode::OK, "application/json", Content::bytes("{}"));
        };
        match target {
            Target::Manifest(reference) => self.manifest(&repository, &reference),
            Target::Blob(digest) => {
                let range = request.headers().get(header::RANGE).filter(|_| !ignore_range);
                self.blob(&repository, digest, range.map(HeaderValue::as_bytes))
            }
            Target::Referrers { digest, artifact_type } => {
                self.referrers(&repository, digest, artifact_type.as_deref())
            }
            Target::Tags(page) => self.tags(&repository, &page),
        }
    }

    /// What an unsatisfied registry says; none if it is satisfied.
    fn challenge(&self, repository: Option<&Repository>, authorization: Option<&str>) -> Option<String> {
        match &self.access {
            Access::Open => None,
            Access::Basic { user, password } => {
                (!is_user(authorization, user, password)).then(|| "Basic realm=\"registry\"".to_owned())
            }
            Access::Token { .. } => {
                let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
                let holds = repository.is_some_and(|of| token.is_some_and(|token| self.state.holds(token, of)));
                let scope = repository.map_or_else(String::new, |of| format!(",scope=\"repository:{of}:pull\""));
                (!holds).then(|| format!("Bearer realm=\"{}token\",service=\"{}\"{scope}", self.url, self.name))
            }
        }
    }

    fn grant(&self, query: &str, authorization: Option<&str>) -> Draft {
        let Access::Token { user, holds } = &self.access else { return Draft::not_found(OciErrorCode::NotFound) };
        if user.as_ref().is_some_and(|(user, password)| !is_user(authorization, user, password)) {
            let error = ErrorBody::new(StatusCode::UNAUTHORIZED, OciErrorCode::Unauthorized, "who are you?");
            return Draft::error(&error);
        }
        let scope =
            url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "scope").map(|(_, scope)| scope);
        let repository = scope.as_deref().and_then(|scope| scope.strip_prefix("repository:")?.strip_suffix(":pull"));
        let Some(repository) = repository.and_then(|name| name.parse().ok()) else {
            return Draft::error(&ErrorBody::new(
                StatusCode::BAD_REQUEST,
                OciErrorCode::NameInvalid,
                "which repository?",
            ));
        };
        let token = self.state.give_token(repository, *holds);
        let granted = json!({"token": token, "expires_in": holds.as_secs()});
        Draft::whole(StatusCode::OK, "application/json", Content::bytes(granted.to_string()))
    }

    fn manifest(&self, repository: &Repository, reference: &Reference) -> Draft {
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => self.state.tagged(repository, tag.as_str()),
        };
        let found = digest.and_then(|digest| Some((digest, self.state.manifest(repository, digest)?)));
        let Some((digest, (media_type, body))) = found else { return Draft::not_found(OciErrorCode::ManifestUnknown) };
        Draft::whole(StatusCode::OK, &media_type, Content::bytes(body)).with("docker-content-digest", digest)
    }

    fn blob(&self, repository: &Repository, digest: Digest, wanted: Option<&[u8]>) -> Draft {
        let Some(content) = self.state.blob(repository, digest) else {
            return Draft::not_found(OciErrorCode::BlobUnknown);
        };
        let size = content.len();
        let draft = Draft::whole(StatusCode::OK, "application/octet-stream", content)
            .with("docker-content-digest", digest)
            .with("accept-ranges", "bytes");
        match Wanted::parse(wanted).and_then(|wanted| wanted.within(size)) {
            // RFC 9110 lets a server answer several ranges with everything.
            Ok(None) | Err(range::RangeError::Several) => draft,
            Ok(Some(range)) => {
                let draft = draft.with("content-range", range::content_range(&range, size));
                Draft { status: StatusCode::PARTIAL_CONTENT, range, ..draft }
            }
            Err(error) => Draft::error(&(&error).into()).with("content-range", range::unsatisfied(size)),
        }
    }

    fn referrers(&self, repository: &Repository, subject: Digest, artifact_type: Option<&str>) -> Draft {
        let subject = json!(subject.to_string());
        let manifests = self.state.manifests(repository).into_iter();
        let referring = manifests.filter_map(|(digest, media_type, body)| {
            let manifest: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let kind = manifest.get("artifactType").cloned().unwrap_or_default();
            let meant = manifest["subject"]["digest"] == subject && artifact_type.is_none_or(|only| kind == only);
            let descriptor = json!({
                "mediaType": media_type, "digest": digest.to_string(), "size": body.len(), "artifactType": kind,
            });
            meant.then_some(descriptor)
        });
        let manifests: Vec<_> = referring.collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": manifests});
        let draft = Draft::whole(StatusCode::OK, OCI_IMAGE_INDEX_MEDIA_TYPE, Content::bytes(index.to_string()));
        if artifact_type.is_some() { draft.with("oci-filters-applied", "artifactType") } else { draft }
    }

    fn tags(&self, repository: &Repository, page: &Page) -> Draft {
        let mut tags = self.state.tags(repository);
        if let Some(after) = &page.after {
            tags.retain(|tag| tag > after);
        }
        let limit = page.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let more = tags.len() > limit;
        tags.truncate(limit);
        let next = tags
            .last()
            .filter(|_| more)
            .map(|last| format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\""));
        let list = json!({"name": repository.as_str(), "tags": tags});
        let draft = Draft::whole(StatusCode::OK, "application/json", Content::bytes(list.to_string()));
        match next {
            Some(link) => draft.with("link", link),
            None => draft,
        }
    }
}

/// A body on its way.
struct Sending {
    server: Arc<Server>,
    path: String,
    content: Content,
    at: u64,
    stop: u64,
    end: End,
    flip: Option<u64>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.server.state.end_sending();
    }
}

impl Sending {
    fn into_stream(self) -> BoxStream<'static, Result<Frame<Bytes>, io::Error>> {
        stream::unfold(Some(self), |sending| async move {
            let mut sending = sending?;
            match sending.piece().await {
                Some(Ok(piece)) => Some((Ok(Frame::data(piece)), Some(sending))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
        .boxed()
    }

    async fn piece(&mut self) -> Option<io::Result<Bytes>> {
        let left = usize::try_from(self.stop.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if left == 0 {
            return match self.end {
                End::Clean => None,
                End::Cut => {
                    // The connection writes what it has when a body lets it wait, and throws it away when a body fails.
                    tokio::task::yield_now().await;
                    Some(Err(io::ErrorKind::ConnectionAborted.into()))
                }
                End::Stall => std::future::pending().await,
            };
        }
        let state = &self.server.state;
        let max = state.piece_bytes().min(left);
        let mut piece = self.content.read(self.at, max);
        if piece.is_empty() {
            // Beyond the content's end, where a fault wants more.
            piece = Bytes::from(vec![0; max]);
        }
        if let Some(within) = self.flip.and_then(|at| at.checked_sub(self.at)).filter(|at| *at < piece.len() as u64) {
            let mut bytes = piece.to_vec();
            bytes[usize::try_from(within).unwrap_or_default()] ^= 1;
            piece = bytes.into();
        }
        if let Some(free) = state.take_line(piece.len()) {
            tokio::time::sleep_until(free).await;
        }
        self.at += piece.len() as u64;
        state.count(&self.path, |traffic| traffic.body_bytes += piece.len() as u64);
        Some(Ok(piece))
    }
}

fn is_user(authorization: Option<&str>, user: &str, password: &str) -> bool {
    authorization == Some(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}
