//! One request, one answer: who may ask what, how much and how often.
//!
//! State: none of its own.
//! Invariants: whatever is asked, there is an answer, and nothing of the request stays but what the tracker's core took in. The
//! caller is who its certificate says; no request names its sender.
//! Absent on purpose: what the answers are made of (`driver.rs`, `resolve.rs`, `authority.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use shoal_chain::{LinkVerifier, Signature};
use shoal_types::NodeId;
use shoal_wire::codec::{MAX_BATCH_BYTES, decode_announces, encode_outcomes};
use shoal_wire::{Announce, AnnounceOutcome, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use crate::certificate::{NodeCertificate, NodeKey};
use crate::driver::{Command, SLICE};
use crate::identity::{Admitted, Refused};
use crate::protocol::{
    self, ContactList, ContactText, ErrorBody, JoinBody, JoinReply, KeyList, MAX_ANNOUNCES, MAX_ASKED, MAX_MEMBERS,
    PullSecretQuestion, ReplicaList, ResolveBody, VERSION_HEADER,
};
use crate::pull_secret::PullSecretBody;
use crate::report::{MAX_REPORT_BYTES, NodeReport, Report, ReportError};
use crate::resolve::{ImageName, ResolveError};
use crate::server::{NodePeer, Peer, Shared};
use crate::status::StatusText;
use crate::stream::{Departure, EventBody, stream};
use crate::trust::to_pem;

pub(crate) type Answer = Either<Full<Bytes>, EventBody>;

/// The body of a join: names and a signing request, which has about 400 bytes.
const MAX_JOIN_BYTES: usize = 16 << 10;
/// The body of a question about a name: 640 bytes at most, written with escapes.
const MAX_RESOLVE_BYTES: usize = 4 << 10;
/// Outcomes in one answer. What was announced beyond that is left unanswered and not taken in: it is announced again. One slice of
/// outcomes more fits the codec's limit.
const ENOUGH_OUTCOMES: usize = 1 << 20;
/// Signatures checked without a break: 32 of about 60 µs are 2 ms.
const CHECKED_AT_ONCE: usize = 32;
/// Blobs and bans in the status.
const STATUS_ITEMS: usize = 256;

/// Why there is no answer of the kind that was wanted.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    error: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), retry_after: None }
    }

    fn too_many(error: &'static str, retry_after: Duration) -> Self {
        let message = "more than one node may ask".to_owned();
        Self { status: StatusCode::TOO_MANY_REQUESTS, error, message, retry_after: Some(retry_after) }
    }

    fn busy(error: &'static str, retry_after: Duration) -> Self {
        let message = "the tracker is busy".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error, message, retry_after: Some(retry_after) }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let (status, kind) = match &error {
            ResolveError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            ResolveError::Denied(_) => (StatusCode::FORBIDDEN, "denied"),
            ResolveError::NotAllowed(_) => (StatusCode::FORBIDDEN, "not_allowed"),
            ResolveError::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "origin_busy"),
            ResolveError::Unreachable(_) => (StatusCode::BAD_GATEWAY, "origin_unreachable"),
            ResolveError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        };
        let retry_after = match &error {
            ResolveError::Busy { retry_after } => Some(*retry_after),
            ResolveError::Overloaded => Some(Duration::from_secs(1)),
            _ => None,
        };
        Self { retry_after, ..Self::new(status, kind, error.words()) }
    }
}

impl From<crate::driver::Stopping> for Failure {
    fn from(stopping: crate::driver::Stopping) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", stopping.to_string())
    }
}

/// Answers a request.
pub(crate) async fn answer(shared: &Shared, peer: &Peer, request: Request<Incoming>) -> Response<Answer> {
    let path = request.uri().path();
    let route = ROUTES.iter().find(|(_, known)| *known == path);
    let outcome = match route {
        None => Err(Failure::new(StatusCode::NOT_FOUND, "unknown_path", "there is no such path")),
        Some((method, _)) if method != request.method() => {
            Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method", "the path knows another method"))
        }
        Some((_, path)) => dispatch(shared, peer, path, request).await,
    };
    let response = outcome.unwrap_or_else(refuse);
    // A closed set: paths that don't exist count as one.
    shared.metrics.request(route.map_or("unknown", |(_, path)| path), response.status().as_u16());
    response
}

