//! Who is let in: everybody who isn't an agent on its own node is refused, whatever is asked.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use http::Method;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::Api;
use kube::api::DeleteParams;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use serde_json::json;
use shoal_tracker_server::client::NodeIdentity;
use shoal_tracker_server::{Authority, Trust, routes};

use crate::bare::{Bare, Shown};
use crate::forgery::{self, Signer};
use crate::world::{AGENT, AUDIENCE, Replica, World, object, trust};

/// Who may ask a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Everybody: it says nothing that a stranger may not know.
    Everybody,
    /// Who shows a token or a certificate, and asks for a certificate of the node that it is on.
    Joiners,
    /// Nodes with a certificate.
    Nodes,
    /// Nobody in Kubernetes: it takes a token that only standalone trackers have.
    Nobody,
}

fn whom(path: &str) -> For {
    match path {
        "/healthz" | "/v1/ca" => For::Everybody,
        "/v1/join" => For::Joiners,
        "/v1/status" => For::Nobody,
        "/v1/announce" | "/v1/events" | "/v1/members" | "/v1/contacts" | "/v1/keys" | "/v1/resolve" | "/v1/swarm"
        | "/v1/report" | "/v1/replicas" | "/v1/pull-secret" => For::Nodes,
        new => panic!("{new} is a new route: say here whom it answers, and see that everybody else is refused"),
    }
}

/// What becomes of a request: nothing, where there was no handshake; else a status, and the beginning of the text.
type Answer = Option<(u16, String)>;

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, None | Some((401 | 403, _)))
}

/// Somebody who asks.
struct Caller {
    what: &'static str,
    shown: Option<Shown>,
    token: Option<String>,
    /// The node for which it wants a certificate.
    node: &'static str,
}

impl Caller {
    fn token(what: &'static str, token: impl Into<String>) -> Self {
        Self { what, shown: None, token: Some(token.into()), node: "node-a" }
    }

    fn certificate(what: &'static str, shown: Shown) -> Self {
        Self { what, shown: Some(shown), token: None, node: "node-a" }
    }

    /// Each request has a connection of its own.
    async fn asks(&self, tracker: &Replica, trust: &Trust, method: &Method, path: &str) -> Answer {
        let shown = self.shown.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        let body = if path == "/v1/join" { join(self.node, None) } else { String::new() };
        let asked = async {
            let bare = Bare::connect(tracker.address, trust, shown).await?;
            bare.ask(method, path, self.token.as_deref(), body).await
        };
        asked.await.ok()
    }
}

fn join(node: &str, peer_ip: Option<&str>) -> String {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    json!({"name": node, "zone": "its-own-idea", "peer_ip": peer_ip, "peer_port": 9_396, "csr": csr}).to_string()
}

