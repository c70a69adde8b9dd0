//! A private repository of a real registry, pulled by real containerds: who gets an image, how often the registry sends it, and who proves to it
//! to be whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use shoal_e2e::containerd::{Programs, Version};
use shoal_e2e::processes::Fleet;
use shoal_e2e::registry::{Auth, DockerRegistry};
use shoal_oci::ImageName;
use shoal_oci::testing::Image;
use shoal_tracker_server::{Anonymous, Handle, ImageName as AskedName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agents::counted;
use crate::listener::Listener;
use crate::namespace;
use crate::nodes::Node;
use crate::secrets::{apply_swarm, secret};
use crate::token_server::TokenServer;
use crate::world::{LONG, Replica, World, in_namespace};

const USER: &str = "ann";
const PASSWORD: &str = "sehr-geheim";
/// As `htpasswd -nbB -C 4` writes it.
const HTPASSWD: &str = "ann:$2b$04$hDKKbC2tOoFj/B9GHZ/1qOVpKE7EnKy4oFBGXwZ9L89bCnbSHIYRu\n";

const NODES: [&str; 4] = ["node-a", "node-b", "node-c", "node-d"];
const LAYERS: [u64; 3] = [8 << 20, 5 << 20, 70_000];

/// Leads that the operator gave what it takes to pull.
const GIVEN: &str = "shoal_tracker_pull_secrets_total{outcome=\"handed\"}";
/// How the agents and the operator call themselves at a registry.
const OURS: &str = "shoal/";
/// How the runtimes do.
const RUNTIME: &str = "containerd/";

/// Where the registry and its token server are, and a registry that a Secret names by mistake.
const ORIGIN: u8 = 3;
const REGISTRY: u16 = 5000;
const TOKENS: u16 = 5001;
const MISTAKEN: u16 = 5002;

/// How the registry knows its user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Password,
    Token,
}

/// A docker-registry with images in it, for one user.
struct Origin {
    registry: DockerRegistry,
    tokens: Option<TokenServer>,
    host: String,
    log: PathBuf,
}

impl Origin {
    async fn start(world: &World, fleet: &mut Fleet, proof: Proof) -> (Self, [Image; 4]) {
        let directory = world.control_plane.directory().join("registry");
        std::fs::create_dir_all(&directory).unwrap();
        let listen = at(REGISTRY);
        let (auth, tokens) = match proof {
            Proof::Password => (Auth::Htpasswd(HTPASSWD.to_owned()), None),
            Proof::Token => {
                let tokens = TokenServer::start(at(TOKENS), USER, PASSWORD).await;
                (Auth::Token(tokens.issuer()), Some(tokens))
            }
        };
        let registry = DockerRegistry::with_auth(&directory, listen, &auth).unwrap();
        let store = |repository, seed| registry.store(repository, "1", &LAYERS, seed).unwrap();
        let images =
            [store("team/own", 1), store("team/mistaken", 2), store("team/refused", 3), store("team/swarm", 4)];
        fleet.start("registry", &registry.command()).unwrap();
        let listens = async || TcpStream::connect(listen).await.is_ok();
        fleet.until("registry", LONG, listens).await.unwrap();
        let log = world.control_plane.directory().join("registry.log");
        (Self { registry, tokens, host: listen.to_string(), log }, images)
    }

    /// How many copies of an image it has sent since it had sent so many bytes.
    fn copies(&self, since: u64, image: &Image) -> f64 {
        (self.sent() - since) as f64 / image.blob_bytes() as f64
    }

