//! An origin, a tracker, agents, and a client that pulls as containerd does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use prometheus_client::registry::Registry as Counters;
use sha2::{Digest as _, Sha256};
use shoal_agent::agent::{Agent, AgentConfig};
use shoal_agent::runtime::RuntimeConfig;
use shoal_agent::standalone::{StandaloneTracker, TrackerConfig};
use shoal_oci::Repository;
use shoal_oci::testing::{Access, Image, Options, Registry, free_ports};
use shoal_store::{Limits, Percent};
use shoal_tracker_server::{Report, TrackerAddress};
use shoal_types::{Digest, Zone};
use tokio::time::timeout;

use crate::client::{Client, Head};

/// Far longer than anything takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A directory that goes with its owner.
pub(crate) struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shoal-agent-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a test's agents have in common.
pub(crate) struct World {
    pub(crate) dir: Dir,
    pub(crate) origin: Registry,
    /// What an agent's store may hold.
    pub(crate) quota_bytes: u64,
    tracker: Option<StandaloneTracker>,
    address: Option<TrackerAddress>,
}

impl World {
    /// An open origin and a tracker; the Swarm says `extra` about the origin's registry, and `rest` besides.
    pub(crate) async fn new(extra: &str, rest: &str) -> Self {
        Self::with_access(Access::Open, extra, rest).await
    }

    pub(crate) async fn with_access(access: Access, extra: &str, rest: &str) -> Self {
        Self::with_credentials(access, extra, rest, None).await
    }