fn shown(node: &NodeIdentity) -> Shown {
    (node.chain(), node.key())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_isnt_an_agent_on_its_own_node_is_refused_at_every_route() {
    let Some(world) = World::start().await else { return };
    let node_a = world.node("node-a", "zone-1", Ipv4Addr::new(10, 1, 0, 1)).await;
    world.node("node-b", "zone-2", Ipv4Addr::new(10, 1, 0, 2)).await;
    let on_a = world.pod("agent-a", AGENT, Some("node-a")).await;
    let on_b = world.pod("agent-b", AGENT, Some("node-b")).await;
    let waiting = world.pod("agent-waiting", AGENT, None).await;
    let others = world.pod("other-a", "other", Some("node-a")).await;
    let gone = world.pod("agent-gone", AGENT, Some("node-a")).await;
    let mut tracker = world.operator(1).await;
    tracker.serves().await;
    let roots = trust(&world.bundle().await);

    // The good one, and what the certificate says: the Node's zone and address, not the request's.
    let good = world.token_of(&on_a, AUDIENCE).await;
    let agent = world.agent("node-a", tracker.address, &good).await;
    let identity = agent.identity().await;
    let contact = &identity.certificate().contact;
    assert_eq!((contact.name().as_str(), contact.zone().name()), ("node-a", "zone-1"));
    assert_eq!(contact.address(), "10.1.0.1:9396".parse().unwrap());
    let entries = tracker.serves().await.nodes();
    assert_eq!(entries.iter().map(|entry| entry.labels["pool"].as_str()).collect::<Vec<_>>(), ["blue"]);

    let hour = Duration::from_secs(3_600);
    let (past, future) = (SystemTime::now() - hour, SystemTime::now() + hour);
    let keys = world.control_plane.directory().to_owned();
    let ca = Signer::of_pem(&world.ca_secret().await["signing.pem"]);
    let foreign = Signer::of_pem(&Authority::generate().unwrap().to_pem());
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let expired = forgery::token(&good, &keys, |claims| claims["exp"] = seconds(past).into());
    let same = forgery::token(&good, &keys, |_| {});
    let secret: Secret = world.create(&object(json!({"metadata": {"name": "bound"}}))).await;
    let to_secret = ("Secret", "bound", secret.metadata.uid.as_deref().unwrap());
    let of_gone = world.token_of(&gone, AUDIENCE).await;
    let pods: Api<Pod> = world.api();
    pods.delete("agent-gone", &DeleteParams::default().grace_period(0)).await.unwrap();

    let refused = [
        Caller { what: "no token", shown: None, token: None, node: "node-a" },
        Caller::token("no token's text", "secret"),
        Caller::token("expired", expired),
        Caller::token("signed by nobody", forgery::token_by_a_stranger(&good)),
        Caller::token("wrong audience", world.token_of(&on_a, "https://kubernetes.default.svc").await),
        Caller::token("wrong ServiceAccount", world.token_of(&others, AUDIENCE).await),
        Caller::token("bound to nothing", world.token(AGENT, AUDIENCE, None).await),
        Caller::token("bound to a Secret", world.token(AGENT, AUDIENCE, Some(to_secret)).await),
        Caller::token("of a pod without a node", world.token_of(&waiting, AUDIENCE).await),
        Caller::token("of a pod on another node", world.token_of(&on_b, AUDIENCE).await),
        Caller::token("of a pod that is gone", of_gone),
        Caller::certificate("another CA's", foreign.certificate(&identity, "node-a", future)),
        Caller::certificate("expired", ca.certificate(&identity, "node-a", past)),
        Caller::certificate(
            "another node's, by a node",
            Signer::of_node(&identity).certificate(&identity, "node-b", future),
        ),
    ];
    let accepted = [
        Caller::token("genuine token", good.clone()),
        Caller::token("genuine token, signed again", same),
        Caller::certificate("genuine certificate", shown(&identity)),
        Caller::certificate("the CA's, as the expired one", ca.certificate(&identity, "node-a", future)),
    ];
    let mut rows = 0;
    for (method, path) in routes() {
        let of = whom(path);
        for caller in &refused {
            let answer = caller.asks(&tracker, &roots, method, path).await;
            let open = of == For::Everybody && caller.shown.is_none();
            assert!(is_refusal(&answer) != open, "{method} {path}, {}: {answer:?}", caller.what);
            rows += 1;
        }
        // The table proves nothing if nobody is let in.
        for caller in &accepted {
            let answer = caller.asks(&tracker, &roots, method, path).await;
            let may = match of {
                For::Everybody | For::Joiners => true,
                For::Nodes => caller.shown.is_some(),
                For::Nobody => false,
            };
            assert!(is_refusal(&answer) != may, "{method} {path}, {}: {answer:?}", caller.what);
        }
    }
    println!("{rows} requests of those who aren't an agent on its own node: refused, but for what everybody may know");

    // A node's own certificate or token, and a wish for what isn't its.
    let post = |node: &'static str, peer_ip: Option<&'static str>, token: Option<String>| {
        let (roots, identity) = (roots.clone(), shown(&identity));
        let tracker = tracker.address;
        async move {
            let identity = token.is_none().then_some(identity);
            let bare = Bare::connect(tracker, &roots, identity).await.unwrap();
            bare.ask(&Method::POST, "/v1/join", token.as_deref(), join(node, peer_ip)).await.unwrap()
        }
    };
    for token in [None, Some(good.clone())] {
        let (status, text) = post("node-b", None, token.clone()).await;
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("node-a") && text.contains("node-b"), "{text}");
        let (status, text) = post("node-a", Some("10.1.0.2"), token.clone()).await;
        assert!(status == 403 && text.contains("10.1.0.2 is no InternalIP of Node node-a"), "{text}");
        assert_eq!(post("node-a", Some("10.1.0.1"), token).await.0, 200);
    }

    // A Node that is gone renews nothing; one that has its name is another one.
    let nodes: Api<Node> = Api::all(world.admin.clone());
    nodes.delete("node-a", &DeleteParams::default()).await.unwrap();
    let gone = async || post("node-a", None, None).await;
    world.until("the Node's certificate isn't renewed", async || gone().await.0 == 403).await;
    assert!(gone().await.1.contains("there is no Node node-a"));
    let again = world.node("node-a", "zone-1", Ipv4Addr::new(10, 1, 0, 1)).await;
    assert_ne!(again.metadata.uid, node_a.metadata.uid);
    world.until("the new Node is known", async || gone().await.0 == 200).await;
    let (status, text) = post("node-a", None, Some(good)).await;
    assert!(status == 403 && text.contains("earlier Node node-a"), "{status} {text}");

    agent.end().await;
    tracker.operator.stop().await;
    world.end().await;
}
