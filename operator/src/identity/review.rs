//! What the API server says about a token, read.
//!
//! What is relied on: the API server authenticates a token that is bound to a pod only while that pod exists, with the UID in the token, and isn't long
//! past its deletion; it puts the pod's node into the token when it issues it (Kubernetes 1.30; on by default since 1.32), and gives both back in the
//! review's `extra`. A pod's ServiceAccount is part of its token's subject, so a bound token of the agents' account is one of an agent's pod.
//!
//! State: none. Invariant: a [`Holder`] comes out only if every single thing is as expected.
//! Absent on purpose: reading the token itself.

use k8s_openapi::api::authentication::v1::{TokenReview, UserInfo};
use shoal_tracker_server::Refused;
use shoal_wire::NodeName;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// Whose tokens are taken.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) audience: String,
    /// As the API server writes it: `system:serviceaccount:NAMESPACE:NAME`.
    pub(crate) user: String,
}

/// The pod that a token is bound to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) node: NodeName,
    pub(super) node_uid: Option<String>,
}

impl Expected {
    /// The agents' service account.
    pub(crate) fn new(audience: String, namespace: &str, service_account: &str) -> Self {
        Self { audience, user: format!("system:serviceaccount:{namespace}:{service_account}") }
    }

    pub(super) fn holder(&self, review: &TokenReview) -> Result<Holder, Refused> {
        let status = review.status.as_ref().ok_or(Refused::Token)?;
        // An API server that doesn't know of audiences says that a token is good without having looked.
        let meant = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        if status.authenticated != Some(true) || !meant {
            return Err(Refused::Token);
        }
        let user = status.user.as_ref().ok_or(Refused::Token)?;
        let name = user.username.as_deref().unwrap_or_default();
        if name != self.user {
            return Err(Refused::NotAllowed(format!("the token is {name}'s, not {}'s", self.user)));
        }
        let unbound = || Refused::NotAllowed("the token isn't bound to a pod on a node".to_owned());
        let (Some(_), Some(_)) = (single(user, POD_NAME), single(user, POD_UID)) else { return Err(unbound()) };
        let node = single(user, NODE_NAME).ok_or_else(unbound)?;
        let node = NodeName::new(node).map_err(|_| Refused::NotAllowed(format!("{node} can't be a node's name")))?;
        Ok(Holder { node, node_uid: single(user, NODE_UID).map(str::to_owned) })
    }
}

/// The value, if there is just one.
fn single<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    match user.extra.as_ref()?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn review() -> Value {
        json!({
            "metadata": {},
            "spec": {},
            "status": {
                "authenticated": true,
                "audiences": ["shoal"],
                "user": {
                    "username": "system:serviceaccount:shoal:shoal-agent",
                    "extra": { POD_NAME: ["agent-x"], POD_UID: ["1"], NODE_NAME: ["node-a"], NODE_UID: ["2"] },
                },
            },
        })
    }

    fn holder(review: Value) -> Result<Holder, Refused> {
        let expected = Expected::new("shoal".to_owned(), "shoal", "shoal-agent");
        expected.holder(&serde_json::from_value(review).unwrap())
    }

    #[test]
    fn only_a_review_that_is_right_in_everything_names_a_node() {
        let good = Holder { node: "node-a".parse().unwrap(), node_uid: Some("2".to_owned()) };
        assert_eq!(holder(review()), Ok(good));
        let user = "/status/user/username";
        let extra = |key: &str| format!("/status/user/extra/{}", key.replace('/', "~1"));
        for (place, value) in [
            ("/status".to_owned(), Value::Null),
            ("/status/authenticated".to_owned(), json!(false)),
            ("/status/authenticated".to_owned(), Value::Null),
            ("/status/audiences".to_owned(), Value::Null),
            ("/status/audiences".to_owned(), json!(["https://kubernetes.default.svc"])),
            ("/status/user".to_owned(), Value::Null),
            (user.to_owned(), json!("system:serviceaccount:shoal:default")),
            (user.to_owned(), json!("system:serviceaccount:other:shoal-agent")),
            (user.to_owned(), json!("shoal-agent")),
            ("/status/user/extra".to_owned(), Value::Null),
            (extra(POD_NAME), json!([])),
            (extra(POD_UID), json!([""])),
            (extra(NODE_NAME), json!([])),
            (extra(NODE_NAME), json!(["node-a", "node-b"])),
            (extra(NODE_NAME), json!(["no name"])),
        ] {
            let mut changed = review();
            *changed.pointer_mut(&place).unwrap() = value;
            assert!(holder(changed).is_err(), "{place}");
        }
    }
}
