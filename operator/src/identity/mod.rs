//! Who is a node: the agents' service-account tokens, checked by the API server, and what it says about their Nodes.
//!
//! ```text
//!  token ──> TokenReview ──> the agents' ServiceAccount, bound to a pod ──> that pod's node ──> the Node: zone, address, labels
//! ```
//!
//! State: the Nodes, as they are followed; how many reviews run.
//! Invariants: a node's name is the token's word or its certificate's, its zone, labels and address are the Node's. What a request says beside
//! its port and its key must agree with that, and adds nothing.
//! Absent on purpose: a cache of verdicts. A node shows its token once, when it has no certificate; a yes that is kept would outlive a token that was
//! taken back, and a no that is kept is of no use against somebody who makes up tokens. The API server has a short cache of its own.

mod nodes;
mod review;

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Node;
use kube::api::PostParams;
use kube::{Api, Client};
use shoal_telemetry::with_causes;
use shoal_tracker_server::{Admitted, Identity, JoinRequest, Labels, Refused};
use shoal_wire::{Contact, NodeName};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cluster::Watched;
use nodes::Place;
pub(crate) use nodes::strip;
pub(crate) use review::Expected;

/// Reviews at a time: the API server takes some hundred requests at a time from everybody.
const REVIEWS: usize = 16;
/// Waiting for a place and the review: the agent waits 25 s for its answer.
const REVIEW_WITHIN: Duration = Duration::from_secs(10);

/// Identities of a cluster's nodes.
pub(crate) struct ClusterIdentity {
    reviews: Api<TokenReview>,
    running: Semaphore,
    expected: Expected,
    nodes: Watched<Node>,
}

impl ClusterIdentity {
    pub(crate) fn new(client: Client, expected: Expected, nodes: Watched<Node>) -> Self {
        Self { reviews: Api::all(client), running: Semaphore::new(REVIEWS), expected, nodes }
    }

    async fn review(&self, token: &str) -> Result<TokenReview, Refused> {
        let unavailable = |why: String| Refused::Unavailable(format!("the API server doesn't review tokens: {why}"));
        let spec =
            TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![self.expected.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let asked = async {
            let _place = self.running.acquire().await.map_err(|closed| unavailable(closed.to_string()))?;
            let params = PostParams::default();
            self.reviews.create(&params, &review).await.map_err(|error| unavailable(with_causes(&error)))
        };
        timeout(REVIEW_WITHIN, asked).await.unwrap_or_else(|_| Err(unavailable("it takes too long".to_owned())))
    }

    fn node(&self, name: &NodeName) -> Result<Arc<Node>, Refused> {
        if !self.nodes.is_listed() {
            return Err(Refused::Unavailable("the Nodes aren't known yet".to_owned()));
        }
        self.nodes.get(name.as_str()).ok_or_else(|| Refused::NotAllowed(format!("there is no Node {name}")))
    }
}

impl Identity for ClusterIdentity {
    fn admit<'a>(
        &'a self,
        token: &'a str,
        request: &'a JoinRequest,
        _source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        async move {
            // Whatever isn't a JSON web token costs the API server nothing.
            if token.split('.').count() != 3 {
                return Err(Refused::Token);
            }
            let holder = self.expected.holder(&self.review(token).await?)?;
            let node = self.node(&holder.node)?;
            if holder.node_uid.is_some() && holder.node_uid != node.metadata.uid {
                // Its name is used again.
                return Err(Refused::NotAllowed(format!("the token's pod is on an earlier Node {}", holder.node)));
            }
            admitted(holder.node, &node, request)
        }
        .boxed()
    }

    fn renew<'a>(
        &'a self,
        present: &'a Contact,
        request: &'a JoinRequest,
        _source: IpAddr,
    ) -> BoxFuture<'a, Result<Admitted, Refused>> {
        async move { admitted(present.name().clone(), &*self.node(present.name())?, request) }.boxed()
    }

    fn labels<'a>(&'a self, present: &'a Contact) -> BoxFuture<'a, Result<Option<Labels>, Refused>> {
        let node = self.node(present.name());
        std::future::ready(node.map(|node| Some(node.metadata.labels.clone().unwrap_or_default()))).boxed()
    }
}

/// The node, unless the request contradicts what is known of it.
fn admitted(name: NodeName, node: &Node, request: &JoinRequest) -> Result<Admitted, Refused> {
    if request.name != name {
        return Err(Refused::NotAllowed(format!("an agent on {name} asks for a certificate of {}", request.name)));
    }
    let Place { zone, labels, addresses } = Place::of(node).map_err(Refused::NotAllowed)?;
    let ip = match request.peer_ip {
        None => addresses.first(),
        Some(wished) => addresses.iter().find(|ip| **ip == wished),
    };
    match ip {
        Some(ip) if request.peer_port != 0 => {
            Ok(Admitted { name, zone, address: SocketAddr::new(*ip, request.peer_port), labels })
        }
        Some(_) => Err(Refused::NotAllowed("nobody can connect to port 0".to_owned())),
        None => Err(Refused::NotAllowed(match request.peer_ip {
            Some(ip) => format!("{ip} is no InternalIP of Node {name}"),
            None => format!("Node {name} has no InternalIP yet"),
        })),
    }
}
