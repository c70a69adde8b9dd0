//! The agent: mirror, content, exchange, store and the tracker's client, wired and run until they are told to stop.
//!
//! ```text
//!   runtime ──> Mirror ──> SwarmContent ──> Exchange ──> peers
//!                              │    └─ OriginPool ─┘──> origins
//!                              └─ TrackerClient ──────> tracker (names, leases, the Swarm)
//!   the Swarm ──> Pusher ──> SwarmContent, runtime
//!   containerd's socket and content store <── runtime ──> Exchange
//! ```
//!
//! State: the tasks, and the tokens that end them.
//! Invariants: what is announced to others (the peers' port) is listened at before; at the end the mirror stops first and the tracker's
//! client last, so that answers finish and the tracker hears of it. Ending takes 14 s at most.
//! Absent on purpose: signals, exit codes and the process's log (`cli`): tests run several agents in one process.

mod engine;
mod error;
mod policy;
mod seen;

use std::fs::DirBuilder;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use shoal_oci::{ProxyConfig, Registry as RegistryName};
use shoal_origins::Clients;
use shoal_store::{DiskStore, Limits, RuntimeStore, Store};
use shoal_telemetry::{Admin, Readiness};
use shoal_tracker_server::TrackerAddress;
use shoal_tracker_server::client::{ClientConfig, TrackerClient};
use shoal_types::Zone;
use shoal_wire::{NodeName, node_id};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::StartError;

use crate::check::{Bait, Baited, CheckConfig, Checker};
use crate::content::{self, OriginPool, Parts, Policies, SwarmContent};
use crate::exchange::{Exchange, ExchangeConfig, RECENT_BYTES};
use crate::mirror::{self, Mirror, Token};
use crate::push::{self, Pusher};
use crate::runtime::{self, Runtime, RuntimeConfig};
use crate::transport;
use policy::PolicyKeeper;
use seen::ExchangeBytes;

/// Our own copy of what the runtime has pulled serves a while longer: others pull it in these moments.
const OWN_COPY_FOR: Duration = Duration::from_secs(30);

/// What is left of answers when the mirror stops …
const DRAIN: Duration = Duration::from_secs(7);
/// … and what each part may take to end: the mirror's deadline and a second, a disk's flush, a tracker's answer, what is left.
const MIRROR_WITHIN: Duration = Duration::from_secs(8);
const EXCHANGE_WITHIN: Duration = Duration::from_secs(3);
const CLIENT_WITHIN: Duration = Duration::from_secs(2);
const REST_WITHIN: Duration = Duration::from_secs(1);

/// What an agent is to be.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub name: NodeName,
    /// Its zone.
    pub zone: Zone,
    /// Where trackers are found. Without one the mirror passes everything through.
    pub trackers: Vec<TrackerAddress>,
    /// The file with the join token.
    pub join_token_file: PathBuf,
    /// The file with the tracker's CA, unless the token has its fingerprint.
    pub ca_file: Option<PathBuf>,
    /// The Swarms to begin with, until the tracker says which there are.
    pub swarm_file: Option<PathBuf>,
    /// Where everything that is kept is kept.
    pub data_dir: PathBuf,
    /// Where the runtime asks.
    pub mirror_listen: SocketAddr,
    /// Where peers connect. Its port is announced, so it is a fixed one.
    pub peer_listen: SocketAddr,
    /// The address at which peers find this node, if it isn't the one from which it speaks to the tracker.
    pub peer_ip: Option<IpAddr>,
    /// Where metrics and probes are.
    pub admin_listen: SocketAddr,
    /// Where metrics alone are.
    pub metrics_listen: Option<SocketAddr>,
    /// Bytes a second to peers.
    pub upload_limit: Option<u64>,
    /// Bytes a second from peers.
    pub download_limit: Option<u64>,
    /// What the store may hold.
    pub limits: Limits,
    /// Peers' links without TLS.
    pub plain_peers: bool,
    /// The registry of requests that name none.
    pub default_registry: Option<RegistryName>,
    /// Proxies on the way to registries.
    pub proxy: ProxyConfig,
    /// What the runtime has to show.
    pub token: Option<Token>,
    /// The containerd beside this agent; none, if there isn't one.
    pub runtime: Option<RuntimeConfig>,
    /// Whether, and how, it is looked whether that one asks the mirror.
    pub check: Option<CheckConfig>,
}