    fn sent(&self) -> u64 {
        DockerRegistry::blob_bytes(&self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn name(&self, repository: &str) -> ImageName {
        format!("{}/{repository}:1", self.host).parse().unwrap()
    }

    /// That nobody of ours has shown anybody's password, or anything that one was given for, so far.
    fn assert_nothing_shown(&self, nodes: &[Node]) {
        assert_eq!(DockerRegistry::admitted(&self.log(), OURS), 0, "the registry");
        let wishes = self.tokens.iter().flat_map(TokenServer::wishes);
        assert_eq!(wishes.filter(|wish| wish.agent.starts_with(OURS) && wish.proven).collect::<Vec<_>>(), []);
        assert_eq!(password_holders(nodes), 0);
    }
}

const fn at(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(in_namespace(ORIGIN)), port)
}

/// How many agents have the password in their memory, as it is or as it is sent.
fn password_holders(nodes: &[Node]) -> usize {
    let sent = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let holds = |node: &&Node| [PASSWORD, &sent].iter().any(|secret| node.agent.remembers(secret.as_bytes()));
    nodes.iter().filter(holds).count()
}

/// Pulls an image on all nodes at once, as pods with a pull secret have it pulled, and says how often the registry has sent it.
async fn pull_everywhere(origin: &Origin, nodes: &[Node], repository: &str, image: &Image) -> f64 {
    let before = origin.sent();
    let name = origin.name(repository);
    let pulls = nodes.iter().map(|node| node.containerd.pull_as(&name, USER, PASSWORD));
    let pulled = timeout(LONG, join_all(pulls)).await.expect("pulls end");
    for (node, pulled) in nodes.iter().zip(pulled) {
        pulled.unwrap();
        let audit = node.containerd.kept().audit().unwrap();
        assert_eq!((audit.wrong_blobs, audit.ingests), (0, 0), "{audit:?}");
    }
    origin.copies(before, image)
}

struct Scene {
    world: World,
    fleet: Fleet,
    origin: Origin,
    operator: Replica,
    tracker: Handle,
    nodes: Vec<Node>,
}

impl Scene {
    async fn name_secret(&self, name: &str, host: &str) {
        let secrets: Api<Secret> = self.world.api();
        secrets.create(&PostParams::default(), &secret(name, &[host], USER, PASSWORD)).await.unwrap();
        apply_swarm(&self.world, &self.origin.host, Some(json!({"name": name}))).await;
    }

    /// With the pods' secret only: the runtimes ask the registry, and one of them downloads for all.
    async fn with_the_pods_secret_only(&self, image: &Image) {
        let copies = pull_everywhere(&self.origin, &self.nodes, "team/own", image).await;
        println!("with the pods' secret only: {copies:.3} copies for {} nodes", self.nodes.len());
        assert!(copies <= 1.1, "{copies}");
        self.origin.assert_nothing_shown(&self.nodes);
    }

    /// With a Secret for another registry it is as with none, and neither registry is shown what is in it.
    async fn with_a_secret_for_another_host(&self, image: &Image) {
        let other = Listener::start(at(MISTAKEN), |_| ("401 Unauthorized", String::new(), String::new())).await;
        self.name_secret("mistaken", &other.address.to_string()).await;
        let asked = AskedName::new(&self.origin.host, "team/mistaken", "1").unwrap();
        let refused = async || self.tracker.resolve(&asked).await.is_err();
        self.world.until("the operator asks, and is refused", refused).await;
        let copies = pull_everywhere(&self.origin, &self.nodes, "team/mistaken", image).await;
        println!("with a Swarm's secret for another host: {copies:.3} copies for {} nodes", self.nodes.len());
        assert!(copies <= 1.1, "{copies}");
        self.origin.assert_nothing_shown(&self.nodes);
        assert_eq!(other.heads().len(), 0);
    }

    /// With the Swarm's secret, and none of the pod's: nobody gets even the manifest.
    async fn without_a_pods_secret(&self, image: &Image) {
        self.name_secret("regcred", &self.origin.host).await;
        let asked = AskedName::new(&self.origin.host, "team/swarm", "1").unwrap();
        let is_private =
            async || self.tracker.resolve(&asked).await.is_ok_and(|found| found.anonymous == Anonymous::Denied);
        self.world.until("the operator reads what is private", is_private).await;
        let let_in = || DockerRegistry::admitted(&self.origin.log(), RUNTIME);
        let (before, let_in_before) = (self.origin.sent(), let_in());
        for node in &self.nodes {
            let error = node.containerd.pull(&self.origin.name("team/refused")).await.unwrap_err();
            let error = format!("{error:#}").to_lowercase();
            // containerd 2 shows what the first host says, and that is the mirror.
            let words = ["authoriz", "401", "denied", "403", "forbidden", "not found"];
            assert!(words.iter().any(|word| error.contains(word)), "{error}");
        }
        assert!(
            self.origin.log().lines().any(|line| line.contains("/team/refused/manifests/") && line.contains(RUNTIME))
        );
        assert_eq!(let_in(), let_in_before, "the registry refuses the runtimes, at the manifest");
        assert_eq!(self.origin.sent(), before, "nothing of it is sent to those who may not read the manifest");
        assert!(image.blob_bytes() > 0 && self.origin.registry.blob(&image.digest).exists());
    }

