//! Questions to a cluster's API server that several have.
//!
//! State: none.

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client};

/// Whether a node takes pods.
pub(super) async fn is_node_ready(client: &Client, name: &str) -> bool {
    let nodes: Api<Node> = Api::all(client.clone());
    let Ok(Some(node)) = nodes.get_opt(name).await else { return false };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether pods can be made in a namespace: each takes its default account.
pub(super) async fn has_account(client: &Client, namespace: &str) -> bool {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    matches!(accounts.get_opt("default").await, Ok(Some(_)))
}
