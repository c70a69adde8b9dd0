//! What can be asked of a tracker.
//!
//! State: none of its own.
//! Invariants: an announce goes to its digest's tracker and to no other; a question goes to the trackers in turn until one answers.
//! Absent on purpose: trying an announce again: by then it is out of date.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use shoal_tracker::ReplicaName;
use shoal_types::{Digest, NodeId};
use shoal_wire::codec::{MAX_BATCH_BYTES, decode_outcomes, encode_announces};
use shoal_wire::{Accepted, Announce, AnnounceEvent, Contact};

use super::link::{Ask, Link};
use super::{AnnounceFailure, ClientError, TrackerClient};
use crate::certificate::NodeKey;
use crate::document::SwarmDocument;
use crate::protocol::{
    ANNOUNCE, CONTACTS, ContactList, ContactText, KEYS, KeyList, MAX_ANNOUNCES, MAX_ASKED, MAX_JSON_BYTES, MEMBERS,
    PULL_SECRET, PullSecretQuestion, RESOLVE, ResolveBody, SWARM, VERSION_HEADER,
};
use crate::pull_secret::{PullSecret, PullSecretBody};
use crate::record::{RecordError, SignedRecord, VerifiedRecord};
use crate::resolve::{ImageName, ResolveError};

/// When a tracker says 429 without saying until when.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

impl TrackerClient {
    /// Announces, each digest to its tracker. The results are in the order of the announces. Of one digest, announces must follow each
    /// other: the next one after the last one's result.
    pub async fn announce(&self, batch: &[Announce]) -> Vec<Result<Accepted, AnnounceFailure>> {
        let _place = self.shared.announcing.acquire().await;
        let mut groups: BTreeMap<ReplicaName, (Link, Vec<usize>)> = BTreeMap::new();
        {
            let mut routing = self.shared.routing();
            for (at, announce) in batch.iter().enumerate() {
                let Some((tracker, link)) = routing.owner(&announce.digest) else { continue };
                routing.note(announce.digest, &tracker, announce.event == AnnounceEvent::Stopped);
                groups.entry(tracker).or_insert_with(|| (link, Vec::new())).1.push(at);
            }
        }
        let nobody = || Err(AnnounceFailure::Unreachable("there is no tracker".to_owned()));
        let mut results: Vec<_> = batch.iter().map(|_| nobody()).collect();
        let told = groups.values().map(|(link, places)| tell(link, batch, places));
        for outcomes in futures_util::future::join_all(told).await {
            outcomes.into_iter().for_each(|(at, outcome)| results[at] = outcome);
        }
        for accepted in results.iter().flatten() {
            self.shared.learn(&accepted.contacts);
        }
        results
    }

    /// Nodes for the standing mesh: a random subset, biased to this node's zone.
    ///
    /// # Errors
    /// If no tracker answers.
    pub async fn members(&self, want: usize) -> Result<Vec<Contact>, ClientError> {
        self.contacts_at(&format!("{MEMBERS}?want={want}")).await
    }

    /// Where these nodes are found, as far as the tracker knows.
    ///
    /// # Errors
    /// If no tracker answers.
    pub async fn contacts(&self, nodes: &[NodeId]) -> Result<Vec<Contact>, ClientError> {
        let mut found = Vec::new();
        for nodes in nodes.chunks(MAX_ASKED) {
            found.extend(self.contacts_at(&path_with_nodes(CONTACTS, nodes)).await?);
        }
        Ok(found)
    }

    /// These nodes' keys, as far as the tracker knows: what their links are verified with.
    ///
    /// # Errors
    /// If no tracker answers.
    pub async fn keys(&self, nodes: &[NodeId]) -> Result<BTreeMap<NodeId, Vec<NodeKey>>, ClientError> {
        let mut found = BTreeMap::new();
        for nodes in nodes.chunks(MAX_ASKED) {
            let keys: KeyList = self.ask_any(&Ask::get(&path_with_nodes(KEYS, nodes))).await?;
            found.extend(keys.parse());
        }
        Ok(found)
    }