/// All routes. A test asks each as everybody who may not.
pub fn routes() -> impl Iterator<Item = (&'static Method, &'static str)> {
    ROUTES.iter().map(|(method, path)| (method, *path))
}

static ROUTES: [(Method, &str); 14] = [
    (Method::GET, protocol::HEALTH),
    (Method::GET, protocol::CA),
    (Method::POST, protocol::JOIN),
    (Method::GET, protocol::STATUS),
    (Method::POST, protocol::ANNOUNCE),
    (Method::GET, protocol::EVENTS),
    (Method::GET, protocol::MEMBERS),
    (Method::GET, protocol::CONTACTS),
    (Method::GET, protocol::KEYS),
    (Method::POST, protocol::RESOLVE),
    (Method::POST, protocol::PULL_SECRET),
    (Method::GET, protocol::SWARM),
    (Method::POST, protocol::REPORT),
    (Method::GET, protocol::REPLICAS),
];

async fn dispatch(
    shared: &Shared,
    peer: &Peer,
    path: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Failure> {
    match path {
        protocol::HEALTH => return health(shared),
        protocol::CA => return Ok(text(shared.credentials.authority().trust().to_pem())),
        protocol::JOIN => return join(shared, peer, request).await,
        protocol::STATUS => return status(shared, &request).await,
        _ => {}
    }
    let Some(node) = peer.node.as_deref() else {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "no_certificate", "join first"));
    };
    match path {
        protocol::ANNOUNCE => announce(shared, node, request).await,
        protocol::EVENTS => events(shared, node, &request).await,
        _ => {
            node.budget.questions.take(1).map_err(|wait| Failure::too_many("questions", wait))?;
            match path {
                protocol::MEMBERS => members(shared, node, &request).await,
                protocol::CONTACTS => {
                    let contacts = shared.directory.contacts(asked(&request)?);
                    Ok(json(&ContactList { contacts: contacts.iter().map(ContactText::from).collect() }))
                }
                protocol::KEYS => {
                    let now = SystemTime::now();
                    let keys = asked(&request)?.into_iter().map(|node| (node, shared.directory.keys(node, now)));
                    Ok(json(&KeyList::new(keys)))
                }
                protocol::REPLICAS => Ok(json(&ReplicaList { replicas: shared.replicas.borrow().to_vec() })),
                protocol::RESOLVE => resolve(shared, request).await,
                protocol::PULL_SECRET => pull_secret(shared, node, request).await,
                protocol::REPORT => report(shared, node, request).await,
                _ => swarm(shared, node, &request).await,
            }
        }
    }
}

fn health(shared: &Shared) -> Result<Response<Answer>, Failure> {
    if shared.draining.load(Ordering::Relaxed) {
        return Err(crate::driver::Stopping.into());
    }
    Ok(text("ok\n".to_owned()))
}

async fn join(shared: &Shared, peer: &Peer, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
    // Those who try tokens don't keep members from renewing.
    match &peer.node {
        Some(node) => node.budget.questions.take(1).map_err(|wait| Failure::too_many("questions", wait))?,
        None => shared.joins.take(1).map_err(|wait| Failure::busy("joins", wait))?,
    }
    let token = bearer(&request).map(str::to_owned);
    let (body, _memory) = read(shared, request, MAX_JOIN_BYTES).await?;
    let malformed = |message: &str| Failure::new(StatusCode::BAD_REQUEST, "malformed", message);
    let body: JoinBody = serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))?;
    let wish = body.request().ok_or_else(|| malformed("the node's name or zone can't be one"))?;
    let present = peer.node.as_deref().map(|node| &node.certificate.contact);
    let admitted = match (present, token) {
        (Some(present), None) if *present.name() != wish.name => {
            Err(Refused::NotAllowed(format!("{} asks for a certificate of {}", present.name(), wish.name)))
        }
        (Some(present), None) => shared.identity.renew(present, &wish, peer.source).await,
        (_, Some(token)) => shared.identity.admit(&token, &wish, peer.source).await,
        (None, None) => Err(Refused::Token),
    };
    let admitted = admitted.map_err(|refused| {
        tracing::info!(source = %peer.source, name = %wish.name, %refused, "a node isn't admitted");
        shared.metrics.join("refused");
        match refused {
            Refused::Token => Failure::new(StatusCode::UNAUTHORIZED, "token", refused.to_string()),
            Refused::NotAllowed(_) => Failure::new(StatusCode::FORBIDDEN, "not_allowed", refused.to_string()),
            Refused::Unavailable(_) => {
                Failure { message: refused.to_string(), ..Failure::busy("unavailable", Duration::from_secs(2)) }
            }
        }
    })?;
    let reply = certify(shared, &admitted, &body.csr)?;
    shared.metrics.join("admitted");
    Ok(json(&reply))
}

