//! What a Node says about itself that an agent's certificate and the tracker need.
//!
//! State: none. Invariant: an address here is one that the cluster's own parts use to reach the node.
//! Absent on purpose: readiness. An agent that can ask is there, and a Node that isn't ready gets images, too. Who reconciles wants to know, so it is
//! left where it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use shoal_types::Zone;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Where a node is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) zone: Zone,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Place {
    pub(super) fn of(node: &Node) -> Result<Self, String> {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let zone = labels.get(ZONE).map_or("", String::as_str);
        let zone = Zone::new(zone).map_err(|_| format!("the Node's label {ZONE} can't be a zone: {zone}"))?;
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let addresses = addresses.filter(|address| address.type_ == "InternalIP");
        let addresses = addresses.filter_map(|address| address.address.parse().ok()).collect();
        Ok(Self { zone, labels, addresses })
    }
}

/// Takes from a Node what nobody here reads: of 20 KiB, mostly names of images, 2 are left.
pub(crate) fn strip(node: &mut Node) {
    let meta = &mut node.metadata;
    (meta.managed_fields, meta.annotations, node.spec) = (None, None, None);
    let NodeStatus { addresses, conditions, .. } = node.status.take().unwrap_or_default();
    let ready = conditions.into_iter().flatten().filter(|condition| condition.type_ == "Ready");
    let bare = |condition: NodeCondition| NodeCondition {
        type_: condition.type_,
        status: condition.status,
        ..NodeCondition::default()
    };
    node.status = Some(NodeStatus { addresses, conditions: Some(ready.map(bare).collect()), ..NodeStatus::default() });
}