    /// The same, with a tracker that has these credentials for a host; for the origin's, if none is named.
    pub(crate) async fn with_credentials(
        access: Access,
        extra: &str,
        rest: &str,
        credentials: Option<(Option<&str>, &str, &str)>,
    ) -> Self {
        let mut world = Self::without_tracker(access, extra, rest).await;
        let credentials = credentials.map(|(host, user, password)| {
            let (file, host) =
                (world.dir.path().join("credentials.json"), host.unwrap_or(world.origin.name().as_str()));
            let entry = format!(r#"{{"username": "{user}", "password": "{password}"}}"#);
            std::fs::write(&file, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).unwrap();
            file
        });
        let config = TrackerConfig {
            swarm_file: world.swarm_file(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            names: Vec::new(),
            data_dir: world.dir.path().join("tracker"),
            join_token_file: world.token_file(),
            registry_credentials: credentials,
            proxy: shoal_oci::ProxyConfig::default(),
        };
        let tracker = StandaloneTracker::start(config, &mut Counters::default()).await.unwrap();
        world.address = Some(tracker.address().clone());
        world.tracker = Some(tracker);
        world
    }

    pub(crate) async fn without_tracker(access: Access, extra: &str, rest: &str) -> Self {
        let (dir, origin) = (Dir::new(), Registry::start(Options { access, ..Options::default() }).await.unwrap());
        let world = Self { dir, origin, quota_bytes: 1 << 30, tracker: None, address: None };
        world.say(extra, rest);
        world
    }

    /// Writes the Swarm's file, which the tracker reads again soon.
    pub(crate) fn say(&self, extra: &str, rest: &str) {
        let (host, url) = (self.origin.name(), self.origin.url().as_str().trim_end_matches('/'));
        let registries = format!("  registries:\n  - {{host: \"{host}\", endpoint: \"{url}\"{extra}}}\n");
        let swarm = "apiVersion: shoal.dev/v1alpha1\nkind: Swarm\nmetadata: {name: test}\nspec:\n";
        std::fs::write(self.swarm_file(), format!("{swarm}{registries}{rest}")).unwrap();
    }

    /// What a node has reported last, while it is there.
    pub(crate) fn report(&self, node: &str) -> Option<Arc<Report>> {
        let reports = self.tracker.as_ref()?.handle().reports();
        reports.into_iter().find(|report| report.node.as_str() == node).map(|report| report.report)
    }

    pub(crate) fn push(&self, layers: &[u64]) -> Image {
        self.origin.push_image(&repository(), "v1", layers, 7)
    }

    /// Starts an agent, or one with the same data again, and waits until it is ready.
    pub(crate) async fn agent(&self, name: &str) -> Agent {
        self.ready(name, None).await
    }

    /// The same, beside a containerd.
    pub(crate) async fn agent_beside(&self, name: &str, runtime: RuntimeConfig) -> Agent {
        self.ready(name, Some(runtime)).await
    }

    async fn ready(&self, name: &str, runtime: Option<RuntimeConfig>) -> Agent {
        let agent = self.start(name, runtime).await;
        let ready = timeout(LONG, agent.readiness().ready()).await;
        assert!(ready.is_ok(), "{:?}", agent.readiness().missing());
        agent
    }

    async fn start(&self, name: &str, runtime: Option<RuntimeConfig>) -> Agent {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let config = AgentConfig {
            name: name.parse().unwrap(),
            zone: Zone::default(),
            trackers: self.address.iter().cloned().collect(),
            join_token_file: self.token_file(),
            ca_file: None,
            swarm_file: self.address.is_none().then(|| self.swarm_file()),
            data_dir: self.dir.path().join(name),
            mirror_listen: loopback(0),
            peer_listen: free_ports([127, 0, 0, 1].into(), 1).unwrap()[0],
            peer_ip: None,
            admin_listen: loopback(0),
            metrics_listen: None,
            upload_limit: None,
            download_limit: None,
            limits: Limits { keep_free: Percent::ZERO, ..Limits::new(self.quota_bytes) },
            plain_peers: false,
            default_registry: None,
            proxy: shoal_oci::ProxyConfig::default(),
            token: None,
            runtime,
            check: None,
        };
        Agent::start(config, Counters::default()).await.unwrap()
    }

    pub(crate) async fn stop_tracker(&mut self) {
        if let Some(tracker) = self.tracker.take() {
            timeout(LONG, tracker.stop()).await.expect("a tracker stops");
        }
    }

    /// Asks an agent's mirror.
    pub(crate) async fn ask(&self, agent: &Agent, method: &str, path: &str, headers: &[&str]) -> (Head, Vec<u8>) {
        let mut client = Client::connect(agent.mirror_addr()).await;
        let target = self.target(path);
        timeout(LONG, client.exchange(method, &target, headers)).await.expect("there is an answer")
    }

    pub(crate) fn target(&self, path: &str) -> String {
        format!("/v2/{}/{path}?ns={}", repository(), self.origin.name())
    }

    /// Pulls the image as containerd does, and checks every byte.
    pub(crate) async fn pull(&self, agent: &Agent, image: &Image) {
        let (head, _) = self.ask(agent, "HEAD", "manifests/v1", &[]).await;
        assert_eq!((head.status, head.header("docker-content-digest")), (200, image.digest.to_string().as_str()));
        assert_eq!((head.header("content-type"), head.length()), (image.media_type, image.manifest.len()));
        let (head, body) = self.ask(agent, "GET", &format!("manifests/{}", image.digest), &[]).await;
        assert_eq!((head.status, &body[..]), (200, &image.manifest[..]));
        let blobs = std::iter::once(&image.config).chain(&image.layers).map(|blob| async move {
            let (head, body) = self.ask(agent, "GET", &format!("blobs/{}", blob.digest), &[]).await;
            assert_eq!((head.status, body.len() as u64), (200, blob.size_bytes));
            assert_eq!(digest_of(&body), blob.digest);
        });
        join_all(blobs).await;
    }

    /// How many copies of the image the origin has sent.
    pub(crate) async fn copies(&self, image: &Image) -> f64 {
        self.origin.idle().await;
        self.origin.blob_traffic().body_bytes as f64 / image.blob_bytes() as f64
    }

    fn swarm_file(&self) -> PathBuf {
        self.dir.path().join("swarm.yaml")
    }

    fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }
}

pub(crate) fn repository() -> Repository {
    "team/app".parse().unwrap()
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}

/// Ends agents, all at once.
pub(crate) async fn stop(agents: impl IntoIterator<Item = Agent>) {
    timeout(LONG, join_all(agents.into_iter().map(Agent::stop))).await.expect("agents stop");
}