/// An agent that runs.
pub struct Agent {
    mirror_addr: SocketAddr,
    admin_addr: SocketAddr,
    readiness: Readiness,
    content: content::Metrics,
    exchange: Exchange,
    client: TrackerClient,
    mirror: (JoinHandle<()>, CancellationToken),
    exchanging: (JoinHandle<()>, CancellationToken),
    stop_client: CancellationToken,
    rest: (TaskTracker, CancellationToken),
    stopping: shoal_telemetry::Condition,
}

impl Agent {
    /// Starts. Metrics go into the registry, which needs no prefix.
    ///
    /// # Errors
    /// One line that says what can't be had.
    pub async fn start(config: AgentConfig, metrics: Registry) -> Result<Self, StartError> {
        Self::launch(config, None, metrics).await
    }

    /// The same over a store that its caller has opened: one with faults, for example. Nothing is remembered beside it.
    ///
    /// # Errors
    /// One line that says what can't be had.
    pub async fn start_over(config: AgentConfig, store: Arc<dyn Store>, metrics: Registry) -> Result<Self, StartError> {
        Self::launch(config, Some(store), metrics).await
    }

    async fn launch(
        config: AgentConfig,
        store: Option<Arc<dyn Store>>,
        mut metrics: Registry,
    ) -> Result<Self, StartError> {
        let dir = &config.data_dir;
        if config.peer_listen.port() == 0 {
            return Err(StartError::Setting("--peer-listen needs a port of its own: others are told of it".to_owned()));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(StartError::file(dir, "creating the data directory"))?;
        let swarms = PolicyKeeper::load(dir, config.swarm_file.as_deref(), &config.name, &config.zone)?;
        if config.trackers.is_empty() && !swarms.is_loaded() {
            let what = "neither a tracker nor a Swarm: give --tracker, or --swarm to pass through what it names";
            return Err(StartError::Setting(what.to_owned()));
        }
        let listener = listen("the mirror", config.mirror_listen, "--mirror-listen").await?;
        let mirror_addr = local(&listener, config.mirror_listen)?;
        let peer_listener = listen("the peers' side", config.peer_listen, "--peer-listen").await?;
        let (store, recent_bytes) = match store {
            Some(store) => (Arc::new(RuntimeStore::new(store)), 0),
            None => (open_store(dir.join("store"), config.limits).await?, RECENT_BYTES),
        };

        let stops: [CancellationToken; 4] = std::array::from_fn(|_| CancellationToken::new());
        let [stop_mirror, stop_exchange, stop_client, stop_rest] = stops;
        let client = ClientConfig {
            trackers: config.trackers.clone(),
            name: config.name.clone(),
            zone: config.zone.clone(),
            peer_ip: config.peer_ip,
            local_ip: None,
            peer_port: config.peer_listen.port(),
            token_file: config.join_token_file.clone(),
            ca_file: config.ca_file.clone(),
            state_dir: dir.join("node"),
        };
        let (client, events) = TrackerClient::start(client, stop_client.clone()).await?;
        let seed = seed(&config.name);
        let policies = Policies::new(swarms.subscribe());
        let (teller, runtime) = match &config.runtime {
            Some(_) => {
                let (teller, runtime) = Runtime::followed();
                (Some(teller), runtime)
            }
            None => (None, Runtime::none()),
        };
        let clients = Clients::new(config.proxy.clone(), seed);
        let origins = Arc::new(OriginPool::new(policies.clone(), client.clone(), runtime.clone(), clients));
        let exchange = ExchangeConfig {
            engine: engine::config(swarms.transfer()),
            name: config.name.clone(),
            zone: config.zone.clone(),
            plain_peers: config.plain_peers,
            recent_bytes,
            transport: transport::Settings {
                upload_limit: config.upload_limit,
                download_limit: config.download_limit,
                ..transport::Settings::default()
            },
            own_copy_for: OWN_COPY_FOR,
            seed,
        };
        let (exchange, exchanging) = Exchange::start(
            exchange,
            peer_listener,
            client.clone(),
            events,
            Arc::clone(&store),
            Arc::clone(&origins) as _,
            stop_exchange.clone(),
        )?;

        let of_shoal = metrics.sub_registry_with_prefix("shoal");
        let (of_mirror, of_content) = (mirror::Metrics::register(of_shoal), content::Metrics::register(of_shoal));
        of_shoal.register_collector(Box::new(ExchangeBytes(exchange.clone())));
        let follower = config.runtime.clone().zip(teller);
        let follower =
            follower.map(|(config, teller)| runtime::Follower::new(config, teller, exchange.clone(), policies.clone()));
        let parts = Parts {
            policies: policies.clone(),
            origins,
            exchange: exchange.clone(),
            store: store as Arc<dyn Store>,
            tracker: client.clone(),
            runtime,
            metrics: of_content.clone(),
        };
        let content = SwarmContent::new(parts, dir, stop_rest.clone());
        let (found, bypass) = watch::channel(None);
        let bait = config.check.as_ref().map(|_| Arc::new(Bait::new()));
        let checker = config.check.clone().zip(config.runtime.as_ref()).zip(bait.clone());
        let checker = checker.map(|((check, runtime), bait)| {
            Checker::new(check, runtime.socket.clone(), policies.clone(), bait, found, seed)
        });
        let pusher = push::Parts {
            content: content.clone(),
            exchange: exchange.clone(),
            tracker: client.clone(),
            metrics: of_content.clone(),
            runtime: config.runtime.clone(),
            bypass,
            seed,
        };
        let pusher = Pusher::new(pusher, swarms.artifacts(), dir);
        let settings = mirror::Settings {
            drain: DRAIN,
            default_registry: config.default_registry.clone(),
            token: config.token.clone(),
            ..mirror::Settings::default()
        };

        let readiness = Readiness::new();
        let [serving, identity, swarm] = ["mirror", "identity", "swarm"].map(|name| readiness.condition(name));
        let (looks, seen) = watch::channel(serde_json::Value::Null);
        let metrics = Arc::new(metrics);
        let scraped = match config.metrics_listen {
            Some(address) => Some(Admin::new().metrics(Arc::clone(&metrics)).bind(address).await?),
            None => None,
        };
        let admin = Admin::new().metrics(metrics).readiness(readiness.clone());
        let admin = admin.swarms(move || seen.borrow().clone()).bind(config.admin_listen).await?;
        let admin_addr = admin.local_addr();

        let rest = TaskTracker::new();
        rest.spawn(admin.serve(stop_rest.clone()));
        if let Some(scraped) = scraped {
            rest.spawn(scraped.serve(stop_rest.clone()));
        }
        if let Some(follower) = follower {
            rest.spawn(follower.run(stop_rest.clone()));
        }
        if let Some(checker) = checker {
            rest.spawn(checker.run(stop_rest.clone()));
        }
        rest.spawn(pusher.run(stop_rest.clone()));
        rest.spawn(seen::look(exchange.clone(), looks, stop_rest.clone()));
        let running = content.clone();
        rest.spawn(async move { running.run().await });
        if swarms.is_loaded() {
            swarm.holds();
        } else {
            swarm.fails("no word of the Swarm from a tracker yet");
        }
        rest.spawn(swarms.run(client.clone(), stop_rest.clone(), move || swarm.holds()));
        if config.trackers.is_empty() {
            identity.holds();
        } else {
            rest.spawn(await_identity(client.clone(), exchange.clone(), identity, stop_rest.clone()));
        }
        rest.close();
        let content = Baited { bait, content };
        let mirror = Mirror::new(Arc::new(content), policies, settings, of_mirror);
        let mirror = tokio::spawn(mirror.serve(listener, stop_mirror.clone()));
        serving.holds();
        tracing::info!(
            name = %config.name, mirror = %mirror_addr, peers = %config.peer_listen, admin = %admin_addr,
            data = %dir.display(), trackers = config.trackers.len(), "the agent listens"
        );
        Ok(Self {
            mirror_addr,
            admin_addr,
            readiness,
            content: of_content,
            exchange,
            client,
            mirror: (mirror, stop_mirror),
            exchanging: (exchanging, stop_exchange),
            stop_client,
            rest: (rest, stop_rest),
            stopping: serving,
        })
    }

    /// Where the mirror listens.
    #[must_use]
    pub const fn mirror_addr(&self) -> SocketAddr {
        self.mirror_addr
    }

    /// Where the admin server listens.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Whether it is ready.
    #[must_use]
    pub const fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What the content has counted.
    #[must_use]
    pub const fn content_metrics(&self) -> &content::Metrics {
        &self.content
    }

    /// The exchange.
    #[must_use]
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Returns when a part has ended that shouldn't have: it panicked. Cancel-safe.
    pub async fn failed(&mut self) {
        tokio::select! {
            ended = &mut self.mirror.0 => tracing::error!(?ended, "the mirror has ended"),
            ended = &mut self.exchanging.0 => tracing::error!(?ended, "the exchange has ended"),
        }
    }

    /// Lets answers finish, tells the tracker, and ends.
    pub async fn stop(self) {
        self.stopping.fails("the agent is stopping");
        let (mirror, stop) = self.mirror;
        stop.cancel();
        end_within("mirror", MIRROR_WITHIN, mirror).await;
        let (exchanging, stop) = self.exchanging;
        stop.cancel();
        end_within("exchange", EXCHANGE_WITHIN, exchanging).await;
        self.stop_client.cancel();
        end_within("tracker's client", CLIENT_WITHIN, self.client.stopped()).await;
        let (rest, stop) = self.rest;
        stop.cancel();
        end_within("rest", REST_WITHIN, rest.wait()).await;
        tracing::info!("the agent has stopped");
    }
}

async fn end_within<T>(what: &'static str, limit: Duration, ending: impl Future<Output = T>) {
    if timeout(limit, ending).await.is_err() {
        tracing::warn!(what, limit_s = limit.as_secs(), "a part of the agent doesn't end in time");
    }
}

async fn listen(what: &'static str, address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { what, address, flag, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, StartError> {
    let (what, flag) = ("the mirror", "--mirror-listen");
    listener.local_addr().map_err(|source| StartError::Listen { what, address: asked, flag, source })
}

async fn open_store(dir: PathBuf, limits: Limits) -> Result<Arc<RuntimeStore>, StartError> {
    let at = dir.clone();
    match tokio::task::spawn_blocking(move || DiskStore::open(&dir, limits)).await {
        Ok(store) => Ok(Arc::new(RuntimeStore::new(Arc::new(store?)))),
        Err(ended) => Err(StartError::file(&at, "opening the store")(std::io::Error::other(ended))),
    }
}

/// Says whether there is a certificate that peers are met with, and why there is none.
async fn await_identity(
    client: TrackerClient,
    exchange: Exchange,
    condition: shoal_telemetry::Condition,
    stop: CancellationToken,
) {
    let (mut identity, mut problem) = (client.identity(), client.problem());
    let followed = async {
        loop {
            if identity.borrow_and_update().is_some() {
                // The exchange has heard of it, too, and takes peers within moments, or never.
                condition.fails("there is a certificate, but no peers are taken with it yet");
                while !exchange.is_ready() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return condition.holds();
            }
            let why = problem.borrow_and_update().clone();
            condition.fails(why.unwrap_or_else(|| "no certificate from a tracker yet".to_owned()));
            tokio::select! {
                changed = identity.changed() => if changed.is_err() { return },
                changed = problem.changed() => if changed.is_err() { return },
            }
        }
    };
    stop.run_until_cancelled(followed).await;
}

/// Different for each node and start: it only breaks ties.
fn seed(name: &NodeName) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [_, _, _, _, _, _, _, _, low @ ..] = node_id(name).get().to_be_bytes();
    u64::from_be_bytes(low) ^ now.as_secs().rotate_left(32) ^ u64::from(now.subsec_nanos())
}
