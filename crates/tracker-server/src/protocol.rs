//! What client and server say to each other in JSON: the rare messages. The frequent ones are binary, in `shoal_wire::codec`.
//!
//! State: none.
//! Invariants: paths, names and limits that both sides must agree on are here and nowhere else. Unknown fields are ignored, so that
//! neighbouring releases understand each other.
//! Absent on purpose: announces and directives.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shoal_tracker::ReplicaName;
use shoal_types::{NodeId, Zone};
use shoal_wire::{Contact, NodeName};

use crate::certificate::NodeKey;
use crate::identity::JoinRequest;
use crate::trust::{hex, unhex};

pub(crate) const JOIN: &str = "/v1/join";
pub(crate) const CA: &str = "/v1/ca";
pub(crate) const ANNOUNCE: &str = "/v1/announce";
pub(crate) const EVENTS: &str = "/v1/events";
pub(crate) const MEMBERS: &str = "/v1/members";
pub(crate) const CONTACTS: &str = "/v1/contacts";
pub(crate) const KEYS: &str = "/v1/keys";
pub(crate) const RESOLVE: &str = "/v1/resolve";
pub(crate) const SWARM: &str = "/v1/swarm";
pub(crate) const STATUS: &str = "/v1/status";
pub(crate) const REPLICAS: &str = "/v1/replicas";
pub(crate) const HEALTH: &str = "/healthz";

/// The header with the version of the Swarm's document.
pub(crate) const VERSION_HEADER: &str = "shoal-version";
/// Announces in one request: all blobs of which one node may be a member.
pub(crate) const MAX_ANNOUNCES: usize = 4_096;
/// Contacts in one answer: several times the number of neighbours, and the largest cluster that Kubernetes supports, for those who
/// want to know everybody.
pub(crate) const MAX_MEMBERS: usize = 8_192;
/// Nodes asked about in one request: they fit a URI of 8 KiB.
pub(crate) const MAX_ASKED: usize = 192;
/// The longest JSON answer: `MAX_MEMBERS` contacts of about 400 bytes at most.
pub(crate) const MAX_JSON_BYTES: usize = 4 << 20;

/// A tracker's replica: its name, by which digests are shared out, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReplicaText", into = "ReplicaText")]
pub struct Replica {
    /// Its name.
    pub name: ReplicaName,
    /// Host and port, as in `tracker.example:7443`.
    pub address: String,
}

#[derive(Serialize, Deserialize)]
struct ReplicaText {
    name: String,
    address: String,
}

impl TryFrom<ReplicaText> for Replica {
    type Error = shoal_tracker::ReplicaNameError;

    fn try_from(text: ReplicaText) -> Result<Self, Self::Error> {
        Ok(Self { name: ReplicaName::new(&text.name)?, address: text.address })
    }
}

impl From<Replica> for ReplicaText {
    fn from(replica: Replica) -> Self {
        Self { name: replica.name.to_string(), address: replica.address }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinBody {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) zone: String,
    #[serde(default)]
    pub(crate) peer_ip: Option<IpAddr>,
    pub(crate) peer_port: u16,
    /// PKCS#10, as PEM.
    pub(crate) csr: String,
}

impl JoinBody {
    pub(crate) fn request(&self) -> Option<JoinRequest> {
        Some(JoinRequest {
            name: NodeName::new(&self.name).ok()?,
            zone: Zone::new(&self.zone).ok()?,
            peer_ip: self.peer_ip,
            peer_port: self.peer_port,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinReply {
    /// The node's certificate, as PEM.
    pub(crate) certificate: String,
    /// The roots to trust, as PEM.
    pub(crate) trust: String,
    pub(crate) replicas: Vec<Replica>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContactText {
    name: String,
    #[serde(default)]
    zone: String,
    address: SocketAddr,
}

impl From<&Contact> for ContactText {
    fn from(contact: &Contact) -> Self {
        let (name, zone) = (contact.name().to_string(), contact.zone().name().to_owned());
        Self { name, zone, address: contact.address() }
    }
}

impl ContactText {
    pub(crate) fn parse(&self) -> Option<Contact> {
        Some(Contact::new(NodeName::new(&self.name).ok()?, Zone::new(&self.zone).ok()?, self.address))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContactList {
    pub(crate) contacts: Vec<ContactText>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplicaList {
    pub(crate) replicas: Vec<Replica>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyList {
    /// By the node, in hex.
    pub(crate) keys: BTreeMap<String, Vec<String>>,
}

impl KeyList {
    pub(crate) fn new(keys: impl IntoIterator<Item = (NodeId, Vec<NodeKey>)>) -> Self {
        let text = |keys: Vec<NodeKey>| keys.iter().map(|key| hex(key.as_bytes())).collect();
        Self { keys: keys.into_iter().map(|(node, keys)| (node.to_string(), text(keys))).collect() }
    }

    pub(crate) fn parse(&self) -> BTreeMap<NodeId, Vec<NodeKey>> {
        let node = |text: &str| unhex(text).map(|bits| NodeId::new(u128::from_be_bytes(bits)));
        let keys = |texts: &[String]| texts.iter().filter_map(|text| unhex(text).map(NodeKey::new)).collect();
        self.keys.iter().filter_map(|(name, texts)| Some((node(name)?, keys(texts)))).collect()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResolveBody {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    /// One of a closed set.
    pub(crate) error: String,
    /// In words.
    pub(crate) message: String,
}

/// The values of a parameter that may come several times. None of what is asked here needs escapes.
pub(crate) fn query<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(move |pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

pub(crate) fn parse_node(text: &str) -> Option<NodeId> {
    unhex(text).map(|bits| NodeId::new(u128::from_be_bytes(bits)))
}