fn certify(shared: &Shared, admitted: &Admitted, request: &str) -> Result<JoinReply, Failure> {
    let now = SystemTime::now();
    let authority = shared.credentials.authority();
    let certificate = authority
        .certify_node(&admitted.contact(), request, now)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, "malformed", error.to_string()))?;
    // Its peers may ask for its key before it has opened a connection.
    if let Ok(parsed) = NodeCertificate::parse(&certificate) {
        shared.directory.enter(&parsed, now).ok_or_else(|| Failure::busy("nodes", Duration::from_secs(60)))?;
        shared.directory.label(parsed.node(), admitted.labels.clone());
    }
    Ok(JoinReply {
        certificate: to_pem("CERTIFICATE", &certificate),
        trust: authority.trust().to_pem(),
        replicas: shared.replicas.borrow().to_vec(),
    })
}

async fn status(shared: &Shared, request: &Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let admin = shared.admin_token.as_ref().zip(bearer(request)).is_some_and(|(token, shown)| token.is(shown));
    if !admin {
        return Err(Failure::new(StatusCode::FORBIDDEN, "not_admin", "this takes the admin token"));
    }
    let (blobs, banned) = (STATUS_ITEMS, STATUS_ITEMS);
    let snapshot = shared.commands.ask(|answer| Command::Snapshot { blobs, banned, answer }).await?;
    Ok(json(&StatusText::from(&snapshot)))
}

async fn announce(shared: &Shared, node: &NodePeer, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let Ok(_in_flight) = node.budget.announce_requests.try_acquire() else {
        return Err(Failure::too_many("announce_requests", Duration::from_millis(100)));
    };
    let (body, memory) = read(shared, request, MAX_BATCH_BYTES).await?;
    let malformed = |message: String| Failure::new(StatusCode::BAD_REQUEST, "malformed", message);
    let announces = decode_announces(&body).map_err(|error| malformed(error.to_string()))?;
    drop(body);
    if announces.len() > MAX_ANNOUNCES {
        return Err(malformed(format!("{} announces in one request (at most {MAX_ANNOUNCES})", announces.len())));
    }
    // A signature costs more than an announce.
    let signatures: usize = announces.iter().map(|(_, announce)| announce.links.len()).sum();
    node.budget.announces.take(announces.len() + signatures).map_err(|wait| Failure::too_many("announces", wait))?;
    let mut answer = BytesMut::new();
    let mut announces = announces.into_iter();
    while answer.len() < ENOUGH_OUTCOMES {
        let slice: Vec<_> = announces.by_ref().take(SLICE).collect();
        if slice.is_empty() {
            break;
        }
        append(&mut answer, &announce_slice(shared, node, slice).await?);
    }
    if answer.is_empty() {
        append(&mut answer, &[]);
    }
    drop(memory);
    Ok(respond(StatusCode::OK, "application/octet-stream", answer.freeze()))
}

/// Checks signatures and hands on what has good ones.
async fn announce_slice(
    shared: &Shared,
    node: &NodePeer,
    slice: Vec<(u32, Announce)>,
) -> Result<Vec<(u32, AnnounceOutcome)>, Failure> {
    let id = node.certificate.node();
    let (mut good, mut outcomes) = (Vec::with_capacity(slice.len()), Vec::new());
    for (number, announce) in slice {
        if are_signed(shared, &node.certificate, &announce).await {
            good.push((number, announce));
        } else {
            shared.metrics.forged_links.inc();
            outcomes.push((number, Err(Refusal::new("links whose signature isn't the announcer's"))));
        }
    }
    if !good.is_empty() {
        outcomes.extend(shared.commands.ask(|answer| Command::Announce { node: id, announces: good, answer }).await?);
    }
    Ok(outcomes)
}