    /// With both: the swarm, and one copy. Of what a registry sends faster than nodes pass it on another lead may fetch some again: that is another
    /// figure, so from now on it sends 200 Mbit/s.
    async fn with_both_secrets(&self, image: &Image) {
        if !namespace::limit(REGISTRY, "200mbit") {
            return;
        }
        let copies = pull_everywhere(&self.origin, &self.nodes, "team/swarm", image).await;
        println!("with the pods' secret and the Swarm's: {copies:.3} copies for {} nodes", self.nodes.len());
        assert!(copies <= 1.05, "{copies}");
        let holders = password_holders(&self.nodes);
        let Some(tokens) = &self.origin.tokens else {
            // That it is found where it is to be found gives the other counts a meaning.
            let given = counted(self.operator.operator.admin_addr(), GIVEN).await;
            assert!((1..=given).contains(&(holders as u64)), "the leads hold it: {holders}, and {given} were given it");
            return;
        };
        assert_eq!(holders, 0, "agents get tokens for one repository, and the password never");
        let wishes = tokens.wishes();
        let ours: Vec<_> = wishes.iter().filter(|wish| wish.agent.starts_with(OURS) && wish.proven).collect();
        assert!(!ours.is_empty());
        for wish in ours {
            let [scope] = &wish.scopes[..] else { panic!("{wish:?}") };
            assert!(["repository:team/swarm:pull", "repository:team/refused:pull"].contains(&&**scope), "{wish:?}");
        }
    }
}

async fn rows(proof: Proof, programs: Programs) {
    let Some(world) = World::start_in_namespace().await else { return };
    let mut fleet = Fleet::new(world.control_plane.directory()).sharing_signals();
    let (origin, [own, mistaken, refused, swarm]) = Origin::start(&world, &mut fleet, proof).await;
    let mut operator = world.operator(1).await;
    let tracker = operator.serves().await;
    apply_swarm(&world, &origin.host, None).await;
    let mut nodes = Vec::new();
    for name in NODES {
        nodes.push(Node::start(&world, &mut fleet, name, &programs, &origin.host).await);
    }
    let mut scene = Scene { world, fleet, origin, operator, tracker, nodes };
    scene.with_the_pods_secret_only(&own).await;
    scene.with_a_secret_for_another_host(&mistaken).await;
    scene.without_a_pods_secret(&refused).await;
    scene.with_both_secrets(&swarm).await;
    scene.fleet.check().unwrap();
    scene.fleet.end().await;
    scene.operator.operator.stop().await;
    scene.world.end().await;
}

async fn test(name: &str, proof: Proof, version: Version) {
    // Fetched, if they have to be, before there is a namespace, in which nothing can be.
    let programs = DockerRegistry::program().and_then(|_| version.programs());
    let programs = match programs {
        Ok(programs) => programs,
        Err(error) => {
            return eprintln!("SKIPPED: {name}: it takes docker-registry and containerd {version}: {error:#}");
        }
    };
    if namespace::is_inside(&format!("private::{name}")).await {
        rows(proof, programs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_behind_a_password_is_for_who_may_read_it_and_sent_once() {
    test("an_image_behind_a_password_is_for_who_may_read_it_and_sent_once", Proof::Password, Version::V1_6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_behind_a_token_server_is_for_who_may_read_it_and_sent_once() {
    test("an_image_behind_a_token_server_is_for_who_may_read_it_and_sent_once", Proof::Token, Version::V1_6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_containerd_2() {
    test("the_same_holds_for_containerd_2", Proof::Token, Version::V2).await;
}