    /// What a name resolves to, verified.
    ///
    /// # Errors
    /// [`ClientError::Resolve`] if the origin has said no, or can't say anything; else if no tracker answers.
    pub async fn resolve(&self, name: &ImageName) -> Result<VerifiedRecord, ClientError> {
        let body = ResolveBody {
            registry: name.registry().to_owned(),
            repository: name.repository().to_owned(),
            reference: name.reference().to_owned(),
        };
        let body = serde_json::to_vec(&body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let ask = Ask::post(RESOLVE, Bytes::from(body));
        let json = match self.ask_in_turn(&name.place(), &ask, MAX_JSON_BYTES).await {
            Ok((_, json)) => json,
            Err(error) => return Err(resolve_error(error)),
        };
        let trust = Arc::clone(self.shared.current_identity()?.trust());
        let record = SignedRecord::from_json(&json)?.verify(&trust)?;
        if record.record().name == *name { Ok(record) } else { Err(RecordError::OtherName.into()) }
    }

    /// What it takes to fetch this private blob, of which this node is the lead; none, if no Swarm has credentials for the registry.
    ///
    /// # Errors
    /// If this node doesn't hold the blob's lease, the origin gives nothing for the Swarm's credentials, or no tracker answers.
    pub async fn pull_secret(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
    ) -> Result<Option<PullSecret>, ClientError> {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        let question = PullSecretQuestion { registry, repository, digest: digest.to_string() };
        let body = serde_json::to_vec(&question).map_err(|error| ClientError::Malformed(error.to_string()))?;
        // Only the blob's own tracker knows who leads.
        match self.ask_in_turn(digest, &Ask::post(PULL_SECRET, Bytes::from(body)), MAX_JSON_BYTES).await {
            Ok((_, json)) => {
                // What is wrong with it isn't said: the words might quote it.
                let body: Result<PullSecretBody, _> = serde_json::from_slice(&json);
                let body = body.map_err(|_| ClientError::Malformed("a secret that isn't one".to_owned()))?;
                Ok(Some(body.into()))
            }
            Err(ClientError::Refused { error, .. }) if error == "no_secret" => Ok(None),
            Err(error) => Err(resolve_error(error)),
        }
    }

    /// This node's document of the Swarms; nothing, if it is the version that is here already.
    ///
    /// # Errors
    /// If no tracker answers.
    pub async fn swarm(&self, have: Option<&str>) -> Result<Option<SwarmDocument>, ClientError> {
        let path = have.map_or_else(|| SWARM.to_owned(), |version| format!("{SWARM}?have={version}"));
        let (headers, bytes) = self.ask_in_turn(&self.home(), &Ask::get(&path), MAX_JSON_BYTES).await?;
        let version = headers.get(VERSION_HEADER).and_then(|version| version.to_str().ok());
        let version = version.ok_or_else(|| ClientError::Malformed("a document without a version".to_owned()))?;
        Ok((Some(version) != have).then(|| SwarmDocument { version: version.to_owned(), bytes }))
    }

    async fn contacts_at(&self, path: &str) -> Result<Vec<Contact>, ClientError> {
        let list: ContactList = self.ask_any(&Ask::get(path)).await?;
        let contacts: Vec<Contact> = list.contacts.iter().filter_map(ContactText::parse).collect();
        self.shared.learn(&contacts);
        Ok(contacts)
    }

    async fn ask_any<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T, ClientError> {
        let (_, body) = self.ask_in_turn(&self.home(), ask, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    /// Asks the trackers in the order in which they own the place.
    async fn ask_in_turn(
        &self,
        place: &Digest,
        ask: &Ask<'_>,
        limit: usize,
    ) -> Result<(http::HeaderMap, Bytes), ClientError> {
        let trackers = self.shared.routing().of(place);
        let mut failure = ClientError::NoTracker;
        for (_, link) in trackers {
            match link.ask(ask.clone(), limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_of_the_connection() => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// Questions that any tracker can answer go to the one that this node's identity falls to, so that they are spread.
    fn home(&self) -> Digest {
        let bits =
            self.shared.current_identity().map_or(u128::from(self.shared.instance), |identity| identity.node().get());
        let mut place = [0; 32];
        place[..16].copy_from_slice(&bits.to_be_bytes());
        Digest::Sha256(place)
    }
}

type Outcomes = Vec<(usize, Result<Accepted, AnnounceFailure>)>;

/// Announces to one tracker what is at these places of the batch.
async fn tell(link: &Link, batch: &[Announce], places: &[usize]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut left: Vec<usize> = places.to_vec();
    while !left.is_empty() {
        let (sent, body) = encode(batch, &left);
        let Some(body) = body else {
            // Longer on its own than anything may be.
            outcomes.push((left.remove(0), Err(AnnounceFailure::Unreachable("the announce is too long".to_owned()))));
            continue;
        };
        let answer = link.ask(Ask::post(ANNOUNCE, body), MAX_BATCH_BYTES).await;
        let answered = match answer
            .and_then(|(_, body)| decode_outcomes(&body).map_err(|error| ClientError::Malformed(error.to_string())))
        {
            Ok(answered) => answered,
            Err(error) => {
                let failure = announce_failure(error);
                outcomes.extend(left.into_iter().map(|at| (at, Err(failure.clone()))));
                return outcomes;
            }
        };
        let mut answered: BTreeMap<usize, _> =
            answered.into_iter().filter_map(|(id, outcome)| Some((usize::try_from(id).ok()?, outcome))).collect();
        let before = left.len();
        left.retain(|at| match answered.remove(at) {
            Some(outcome) => {
                outcomes.push((*at, outcome.map_err(AnnounceFailure::Refused)));
                false
            }
            None => true,
        });
        // A tracker leaves for later what its answer has no room for. If it answers nothing, it doesn't understand these.
        if left.len() == before {
            let silent = AnnounceFailure::Unreachable("the tracker left the announce unanswered".to_owned());
            let unanswered: Vec<usize> = left.drain(..sent).collect();
            outcomes.extend(unanswered.into_iter().map(|at| (at, Err(silent.clone()))));
        }
    }
    outcomes
}

/// As many as fit one request; no body, if not even one does.
fn encode(batch: &[Announce], places: &[usize]) -> (usize, Option<Bytes>) {
    let mut count = places.len().min(MAX_ANNOUNCES);
    loop {
        let items = places[..count].iter().map(|at| (u32::try_from(*at).unwrap_or(u32::MAX), &batch[*at]));
        match encode_announces(items) {
            Ok(body) => return (count, Some(body.freeze())),
            Err(_) if count > 1 => count = count.div_ceil(2),
            Err(_) => return (count, None),
        }
    }
}

fn announce_failure(error: ClientError) -> AnnounceFailure {
    match error {
        ClientError::Refused { status: 429, retry_after, .. } => {
            AnnounceFailure::TooMany { retry_after: retry_after.unwrap_or(DEFAULT_WAIT) }
        }
        error => AnnounceFailure::Unreachable(error.to_string()),
    }
}

/// The tracker's word on why a name isn't resolved, back from its JSON.
fn resolve_error(error: ClientError) -> ClientError {
    let ClientError::Refused { status, error, message, retry_after } = error else { return error };
    match error.as_str() {
        "not_found" => ResolveError::NotFound(message).into(),
        "denied" => ResolveError::Denied(message).into(),
        "not_allowed" => ResolveError::NotAllowed(message).into(),
        "origin_busy" => ResolveError::Busy { retry_after: retry_after.unwrap_or(DEFAULT_WAIT) }.into(),
        "origin_unreachable" => ResolveError::Unreachable(message).into(),
        "overloaded" => ResolveError::Overloaded.into(),
        _ => ClientError::Refused { status, error, message, retry_after },
    }
}

fn path_with_nodes(path: &str, nodes: &[NodeId]) -> String {
    let mut text = format!("{path}?");
    for node in nodes {
        let _ = write!(text, "node={node}&");
    }
    text
}