/// Whether the announcer signed its links: with the key of this connection, or another one of its that hasn't expired.
async fn are_signed(shared: &Shared, certificate: &NodeCertificate, announce: &Announce) -> bool {
    if announce.links.is_empty() {
        return true;
    }
    let mut keys = vec![certificate.key];
    let others = shared.directory.keys(certificate.node(), SystemTime::now());
    keys.extend(others.into_iter().filter(|key| *key != certificate.key));
    let keys = NodeKeys { node: certificate.node(), keys };
    for batches in announce.links.chunks(CHECKED_AT_ONCE) {
        if !batches
            .iter()
            .all(|links| keys.is_signed_by(links.publisher, &links.batch.signed_bytes(), &links.signature))
        {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// One node's keys. Nobody else's links come with its announces.
struct NodeKeys {
    node: NodeId,
    keys: Vec<NodeKey>,
}

impl LinkVerifier for NodeKeys {
    fn is_signed_by(&self, publisher: NodeId, bytes: &[u8], signature: &Signature) -> bool {
        publisher == self.node && self.keys.iter().any(|key| key.verifies(bytes, signature))
    }
}

fn append(answer: &mut BytesMut, outcomes: &[(u32, AnnounceOutcome)]) {
    let encoded = encode_outcomes(outcomes.iter().map(|(id, outcome)| (*id, outcome)));
    let encoded = encoded.expect("a slice of outcomes, each within its limit, fits a body");
    // The first one brings the version along.
    let skip = usize::from(!answer.is_empty());
    answer.extend_from_slice(&encoded[skip..]);
}

async fn events(shared: &Shared, node: &NodePeer, request: &Request<Incoming>) -> Result<Response<Answer>, Failure> {
    node.budget.questions.take(1).map_err(|wait| Failure::too_many("questions", wait))?;
    let instance = protocol::query(request.uri().query(), "instance").next();
    let instance = instance.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_default();
    let place = shared.commands.reserve().ok_or_else(|| Failure::busy("streams", Duration::from_secs(5)))?;
    let number = shared.next_stream.fetch_add(1, Ordering::Relaxed);
    let contact = node.certificate.contact.clone();
    let (sink, body) = stream(&shared.limits, Departure::new((contact.node(), number), place));
    shared.commands.send(Command::Connect { contact, number, instance, sink }).await?;
    let mut response = Response::new(Either::Right(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

async fn members(shared: &Shared, node: &NodePeer, request: &Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let want = protocol::query(request.uri().query(), "want").next().and_then(|text| text.parse().ok());
    let want = want.unwrap_or(50_usize).min(MAX_MEMBERS);
    let node = node.certificate.node();
    let contacts = shared.commands.ask(|answer| Command::Members { node, want, answer }).await?;
    Ok(json(&ContactList { contacts: contacts.iter().map(ContactText::from).collect() }))
}

async fn resolve(shared: &Shared, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let (body, memory) = read(shared, request, MAX_RESOLVE_BYTES).await?;
    let malformed = |message: String| Failure::new(StatusCode::BAD_REQUEST, "malformed", message);
    let body: ResolveBody = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    let name = ImageName::new(&body.registry, &body.repository, &body.reference);
    let name = name.map_err(|error| malformed(error.to_string()))?;
    drop(memory);
    let record = shared.resolver.ask(&name).await?;
    Ok(respond(StatusCode::OK, "application/json", record.0))
}

/// What it takes to fetch a private blob, for the node that holds its lease.
async fn pull_secret(
    shared: &Shared,
    node: &NodePeer,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Failure> {
    let (body, memory) = read(shared, request, MAX_RESOLVE_BYTES).await?;
    let malformed = |message: String| Failure::new(StatusCode::BAD_REQUEST, "malformed", message);
    let body: PullSecretQuestion = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    let name = ImageName::new(&body.registry, &body.repository, &body.digest);
    let name = name.map_err(|error| malformed(error.to_string()))?;
    let digest = name.digest().ok_or_else(|| malformed("a blob is named by its digest".to_owned()))?;
    drop(memory);
    let id = node.certificate.node();
    if !shared.commands.ask(|answer| Command::MayFetch { node: id, digest, answer }).await? {
        let message = "only who holds a blob's lease gets what it takes to fetch it";
        return Err(Failure::new(StatusCode::FORBIDDEN, "no_lease", message));
    }
    let Some(secret) = shared.resolver.pull_secret(&name).await? else {
        return Err(Failure::new(StatusCode::NOT_FOUND, "no_secret", "no Swarm has credentials for this registry"));
    };
    tracing::info!(node = %node.certificate.contact.name(), registry = name.registry(), repository = name.repository(), ?secret, "a lead is handed what it takes to pull");
    Ok(json(&PullSecretBody::from(secret)))
}

/// The node's document; nothing, if it has that version already.
async fn swarm(shared: &Shared, node: &NodePeer, request: &Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let contact = &node.certificate.contact;
    let labels = shared.identity.labels(contact).await.map_err(|refused| match refused {
        Refused::Unavailable(_) => {
            Failure { message: refused.to_string(), ..Failure::busy("unavailable", Duration::from_secs(2)) }
        }
        Refused::Token | Refused::NotAllowed(_) => {
            Failure::new(StatusCode::FORBIDDEN, "not_allowed", refused.to_string())
        }
    })?;
    let labels = labels.or_else(|| shared.directory.labels(contact.node()));
    let source = shared.swarm.borrow().clone();
    let version = source.version_for(labels.as_ref());
    let has_it = protocol::query(request.uri().query(), "have").any(|have| have == version);
    let mut response = if has_it {
        respond(StatusCode::NO_CONTENT, "application/octet-stream", Bytes::new())
    } else {
        respond(StatusCode::OK, "application/octet-stream", source.write(labels.as_ref()))
    };
    let version = HeaderValue::from_str(&version).expect("a version is hex");
    response.headers_mut().insert(VERSION_HEADER, version);
    Ok(response)
}

async fn report(shared: &Shared, node: &NodePeer, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let (body, memory) = read(shared, request, MAX_REPORT_BYTES).await?;
    let contact = &node.certificate.contact;
    let report = Report::parse(&body, contact.name()).map_err(|error| match error {
        ReportError::Malformed(_) => Failure::new(StatusCode::BAD_REQUEST, "malformed", error.to_string()),
        ReportError::Foreign(_) => Failure::new(StatusCode::FORBIDDEN, "not_allowed", error.to_string()),
    })?;
    let report = NodeReport { node: contact.name().clone(), report: Arc::new(report) };
    let taken = shared.reports.take(contact.node(), report, body.len());
    drop(memory);
    taken.map_err(|_| Failure::busy("reports", Duration::from_secs(10)))?;
    Ok(respond(StatusCode::NO_CONTENT, "application/json", Bytes::new()))
}

/// The nodes that a request asks about.
fn asked(request: &Request<Incoming>) -> Result<Vec<NodeId>, Failure> {
    let malformed = |message: &str| Failure::new(StatusCode::BAD_REQUEST, "malformed", message);
    let nodes: Option<Vec<NodeId>> =
        protocol::query(request.uri().query(), "node").take(MAX_ASKED + 1).map(protocol::parse_node).collect();
    match nodes {
        Some(nodes) if nodes.len() <= MAX_ASKED => Ok(nodes),
        Some(_) => Err(malformed("too many nodes in one question")),
        None => Err(malformed("a node is written as 32 hex digits")),
    }
}

fn bearer(request: &Request<Incoming>) -> Option<&str> {
    request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Reads a body. Its memory comes from what all requests share, and is given back with the permit.
async fn read(
    shared: &Shared,
    request: Request<Incoming>,
    limit: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let too_long = || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", format!("at most {limit} bytes"));
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let take = |bytes: usize| {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&shared.body_memory).try_acquire_many_owned(kib);
        permit.map_err(|_| Failure::busy("memory", Duration::from_secs(1)))
    };
    let mut memory = take(0)?;
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Failure::new(StatusCode::BAD_REQUEST, "broken_off", error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_long());
            }
            memory.merge(take(data.len())?);
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(shared.limits.body, read).await {
        Ok(bytes) => Ok((bytes?, memory)),
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body didn't come in time")),
    }
}

fn refuse(failure: Failure) -> Response<Answer> {
    let body = ErrorBody { error: failure.error.to_owned(), message: failure.message };
    let mut response = json(&body);
    *response.status_mut() = failure.status;
    if let Some(wait) = failure.retry_after {
        // Whole seconds, rounded up: that is what the header can say.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json<T: serde::Serialize>(value: &T) -> Response<Answer> {
    let bytes = serde_json::to_vec(value).expect("maps in answers have strings as keys");
    respond(StatusCode::OK, "application/json", bytes.into())
}

fn text(text: String) -> Response<Answer> {
    respond(StatusCode::OK, "text/plain; charset=utf-8", text.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
