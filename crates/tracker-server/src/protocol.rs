//! What client and server say to each other in JSON: the rare messages. The frequent ones are binary, in `shoal_wire::codec`.
//!
//! State: none.
//! Invariants: paths, names and limits that both sides must agree on are here and nowhere else. Unknown fields are ignored, so that
//! neighbouring releases understand each other.
//! Absent on purpose: announces and directives.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use rustls_pki_types::ServerName;
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
pub(crate) const PULL_SECRET: &str = "/v1/pull-secret";
pub(crate) const SWARM: &str = "/v1/swarm";
pub(crate) const STATUS: &str = "/v1/status";
pub(crate) const REPORT: &str = "/v1/report";
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

/// Where a tracker is reached: a host's name or address, and a port. Written `tracker.example:7443`, or as an https URL of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrackerAddress {
    /// The name that the tracker's certificate must have.
    host: ServerName<'static>,
    port: u16,
}

impl TrackerAddress {
    pub(crate) fn new(host: &str, port: u16) -> Result<Self, TrackerAddressError> {
        let host = ServerName::try_from(host.to_owned()).map_err(|_| TrackerAddressError)?;
        if port == 0 { Err(TrackerAddressError) } else { Ok(Self { host, port }) }
    }

    pub(crate) const fn host(&self) -> &ServerName<'static> {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for TrackerAddress {
    type Err = TrackerAddressError;

    fn from_str(text: &str) -> Result<Self, TrackerAddressError> {
        let text = text.strip_prefix("https://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let (host, port) = text.rsplit_once(':').ok_or(TrackerAddressError)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // Without brackets the colons of an IPv6 address would swallow the port.
        if bracketed.is_none() && host.contains(':') {
            return Err(TrackerAddressError);
        }
        Self::new(bracketed.unwrap_or(host), port.parse().map_err(|_| TrackerAddressError)?)
    }
}

impl TryFrom<String> for TrackerAddress {
    type Error = TrackerAddressError;

    fn try_from(text: String) -> Result<Self, TrackerAddressError> {
        text.parse()
    }
}

impl From<TrackerAddress> for String {
    fn from(address: TrackerAddress) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for TrackerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: ServerName::from(address.ip()), port: address.port() }
    }
}

impl fmt::Display for TrackerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.to_str();
        if host.contains(':') { write!(f, "[{host}]:{}", self.port) } else { write!(f, "{host}:{}", self.port) }
    }
}

/// The text isn't a tracker's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tracker's address is host:port, or https://host:port")]
pub struct TrackerAddressError;

/// A tracker's replica: its name, by which digests are shared out, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReplicaText", into = "ReplicaText")]
pub struct Replica {
    /// Its name.
    pub name: ReplicaName,
    /// Where it is reached.
    pub address: TrackerAddress,
}

#[derive(Serialize, Deserialize)]
struct ReplicaText {
    name: String,
    address: TrackerAddress,
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

/// The blob for whose sake a node asks, as its lead.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PullSecretQuestion {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) digest: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for (text, shown) in [
            ("tracker.example:7443", "tracker.example:7443"),
            ("https://tracker.example:7443/", "tracker.example:7443"),
            ("https://10.0.0.1:7443", "10.0.0.1:7443"),
            ("[2001:db8::1]:7443", "[2001:db8::1]:7443"),
        ] {
            let address: TrackerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<TrackerAddress>(), Ok(address));
        }
        for text in
            ["", "tracker.example", "a b:1", "http://a:1", "https://a:1/path", "2001:db8::1:7443", "a:0", "a:65536"]
        {
            assert_eq!(text.parse::<TrackerAddress>(), Err(TrackerAddressError), "{text}");
        }
    }
}
